package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/fsm"
)

// Errors of the requests that change something. cmd/hbd maps them to those of httpd.
var (
	// ErrNotLeader: this node does not lead and has begun nothing.
	ErrNotLeader = errors.New("this node is not the leader")
	// ErrUnknownOutcome: the request may or may not take effect.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrUnknownNode: the request names a node that is no member.
	ErrUnknownNode = errors.New("no such node")
)

// soonEnough is how long a request waits for a candidate that connects or joins the sync set.
const soonEnough = 3 * time.Second

// Switchover begins a planned change, or says by which gate it is refused. It answers as soon as the operation is committed.
func (n *Node) Switchover(ctx context.Context, req api.SwitchoverRequest) (api.Result, error) {
	for until := now() + soonEnough; ; {
		r, err := n.switchover(ctx, req)
		soon := r.Outcome == api.OutcomeRefused && fsm.PassesSoon(fsm.Verdict{Rule: r.Rule, Value: r.Value})
		if err != nil || !soon || req.Plan || now() > until {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (n *Node) switchover(ctx context.Context, req api.SwitchoverRequest) (api.Result, error) {
	st := n.store.State()
	l := n.leading.Load()
	if l == nil {
		return api.Result{}, ErrNotLeader
	}
	if !st.Bootstrapped() {
		return refused("cluster.bootstrapped", "", "the cluster is not bootstrapped: run hbctl bootstrap"), nil
	}
	if st.Paused != nil && !req.Plan {
		return refused("cluster.paused", "", "%s paused the cluster: %s", st.Paused.By, orUnknown(st.Paused.Why)), nil
	}
	v := fsm.Classify(st, l.view(st))
	from, to, result, err := n.chooseSwitchover(st, v, req)
	if err != nil || result != nil {
		return deref(result), err
	}
	gates := fsm.SwitchoverGates(st, v, to)
	if slices.ContainsFunc(gates, fsm.PassesSoon) && !req.Plan && req.IfPlan == "" {
		// It is asked again in a moment. The clients only once: what a server tells of open transactions is no younger when asked for faster.
		if r := refusedByGate(st, from, to, gates, req); r != nil {
			return *r, nil
		}
	}
	v.Busy = n.askSessions(ctx, from)
	v.Now = now() // the answer is younger than the view
	gates = append(fsm.SwitchoverGates(st, v, to), fsm.BusyGates(st, v)...)
	if req.Plan {
		return n.plan(st, v, from, to, gates, req), nil
	}
	if r := refusedByGate(st, from, to, gates, req); r != nil {
		return *r, nil
	}
	err = n.propose(ctx, fsm.Command{At: time.Now(), Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: st.Epoch, From: from, To: to, Actor: req.Actor,
		Busy: policyOf(req), Wait: seconds(req.WaitSeconds), Cause: fmt.Sprintf("switchover to %s asked for by %s", to, orUnknown(req.Actor))}})
	if err != nil {
		return outcome(err)
	}
	return api.Result{Outcome: api.OutcomeUnknown, Operation: n.newestOperation(), Message: fmt.Sprintf("switchover from %s to %s has begun", from, to)}, nil
}

// chooseSwitchover fills in what the request leaves open.
func (n *Node) chooseSwitchover(st fsm.State, v fsm.View, req api.SwitchoverRequest) (from, to fsm.NodeID, result *api.Result, err error) {
	from, to = fsm.NodeID(req.From), fsm.NodeID(req.To)
	if from == "" {
		from = st.Primary
	}
	if _, ok := st.Member(from); from != "" && !ok {
		return "", "", nil, fmt.Errorf("%w: %q", ErrUnknownNode, req.From)
	}
	if from != st.Primary {
		r := refused("switchover.from", from, "%s is not the primary, %s is", from, orUnknown(string(st.Primary)))
		return "", "", &r, nil
	}
	if to == "" {
		var why []fsm.Verdict
		if to, why = fsm.BestCandidate(st, v, from); to == "" {
			r := refused("switchover.no-candidate", from, "no node can take over")
			if i := slices.IndexFunc(why, fsm.PassesSoon); i >= 0 {
				why = why[i : i+1]
			}
			for _, w := range why {
				r.Rule, r.Node, r.Value, r.Threshold = w.Rule, string(w.Node), w.Value, w.Threshold
				r.Message = fmt.Sprintf("no node can take over: %s: %s", w.Node, w.Why)
			}
			return "", "", &r, nil
		}
	}
	if _, ok := st.Member(to); !ok {
		return "", "", nil, fmt.Errorf("%w: %q", ErrUnknownNode, req.To)
	}
	return from, to, nil, nil
}

// Pause forbids new operations. An operation that has begun runs to its end.
func (n *Node) Pause(ctx context.Context, req api.PauseRequest) (api.Result, error) {
	if n.leading.Load() == nil {
		return api.Result{}, ErrNotLeader
	}
	if req.ForSeconds != 0 {
		return refused("pause.for", "", "a pause that ends by itself is not supported yet: pause without --for and resume by hand"), nil
	}
	if err := n.propose(ctx, fsm.Command{At: time.Now(), SetPause: &fsm.SetPause{Paused: true, By: orUnknown(req.Actor), Why: req.Why}}); err != nil {
		return outcome(err)
	}
	return api.Result{Outcome: api.OutcomeDone, Message: "paused: no new operation begins; leases and self-fencing go on"}, nil
}

// Resume ends a pause.
func (n *Node) Resume(ctx context.Context, req api.ResumeRequest) (api.Result, error) {
	if n.leading.Load() == nil {
		return api.Result{}, ErrNotLeader
	}
	if err := n.propose(ctx, fsm.Command{At: time.Now(), SetPause: &fsm.SetPause{By: req.Actor}}); err != nil {
		return outcome(err)
	}
	return api.Result{Outcome: api.OutcomeDone, Message: "resumed"}, nil
}

// outcome sorts the errors of a proposal by what they prove.
func outcome(err error) (api.Result, error) {
	switch {
	case errors.Is(err, fsm.ErrRefused):
		return api.Result{Outcome: api.OutcomeRefused, Rule: "log.refused", Message: err.Error()}, nil
	case errors.Is(err, raftnode.ErrUnknownOutcome):
		return api.Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case errors.Is(err, raftnode.ErrNotLeader):
		return api.Result{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return api.Result{}, err
}

// Operation tells how far an operation is; with wait it returns when something changed.
func (n *Node) Operation(ctx context.Context, id uint64, wait time.Duration) (api.Result, bool) {
	changed := n.store.watch()
	defer n.store.unwatch(changed)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	first, ok := n.operation(id)
	for ok && first.Running() && wait > 0 {
		select {
		case <-ctx.Done():
			return first, ok
		case <-timer.C:
			return n.operation(id)
		case <-changed:
			next, _ := n.operation(id)
			if !next.Running() || next.Message != first.Message || len(next.Phases) != len(first.Phases) {
				return next, true
			}
		}
	}
	return first, ok
}

func (n *Node) operation(id uint64) (api.Result, bool) {
	st := n.store.State()
	if st.Op != nil && st.Op.ID == id {
		r := api.Result{Outcome: api.OutcomeUnknown, Operation: id, Message: fmt.Sprintf("%s is at step %s", st.Op.Kind, st.Op.Step)}
		for _, v := range n.refusals() {
			if concerns(v, false) {
				r.Rule, r.Node, r.Value, r.Threshold = v.Rule, string(v.Node), v.Value, v.Threshold
				r.Message = fmt.Sprintf("%s is at step %s: %s", st.Op.Kind, st.Op.Step, v.Why)
			}
		}
		return r, true
	}
	for _, in := range st.Incidents {
		if in.ID != id {
			continue
		}
		r := api.Result{Operation: id, Phases: phasesOf(in.Phases), Outcome: api.OutcomeDone, Message: fmt.Sprintf("%s done: epoch %d, primary %s", in.Kind, in.Epoch, in.To)}
		if in.Outcome != fsm.OutcomeDone {
			r.Outcome, r.Rule, r.Message = api.OutcomeFailed, "operation."+string(in.Outcome), fmt.Sprintf("%s %s: %s", in.Kind, in.Outcome, in.Reason)
		}
		return r, true
	}
	return api.Result{}, false
}

func (n *Node) newestOperation() uint64 {
	st := n.store.State()
	if st.Op != nil {
		return st.Op.ID
	}
	return max(st.NextOperation, 1) - 1
}

// LeaderAPI is where the leader answers.
func (n *Node) LeaderAPI() (addr string, self bool) {
	r := n.raft()
	if r == nil {
		return "", false
	}
	if n.leading.Load() != nil {
		return n.self.API, true
	}
	id, _ := r.Leader()
	for _, m := range n.cfg.Peers {
		if string(m.ID) == id.Node() && m.ID != n.cfg.Node {
			return m.API, false
		}
	}
	return "", false
}

func deref(r *api.Result) api.Result {
	if r == nil {
		return api.Result{}
	}
	return *r
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
