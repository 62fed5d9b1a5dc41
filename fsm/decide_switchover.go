package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// prepared: everything is checked, and everything that can be done beforehand is done, while the old primary still serves. The set shrinks to the
// candidate and those that W needs besides; the others are turned to replicate from the candidate.
func (d *deciding) prepared() {
	if d.serviceGone() || d.writesWait() || !d.gatesPass() || !d.quiet() {
		return
	}
	s, to := d.s, d.s.Op.To
	if len(d.others()) == 0 || s.Sync.Acks < 1 {
		d.propose(Command{Release: &Release{OpID: s.Op.ID, Epoch: s.Epoch}})
		return
	}
	if len(s.Sync.Members) > s.Sync.Acks {
		out := d.dispensable(to)
		d.intend("switchover.shrink", Intend{Kind: ChangeShrink, Node: out, Cause: fmt.Sprintf("%s is to replicate from %s before the pause", out, to)})
		return
	}
	d.say("switchover.chain", to, true, "%v replicate from it before the pause", d.others())
	d.propose(Command{Chain: &Chain{OpID: s.Op.ID, Epoch: s.Epoch}})
}

// dispensable is the member that leaves the set first: one that cannot acknowledge, or writes would wait for it as soon as the others have left.
func (d *deciding) dispensable(candidate NodeID) NodeID {
	able, sick := d.sortMembers()
	for _, n := range sick {
		if n.ID != candidate {
			return n.ID
		}
	}
	able = slices.DeleteFunc(able, func(m SyncMember) bool { return m.Node == candidate })
	return able[len(able)-1].Node
}

// writesWait rolls back when too few members are left to acknowledge. While a planned change runs nobody else is taken into the set; those that have
// left it for the change are needed again, long before anything is given up.
func (d *deciding) writesWait() bool {
	s := d.s
	_, sick := d.sortMembers()
	left := len(s.Sync.Members)
	var why []string
	for _, n := range sick {
		if d.sickFor(n) >= s.Settings.FailAfter {
			left--
			why = append(why, fmt.Sprintf("%s %s", n.ID, CannotAck(s, d.v, n.ID)))
		}
	}
	if left >= s.Sync.Acks {
		return false
	}
	d.rollback("writes wait for their acknowledgement: " + join(why))
	return true
}

// chained: the pause begins when the others are connected to the candidate and promote would take them into the set, or cannot be waited for any
// longer: then the first commit waits until the old primary has been turned round.
func (d *deciding) chained() {
	if d.serviceGone() || d.writesWait() || !d.gatesPass() || !d.quiet() {
		return
	}
	s := d.s
	for _, id := range d.others() {
		n := d.v.Node(id)
		below, unable := Below(s, n, s.Op.To), CannotAck(s, d.v, id)
		passes := unable == "" || TwinOf(s, d.v, id) != "" // whose server_id is another's is not to be waited for
		if s.OutsideSince(id) == 0 || below && !n.Untried && passes {
			continue
		}
		if d.v.Now-d.v.StepSince < s.Settings.PrepareTimeout/2 {
			switch {
			case !below:
				d.say("switchover.chain", id, false, "it does not replicate from %s yet: %s", s.Op.To, orNone(n.Obs.Reason))
			case n.Untried:
				d.say("switchover.chain", id, false, "it is connected to %s, and nothing has come over that yet", s.Op.To)
			default:
				d.say("switchover.chain", id, false, "it is connected to %s, and %s", s.Op.To, unable)
			}
			return
		}
	}
	d.propose(Command{Release: &Release{OpID: s.Op.ID, Epoch: s.Epoch}})
}

// gatesPass looks at every gate; an operation that waits too long for one is rolled back.
func (d *deciding) gatesPass() bool {
	verdicts := SwitchoverGates(d.s, d.v, d.s.Op.To)
	d.out.Verdicts = append(d.out.Verdicts, verdicts...)
	i := slices.IndexFunc(verdicts, func(v Verdict) bool { return !v.OK })
	if i < 0 {
		return true
	}
	if d.v.Now-d.v.StepSince > d.s.Settings.PrepareTimeout+d.s.Op.Wait || d.v.Node(d.s.Op.To).Lost {
		d.rollback(verdicts[i].String())
	}
	return false
}

// others are the replicas that are no part of the change itself and work.
func (d *deciding) others() []NodeID {
	var out []NodeID
	for _, id := range d.s.DataNodes() {
		n := d.v.Node(id)
		if id != d.s.Op.From && id != d.s.Op.To && d.v.Fresh(d.s, id) && !n.Lost && !n.AgentLost && n.Obs.Server.State == ServerUp && n.Obs.Standing != StandingQuarantined {
			out = append(out, id)
		}
	}
	return out
}

// Below tells whether a node reports to replicate from another, connected and with acknowledgements.
func Below(s State, n NodeView, source NodeID) bool {
	return replicatesFrom(s, n, source) && n.Obs.Server.ReplicaSync
}

// replicatesFrom tells whether a node reports to replicate from another, connected.
func replicatesFrom(s State, n NodeView, source NodeID) bool {
	m, ok := s.Member(source)
	sv := n.Obs.Server
	return ok && sv.SourceHost == m.Address && sv.SourcePort == m.MySQLPort && sv.IORunning && !sv.IOConnecting && sv.SQLRunning
}

// serviceGone rolls back at once when the old primary's mysqld is gone: its restart must not wait for a switchover that cannot succeed.
func (d *deciding) serviceGone() bool {
	n := d.v.Node(d.s.Op.From)
	if !d.v.Fresh(d.s, d.s.Op.From) || (n.Obs.Server.State != ServerDown && n.Obs.Server.State != ServerHung) {
		return false
	}
	d.rollback(fmt.Sprintf("mysqld on %s is %s: %s", d.s.Op.From, n.Obs.Server.State, n.Obs.Server.Fault))
	return true
}

// releasing: the old primary's release is the evidence that promote carries. Only the log decides between promote and rollback.
func (d *deciding) releasing() {
	op := d.s.Op
	switch {
	case d.v.Release != nil && d.v.Reached && !d.v.Node(op.To).Lost:
		members := d.switchedSet()
		d.propose(Command{Promote: &Promote{OpID: op.ID, Epoch: d.s.Epoch, To: op.To, Won: WonSwitchover, Position: d.v.Release.Received,
			Release: d.v.Release, Members: members, Acks: min(len(members), d.s.ackTarget())}})
	case d.v.Release == nil && d.serviceGone():
	case d.v.Node(op.To).Lost:
		d.rollback(fmt.Sprintf("candidate %s was lost: %s", op.To, d.v.Node(op.To).Reason))
	case d.v.Now-d.v.StepSince > d.s.Settings.ReleaseTimeout:
		d.rollback(fmt.Sprintf("not done within %v: released=%v, candidate at the position=%v %s%s", d.s.Settings.ReleaseTimeout, d.v.Release != nil, d.v.Reached, d.v.ReleaseError, d.heldUp()))
	case d.v.Release == nil:
		d.order(Order{Kind: OrderRelease, Node: op.From, To: op.To, Kill: op.Busy == BusyKill})
	case !d.v.Reached:
		d.order(Order{Kind: OrderAwait, Node: op.To, To: op.To, Position: d.v.Release.Received})
	}
}

// switchedSet is whoever replicates from the candidate already, the old primary with the incarnation that released, and the members that still count.
func (d *deciding) switchedSet() []SyncMember {
	s := d.s
	var out []SyncMember
	for _, id := range s.DataNodes() {
		if n := d.v.Node(id); s.chained(id) && CannotAck(s, d.v, id) == "" && replicatesFrom(s, n, s.Op.To) && len(out) < s.setLimit()-1 {
			out = append(out, SyncMember{Node: id, Incarnation: n.Obs.Incarnation})
		}
	}
	out = append(out, SyncMember{Node: s.Op.From, Incarnation: d.v.Release.Incarnation})
	for _, m := range s.Sync.Members {
		if m.Node != s.Op.To && m.Node != s.Op.From && CannotAck(s, d.v, m.Node) == "" && len(out) < s.setLimit() {
			if d.v.Node(m.Node).Obs.Incarnation != m.Incarnation {
				m.Incarnation = ""
			}
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b SyncMember) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

func (d *deciding) rollback(reason string) {
	d.say("switchover.rollback", d.s.Op.To, true, "%s", reason)
	d.propose(Command{Rollback: &Rollback{OpID: d.s.Op.ID, Epoch: d.s.Epoch, Reason: reason, Phases: d.soFar()}})
}

// SwitchoverGates judges whether the primary's role could go to a node now: one verdict for each gate, all of them, so that a plan can print them.
func SwitchoverGates(s State, v View, to NodeID) []Verdict {
	var out []Verdict
	gate := func(rule string, ok bool, value, threshold, why string) {
		if ok {
			why = ""
		}
		out = append(out, Verdict{Rule: rule, Node: to, OK: ok, Value: value, Threshold: threshold, Why: why})
	}
	m, known := s.Member(to)
	n := v.Node(to)
	gate("candidate.known", known && m.Role == RoleData, string(to), "", "it is not a data node of the cluster")
	gate("candidate.not-primary", to != s.Primary, string(s.Primary), "", "it is the primary already")
	gate("candidate.never-promote", !m.NeverPromote, "", "", "never_promote is set")
	gate("candidate.alive", v.Fresh(s, to) && !n.Lost && !n.AgentLost, string(n.Health), string(HealthOK), "its hbd does not report: "+n.Reason)
	gate("candidate.server-up", n.Obs.Server.State == ServerUp, string(n.Obs.Server.State), string(ServerUp), "its mysqld does not serve")
	gate("candidate.follows", n.Obs.Standing == StandingReplica, string(n.Obs.Standing), string(StandingReplica), "it does not follow the primary: "+n.Obs.Reason)
	sm, _ := s.Sync.Member(to)
	if inSync := sm.Incarnation != "" && sm.Incarnation == n.Obs.Incarnation; !inSync && noPlaceFor(s, v, to) {
		gate("candidate.reserve", false, fmt.Sprint(len(s.Sync.Members)), fmt.Sprint(s.setLimit()), "the sync set is full without it, and only a member can become primary as planned: "+memberIDs(s))
	} else {
		gate("candidate.in-sync", inSync, sm.Incarnation, n.Obs.Incarnation, "it has not caught up since it (re)joined")
	}
	lag, lagOK := "unknown", false
	if l := n.Obs.Server.Lag; l != nil {
		d := time.Duration(*l * float64(time.Second))
		lag, lagOK = d.String(), d <= s.Settings.MaxBehind
	}
	gate("candidate.lag", lagOK, lag, s.Settings.MaxBehind.String(), "it is too far behind: a switchover would stop writes for so long")
	p := v.Node(s.Primary)
	unapplied, unappliedOK := unappliedBy(s, n.Obs.Server)
	gate(GateUnapplied, unappliedOK, unapplied, fmt.Sprint(s.Settings.MaxUnapplied), "it has more transactions to apply than fit into the pause")
	gate("primary.serving", s.Primary != "" && v.Fresh(s, s.Primary) && p.Obs.Serving == s.Epoch, fmt.Sprint(p.Obs.Serving), fmt.Sprint(s.Epoch), "the primary does not serve: it cannot release what it does not hold")
	gate("sync.at-rest", s.Change == nil, "", "", "a change of the sync set is being prepared")
	gate("barrier.acknowledgeable", otherReplica(s, v, to), "", "", "no other node could acknowledge the new primary's barrier")
	return out
}

// noPlaceFor tells whether a node stays outside the sync set however well it follows, because the set is full of others that can acknowledge.
func noPlaceFor(s State, v View, id NodeID) bool {
	if _, in := s.Sync.Member(id); in || s.Change != nil || len(s.Sync.Members) != s.setLimit() { // what is under way may make one
		return false
	}
	return !slices.ContainsFunc(s.Sync.Members, func(m SyncMember) bool { return CannotAck(s, v, m.Node) != "" })
}

func memberIDs(s State) string {
	var ids []string
	for _, m := range s.Sync.Members {
		ids = append(ids, string(m.Node))
	}
	return strings.Join(ids, ", ")
}

// GateUnapplied is the one gate that a candidate may yet pass by itself while the operation waits for it: it does not refuse a request.
const GateUnapplied = "candidate.unapplied"

// PassesSoon tells whether a node in order passes a gate within moments and by itself: it connects to its source, or joins the sync set. Whoever
// asks for a change just then is better served by a short wait than by a refusal.
func PassesSoon(g Verdict) bool {
	return !g.OK && (g.Rule == "candidate.follows" && g.Value == string(StandingCatching) || g.Rule == "candidate.in-sync" || g.Rule == "sync.at-rest")
}

// unappliedBy is how many transactions a candidate has received and not applied. What it has not even received is no matter of the pause: it
// receives as fast as the primary writes, or the lag gate refuses it.
func unappliedBy(s State, candidate ServerStatus) (string, bool) {
	n, err := Unapplied(s.Server, candidate.Executed, candidate.Received)
	if err != nil {
		return "unknown", false
	}
	return fmt.Sprint(n), !lags(s, n)
}

// Unapplied is how many transactions of what a server received it has not executed.
func Unapplied(server, executed, received string) (uint64, error) {
	flavor := gtid.Flavor(server)
	has, err := gtid.Parse(flavor, executed)
	if err != nil {
		return 0, err
	}
	got, err := gtid.Parse(flavor, received)
	if err != nil {
		return 0, err
	}
	return gtid.Behind(has, got), nil
}

// lags: to apply that many takes longer than clients should wait for.
func lags(s State, unapplied uint64) bool { return lateness(s, unapplied) > 0 }

// lateness is how many times over what may be left to apply is left, 0 for who does not lag. Who differ by less are equally late.
func lateness(s State, unapplied uint64) uint64 {
	most := uint64(max(0, s.Settings.MaxUnapplied))
	switch {
	case most == 0 || unapplied == 0:
		return unapplied
	default:
		return (unapplied - 1) / most
	}
}

// otherReplica: with the old primary turned round there is always one, if it is alive.
func otherReplica(s State, v View, to NodeID) bool {
	if len(s.DataNodes()) < 2 {
		return true
	}
	for _, id := range s.DataNodes() {
		if id != to && v.Fresh(s, id) && v.Node(id).Obs.Server.State == ServerUp {
			return true
		}
	}
	return false
}

// BestCandidate is the node that a demote would promote: the first, by priority and id, that passes every gate.
func BestCandidate(s State, v View, not NodeID) (NodeID, []Verdict) {
	var best *Member
	var refusals []Verdict
	for i := range s.Members {
		m := &s.Members[i]
		if m.Role != RoleData || m.ID == not || m.ID == s.Primary {
			continue
		}
		ok := true
		for _, g := range SwitchoverGates(s, v, m.ID) {
			if !g.OK && g.Rule != GateUnapplied {
				ok = false
				refusals = append(refusals, g)
				break
			}
		}
		if ok && (best == nil || m.Priority > best.Priority) {
			best = m
		}
	}
	if best == nil {
		return "", refusals
	}
	return best.ID, refusals
}
