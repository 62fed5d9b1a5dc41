package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// followLoop is the local half of every node: gather, let fsm.Reconcile judge, carry out, gather again. Closing the gate never waits behind a
// change of the database: it is done in this loop itself, everything else by one worker beside it.
func (n *Node) followLoop(ctx context.Context) {
	if n.cfg.Prober == nil {
		<-ctx.Done()
		return
	}
	w := &worker{n: n}
	defer w.stop()
	changed := n.store.watch()
	defer n.store.unwatch(changed)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			n.holder.kick()
		case <-n.cfg.Prober.Changed():
			n.peers.kickAll()
			n.wakeLeading()
		case <-n.wake:
		case <-timer.C:
		}
		st := n.store.State()
		l := n.gather(st)
		actions := fsm.Reconcile(st, n.cfg.Node, l)
		n.pauses.note(st)
		n.noteTurn(st, l, actions)
		rest, still := n.guards(ctx, actions), n.holdsStill(st)
		if still == 0 {
			w.give(ctx, rest)
			still = n.turnPause(st)
		}
		n.attend(st, standing(st, n.cfg.Node, l))
		timer.Reset(still)
	}
}

// guards carries out at once what only takes away at the gate, and returns the rest.
func (n *Node) guards(ctx context.Context, actions []fsm.Action) []fsm.Action {
	var rest []fsm.Action
	for _, a := range actions {
		switch a.Kind {
		case fsm.ActCloseGate:
			n.closeGate(a.Why)
			n.peers.kickAll()
		case fsm.ActNone:
		default:
			rest = append(rest, a)
		}
	}
	return rest
}

// noteTurn keeps what this turn saw, for observations and status, and logs a change of rule.
func (n *Node) noteTurn(st fsm.State, l fsm.Local, actions []fsm.Action) {
	t := &turn{at: now(), local: l, standing: standing(st, n.cfg.Node, l)}
	if len(actions) > 0 {
		last := actions[len(actions)-1]
		t.rule, t.reason = last.Rule, last.Why
	}
	if t.standing == fsm.StandingCatching && t.rule == "replica.following" {
		t.reason = "its receiver connects to the primary" // nothing to do, and nothing follows yet
	}
	if l.Quarantine != "" {
		t.reason = l.Quarantine
	}
	if held := n.repairs.heldBack(t.rule, t.at); held != "" {
		t.reason += "; " + held
	}
	if e := n.stats.lastError(); e != "" && t.rule != "primary.serving" && t.rule != "replica.following" {
		t.reason += "; last error: " + e
	}
	old := n.local.Swap(t)
	if old == nil || old.rule != t.rule || old.standing != t.standing {
		n.log.Info("local rule", "rule", t.rule, "why", t.reason, "standing", t.standing, "epoch", st.Epoch)
		n.peers.kickAll()
		n.wakeLeading()
	}
}

// standing is the node's condition in one word.
func standing(st fsm.State, self fsm.NodeID, l fsm.Local) fsm.Standing {
	counts := st.MayAcknowledge(self)
	following := l.FollowsRight && l.Server.IORunning && !l.Server.IOConnecting && l.Server.SQLRunning && l.Server.ReplicaSync == counts && l.Followed >= st.Epoch
	switch {
	case l.Quarantine != "":
		return fsm.StandingQuarantined
	case !l.Fresh:
		return fsm.StandingStarting
	case st.Primary == self && l.GateOpen && l.VIPHeld && !l.Server.ReadOnly:
		return fsm.StandingServing
	case st.Primary == self:
		return fsm.StandingPrimary
	case l.Held > l.Followed:
		return fsm.StandingFenced
	case st.Primary == "":
		return fsm.StandingFrozen
	case following:
		return fsm.StandingReplica
	}
	return fsm.StandingCatching
}

// worker carries out one list of actions at a time. A list that no longer fits is cancelled.
type worker struct {
	n       *Node
	current []fsm.Action
	cancel  context.CancelFunc
	done    chan struct{}
	again   backoff
}

// backoff keeps an action that does not help from being repeated in a tight loop.
type backoff struct {
	kind  fsm.ActionKind
	epoch uint64
	times int
	until fsm.Instant
}

func (w *worker) busy() bool {
	if w.done == nil {
		return false
	}
	select {
	case <-w.done:
		w.done = nil
		return false
	default:
		return true
	}
}

// give starts a list, unless one is in hand. One in hand that the newest judgement does not ask for any more is cancelled; the next turn, which
// its end wakes, starts the new one.
func (w *worker) give(ctx context.Context, actions []fsm.Action) {
	if w.busy() {
		// A start, a kill or a return is not cut off half-way because the server's state moved on under it: it moves it. So does a reconnect.
		wanted, moves := false, []fsm.ActionKind{fsm.ActStart, fsm.ActKill, fsm.ActReturn}
		if !fences(actions) || fences(w.current) { // else nothing else is worth the wait of a server that may be written to
			moves = append(moves, fsm.ActReconnect)
			for _, a := range actions {
				wanted = wanted || slices.ContainsFunc(w.current, func(c fsm.Action) bool { return c.Kind == a.Kind && c.Epoch == a.Epoch })
			}
		}
		for _, c := range w.current {
			wanted = wanted || (slices.Contains(moves, c.Kind) && c.Epoch == actions0(actions).Epoch)
		}
		if !wanted && len(actions) > 0 {
			w.cancel()
		}
		return
	}
	if len(actions) == 0 {
		return
	}
	first := actions[0]
	if w.again.kind == first.Kind && w.again.epoch == first.Epoch && now() < w.again.until {
		return
	}
	if actions = w.n.dueRepairs(actions); len(actions) == 0 {
		return
	}
	first = actions[0]
	c, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	w.current, w.cancel, w.done = actions, cancel, done
	w.repeat(first)
	go func() {
		defer cancel()
		w.n.carryOut(c, actions)
		close(done)
		wake(w.n.wake)
	}()
}

// fences: the list has in it to make mysqld take no writes.
func fences(actions []fsm.Action) bool {
	return slices.ContainsFunc(actions, func(a fsm.Action) bool { return a.Kind == fsm.ActSelfFence })
}

// repeat doubles the pause before the same action is tried again: 10 ms, 20 ms, ... 640 ms.
func (w *worker) repeat(a fsm.Action) {
	if w.again.kind != a.Kind || w.again.epoch != a.Epoch || now()-w.again.until > 2*time.Second {
		w.again = backoff{kind: a.Kind, epoch: a.Epoch}
	}
	w.again.until = now() + (10*time.Millisecond)<<min(w.again.times, 6)
	w.again.times++
}

func (w *worker) stop() {
	if w.done != nil {
		w.cancel()
		<-w.done
	}
}

// actions0 is the first of a list, or none.
func actions0(actions []fsm.Action) fsm.Action {
	if len(actions) == 0 {
		return fsm.Action{}
	}
	return actions[0]
}
