package fsm

import "fmt"

// Asked is an unplanned change of the primary that an operator asks for.
type Asked struct {
	To     NodeID // whom the operator wants, "" for the best
	Lossy  bool   // acknowledged writes may be lost
	Fenced NodeID // the operator vouches that this node is switched off
	Actor  string
}

// AskFailover judges what an operator asks for: the command to propose, or the verdict that refuses it. With a loss accepted and a node vouched
// for it is to be called again after its command is applied, until the second result says that nothing is left to propose.
func AskFailover(s State, v View, a Asked) (Command, bool, *Verdict) {
	d := &deciding{s: s, v: v}
	if refused := d.mayAsk(a); refused != nil {
		return Command{}, false, refused
	}
	begin := &Begin{Kind: KindFailover, Epoch: s.Epoch, OpID: s.opID(), Actor: a.Actor, Phases: d.soFar(), To: a.To, Cause: "failover asked for by " + a.Actor}
	if s.opStep() == StepPromoted {
		begin.Exclude = s.Primary // it could not finish, or nobody would ask
	}
	switch {
	case s.Primary == "" && !a.Lossy:
		return Command{}, false, &Verdict{Rule: "failover.running", Node: s.opFrom(), Value: string(s.opStep()),
			Why: "a failover stands already, and is finished as soon as a rule allows it"}
	case s.Primary == "":
		return d.acceptLoss(a)
	case d.winnable("an operator"):
		return Command{At: v.Wall, Begin: begin}, true, nil // also with a loss accepted: nothing needs to be lost
	case !a.Lossy:
		return Command{}, false, lastRefusal(d.out.Verdicts)
	}
	if n := v.Node(s.Primary); v.Fresh(s, s.Primary) && !n.Lost && !n.AgentLost && n.Obs.Serving == s.Epoch {
		return Command{}, false, &Verdict{Rule: "failover.primary-serves", Node: s.Primary,
			Why: "the primary serves, and nothing it acknowledged needs to be lost: mend a replica, then hbctl promote"}
	}
	begin.Lossy, begin.Cause = true, begin.Cause+", who accepts that acknowledged writes may be lost"
	return Command{At: v.Wall, Begin: begin}, true, nil
}

// mayAsk holds for both kinds.
func (d *deciding) mayAsk(a Asked) *Verdict {
	s := d.s
	old := s.Primary
	if old == "" {
		old = s.opFrom()
	}
	switch {
	case !s.Bootstrapped():
		return &Verdict{Rule: "cluster.bootstrapped", Why: "the cluster is not bootstrapped: run hbctl bootstrap"}
	case s.Paused != nil && s.Primary != "":
		return &Verdict{Rule: "cluster.paused", Why: fmt.Sprintf("%s paused the cluster: %s", s.Paused.By, s.Paused.Why)}
	case s.Op != nil && s.Op.Kind.Planned() && s.Op.Step != StepPromoted:
		return &Verdict{Rule: "failover.planned", Node: s.Op.From, Value: string(s.Op.Step), Why: "a planned change is under way: it ends or rolls back by itself"}
	}
	if refused := d.mayReplace(old, a); refused != nil {
		return refused
	}
	switch {
	case a.Fenced != "" && a.Fenced != old:
		return &Verdict{Rule: "failover.fenced-other", Node: a.Fenced, Value: string(a.Fenced), Threshold: string(old), Why: fmt.Sprintf("the old primary is %s: switch that off, and vouch for it", orNone(string(old)))}
	case a.Fenced != "" && d.v.Fresh(s, a.Fenced):
		return &Verdict{Rule: "failover.not-off", Node: a.Fenced, Why: "its hbd has just reported: it is not switched off"}
	case a.Lossy && s.floor() > 0 && d.followersLeft(old) < 1+s.floor():
		return &Verdict{Rule: "failover.acknowledger", Node: a.To, Value: fmt.Sprint(d.followersLeft(old)), Threshold: fmt.Sprint(1 + s.floor()),
			Why: fmt.Sprintf("with sync.min_replicas %d a new primary needs that many others: bring one back first", s.Settings.SyncMinReplicas)}
	}
	return nil
}

// mayReplace judges the node that was asked for, if one was.
func (d *deciding) mayReplace(old NodeID, a Asked) *Verdict {
	if a.To == "" {
		return nil
	}
	m, known := d.s.Member(a.To)
	switch {
	case !known || m.Role != RoleData:
		return &Verdict{Rule: "candidate.not-data", Node: a.To, Why: "it has no database"}
	case a.To == old:
		return &Verdict{Rule: "candidate.is-primary", Node: a.To, Why: "it is the primary that is to be replaced"}
	case m.NeverPromote && !a.Lossy:
		return &Verdict{Rule: "candidate.never-promote", Node: a.To, Why: "never_promote is set"}
	case !d.v.Fresh(d.s, a.To) || d.v.Node(a.To).Obs.Server.State != ServerUp:
		return &Verdict{Rule: "candidate.silent", Node: a.To, Why: "it does not report a running mysqld"}
	}
	return nil
}

// followersLeft counts the data nodes with a running mysqld beside the old primary.
func (d *deciding) followersLeft(old NodeID) int {
	n := 0
	for _, id := range d.s.DataNodes() {
		if v := d.v.Node(id); id != old && d.v.Fresh(d.s, id) && !v.Lost && !v.AgentLost && v.Obs.Server.State == ServerUp {
			n++
		}
	}
	return n
}

// acceptLoss adds to a failover that stands what the operator accepts and vouches for; nothing when that is in the log already.
func (d *deciding) acceptLoss(a Asked) (Command, bool, *Verdict) {
	op := d.s.Op
	vouches := a.Fenced != "" && (op.Fence == nil || !op.Fence.Kind.positive())
	if op.Lossy && op.To == a.To && !vouches {
		return Command{}, false, nil
	}
	return Command{At: d.v.Wall, AcceptLoss: &AcceptLoss{OpID: op.ID, Epoch: d.s.Epoch, To: a.To, Vouched: vouches, Actor: a.Actor}}, true, nil
}

func lastRefusal(verdicts []Verdict) *Verdict {
	for i := len(verdicts) - 1; i >= 0; i-- {
		if !verdicts[i].OK {
			return &verdicts[i]
		}
	}
	return &Verdict{Rule: "failover.none", Why: "no rule would act"}
}

func (s State) opFrom() NodeID {
	if s.Op == nil {
		return ""
	}
	return s.Op.From
}

func (s State) opStep() Step {
	if s.Op == nil {
		return ""
	}
	return s.Op.Step
}
