package fsm

import (
	"cmp"
	"slices"
	"time"
)

// The log never promises more than mysqld enforces: at every instant each acknowledged transaction is held by at least W members of the committed
// set S. Hence the orders below, each of which loses writes when it is reversed (docs/DESIGN.md, "The sync set"):
//
//	S grows (W >= 1)        commit, then the new member's acknowledgements count
//	S shrinks               its acknowledgements stop at the source; W of the others hold the position read after that; commit
//	W rises, from 0 too     mysqld waits for that many; so many members hold the position read after that; commit
//	W falls, to 0 too       to 0: the own port is covered by the gate; commit; then mysqld waits for fewer
//
// What comes before the commit the primary prepares for a change that is in the log as an intention: of Complete and Abandon of one intention
// exactly one can commit, so no leader can complete what the primary has taken back.

// ChangeKind is the kind of a change of the sync set.
type ChangeKind string

// The kinds of change that must be prepared.
const (
	ChangeShrink ChangeKind = "shrink" // a member leaves S
	ChangeAcks   ChangeKind = "acks"   // W rises or falls
)

// SetChange is a change of the sync set that the primary prepares.
type SetChange struct {
	Kind  ChangeKind `json:"kind"`
	Node  NodeID     `json:"node,omitempty"` // shrink: who leaves
	Acks  int        `json:"acks"`           // acks: the new W
	Index uint64     `json:"index"`          // log index of the intention
	Cause string     `json:"cause"`
	Since time.Time  `json:"since"` // proposer's wall clock, for people only
}

// Outsider is a data node outside the set: its acknowledgement must not count. Until its own hbd has confirmed that its semi-sync is off since
// this index, the primary keeps it from connecting.
type Outsider struct {
	Node  NodeID `json:"node"`
	Since uint64 `json:"since"` // log index at which it was first outside
}

// Grow adds a member: from its commit on its acknowledgements may count.
type Grow struct {
	Epoch       uint64 `json:"epoch"`
	Node        NodeID `json:"node"`
	Incarnation string `json:"incarnation"`
}

// Intend has the primary prepare a change.
type Intend struct {
	Epoch uint64     `json:"epoch"`
	Kind  ChangeKind `json:"kind"`
	Node  NodeID     `json:"node,omitempty"`
	Acks  int        `json:"acks"`
	Cause string     `json:"cause"`
}

// Complete commits a change that is prepared.
type Complete struct {
	Epoch    uint64       `json:"epoch"`
	Index    uint64       `json:"index"`    // of the intention (compare-and-swap)
	Position string       `json:"position"` // the primary's, read after it had prepared
	Holders  []SyncMember `json:"holders"`  // members seen to hold it
	Gated    bool         `json:"gated"`    // to no acknowledgements: the gate covers the primary's own port
}

// Abandon takes an intention back: the primary undoes what it prepared.
type Abandon struct {
	Epoch  uint64 `json:"epoch"`
	Index  uint64 `json:"index"`
	Reason string `json:"reason"`
}

// ackTarget is how many acknowledgements a commit should wait for: a minority of the other data nodes, at least one. MariaDB knows only one.
func (s State) ackTarget() int {
	others := len(s.DataNodes()) - 1
	switch {
	case others <= 0:
		return 0
	case s.Server == "mariadb":
		return 1
	}
	return min(others, max(1, others/2, s.Settings.SyncMinReplicas))
}

// floor is how many acknowledgements are never given up.
func (s State) floor() int { return min(s.Settings.SyncMinReplicas, s.ackTarget()) }

// setLimit bounds S: with more than 2W members a failover would need more answers than a majority is sure to give.
func (s State) setLimit() int { return 2 * s.ackTarget() }

// growLimit leaves room beside members that cannot acknowledge for as many as are needed, until the others have left: they cannot leave before
// somebody else holds everything.
func (s State) growLimit() int { return s.setLimit() + s.ackTarget() }

// SourceAcks is how many acknowledgements mysqld on the primary must wait for at this moment: what is committed, and already what is intended if
// that is more.
func (s State) SourceAcks() int {
	if c := s.Change; c != nil && c.Kind == ChangeAcks && c.Acks > s.Sync.Acks {
		return c.Acks
	}
	return s.Sync.Acks
}

// CoverPort tells whether the gate must cover the primary's own port: what nobody else acknowledges must not be written without a lease.
func (s State) CoverPort() bool {
	return s.Sync.Acks == 0 || s.Change != nil && s.Change.Kind == ChangeAcks && s.Change.Acks == 0
}

func (s State) beingRebuilt(id NodeID) bool {
	_, running := s.RebuildOf(id)
	return running
}

// SourceOf is whom a replica replicates from: the primary; or the candidate of a switchover, for those outside the set once they are chained to it.
func (s State) SourceOf(id NodeID) NodeID {
	if s.chained(id) {
		return s.Op.To
	}
	return s.Primary
}

func (s State) chained(id NodeID) bool {
	return s.Op != nil && s.Op.Chained && s.Primary == s.Op.From && id != s.Op.From && id != s.Op.To && s.OutsideSince(id) > 0
}

// MayAcknowledge tells whether a replica's acknowledgements count where it replicates from.
func (s State) MayAcknowledge(id NodeID) bool {
	_, in := s.Sync.Member(id)
	return in || s.chained(id)
}

// OutsideSince is the index since which a node is outside the set; 0 when its acknowledgement may count.
func (s State) OutsideSince(id NodeID) uint64 {
	i := slices.IndexFunc(s.Outside, func(o Outsider) bool { return o.Node == id })
	if i < 0 {
		return 0
	}
	return s.Outside[i].Since
}

// noteOutside keeps Outside up to date: a node that was outside already stays so since then.
func (s *State) noteOutside(index uint64) {
	if s.Primary == "" {
		return
	}
	var out []Outsider
	for _, id := range s.DataNodes() {
		if _, in := s.Sync.Member(id); in || id == s.Primary {
			continue
		}
		since := s.OutsideSince(id)
		if since == 0 {
			since = index
		}
		out = append(out, Outsider{id, since})
	}
	s.Outside = out
}

// endChain forgets since when those that were chained are outside: what they said before, that their acknowledgements are off, ended when they
// switched them on for the candidate. Wherever they are outside from here on they have to confirm it anew.
func (s *State) endChain() {
	s.Outside = slices.DeleteFunc(slices.Clone(s.Outside), func(o Outsider) bool { return s.chained(o.Node) })
}

// mayChangeSet: the set belongs to a primary that has not been asked to release it.
func (s *State) mayChangeSet(epoch uint64, what string) error {
	switch {
	case epoch != s.Epoch || s.Primary == "":
		return refuse("%s for epoch %d, the epoch is %d with primary %q", what, epoch, s.Epoch, s.Primary)
	case s.Op != nil && (s.Op.Step == StepReleasing || s.Op.Step == StepChained):
		return refuse("%s while a switchover is at step %s", what, s.Op.Step)
	}
	return nil
}

func (s *State) applyGrow(c Grow) error {
	if err := s.mayChangeSet(c.Epoch, "grow"); err != nil {
		return err
	}
	m, known := s.Member(c.Node)
	_, in := s.Sync.Member(c.Node)
	switch {
	case s.Change != nil:
		return refuse("grow while a change of the set is prepared since index %d", s.Change.Index)
	case !known || m.Role != RoleData || c.Node == s.Primary:
		return refuse("grow by %q, which is no replica of this cluster", c.Node)
	case in:
		return refuse("%s is in the sync set already", c.Node)
	case s.beingRebuilt(c.Node):
		return refuse("%s is being rebuilt", c.Node)
	case c.Incarnation == "":
		return refuse("grow by %s without an incarnation", c.Node)
	case len(s.Sync.Members) >= s.growLimit():
		return refuse("the sync set has %d members already, %d are the most", len(s.Sync.Members), s.growLimit())
	}
	s.Sync.Members = append(s.Sync.Members, SyncMember{Node: c.Node, Incarnation: c.Incarnation})
	slices.SortFunc(s.Sync.Members, func(a, b SyncMember) int { return cmp.Compare(a.Node, b.Node) })
	return nil
}

func (s *State) applyIntend(c Intend, at time.Time, index uint64) error {
	if err := s.mayChangeSet(c.Epoch, "a change of the sync set"); err != nil {
		return err
	}
	if s.Change != nil {
		return refuse("a change of the set is prepared since index %d already", s.Change.Index)
	}
	set := s.Sync
	switch c.Kind {
	case ChangeShrink:
		if _, in := set.Member(c.Node); !in {
			return refuse("%s is not in the sync set", c.Node)
		}
		if len(set.Members)-1 < set.Acks {
			return refuse("without %s the set has %d members, and commits wait for %d", c.Node, len(set.Members)-1, set.Acks)
		}
	case ChangeAcks:
		switch {
		case c.Acks < 0 || c.Acks > len(set.Members) || c.Acks > s.ackTarget() || c.Acks == set.Acks:
			return refuse("from %d to %d acknowledgements with %d members, at most %d", set.Acks, c.Acks, len(set.Members), s.ackTarget())
		case c.Acks < set.Acks && c.Acks < s.Settings.SyncMinReplicas:
			return refuse("to %d acknowledgements, sync.min_replicas is %d", c.Acks, s.Settings.SyncMinReplicas)
		}
	default:
		return refuse("change of kind %q", c.Kind)
	}
	s.Change = &SetChange{Kind: c.Kind, Node: c.Node, Acks: c.Acks, Index: index, Cause: c.Cause, Since: at}
	return nil
}

// applyComplete holds the orders: nothing is committed that enough of the remaining members do not hold.
func (s *State) applyComplete(c Complete) error {
	if err := s.mayChangeSet(c.Epoch, "complete"); err != nil {
		return err
	}
	ch := s.Change
	if ch == nil || ch.Index != c.Index {
		return refuse("no change is prepared since index %d", c.Index)
	}
	next := SyncSet{Members: slices.Clone(s.Sync.Members), Acks: s.Sync.Acks}
	need := 0
	switch ch.Kind {
	case ChangeShrink:
		next.Members = slices.DeleteFunc(next.Members, func(m SyncMember) bool { return m.Node == ch.Node })
		need = next.Acks
	case ChangeAcks:
		next.Acks = ch.Acks
		if ch.Acks > s.Sync.Acks {
			need = ch.Acks
		} else if ch.Acks == 0 && !c.Gated {
			return refuse("the gate does not cover the primary's own port")
		}
	}
	if n := countHolders(next, c.Holders); n < need {
		return refuse("%d counted members of the set hold %s, %d must", n, orNone(c.Position), need)
	}
	s.Sync, s.Change = next, nil
	return nil
}

// countHolders counts the members of a set that are among the holders with the incarnation that the log knows.
func countHolders(set SyncSet, holders []SyncMember) int {
	n := 0
	for _, m := range set.Members {
		if m.Incarnation != "" && slices.Contains(holders, m) {
			n++
		}
	}
	return n
}

func (s *State) applyAbandon(c Abandon) error {
	if c.Epoch != s.Epoch || s.Change == nil || s.Change.Index != c.Index {
		return refuse("no change is prepared since index %d of epoch %d", c.Index, c.Epoch)
	}
	s.Change = nil
	return nil
}
