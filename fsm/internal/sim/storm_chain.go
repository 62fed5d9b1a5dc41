package sim

import "github.com/highbase/highbase/fsm"

// These storms strike while the others replicate from the candidate of a planned change.

// askFor asks for a planned change to a node that is a member of the set, and tells which.
func (w *World) askFor(p *node) *node {
	s := w.raft.state()
	to := w.replicas(p)[0]
	if len(s.Sync.Members) > 0 {
		to = w.node(s.Sync.Members[w.rng.IntN(len(s.Sync.Members))].Node)
	}
	w.ask(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: s.Epoch, From: p.id, To: to.id, Actor: "operator"}})
	return to
}

// others are the data nodes that a planned change is not about.
func (w *World) others(p, to *node) []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.data && n != p && n != to {
			out = append(out, n)
		}
	}
	return out
}

// chainTorn: as soon as the others are told to replicate from the candidate, they do not reach it, and it does not reach the primary, which dies soon
// after. (If they acknowledge before they have left the primary, it needs nobody who counts.)
func (w *World) chainTorn() {
	p := w.primaryOrAny()
	to := w.askFor(p)
	w.when(3*second, func(s fsm.State) bool { return s.Op != nil && s.Op.Step == fsm.StepChained && s.Primary == p.id }, func() {
		w.cutOff([]*node{to}, append(w.others(p, to), p))
		w.after(w.between(100*ms, 400*ms), func() {
			p.crashHost(w.between(2*second, 4*second))
			w.healNet()
		})
	})
}

// chainDies: the candidate, or its mysqld alone, dies while the others replicate from it; sometimes the primary follows.
func (w *World) chainDies() {
	p := w.primaryOrAny()
	to := w.askFor(p)
	w.when(3*second, func(s fsm.State) bool { return s.Op != nil && s.Op.Step == fsm.StepChained && s.Primary == p.id }, func() {
		w.after(w.between(0, 150*ms), func() {
			if w.chance(0.5) {
				to.crashServer()
			} else {
				to.crashHost(w.between(300*ms, 4*second))
			}
			if w.chance(0.4) {
				w.after(w.between(0, 2*second), func() { p.crashHost(w.between(500*ms, 4*second)) })
			}
		})
	})
}

// chainForgets: a replica that was chained to the new primary, and does not know yet that it is one, acknowledges what it receives and has not
// applied it. Nobody else does. Then the new primary is cut off from all others, that replica reboots, comes back to it, is cut off in its turn,
// and the new primary dies, before its epoch is settled. The old primary is there all the time, with all it had. (If the replica says that it has
// forgotten nothing of the new epoch, the two decide that there was nothing.)
func (w *World) chainForgets() {
	p := w.primaryOrAny()
	to := w.askFor(p)
	w.leadFromAfar(p, to)
	w.when(3*second, func(s fsm.State) bool { return s.Op != nil && s.Op.Step == fsm.StepReleasing && s.Primary == p.id }, func() {
		for _, o := range w.others(p, to) {
			o.stallApplier(3 * second)
			o.freezeAgent(150 * ms)
		}
		w.when(second, func(s fsm.State) bool { return s.Primary == to.id }, func() {
			epoch := w.raft.state().Epoch
			w.cutOff([]*node{p}, append(w.others(p, to), to))
			w.when(second, func(fsm.State) bool { return to.gateLive() && to.barrierDone(epoch) }, func() { w.forgetChained(p, to, epoch) })
		})
	})
}

func (w *World) forgetChained(p, to *node, epoch uint64) {
	others := w.others(p, to)
	w.cutOff([]*node{to}, w.farFrom(to, others))
	w.after(w.between(20*ms, 60*ms), func() {
		for _, o := range others {
			o.crashHost(w.between(20*ms, 60*ms))
		}
		w.when(2*second, func(fsm.State) bool { return others[0].hostUp && others[0].followed == epoch }, func() {
			w.cutOff([]*node{to}, others)
			to.crashHost(w.between(6*second, 8*second))
			w.healNet()
		})
	})
}

// leadFromAfar makes somebody leader who is none of these, if there is one.
func (w *World) leadFromAfar(these ...*node) {
	for _, n := range w.nodes {
		near := n.data
		for _, o := range these {
			near = near || n == o
		}
		if !near && w.majority(n) {
			w.elect(n)
			return
		}
	}
}
