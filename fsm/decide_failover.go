package fsm

import (
	"fmt"
	"slices"
	"time"
)

// takeover begins the change of a primary whose host, link or hbd is lost.
func (d *deciding) takeover() {
	n := d.v.Node(d.s.Primary)
	rule := "primary.lost"
	if !n.Lost {
		rule = "primary.agent-lost"
	}
	d.begin(KindTakeover, rule, n.Reason, "")
}

// begin ends the epoch, if the cluster is not paused and the freeze could be won.
func (d *deciding) begin(kind Kind, rule, cause string, exclude NodeID) bool {
	if (d.s.Op == nil || d.s.Op.Kind == KindRestart) && d.paused(rule) {
		return false
	}
	if !d.winnable(rule) {
		return false
	}
	d.say(rule, d.s.Primary, true, "%s: %s of %s begins", cause, kind, d.s.Primary)
	c := Begin{Kind: kind, Epoch: d.s.Epoch, Cause: cause, Exclude: exclude, Actor: string(d.v.Self), Phases: d.soFar()}
	if d.s.Op != nil {
		c.OpID = d.s.Op.ID
	}
	d.propose(Command{Begin: &c})
	return true
}

// begun: freeze and fence run side by side. What is proven first is committed first; nobody can be promoted before the fence is.
func (d *deciding) begun() {
	d.freeze()
	if d.v.Fence != nil {
		d.propose(Command{Fence: &Fence{OpID: d.s.Op.ID, Epoch: d.s.Epoch, Evidence: *d.v.Fence}})
		return
	}
	if d.v.Now >= d.v.LeaseClear && !d.s.Op.Lossy {
		d.propose(Command{Fence: &Fence{OpID: d.s.Op.ID, Epoch: d.s.Epoch, Evidence: Evidence{Kind: EvidenceLease, Node: d.s.Op.From,
			Detail: fmt.Sprintf("every lease of at most %v has run out, %d ppm of drift included", d.s.LeaseMax, d.s.Settings.DriftPPM)}}})
		return
	}
	d.order(Order{Kind: OrderFence, Node: d.s.Op.From})
	if d.s.Op.Lossy {
		d.say("failover.lossy-evidence", d.s.Op.From, false, "waiting for its hbd to report the fence, or the external fence: a lease that ran out is not enough to accept a loss. Or vouch with --fenced %s that it is switched off", d.s.Op.From)
		return
	}
	d.say("failover.fence", d.s.Op.From, false, "waiting for its hbd to report the fence, or %v for its lease to run out", (d.v.LeaseClear - d.v.Now).Round(1e6))
}

// fenced: promote as soon as enough have answered.
func (d *deciding) fenced() {
	late := d.v.Now-d.v.StepSince > d.s.Settings.OrderTimeout
	choice, ok, verdicts := Elect(d.s, d.v.Answers, late || d.ownBeforeLoss(), late || d.allAnswered())
	d.out.Verdicts = append(d.out.Verdicts, verdicts...)
	if !ok && d.s.Op.Lossy {
		choice, ok = d.lossy(late)
	}
	if !ok {
		d.freeze()
		d.say("failover.promote", "", false, "nobody can be promoted yet: %d answers so far", len(d.v.Answers))
		return
	}
	if id, more := d.extraMayCome(); more && choice.Won == WonCount && choice.Fetch == "" {
		d.freeze()
		d.say("failover.outsider", id, false, "%s can be promoted; at most %v for the answer of %s, which may have received more", choice.To, extraPatience, id)
		return
	}
	members := d.newSet(choice.To)
	d.propose(Command{Promote: &Promote{OpID: d.s.Op.ID, Epoch: d.s.Epoch, To: choice.To, Won: choice.Won, Position: choice.Position, Fetch: choice.Fetch, Extra: choice.Extra,
		Answers: slices.Clone(d.v.Answers), Members: members, Acks: min(len(members), d.s.ackTarget())}})
}

// ownBeforeLoss: an old primary that is back with all its data comes before any loss, unless the operator named somebody, or it has failed already.
func (d *deciding) ownBeforeLoss() bool {
	op := d.s.Op
	return op.Lossy && op.To == "" && !slices.Contains(op.Excluded, op.From)
}

// lossy promotes what is left, once everybody who can has answered and the old primary is fenced for certain.
func (d *deciding) lossy(late bool) (Choice, bool) {
	if !d.s.Op.Fence.Kind.positive() {
		d.order(Order{Kind: OrderFence, Node: d.s.Op.From})
		d.say("failover.lossy-evidence", d.s.Op.From, false, "fenced by %s only: its own answer, the external fence or an operator's word (--fenced %s) is needed to accept a loss", d.s.Op.Fence.Kind, d.s.Op.From)
		if d.v.Fence != nil {
			d.propose(Command{Fence: &Fence{OpID: d.s.Op.ID, Epoch: d.s.Epoch, Evidence: *d.v.Fence}})
		}
		return Choice{}, false
	}
	if !late && !d.allAnswered() {
		return Choice{}, false
	}
	choice, ok, verdicts := ElectLossy(d.s, d.v.Answers)
	d.out.Verdicts = append(d.out.Verdicts, verdicts...)
	return choice, ok
}

// allAnswered: nobody who could still answer the freeze is waited for.
func (d *deciding) allAnswered() bool {
	for _, id := range d.s.DataNodes() {
		n := d.v.Node(id)
		if _, answered := answerOf(d.v.Answers, id); !answered && d.v.Fresh(d.s, id) && !n.Lost && !n.AgentLost && n.Obs.Server.State == ServerUp && n.Obs.Standing != StandingQuarantined {
			return false
		}
	}
	return true
}

// freeze asks every member of both sets, and the old primary, that has not answered yet. The old primary answers only if its data is its own;
// it is a candidate like any other, and the only one that is safe without a count.
func (d *deciding) freeze() {
	drained := d.s.Base != nil
	for _, id := range d.s.DataNodes() {
		if _, ok := answerOf(d.v.Answers, id); !ok {
			d.order(Order{Kind: OrderFreeze, Node: id, Drained: drained})
		}
	}
}

// newSet is whoever answered the freeze and can follow, as many as the set may have. They count with the incarnation that answered: whatever of
// older epochs it lacks, the barrier's acknowledgement proves that W of them hold.
func (d *deciding) newSet(to NodeID) []SyncMember {
	var out []SyncMember
	for _, old := range []bool{true, false} { // those of the old set first: they are close
		for _, id := range d.s.DataNodes() {
			a, ok := answerOf(d.v.Answers, id)
			_, was := d.s.Sync.Member(id)
			if id != to && ok && !d.s.beingRebuilt(id) && was == old && a.Epoch == d.s.Epoch && a.Held == 0 && a.Incarnation != "" && len(out) < d.s.setLimit() {
				out = append(out, SyncMember{Node: id, Incarnation: a.Incarnation})
			}
		}
	}
	return out
}

// settlePause is how long a new primary serves before its epoch is settled: an fsync on every node, and what the nodes do then, would come between the
// clients that return and their first commits. It is a time and not their return, because there may be none. An epoch may always be settled later.
const settlePause = 20 * time.Millisecond

// promoted: settle when the new primary serves; try another when it cannot finish.
func (d *deciding) promoted() {
	to := d.s.Primary
	n := d.v.Node(to)
	if d.v.Fresh(d.s, to) && n.Obs.Serving == d.s.Epoch && n.Obs.Epoch == d.s.Epoch {
		if d.v.ServingSince != 0 && d.v.Now-d.v.ServingSince < settlePause {
			d.say("promoting.wait", to, false, "%s serves epoch %d: settled in a moment, its clients come back first", to, d.s.Epoch)
			return
		}
		d.propose(Command{Settle: &Settle{OpID: d.s.Op.ID, Epoch: d.s.Epoch, Phases: append(slices.Clone(d.v.Phases), n.Obs.Phases...)}})
		return
	}
	if n.Lost {
		d.begin(KindTakeover, "promoted.lost", fmt.Sprintf("%s was lost before it served epoch %d: %s", to, d.s.Epoch, n.Reason), to)
		return
	}
	if d.v.Now-d.v.StepSince > d.s.Settings.PromoteTimeout && d.s.Op.Kind != KindBootstrap {
		if d.begin(KindFailover, "promoted.stuck", fmt.Sprintf("%s could not serve epoch %d within %v: %s", to, d.s.Epoch, d.s.Settings.PromoteTimeout, n.Obs.Reason), to) {
			return
		}
	}
	d.say("promoting.wait", to, false, "waiting for %s to serve epoch %d: %s", to, d.s.Epoch, orNone(n.Obs.Reason))
}

// serviceLost: restart in place within the budget, else fail over; and if that could not be won, restart all the same. A server that was stopped in good
// order, behind our back, is restarted first whatever the policy: nobody else surely holds what it told its clients in the end.
func (d *deciding) serviceLost() {
	n := d.v.Node(d.s.Primary)
	cause := fmt.Sprintf("mysqld on %s is %s: %s", d.s.Primary, n.Obs.Server.State, n.Obs.Server.Fault)
	if d.paused("service.down") {
		return
	}
	used := recentRestarts(d.s, d.v.Wall)
	overBudget := used >= d.s.Settings.RestartAttempts
	stopped := n.Obs.Server.Stopped
	if stopped {
		cause += "; somebody has stopped it, and commits that waited may have been called successful (MySQL): its own data comes first"
	}
	if !stopped && (d.s.Settings.OnServiceDown == OnServiceDownFailover || overBudget) {
		why := cause
		if overBudget {
			why = fmt.Sprintf("%s; the budget of %d restarts in %v is used up", cause, d.s.Settings.RestartAttempts, d.s.Settings.RestartWindow)
		}
		if d.begin(KindFailover, "service.down", why, "") {
			return
		}
	}
	d.say("service.restart", d.s.Primary, true, "%s: restart in place, attempt 1, %d of %d used in %v", cause, used, d.s.Settings.RestartAttempts, d.s.Settings.RestartWindow)
	d.propose(Command{Restart: &Restart{Epoch: d.s.Epoch, Attempt: 1, Cause: cause, Actor: string(d.v.Self)}})
}

// retryPause keeps a service that cannot start, and cannot be failed over from, from being started in a tight loop.
const retryPause = 5e9

// restarting: done when it serves again; the next attempt or a failover when the start failed or took too long.
func (d *deciding) restarting() {
	n := d.v.Node(d.s.Primary)
	fresh := d.v.Fresh(d.s, d.s.Primary)
	if fresh && n.Obs.Serving == d.s.Epoch && n.Obs.ServedIndex >= d.s.Op.Index {
		d.propose(Command{Restarted: &Restarted{OpID: d.s.Op.ID, Epoch: d.s.Epoch, Phases: append(d.soFar(), n.Obs.Phases...)}})
		return
	}
	late := d.v.Now-d.v.StepSince > d.s.Settings.RestartTimeout
	failed := fresh && n.Obs.FailedIndex >= d.s.Op.Index
	if !late && !failed {
		d.say("restart.wait", d.s.Primary, false, "waiting for attempt %d: %s", d.s.Op.Attempt, orNone(n.Obs.Reason))
		return
	}
	cause := fmt.Sprintf("attempt %d failed: %s", d.s.Op.Attempt, n.Obs.FailedReason)
	if late {
		cause = fmt.Sprintf("attempt %d did not end within %v", d.s.Op.Attempt, d.s.Settings.RestartTimeout)
	}
	used := recentRestarts(d.s, d.v.Wall)
	if used >= d.s.Settings.RestartAttempts {
		if d.begin(KindFailover, "restart.budget", fmt.Sprintf("%s; the budget of %d restarts in %v is used up", cause, d.s.Settings.RestartAttempts, d.s.Settings.RestartWindow), "") {
			return
		}
		if d.v.Now-d.v.StepSince < retryPause {
			return
		}
	}
	d.propose(Command{Restart: &Restart{Epoch: d.s.Epoch, OpID: d.s.Op.ID, Attempt: d.s.Op.Attempt + 1, Cause: cause}})
}
