package fsm

import (
	"slices"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// What a source sends goes to every replica at once, also to those outside the sync set, before anybody has acknowledged it. One of these may have
// received, and executed, more than any member when the source dies. Nobody was told that this succeeded, so nothing is lost without it; but the
// replica would hold for ever what the others lack, and a copy of another's data would be its only way back. So the candidate takes it over.

// extraOf finds the answer that holds more than the candidate's does, if all of that was written by the primary of the epoch that ended: a write of
// somebody else's on a replica is errant, and stays out. It is worth having and never needed: nothing waits for it for long.
func extraOf(s State, answers []Answer, candidate Answer) (Answer, bool) {
	if s.Base != nil || s.Op == nil || len(s.Op.Excluded) > 0 {
		return Answer{}, false // an earlier candidate failed, or the epoch is not settled: nothing but what is needed
	}
	best, have := Answer{}, positionOf(s, candidate)
	for _, a := range answers {
		m, ok := s.Member(a.Node)
		if !ok || m.Role != RoleData || a.Node == candidate.Node || a.Epoch != s.Epoch || a.Held != 0 || a.Source == "" || s.beingRebuilt(a.Node) {
			continue
		}
		set := positionOf(s, a)
		if gtid.Compare(set, have) == gtid.After && gtid.Proven(set, have) && set.Subtract(have).WrittenBy(a.Source) {
			best, have = a, set
		}
	}
	return best, best.Node != ""
}

// positionOf is what an answer holds; nothing when it cannot be read.
func positionOf(s State, a Answer) gtid.Set {
	set, err := gtid.Parse(gtid.Flavor(s.Server), a.Received)
	if err != nil {
		return gtid.Set{}
	}
	return set
}

// extraPatience is how long a failover that could be decided waits for an answer that may hold more: of a replica outside the sync set, or of a member
// that is not needed.
const extraPatience = 200 * time.Millisecond

// extraMayCome names a replica that follows the old primary and is about to say what it received.
func (d *deciding) extraMayCome() (NodeID, bool) {
	old, ok := d.s.Member(d.s.Op.From)
	if !ok || d.s.Base != nil || d.v.Now-d.v.StepSince > extraPatience {
		return "", false
	}
	for _, id := range d.s.DataNodes() {
		n := d.v.Node(id)
		_, answered := answerOf(d.v.Answers, id)
		sv := n.Obs.Server
		followed := []Standing{StandingReplica, StandingCatching, StandingFrozen}
		if !answered && id != old.ID && d.v.Fresh(d.s, id) && !n.Lost && !n.AgentLost && sv.State == ServerUp && slices.Contains(followed, n.Obs.Standing) &&
			sv.SourceHost == old.Address && sv.SourcePort == old.MySQLPort && !d.s.beingRebuilt(id) {
			return id, true
		}
	}
	return "", false
}
