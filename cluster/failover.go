package cluster

import (
	"context"
	"fmt"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// asking is an operator's request on its way to the leader's loop, which alone commits what ends an epoch.
type asking struct {
	fsm.Asked
	plan  bool // judge only
	reply chan asked
}

// asked is what the loop judged, and how its commit went.
type asked struct {
	refused *fsm.Verdict
	command fsm.Command
	some    bool // there was something to propose
	err     error
}

// Failover begins an unplanned change, or accepts a loss in one that stands, or says by which rule it is refused. It answers as soon as that is
// committed.
func (n *Node) Failover(ctx context.Context, req api.FailoverRequest) (api.Result, error) {
	l := n.leading.Load()
	if l == nil {
		return api.Result{}, ErrNotLeader
	}
	st := n.store.State()
	for _, id := range []string{req.To, req.Fenced} {
		if _, ok := st.Member(fsm.NodeID(id)); id != "" && st.Bootstrapped() && !ok {
			return api.Result{}, fmt.Errorf("%w: %q", ErrUnknownNode, id)
		}
	}
	q := fsm.Asked{To: fsm.NodeID(req.To), Lossy: req.AcceptDataLoss, Fenced: fsm.NodeID(req.Fenced), Actor: orUnknown(req.Actor)}
	if req.Plan {
		return n.planFailover(ctx, l, q)
	}
	var a asked
	// One command for what is accepted, one for what is vouched for.
	for turn := range 2 {
		var err error
		if a, err = l.ask(ctx, q, false); err != nil {
			return api.Result{}, err
		}
		if a.refused != nil && turn == 0 {
			return refusedBy(*a.refused), nil
		}
		if a.err != nil {
			return outcome(a.err)
		}
		if !a.some || a.refused != nil || !q.Lossy || q.Fenced == "" || a.command.AcceptLoss != nil || !a.command.Begin.Lossy {
			break
		}
	}
	n.log.Warn("an operator asked for a failover", "actor", q.Actor, "to", q.To, "accepts_loss", q.Lossy, "vouched_for", q.Fenced)
	return api.Result{Outcome: api.OutcomeUnknown, Operation: n.newestOperation(), Message: "the failover has begun"}, nil
}

// planFailover tells what is at risk and what would be begun.
func (n *Node) planFailover(ctx context.Context, l *leading, q fsm.Asked) (api.Result, error) {
	a, err := l.ask(ctx, q, true)
	if err != nil {
		return api.Result{}, err
	}
	r := api.Result{Outcome: api.OutcomeDone, Message: "plan only: a failover would begin, and nothing needs to be lost"}
	switch {
	case a.refused != nil:
		r = refusedBy(*a.refused)
	case !a.some:
		r.Message = "plan only: a failover that accepts a loss stands already"
	case a.command.AcceptLoss != nil || a.command.Begin != nil && a.command.Begin.Lossy:
		r.Message = "plan only: a failover would go on that may lose acknowledged writes"
	}
	if q.Lossy {
		r.Risk = n.risk(ctx)
	}
	return r, nil
}

func refusedBy(v fsm.Verdict) api.Result {
	return api.Result{Outcome: api.OutcomeRefused, Rule: v.Rule, Node: string(v.Node), Value: v.Value, Threshold: v.Threshold, Message: v.Why}
}

// ask hands a request to the loop and waits for its answer.
func (l *leading) ask(ctx context.Context, q fsm.Asked, plan bool) (asked, error) {
	a := asking{Asked: q, plan: plan, reply: make(chan asked, 1)}
	select {
	case l.asks <- a:
	case <-l.done:
		return asked{}, ErrNotLeader
	case <-ctx.Done():
		return asked{}, fmt.Errorf("%w: %w", ErrNotLeader, ctx.Err()) // nobody took it: nothing was begun
	}
	select {
	case out := <-a.reply:
		return out, nil
	case <-l.done:
		return asked{}, fmt.Errorf("%w: this node lost the leadership meanwhile", ErrUnknownOutcome)
	case <-ctx.Done():
		return asked{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}

// answer judges a request in the loop, and commits what it leads to.
func (l *leading) answer(ctx context.Context, a asking) {
	st := l.n.store.State()
	v := l.ageSet(st, fsm.Classify(st, l.view(st)))
	var out asked
	out.command, out.some, out.refused = fsm.AskFailover(st, v, a.Asked)
	if out.some && !a.plan {
		out.err = l.commit(ctx, st, out.command)
	}
	a.reply <- out
}
