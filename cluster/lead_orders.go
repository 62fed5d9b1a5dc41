package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// orderReply is what a node answers to an order.
type orderReply struct {
	Answer   *fsm.Answer   `json:"answer,omitempty"`
	Evidence *fsm.Evidence `json:"evidence,omitempty"`
	// Unapplied is the answer's, which the log does not know.
	Unapplied uint64 `json:"unapplied,omitempty"`
}

// send gives an order to a node, in the background and once at a time. An order that failed is decided anew at the next turn.
func (l *leading) send(ctx context.Context, o fsm.Order) {
	key := orderKey{o.Kind, o.Node, o.Epoch, o.Index}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight[key] {
		return
	}
	l.inFlight[key] = true
	go func() {
		ctx, cancel := context.WithTimeout(ctx, l.n.settings().OrderTimeout)
		reply, err := l.n.order(ctx, o)
		cancel()
		l.result(o, reply, err)
		if err != nil {
			// A node that refuses at once must not be asked in a tight loop.
			select {
			case <-time.After(50 * time.Millisecond):
			case <-l.done:
			}
		}
		l.mu.Lock()
		delete(l.inFlight, key)
		l.mu.Unlock()
		wake(l.wake)
	}()
}

// order carries an order to its node; this node's own needs no network.
func (n *Node) order(ctx context.Context, o fsm.Order) (orderReply, error) {
	if o.Node == n.cfg.Node {
		return n.obey(ctx, o)
	}
	if o.Kind == fsm.OrderFence && n.cfg.Fencer != nil {
		return n.orderOrHook(ctx, o)
	}
	var out orderReply
	err := n.callNode(ctx, o.Node, "order", o, &out)
	return out, err
}

// orderOrHook asks the node's hbd; only when that does not answer, the external fence. A power switch is not for a host that co-operates.
func (n *Node) orderOrHook(ctx context.Context, o fsm.Order) (orderReply, error) {
	c, cancel := context.WithTimeout(ctx, n.settings().OrderTimeout/3)
	defer cancel()
	var out orderReply
	asked := n.callNode(c, o.Node, "order", o, &out)
	if asked == nil {
		return out, nil
	}
	if err := n.cfg.Fencer.Fence(ctx, o.Node); err != nil {
		return orderReply{}, errors.Join(asked, err)
	}
	return orderReply{Evidence: &fsm.Evidence{Kind: fsm.EvidenceHook, Node: o.Node, Detail: "the external fence reported success"}}, nil
}

// result keeps an answer if the operation it belongs to still runs.
func (l *leading) result(o fsm.Order, reply orderReply, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.n.log.Info("order not carried out", "order", o.Kind, "node", o.Node, "epoch", o.Epoch, "error", err.Error())
		if l.step.op == o.OpID && (o.Kind == fsm.OrderRelease || o.Kind == fsm.OrderAwait) {
			l.failed = err.Error()
		}
		return
	}
	if l.step.op != o.OpID || l.step.epoch != o.Epoch {
		return
	}
	switch o.Kind {
	case fsm.OrderFreeze:
		if reply.Answer != nil && !slices.ContainsFunc(l.answers, func(a fsm.Answer) bool { return a.Node == o.Node }) {
			answer := *reply.Answer
			answer.Unapplied = reply.Unapplied
			l.answers = append(l.answers, answer)
			l.n.log.Info("freeze answered", "node", o.Node, "received", reply.Answer.Received, "held", reply.Answer.Held, "last_epoch", reply.Answer.LastEpoch)
		}
	case fsm.OrderFence:
		l.fence = reply.Evidence
	case fsm.OrderRelease:
		l.release = reply.Answer
	case fsm.OrderAwait:
		l.reached = true
	}
}

// chaining follows a replica of a candidate until it has received what the candidate had after it was seen connected.
type chaining struct {
	since  fsm.Instant
	target string
}

// tryChain marks which of those chained to a candidate have not shown yet that anything reaches them from there: the pause would wait for it. Where
// nobody writes nothing need come.
func (l *leading) tryChain(st fsm.State, v fsm.View) fsm.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st.Op == nil || st.Op.Step != fsm.StepChained {
		clear(l.chain)
		return v
	}
	candidate := v.Node(st.Op.To)
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if !fsm.Below(st, *n, st.Op.To) {
			delete(l.chain, n.ID)
			continue
		}
		c, seen := l.chain[n.ID]
		if !seen {
			c.since = v.Now
		}
		if c.target == "" && candidate.At > c.since {
			c.target = candidate.Obs.Server.Executed
		}
		l.chain[n.ID] = c
		n.Untried = c.target == "" || !fsm.Holds(st.Server, n.Obs.Server.Received, c.target)
	}
	return v
}

// caught marks, in place of a target, an incarnation that has reached it.
const caught = "\x00caught"

// followCatching moves each uncounted incarnation on: ask the primary where it is, then wait until the member has received all of that.
func (l *leading) followCatching(ctx context.Context, st fsm.State, v fsm.View) {
	if st.Primary == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range st.DataNodes() {
		nv := v.Node(id)
		inc := nv.Obs.Incarnation
		m, in := st.Sync.Member(id)
		c := l.catching[id]
		switch {
		case id == st.Primary || inc == "" || in && inc == m.Incarnation || !v.Fresh(st, id) || nv.Obs.Standing != fsm.StandingReplica:
			delete(l.catching, id)
		case c.incarnation != inc:
			l.catching[id] = catching{incarnation: inc, asked: true}
			go l.askTarget(ctx, st, id, inc)
		case !c.asked:
			c.asked = true
			l.catching[id] = c
			go l.askTarget(ctx, st, id, inc)
		case c.target != "" && c.target != caught && fsm.Holds(st.Server, nv.Obs.Server.Received, c.target):
			c.target = caught
			l.catching[id] = c
			wake(l.wake)
		}
	}
}

// askTarget reads the primary's position; the incarnation was seen before the question was sent.
func (l *leading) askTarget(ctx context.Context, st fsm.State, node fsm.NodeID, inc string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	pos, err := l.n.positionOf(ctx, st.Primary, st.Epoch)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.catching[node]
	if c.incarnation != inc {
		return
	}
	c.target, c.asked = pos, err == nil && pos != ""
	l.catching[node] = c
}
