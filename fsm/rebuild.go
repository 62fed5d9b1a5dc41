package fsm

import (
	"fmt"
	"slices"
	"time"
)

// RebuildCause says in one word why a node's data is replaced by a copy.
type RebuildCause string

// The causes. All but the last are found by the node itself.
const (
	RebuildErrant      RebuildCause = "errant"      // it executed transactions that the primary never had
	RebuildPurged      RebuildCause = "purged"      // the primary has purged the binary logs that it still needs
	RebuildQuarantined RebuildCause = "quarantined" // it was primary, and its tail cannot be rolled back
	RebuildEmpty       RebuildCause = "empty"       // it has no data at all: a new host
	RebuildHalf        RebuildCause = "half"        // its data was given up for a copy that never became whole
	RebuildAsked       RebuildCause = "asked"       // a person wants it
)

// RebuildCauses lists every cause that a node finds by itself, for the table of rules.
func RebuildCauses() []RebuildCause {
	return []RebuildCause{RebuildErrant, RebuildPurged, RebuildQuarantined, RebuildEmpty, RebuildHalf}
}

// Rebuild gives a node the right to throw its data away and take a copy of the donor's. With Replaces it gives one that runs another donor.
type Rebuild struct {
	Node      NodeID       `json:"node"`
	Donor     NodeID       `json:"donor"`
	Epoch     uint64       `json:"epoch"`    // compare-and-swap
	Replaces  uint64       `json:"replaces"` // Turn of the rebuild that goes on with another donor, 0 for a new one (compare-and-swap)
	Cause     RebuildCause `json:"cause"`
	Reason    string       `json:"reason"`
	Actor     string       `json:"actor"`     // "" when nobody asked
	Confirmed bool         `json:"confirmed"` // a person said that this very data may be thrown away, whatever it holds
}

// Rebuilt ends a rebuild.
type Rebuilt struct {
	Node    NodeID  `json:"node"`
	Index   uint64  `json:"index"` // which rebuild (compare-and-swap)
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason"`
}

// Rebuilding is a rebuild that has begun and not ended.
type Rebuilding struct {
	Node      NodeID       `json:"node"`
	Donor     NodeID       `json:"donor"`
	Cause     RebuildCause `json:"cause"`
	Reason    string       `json:"reason"`
	Actor     string       `json:"actor"`
	Confirmed bool         `json:"confirmed"`
	Since     time.Time    `json:"since"` // proposer's wall clock, for people only
	Index     uint64       `json:"index"` // log index of its first order: its name
	Turn      uint64       `json:"turn"`  // log index of the order that named the present donor
}

// RebuildEnd is how a node's newest rebuild ended. Times counts those that ended within a day of each other: the hold grows with it.
type RebuildEnd struct {
	Node    NodeID       `json:"node"`
	Epoch   uint64       `json:"epoch"` // the epoch in which it ended
	At      time.Time    `json:"at"`    // proposer's wall clock
	Cause   RebuildCause `json:"cause"` // why it was ordered; "" when it ended under a version that did not keep it
	Outcome Outcome      `json:"outcome"`
	Reason  string       `json:"reason"`
	Times   int          `json:"times"`
}

// RebuildOf finds the running rebuild of a node.
func (s State) RebuildOf(id NodeID) (Rebuilding, bool) {
	i := slices.IndexFunc(s.Rebuilds, func(r Rebuilding) bool { return r.Node == id })
	if i < 0 {
		return Rebuilding{}, false
	}
	return s.Rebuilds[i], true
}

// RebuildEndOf finds how the newest rebuild of a node ended.
func (s State) RebuildEndOf(id NodeID) (RebuildEnd, bool) {
	i := slices.IndexFunc(s.Rebuilt, func(e RebuildEnd) bool { return e.Node == id })
	if i < 0 {
		return RebuildEnd{}, false
	}
	return s.Rebuilt[i], true
}

// MayWipe is the last question before a node's data is thrown away: nil only if the applied state orders this very rebuild and nothing that counts
// would be lost by it. It is asked again right before every destructive step: the sync set may have changed since the order.
func MayWipe(s State, node NodeID, index uint64) error {
	r, ok := s.RebuildOf(node)
	if !ok || r.Index != index {
		return refuse("no rebuild %d of %s is in the log", index, node)
	}
	if v := wipeRefusal(s, node, r.Confirmed); v.Rule != "" {
		return refuse("%s", v.Why)
	}
	return nil
}

// wipeRefusal is why a node's data must be kept; the zero value when nothing speaks for it.
func wipeRefusal(s State, node NodeID, confirmed bool) Verdict {
	no := func(rule, format string, args ...any) Verdict {
		return Verdict{Rule: rule, Node: node, Why: fmt.Sprintf(format, args...)}
	}
	m, ok := s.Member(node)
	switch {
	case !ok || m.Role != RoleData:
		return no("rebuild.member", "%q is not a data node of the cluster", node)
	case node == s.Primary:
		return no("rebuild.primary", "%s is the primary", node)
	case s.Primary == "" || s.Settled() != s.Epoch || s.Base != nil:
		return no("rebuild.settled", "no primary of epoch %d is settled: until then a node keeps every byte it has", s.Epoch)
	}
	if _, counts := s.Sync.Member(node); counts {
		return no("rebuild.sync-set", "%s is in the sync set: what it acknowledged counts", node)
	}
	if since := lastOwn(s, node); !confirmed && s.LossySince(since) {
		return no("rebuild.lossy", "an epoch after %d was won by accepting a loss, and %s may hold the only copy of what was acknowledged: only a person may throw it away (hbctl rebuild %s --yes)", since, node, node)
	}
	return Verdict{}
}

// lastOwn is the newest epoch from which a node's data may hold something that others lack: one it was primary of, or in which it was rebuilt;
// 0 if there is none.
func lastOwn(s State, node NodeID) uint64 {
	var newest uint64
	if end, ok := s.RebuildEndOf(node); ok && end.Outcome == OutcomeDone {
		newest = end.Epoch
	}
	for _, e := range s.Epochs {
		if e.Primary == node {
			newest = max(newest, e.Epoch)
		}
	}
	return newest
}

// donorRefusal is why a node must not be copied from; "" when it may.
func donorRefusal(s State, node, donor NodeID) string {
	m, ok := s.Member(donor)
	_, counts := s.Sync.Member(donor)
	switch {
	case !ok || m.Role != RoleData:
		return fmt.Sprintf("%q is not a data node of the cluster", donor)
	case donor == node:
		return fmt.Sprintf("%s cannot be copied from itself", node)
	case counts && len(s.Sync.Members) <= s.Sync.Acks:
		return fmt.Sprintf("%s is the primary's only good copy: commits need its acknowledgement", donor)
	}
	if _, busy := s.RebuildOf(donor); busy {
		return fmt.Sprintf("%s is being rebuilt itself", donor)
	}
	return ""
}

func (s *State) applyRebuild(c Rebuild, index uint64, at time.Time) error {
	if c.Epoch != s.Epoch {
		return refuse("rebuild for epoch %d, the epoch is %d", c.Epoch, s.Epoch)
	}
	if v := wipeRefusal(*s, c.Node, c.Confirmed); v.Rule != "" {
		return refuse("rebuild: %s", v.Why)
	}
	if why := donorRefusal(*s, c.Node, c.Donor); why != "" {
		return refuse("rebuild: %s", why)
	}
	running, ok := s.RebuildOf(c.Node)
	if running.Turn != c.Replaces {
		return refuse("rebuild replaces the one ordered at %d, running is that of %d", c.Replaces, running.Turn)
	}
	if ok {
		for i := range s.Rebuilds {
			if s.Rebuilds[i].Node == c.Node {
				s.Rebuilds[i].Donor, s.Rebuilds[i].Turn = c.Donor, index
			}
		}
		return nil
	}
	if s.Paused != nil {
		return refuse("rebuild: paused by %s: %s", s.Paused.By, s.Paused.Why)
	}
	s.Rebuilds = append(s.Rebuilds, Rebuilding{Node: c.Node, Donor: c.Donor, Cause: c.Cause, Reason: c.Reason, Actor: c.Actor, Confirmed: c.Confirmed,
		Since: at, Index: index, Turn: index})
	return nil
}

// countedDay is how long ends of rebuilds are counted together.
const countedDay = 24 * time.Hour

func (s *State) applyRebuilt(c Rebuilt, at time.Time) error {
	r, ok := s.RebuildOf(c.Node)
	if !ok || r.Index != c.Index {
		return refuse("end of rebuild %d of %s, running is %d", c.Index, c.Node, r.Index)
	}
	end := RebuildEnd{Node: c.Node, Epoch: s.Epoch, At: at, Cause: r.Cause, Outcome: c.Outcome, Reason: c.Reason, Times: 1}
	if before, ok := s.RebuildEndOf(c.Node); ok && at.Sub(before.At) < countedDay {
		end.Times = before.Times + 1
	}
	s.Rebuilds = slices.DeleteFunc(s.Rebuilds, func(r Rebuilding) bool { return r.Node == c.Node })
	s.Rebuilt = append(slices.DeleteFunc(s.Rebuilt, func(e RebuildEnd) bool { return e.Node == c.Node }), end)
	return nil
}

// CopyStage is how far a rebuild has come on its node, as far as the judgement needs to know.
type CopyStage string

// The stages of a copy.
const (
	CopyNone     CopyStage = ""
	CopyArriving CopyStage = "arriving" // the node's own data is whole and in use
	CopyHalf     CopyStage = "half"     // neither is, and what is missing is still to be fetched: only by an order of the log
	CopyPlacing  CopyStage = "placing"  // neither is, and all of the copy is here: mysqld must not be started
	CopyAdopted  CopyStage = "adopted"  // mysqld runs on the copy, the old data is still kept
)

// Copy is what a rebuild has done to a node's data. Of is the rebuild's index.
type Copy struct {
	Stage   CopyStage
	Of      uint64
	Running bool // it is being worked on at this moment
	Empty   bool // mysqld is down and there is no data that it could run on
}
