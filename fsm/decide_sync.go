package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// CannotAck says why a member of the sync set cannot acknowledge at this moment, "" when it can.
func CannotAck(s State, v View, id NodeID) string {
	n := v.Node(id)
	switch {
	case n.Lost || n.AgentLost:
		return "is out of reach: " + n.Reason
	case !v.Fresh(s, id):
		return "does not report"
	case n.Obs.Standing == StandingQuarantined:
		return "is quarantined: " + n.Obs.Reason
	case n.Obs.Server.State != ServerUp:
		return "has no running mysqld"
	case v.Node(s.Primary).Obs.Server.State != ServerUp:
		return "" // there is nobody to replicate from: a long start of the primary's mysqld makes no replica sick
	case TwinOf(s, v, id) != "":
		return fmt.Sprintf("has server_id %d, which %s has too: give each server its own", n.Obs.Server.ServerID, TwinOf(s, v, id))
	case n.Obs.Standing != StandingReplica:
		return "does not replicate: " + orNone(n.Obs.Reason)
	case n.Obs.Server.IOConnecting:
		return "is not connected to the primary"
	}
	return ""
}

// TwinOf is the primary, or a data node with a lower id that replicates, whose mysqld has the same server_id, "" for none. A source takes both for one replica: it ends
// the connection of one when the other comes, and an acknowledgement of either counts as that of the other.
func TwinOf(s State, v View, id NodeID) NodeID {
	own := v.Node(id).Obs.Server.ServerID
	for _, other := range s.DataNodes() {
		sv := v.Node(other).Obs.Server
		first := other == s.Primary || other < id && id != s.Primary && sv.IORunning && !sv.IOConnecting
		if own != 0 && other != id && first && v.Fresh(s, other) && sv.ServerID == own {
			return other
		}
	}
	return ""
}

// setMayChange: a primary that reports, and no planned change that has its own plans for the set. What is being prepared when one is asked for comes
// to its end first: the primary is not asked to release before that.
func setMayChange(d *deciding) bool {
	s := d.s
	return s.Primary != "" && len(d.out.Commands) == 0 && d.v.Fresh(s, s.Primary) && !d.v.Node(s.Primary).Lost &&
		(s.Op == nil || s.Op.Step == StepPromoted || s.Op.Step == StepRestart || s.Op.Step == StepPrepared && s.Change != nil)
}

// syncSet keeps the set as it should be: members that cannot acknowledge leave, others take their place, W follows what is there. One change at a
// time. What gives up safety waits longest, what wins it back comes as soon as it can.
func (d *deciding) syncSet() {
	s := d.s
	if s.Change != nil {
		d.changing()
		return
	}
	able, sick := d.sortMembers()
	if d.lowerAcks(able, sick) || d.shrink(able, sick) || d.grow(sick) {
		return
	}
	d.raiseAcks(able)
}

// sortMembers tells the members that can acknowledge from those that cannot; of these the longest sick first.
func (d *deciding) sortMembers() (able []SyncMember, sick []NodeView) {
	for _, m := range d.s.Sync.Members {
		if n := d.v.Node(m.Node); n.UnableSince == 0 {
			able = append(able, m)
		} else {
			sick = append(sick, n)
		}
	}
	slices.SortStableFunc(sick, func(a, b NodeView) int { return int((a.UnableSince - b.UnableSince) / time.Millisecond) })
	return able, sick
}

func (d *deciding) sickFor(n NodeView) time.Duration { return d.v.Now - n.UnableSince }

// lowerAcks gives up acknowledgements only when too few members have been left for DegradeAfter, and never below min_replicas.
func (d *deciding) lowerAcks(able []SyncMember, sick []NodeView) bool {
	s := d.s
	if len(able) >= s.Sync.Acks {
		return false
	}
	var why []string
	left := len(s.Sync.Members)
	for _, n := range sick {
		if d.sickFor(n) >= s.Settings.DegradeAfter {
			left--
		}
		why = append(why, fmt.Sprintf("%s %s", n.ID, CannotAck(s, d.v, n.ID)))
	}
	rule := "sync.lower"
	if s.Settings.SyncMinReplicas >= s.Sync.Acks {
		d.verdict("sync.min-replicas", s.Primary, false, fmt.Sprint(len(able)), fmt.Sprint(s.Settings.SyncMinReplicas), "writes wait: %s", join(why))
		return false
	}
	if left >= s.Sync.Acks {
		d.verdict(rule, s.Primary, false, fmt.Sprint(len(able)), fmt.Sprint(s.Sync.Acks), "writes wait, for up to %v: %s", s.Settings.DegradeAfter, join(why))
		return false
	}
	to := max(left, s.Settings.SyncMinReplicas)
	cause := fmt.Sprintf("for %v fewer than %d members could acknowledge: %s", s.Settings.DegradeAfter, s.Sync.Acks, join(why))
	d.intend(rule, Intend{Kind: ChangeAcks, Acks: to, Cause: cause})
	return true
}

// shrink lets the member go that has been sick for longest, or at once one that is kept out, if those that are left can do without it. While it is
// in the set nobody can be promoted without its answer.
func (d *deciding) shrink(able []SyncMember, sick []NodeView) bool {
	s := d.s
	if len(s.Sync.Members)-1 < s.Sync.Acks || len(able) < s.Sync.Acks {
		return false
	}
	if len(sick) == 0 {
		return d.trim(able)
	}
	i := slices.IndexFunc(sick, func(n NodeView) bool {
		return n.Obs.Standing == StandingQuarantined || d.sickFor(n) >= s.Settings.ShrinkAfter
	})
	if i < 0 {
		return false
	}
	n := sick[i]
	d.intend("sync.shrink", Intend{Kind: ChangeShrink, Node: n.ID, Cause: fmt.Sprintf("%s %s", n.ID, CannotAck(s, d.v, n.ID))})
	return true
}

// trim lets one go when those are back whose place another has taken.
func (d *deciding) trim(able []SyncMember) bool {
	s := d.s
	if len(able) <= s.setLimit() {
		return false
	}
	last := able[len(able)-1].Node
	d.intend("sync.trim", Intend{Kind: ChangeShrink, Node: last, Cause: fmt.Sprintf("%d members are more than a failover can be sure to hear of", len(able))})
	return true
}

// grow takes in a replica that has caught up, as long as there is a place. When commits wait because too few members have been left for a moment,
// there is one although the set is full: a healthy replica must not stand by while writes wait for those that are gone.
func (d *deciding) grow(sick []NodeView) bool {
	s := d.s
	limit, left := s.setLimit(), len(s.Sync.Members)
	for _, n := range sick {
		if d.sickFor(n) >= s.Settings.FailAfter {
			left--
		}
	}
	if left < s.Sync.Acks {
		limit = s.growLimit()
	}
	if len(s.Sync.Members) >= limit {
		return false
	}
	for _, c := range d.v.CaughtUp {
		n := d.v.Node(c.Node)
		if _, in := s.Sync.Member(c.Node); in || c.Node == s.Primary || CannotAck(s, d.v, c.Node) != "" || n.Obs.Incarnation != c.Incarnation {
			continue
		}
		d.say("sync.grow", c.Node, true, "it has caught up: its acknowledgement counts from now on")
		d.propose(Command{Grow: &Grow{Epoch: s.Epoch, Node: c.Node, Incarnation: c.Incarnation}})
		return true
	}
	return false
}

// raiseAcks wins acknowledgements back as soon as there are members for them.
func (d *deciding) raiseAcks(able []SyncMember) {
	s := d.s
	counted := 0
	for _, m := range able {
		if n := d.v.Node(m.Node); m.Incarnation != "" && n.Obs.Incarnation == m.Incarnation && n.Obs.Server.ReplicaSync {
			counted++
		}
	}
	if to := min(counted, s.ackTarget()); to > s.Sync.Acks {
		d.intend("sync.raise", Intend{Kind: ChangeAcks, Acks: to, Cause: fmt.Sprintf("%d members can acknowledge", counted)})
	}
}

func (d *deciding) intend(rule string, c Intend) {
	c.Epoch = d.s.Epoch
	d.say(rule, c.Node, true, "%s", c.Cause)
	d.propose(Command{Intend: &c})
}

// changing completes what the primary has prepared once enough members hold the position it had then, or gives it up.
func (d *deciding) changing() {
	s, c := d.s, d.s.Change
	p := d.v.Node(s.Primary).Obs
	able, _ := d.sortMembers()
	if c.Kind == ChangeAcks && c.Acks < s.Sync.Acks && len(able) >= s.Sync.Acks {
		d.abandon("enough members can acknowledge again")
		return
	}
	if p.Prepared == c.Index {
		done := Complete{Epoch: s.Epoch, Index: c.Index, Position: p.PreparedAt, Holders: d.holders(p.PreparedAt), Gated: p.PortGated}
		trial := s.Clone()
		err := trial.applyComplete(done)
		if err == nil {
			d.say("sync.complete", c.Node, true, "%s prepared at %s", c.Kind, orNone(p.PreparedAt))
			d.propose(Command{Complete: &done})
			return
		}
		d.say("sync.complete", c.Node, false, "%s", err.Error())
	}
	if d.v.Now-d.v.ChangeSince > s.Settings.OrderTimeout+s.Settings.ShrinkAfter {
		d.abandon(fmt.Sprintf("not done within %v", s.Settings.OrderTimeout+s.Settings.ShrinkAfter))
	}
}

func (d *deciding) abandon(reason string) {
	d.say("sync.abandon", d.s.Change.Node, true, "%s", reason)
	d.propose(Command{Abandon: &Abandon{Epoch: d.s.Epoch, Index: d.s.Change.Index, Reason: reason}})
}

// holders lists the members that report to have received everything in a position, with the incarnation they report.
func (d *deciding) holders(position string) []SyncMember {
	var out []SyncMember
	for _, m := range d.s.Sync.Members {
		n := d.v.Node(m.Node)
		if d.v.Fresh(d.s, m.Node) && n.Obs.Standing == StandingReplica && n.Obs.Incarnation != "" && Holds(d.s.Server, n.Obs.Server.Received, position) {
			out = append(out, SyncMember{Node: m.Node, Incarnation: n.Obs.Incarnation})
		}
	}
	return out
}

// Holds tells whether one position certainly contains another. What cannot be read, or cannot be told from positions alone, does not.
func Holds(server, position, other string) bool {
	a, err := gtid.Parse(gtid.Flavor(server), position)
	if err != nil {
		return false
	}
	b, err := gtid.Parse(gtid.Flavor(server), other)
	return err == nil && a.Contains(b) && gtid.Proven(a, b)
}
