package sim

import (
	"time"

	"github.com/highbase/highbase/fsm"
)

// accept is the promise behind every order: the highest (epoch, index) is kept on disk, a lower one is refused.
func (n *node) accept(o fsm.Order) bool {
	lower := o.Epoch < n.acceptedEpoch || o.Epoch == n.acceptedEpoch && o.Index < n.acceptedIndex
	if lower && !n.w.cfg.Controls.SkipEpochCheck {
		return false
	}
	if !lower {
		n.acceptedEpoch, n.acceptedIndex = o.Epoch, o.Index
	}
	return true
}

// reply is how a node answers an order; it travels back to whoever sent it.
type reply struct {
	order    fsm.Order
	answer   *fsm.Answer
	evidence *fsm.Evidence
	reached  bool
	fault    string
}

// obey carries out an order of a leader.
func (n *node) obey(o fsm.Order, from *node) {
	if !n.data || !n.accept(o) {
		return
	}
	answer := func(r reply) {
		r.order = o
		n.w.send(n, from, func() { from.answered(r) })
	}
	switch o.Kind {
	case fsm.OrderFreeze:
		n.freeze(o, answer)
	case fsm.OrderFence:
		n.fenceSelf(answer)
	case fsm.OrderRelease:
		n.release(o, answer)
	case fsm.OrderAwait:
		// Applied, not only received: what is merely received a crash forgets.
		n.poll(o, 100, func() bool { return n.w.holds(n.sv.position(n.sv.done), o.Position) }, func() {
			answer(reply{reached: true})
			n.endReceiving(o)
		})
	}
}

// endReceiving blocks the old primary and stops a candidate's IO thread beside the commit of its promotion. It is asked in its turn whether that
// is still due; hbd may end between the two.
func (n *node) endReceiving(o fsm.Order) {
	run := n.sv.run
	n.hbd(n.w.between(0, 2*time.Second), func() {
		s := n.state()
		if s.Epoch != o.Epoch || s.Op == nil || s.Op.ID != o.OpID || s.Op.Step != fsm.StepReleasing {
			return
		}
		n.sv.blocked[n.w.node(s.Op.From)] = true
		n.hbd(n.w.between(0, 10*ms), func() {
			if n.sv.up() && n.sv.run == run && n.acceptedEpoch == o.Epoch && n.acceptedIndex == o.Index {
				n.stopIO()
			}
		})
	})
}

// poll waits for a condition as long as no newer order has come.
func (n *node) poll(o fsm.Order, tries int, done func() bool, then func()) {
	switch {
	case n.acceptedEpoch != o.Epoch || n.acceptedIndex != o.Index || tries == 0:
	case done():
		then()
	default:
		n.hbd(5*ms, func() { n.poll(o, tries-1, done, then) })
	}
}

// freeze promises first, then blocks, then stops the IO thread, and reads the position only then.
func (n *node) freeze(o fsm.Order, answer func(reply)) {
	if o.Epoch < n.frozen {
		return
	}
	n.frozen = o.Epoch
	v := &n.sv
	if old := n.w.node(o.From); old != nil && old != n {
		v.blocked[old] = true
	}
	n.hbd(n.w.between(ms, 30*ms), func() {
		if v.up() {
			n.stopIO()
		}
		n.poll(o, 300, func() bool { return !o.Drained || !v.up() || !v.hasReplication || v.waiting() == 0 }, func() {
			a := fsm.Answer{Node: n.id, Epoch: o.Epoch, Incarnation: v.incarnation(), Received: v.position(len(v.log)), LastEpoch: v.lastEpoch(),
				Held: n.own(), Whole: n.whole()}
			if v.hasReplication && v.source != nil && v.source.id == o.From && n.followed+1 == o.Epoch {
				a.Source = v.source.name()
			}
			if !v.up() {
				a.Incarnation, a.Received, a.LastEpoch, a.Whole = "", "", 0, 0
				if a.Held == 0 {
					return
				}
			}
			n.w.say(n, "frozen for epoch %d at %s, held %d", o.Epoch, a.Received, a.Held)
			answer(reply{answer: &a})
			n.undoFreeze(o)
		})
	})
}

func (n *node) fenceSelf(answer func(reply)) {
	n.closeGate()
	n.dropLease()
	if n.sv.up() {
		n.selfFence()
	}
	n.hbd(n.w.between(ms, 5*ms), func() {
		answer(reply{evidence: &fsm.Evidence{Kind: fsm.EvidenceAgent, Node: n.id, Detail: "gate closed"}})
	})
}

// release lets go of the epoch: gate, read-only, acknowledgements of all but the candidate, then the position, the promise, the answer.
func (n *node) release(o fsm.Order, answer func(reply)) {
	v, run := &n.sv, n.sv.run
	if !v.up() || n.held != o.Epoch || n.followed >= o.Epoch || n.frozen > o.Epoch {
		answer(reply{fault: "does not hold the epoch"})
		return
	}
	n.closeGate()
	if !n.w.cfg.Controls.LocalRollback {
		n.dropLease()
	}
	current := func() bool {
		return v.up() && v.run == run && n.acceptedEpoch == o.Epoch && n.acceptedIndex == o.Index
	}
	step := func(do func()) { n.hbd(n.w.between(ms/2, 3*ms), func() { ifThen(current(), do) }) }
	step(func() {
		v.readOnly = true
		step(func() {
			for _, other := range n.w.nodes {
				if other != n && other.id != o.To {
					v.blocked[other] = true
				}
			}
			step(func() {
				a := fsm.Answer{Node: n.id, Epoch: o.Epoch, Incarnation: v.incarnation(), Received: v.position(len(v.log)), LastEpoch: v.lastEpoch(), Held: n.held}
				n.releasedOp = o.OpID
				n.w.say(n, "releases epoch %d at %s", o.Epoch, a.Received)
				answer(reply{answer: &a})
				n.rollBackAlone(o)
			})
		})
	})
}

func ifThen(ok bool, do func()) {
	if ok {
		do()
	}
}

// heartbeat is what a leader says to everybody: its term, and how far the log is committed as far as it knows.
func (n *node) heartbeat(from *node, term, committed int) {
	if term < n.term {
		known := n.term
		n.w.send(n, from, func() { from.stepDown(known) })
		return
	}
	if term > n.term {
		n.stepDown(term)
	}
	n.hint, n.fresh = from, true
	n.applyUpTo(committed)
}

func (n *node) stepDown(term int) {
	n.term = max(n.term, term)
	if n.lead != nil && n.lead.term < term {
		n.lead = nil
		n.w.say(n, "deposed by term %d", term)
	}
}

// grant answers a renewal after a quorum round that began after the request arrived.
func (n *node) grant(to *node, epoch uint64, answer func(length time.Duration)) {
	l := n.lead
	if l == nil || n.w.raft.leader != n || n.w.raft.term != l.term || !n.w.majority(n) {
		return
	}
	n.hbd(n.w.delay(), func() {
		s := n.state()
		if n.lead != l || l.ending || fsm.LeaseRefusal(s, to.id, epoch) != "" {
			return
		}
		l.granted = max(l.granted, fsm.GrantClear(s.Settings, n.clock(), s.Settings.Lease))
		n.w.send(n, to, func() { answer(s.Settings.Lease) })
	})
}
