package sim

import (
	"time"

	"github.com/highbase/highbase/fsm"
)

// These storms wait for the moment in a change of the set, of the epoch or of the primary at which one rule alone stands between a fault and a loss.

// when looks every few milliseconds whether something has come to pass, for a while.
func (w *World) when(patience time.Duration, done func(s fsm.State) bool, then func()) {
	switch {
	case patience <= 0 || w.calm:
	case done(w.raft.state()):
		then()
	default:
		w.after(3*ms, func() { w.when(patience-3*ms, done, then) })
	}
}

// cutOff separates two groups of hosts from each other.
func (w *World) cutOff(these, those []*node) {
	for _, a := range these {
		for _, b := range those {
			w.cut[a.idx][b.idx], w.cut[b.idx][a.idx] = true, true
		}
	}
}

// tornSwitchover: the news of a planned change reach those concerned late and out of order, or not at all once the primary has let go. (A primary that
// takes its role back by itself does so after another has been promoted.)
func (w *World) tornSwitchover() {
	p := w.primaryOrAny()
	w.askFor(p)
	w.when(3*time.Second, func(s fsm.State) bool { return s.Op != nil && s.Op.Step == fsm.StepReleasing && s.Primary == p.id }, func() {
		if w.chance(0.5) {
			w.slow = 0.8
			w.after(1200*ms, func() { w.slow = 0 })
			return
		}
		w.when(time.Second, func(s fsm.State) bool { return s.Op != nil && s.Op.ID == p.releasedOp }, func() {
			w.after(w.between(10*ms, 20*ms), func() {
				p.isolate()
				w.after(1500*ms, w.healNet)
			})
		})
	})
}

// holderDies: one replica alone has received what was acknowledged and has not applied it. The primary dies, its epoch is ended, and only then that
// replica dies, and has forgotten when it comes back. The primary is back before long, the only one that holds everything. (Who counts an answer
// that was not given loses the writes, and so does the primary that drops what the others lack while nobody has settled.)
func (w *World) holderDies() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	holder := others[0]
	holder.stallApplier(3 * time.Second)
	w.cutOff(others[1:], []*node{p})
	w.say(nil, "only %s receives from %s", holder.id, p.id)
	w.after(w.between(60*ms, 250*ms), func() {
		p.crashHost(w.between(1500*ms, 2500*ms))
		w.healNet()
		w.when(3*time.Second, func(s fsm.State) bool { return s.Epoch > p.held }, func() { holder.crashHost(w.between(300*ms, 2*time.Second)) })
	})
}

// replicasCut: most replicas are cut off for as long as it takes to do without them, and as soon as the primary has prepared that it dies, with
// those that still acknowledged. The others come back as they were. (If fewer acknowledgements were waited for before that was in the log, they
// count and lack what was acknowledged meanwhile.)
func (w *World) replicasCut() {
	p := w.primaryOrAny()
	s := w.raft.state()
	others := w.replicas(p)
	away := others[max(0, s.Sync.Acks-1):]
	left := others[:max(0, s.Sync.Acks-1)]
	for _, o := range away {
		o.isolate()
	}
	w.when(4*time.Second, func(s fsm.State) bool {
		return s.Change != nil && s.Change.Acks < s.Sync.Acks && p.prepared == s.Change.Index
	}, func() {
		w.after(w.between(20*ms, 120*ms), func() {
			w.healNet()
			for _, o := range append(left, p) {
				o.crashHost(w.between(2*time.Second, 4*time.Second))
			}
		})
	})
}

// regrown: the replicas die, acknowledgements are given up, the replicas come back; as soon as more acknowledgements are intended the primary's hbd
// freezes, and soon after the network leaves it no more than one replica. (If they were promised before mysqld waits for them, the others take over
// without what it acknowledged meanwhile.)
func (w *World) regrown() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	most := max(w.cfg.Data/2+1, 2)
	for _, o := range others[:min(most, len(others))] {
		o.crashHost(w.between(2200*ms, 2800*ms))
	}
	w.when(6*time.Second, func(s fsm.State) bool {
		return s.Change != nil && s.Change.Kind == fsm.ChangeAcks && s.Change.Acks > s.Sync.Acks && s.Primary == p.id
	}, func() {
		p.freezeAgent(w.between(2500*ms, 3500*ms))
		w.after(w.between(0, 60*ms), func() {
			near := others[:max(0, w.cfg.Data/2-1)]
			w.healNet()
			w.cutOff(append([]*node{p}, near...), w.farFrom(p, near))
			w.after(w.between(1800*ms, 3*time.Second), w.healNet)
		})
	})
}

// farFrom is everybody but these.
func (w *World) farFrom(p *node, near []*node) []*node {
	var out []*node
	for _, n := range w.nodes {
		isNear := n == p
		for _, o := range near {
			isNear = isNear || n == o
		}
		if !isNear {
			out = append(out, n)
		}
	}
	return out
}

// regained: all replicas die, acknowledgements are given up and won back. Soon after the primary's hbd freezes while its mysqld goes on, and the
// replicas' connections are shaky. (An order to wait for nobody that is carried out only now lets it acknowledge alone.)
func (w *World) regained() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	for _, o := range others {
		o.crashHost(w.between(2*time.Second, 2500*ms))
	}
	w.when(4*time.Second, func(s fsm.State) bool { return s.Sync.Acks == 0 && s.Primary == p.id }, func() {
		w.when(4*time.Second, func(s fsm.State) bool { return s.Sync.Acks > 0 && s.Primary == p.id }, func() {
			w.after(w.between(0, 200*ms), func() {
				p.freezeAgent(3 * time.Second)
				w.cutOff([]*node{p}, w.farFrom(p, nil))
				w.after(w.between(1500*ms, 2500*ms), w.healNet)
			})
		})
	})
}

// rebootFrozen: the primary is cut off and its hbd frozen, so that commits wait there. Once all replicas have promised to follow it no longer it is
// back in the network, and one of them reboots. (If replication starts by itself, or a repair starts it, that one acknowledges what nobody counts.)
func (w *World) rebootFrozen() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	p.isolate()
	p.freezeAgent(3 * time.Second)
	w.when(2*time.Second, func(s fsm.State) bool {
		for _, o := range others {
			if o.frozen < s.Epoch || o.hostUp && o.sv.io {
				return false
			}
		}
		return s.Op != nil && s.Op.Step == fsm.StepBegun
	}, func() {
		w.after(w.between(30*ms, 80*ms), func() {
			w.healNet()
			others[0].crashHost(w.between(20*ms, 100*ms))
		})
	})
}

// candidateDies: one replica alone has received what was acknowledged. The primary dies, that replica is promoted, and dies before another has fetched
// what it lacks. The first primary is back before it. (If the new set counts alone from the moment it is named, the other one is promoted.)
func (w *World) candidateDies() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	w.cutOff(others[1:], []*node{p})
	w.after(w.between(60*ms, 250*ms), func() {
		p.crashHost(w.between(2500*ms, 3500*ms))
		w.healNet()
		w.when(3*time.Second, func(s fsm.State) bool { return s.Epoch > p.held && s.Primary != "" }, func() {
			if n := w.node(w.raft.state().Primary); n != p {
				n.crashHost(w.between(5*time.Second, 7*time.Second))
			}
		})
	})
}

// membersDie: every member of a full set is gone for a while, and replicas outside it are not. The primary dies about when the first are back.
func (w *World) membersDie() {
	p := w.primaryOrAny()
	for _, m := range w.raft.state().Sync.Members {
		w.node(m.Node).crashHost(w.between(2*time.Second, 4*time.Second))
	}
	w.after(w.between(1500*ms, 5*time.Second), func() { p.crashHost(w.between(time.Second, 4*time.Second)) })
}

// shrinkAndDie: the hbd of one replica dies, its mysqld goes on acknowledging. When it is about to leave the set the others lose the primary for a
// moment, and as soon as it has left the primary dies. (If its last acknowledgements were not waited for, nobody else holds those writes.)
func (w *World) shrinkAndDie() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	o := others[0]
	o.stopAgent()
	w.say(o, "hbd dies, mysqld lives on")
	w.when(3*time.Second, func(s fsm.State) bool { return s.Change != nil && s.Change.Node == o.id }, func() {
		w.cutOff([]*node{p}, others[1:])
		w.when(500*ms, func(s fsm.State) bool { _, in := s.Sync.Member(o.id); return !in }, func() {
			w.after(w.between(0, 40*ms), func() { p.crashHost(w.between(2*time.Second, 4*time.Second)); w.healNet() })
		})
		w.after(600*ms, w.healNet)
	})
	w.after(w.between(4*time.Second, 6*time.Second), func() {
		if o.hostUp && !o.hbdUp {
			o.startAgent()
		}
	})
}
