package fsm

import (
	"fmt"
	"slices"
	"time"
)

// Decide runs on the Raft leader. It performs nothing. Rules are looked at in order; the first that matches acts, the others are not looked at,
// except those marked Always.
func Decide(s State, v View) Decision {
	d := &deciding{s: s, v: v}
	if !s.Bootstrapped() {
		d.say("cluster.bootstrapped", "", false, "the cluster is not bootstrapped: run hbctl bootstrap")
		return d.out
	}
	acted := false
	for _, r := range decideRules {
		if acted && !r.Always {
			continue
		}
		if r.When(d) {
			r.Do(d)
			acted = acted || !r.Always
		}
	}
	return d.out
}

// Rule is one row of the decision table.
type Rule struct {
	Code   string // stable name, shown to operators
	Why    string // one sentence for a person
	Always bool   // looked at even when an earlier rule has acted
	When   func(*deciding) bool
	Do     func(*deciding)
}

// Rules gives the decision table for printing.
func Rules() []Rule { return decideRules }

// decideRules is the table. Its order is its meaning: an operation in hand comes before anything new, the loss of a host before that of a service.
var decideRules []Rule

func init() {
	decideRules = []Rule{
		{Code: "promoting.settle", Why: "the new primary serves: its barrier was acknowledged", When: atStep(StepPromoted), Do: (*deciding).promoted},
		{Code: "failover.fence", Why: "the old primary must be fenced before anybody is promoted", When: atStep(StepBegun), Do: (*deciding).begun},
		{Code: "failover.promote", Why: "fenced: the best of the frozen members takes over", When: atStep(StepFenced), Do: (*deciding).fenced},
		{Code: "switchover.finish", Why: "released and caught up: the log may decide, whatever became of the old primary", When: releasedAndReached, Do: (*deciding).releasing},
		{Code: "primary.lost", Why: "a quorum reaches neither hbd nor mysqld of the primary", When: primaryLost, Do: (*deciding).takeover},
		{Code: "primary.agent-lost", Why: "a quorum does not reach the primary's hbd and its lease has run out: its gate is closed", When: primaryAgentLost, Do: (*deciding).takeover},
		{Code: "switchover.prepare", Why: "a planned change waits for its candidate to be close", When: atStep(StepPrepared), Do: (*deciding).prepared},
		{Code: "switchover.chain", Why: "the others replicate from the candidate before the pause", When: atStep(StepChained), Do: (*deciding).chained},
		{Code: "switchover.release", Why: "the old primary lets go, the candidate catches up", When: atStep(StepReleasing), Do: (*deciding).releasing},
		{Code: "restart.running", Why: "the service is being restarted in place", When: atStep(StepRestart), Do: (*deciding).restarting},
		{Code: "service.down", Why: "the primary's host lives, its mysqld does not serve", When: serviceDown, Do: (*deciding).serviceLost},
		{Code: "primary.not-serving", Why: "the primary's host and mysqld live, and it cannot serve all the same: its address, its gate or its disk", When: notServing, Do: (*deciding).failIdle},
		{Code: "sync.recount", Why: "a member that has caught up counts again", Always: true, When: func(d *deciding) bool { return d.s.Primary != "" }, Do: (*deciding).recount},
		{Code: "sync.set", Why: "members that cannot acknowledge leave the set, others take their place, and W follows", Always: true, When: setMayChange, Do: (*deciding).syncSet},
		{Code: "leader.blind", Why: "the Raft leader has no path to the primary, another voter has", Always: true, When: leaderBlind, Do: (*deciding).transferSighted},
		{Code: "leader.placement", Why: "the Raft leader should not sit on the primary's host", Always: true, When: leaderMisplaced, Do: (*deciding).transfer},
	}
	decideRules = append(decideRules, rebuildRules()...)
}

type deciding struct {
	s   State
	v   View
	out Decision
}

func (d *deciding) say(rule string, node NodeID, ok bool, format string, args ...any) {
	d.verdict(rule, node, ok, "", "", format, args...)
}

func (d *deciding) verdict(rule string, node NodeID, ok bool, value, threshold, format string, args ...any) {
	d.out.Verdicts = append(d.out.Verdicts, Verdict{Rule: rule, Node: node, OK: ok, Value: value, Threshold: threshold, Why: fmt.Sprintf(format, args...)})
}

func (d *deciding) propose(c Command) {
	c.At = d.v.Wall
	d.out.Commands = append(d.out.Commands, c)
}

func (d *deciding) order(o Order) {
	o.Epoch, o.Index, o.Step, o.OpID, o.From = d.s.Epoch, d.s.Op.Index, d.s.Op.Step, d.s.Op.ID, d.s.Op.From
	d.out.Orders = append(d.out.Orders, o)
}

// soFar is how long the phases of the running operation took up to now, the present step included.
func (d *deciding) soFar() []PhaseTime {
	if d.s.Op == nil {
		return nil
	}
	return append(slices.Clone(d.v.Phases), PhaseTime{Name: string(d.s.Op.Step), Took: d.v.Now - d.v.StepSince})
}

// paused refuses to begin anything new.
func (d *deciding) paused(rule string) bool {
	if d.s.Paused == nil {
		return false
	}
	d.say("cluster.paused", d.s.Primary, false, "%s would act, but %s paused the cluster: %s", rule, d.s.Paused.By, d.s.Paused.Why)
	return true
}

func atStep(step Step) func(*deciding) bool {
	return func(d *deciding) bool { return d.s.Op != nil && d.s.Op.Step == step }
}

func releasedAndReached(d *deciding) bool {
	return atStep(StepReleasing)(d) && d.v.Release != nil && d.v.Reached && !d.v.Node(d.s.Op.To).Lost
}

func primaryLost(d *deciding) bool { return d.s.Primary != "" && d.v.Node(d.s.Primary).Lost }

// primaryAgentLost: hbd is out of reach but its mysqld is not, or not for certain. While its lease lives it may still serve, so it is looked at
// again until the lease has run out and the grace after it. From then on its gate is closed by its own kernel and a takeover costs nothing.
func primaryAgentLost(d *deciding) bool {
	if d.s.Primary == "" || !d.v.Node(d.s.Primary).AgentLost {
		return false
	}
	if d.v.Now < d.v.LeaseClear+d.s.Settings.AgentGrace {
		d.say("primary.agent-lost", d.s.Primary, false, "%s; looking again until its lease has run out", d.v.Node(d.s.Primary).Reason)
		return false
	}
	return true
}

func serviceDown(d *deciding) bool {
	if d.s.Primary == "" || d.s.Op != nil || d.s.Phase != PhaseSteady || !d.v.Fresh(d.s, d.s.Primary) {
		return false
	}
	st := d.v.Node(d.s.Primary).Obs.Server.State
	return st == ServerDown || st == ServerHung
}

// notServing: longer than a hung server is waited for, and than a lease that was lost for a moment takes to come back. Commits that wait for
// their acknowledgement are no reason: nobody else could get it either.
func notServing(d *deciding) bool {
	n := d.v.Node(d.s.Primary)
	return d.s.Op == nil && d.s.Phase == PhaseSteady && d.s.Primary != "" && d.v.NotServing != 0 && d.v.Fresh(d.s, d.s.Primary) &&
		n.Obs.Server.State == ServerUp && !n.Obs.Server.CommitsWait && d.v.Now-d.v.NotServing > d.s.Settings.HungAfter+2*d.s.Settings.Lease
}

func (d *deciding) failIdle() {
	d.begin(KindFailover, "primary.not-serving", "the primary does not serve: "+orNone(d.v.Node(d.s.Primary).Obs.Reason), "")
}

// placementPause is how long a leader stays on a new primary's host: the clients come back first.
const placementPause = 500 * time.Millisecond

func leaderMisplaced(d *deciding) bool {
	return d.s.Op == nil && d.s.Phase == PhaseSteady && d.s.Primary == d.v.Self && len(d.s.Members) > 1 && d.v.Now-d.v.StepSince >= placementPause
}

func (d *deciding) transfer() {
	if d.out.Transfer != "" {
		return
	}
	for _, m := range d.s.Members {
		if n := d.v.Node(m.ID); m.ID != d.v.Self && n.Health == HealthOK && !n.Obs.Leaving && n.Obs.Applied >= d.s.Index {
			d.out.Transfer = m.ID
			d.say("leader.placement", m.ID, true, "leadership goes from the primary's host to %s", m.ID)
			return
		}
	}
}

// sightOf is how long ago a node's hbd last reached another's, as it says.
func sightOf(n NodeView, of NodeID) (time.Duration, bool) {
	for _, s := range n.Obs.Sights {
		if s.Node == of {
			return s.AgentAge, true
		}
	}
	return 0, false
}

// leaderBlind: leases are relayed, so the primary serves on; but its reports do not arrive here, and nothing about it can be decided.
func leaderBlind(d *deciding) bool {
	if d.s.Primary == "" || d.s.Primary == d.v.Self {
		return false
	}
	age, ok := sightOf(d.v.Node(d.v.Self), d.s.Primary)
	return ok && age > d.s.Settings.Lease/2
}

func (d *deciding) transferSighted() {
	for _, m := range d.s.Members {
		n := d.v.Node(m.ID)
		age, ok := sightOf(n, d.s.Primary)
		if m.ID != d.v.Self && m.ID != d.s.Primary && d.v.Fresh(d.s, m.ID) && !n.Obs.Leaving && ok && age < d.s.Settings.FailAfter/2 {
			d.out.Transfer = m.ID
			d.say("leader.blind", m.ID, true, "leadership goes to %s, which reaches the primary", m.ID)
			return
		}
	}
}

// recount commits the incarnations that have been seen to hold everything the primary had.
func (d *deciding) recount() {
	for _, c := range d.v.CaughtUp {
		if m, ok := d.s.Sync.Member(c.Node); ok && m.Incarnation != c.Incarnation {
			d.propose(Command{Recount: &Recount{Epoch: d.s.Epoch, Node: c.Node, Incarnation: c.Incarnation}})
		}
	}
}

// winnable is F0: before an epoch is ended, could the freeze be answered by enough members? If not, the primary keeps its lease should it still
// ask, and nothing is made worse.
func (d *deciding) winnable(rule string) bool {
	if d.s.Sync.Acks < 1 {
		d.verdict("failover.degraded", d.s.Primary, false, "0", "1", "%s would begin, but no replica acknowledges: only the primary itself holds everything", rule)
		return false
	}
	var why []string
	able := 0
	for _, m := range d.s.Sync.Members {
		if r := d.cannotAnswer(m); r != "" {
			why = append(why, fmt.Sprintf("%s %s", m.Node, r))
			continue
		}
		able++
	}
	if able < d.s.Sync.Needed() {
		d.verdict("failover.count", d.s.Primary, false, fmt.Sprint(able), fmt.Sprint(d.s.Sync.Needed()), "%d of %d sync members could answer the freeze, %d are needed: %s",
			able, len(d.s.Sync.Members), d.s.Sync.Needed(), join(why))
		return false
	}
	if why := d.baseRefuses(); why != "" {
		d.verdict("failover.unsettled", d.s.Primary, false, "", "", "epoch %d is not settled, and who could answer does not decide what became of it: %s", d.s.Epoch, why)
		return false
	}
	if d.s.Settings.SyncMinReplicas > 0 && !d.acknowledgeable() {
		d.verdict("failover.acknowledger", d.s.Primary, false, "", "2", "with sync.min_replicas %d a new primary needs another node that acknowledges its barrier", d.s.Settings.SyncMinReplicas)
		return false
	}
	return true
}

// baseRefuses says why, while the last grant is unsettled, nobody but its primary could be promoted on the answers to be expected; "" when somebody
// could. To begin all the same would take the epoch from the one node that may still come to serve it.
func (d *deciding) baseRefuses() string {
	if d.s.Base == nil {
		return ""
	}
	var answers []Answer
	for _, id := range d.s.DataNodes() {
		n := d.v.Node(id)
		if !d.v.Fresh(d.s, id) || n.Lost || n.AgentLost || (n.Obs.Server.State != ServerUp && n.Obs.Held == 0) {
			continue
		}
		answers = append(answers, Answer{Node: id, Epoch: d.s.Epoch, Incarnation: n.Obs.Incarnation, LastEpoch: n.Obs.Server.LastEpoch, Held: n.Obs.Held, Whole: n.Obs.Whole})
	}
	var why error
	for _, a := range answers {
		if m, _ := d.s.Member(a.Node); a.Node == d.s.Primary || m.NeverPromote {
			continue // it counts, and does not lead: it could not finish, or may not
		}
		if _, err := counted(d.s, answers, a.Node); err == nil {
			return ""
		} else if why == nil {
			why = err
		}
	}
	return errText(why)
}

func errText(err error) string {
	if err == nil {
		return "nobody else reports who may be promoted"
	}
	return err.Error()
}

// acknowledgeable: there are two nodes, the primary apart, of which one could be promoted and the other follow it. A former primary cannot follow
// before somebody has settled; but that of an unsettled epoch's base may come back itself, and then even the present one follows it.
func (d *deciding) acknowledgeable() bool {
	followers := 0
	for _, id := range d.s.DataNodes() {
		v := d.v.Node(id)
		if id == d.s.Primary || !d.v.Fresh(d.s, id) || v.Lost || v.AgentLost {
			continue
		}
		if d.s.soleUnsettled() && id == d.s.Base.Primary && (v.Obs.Held == d.s.Base.Epoch || v.Obs.Whole == lastGrant(d.s).Epoch) {
			return true
		}
		if v.Obs.Server.State == ServerUp && v.Obs.Held == 0 {
			followers++
		}
	}
	return followers >= 2
}

func (d *deciding) cannotAnswer(m SyncMember) string {
	n := d.v.Node(m.Node)
	switch {
	case !d.v.Fresh(d.s, m.Node):
		return "does not report"
	case n.Lost || n.AgentLost:
		return "is out of reach"
	case d.s.soleUnsettled() && m.Node == d.s.Base.Primary && n.Obs.Held == d.s.Base.Epoch:
		return "" // it never received anything of the unsettled epoch, and says so without its mysqld
	case n.Obs.Server.State != ServerUp:
		return "has no running mysqld"
	case !n.Obs.Server.SQLRunning && n.Obs.Server.ReplError != "":
		return "has stopped applying: " + n.Obs.Server.ReplError
	case d.s.soleUnsettled() && n.Obs.Whole == lastGrant(d.s).Epoch:
		return ""
	case m.Incarnation == "" || n.Obs.Incarnation != m.Incarnation:
		return "has not caught up since it (re)joined"
	}
	return ""
}

func join(parts []string) string {
	out := ""
	for i, p := range parts {
		if i > 0 {
			out += "; "
		}
		out += p
	}
	return out
}
