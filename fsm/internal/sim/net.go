package sim

import "time"

// reaches tells whether packets pass from one host to another at this moment.
func (w *World) reaches(from, to *node) bool {
	return from == to || from.hostUp && to.hostUp && !w.cut[from.idx][to.idx]
}

// linked tells whether a connection between two hosts works, both ways.
func (w *World) linked(a, b *node) bool { return w.reaches(a, b) && w.reaches(b, a) }

// send carries a message between two daemons: it may be lost, late, or find its receiver frozen, which then reads it when it thaws.
func (w *World) send(from, to *node, do func()) {
	if to == nil || !w.reaches(from, to) || from != to && w.chance(w.loss) {
		return
	}
	to.hbd(w.delay(), do)
}

func (w *World) delay() time.Duration {
	if w.chance(w.slow) {
		return w.between(20*ms, 600*ms)
	}
	return w.between(ms/5, 3*ms)
}

// hbd runs something in a node's daemon after a while: not at all if that daemon has died meanwhile, later if it is frozen.
func (n *node) hbd(d time.Duration, do func()) {
	run := n.hbdRun
	n.w.after(d, func() { n.whenAwake(run, do) })
}

func (n *node) whenAwake(run int, do func()) {
	switch {
	case n.hbdRun != run || !n.hbdUp:
	case n.frozenUntil > n.w.now:
		n.w.after(n.frozenUntil-n.w.now, func() { n.whenAwake(run, do) })
	default:
		do()
	}
}

// awake tells whether a daemon runs and answers.
func (n *node) awake() bool { return n.hostUp && n.hbdUp && n.frozenUntil <= n.w.now }

// majority tells whether a node has working connections to enough running daemons, itself included.
func (w *World) majority(n *node) bool {
	count := 0
	for _, o := range w.nodes {
		if o.awake() && w.linked(n, o) {
			count++
		}
	}
	return n.awake() && count >= len(w.nodes)/2+1
}

// delayOnWire is for replication traffic, which TCP keeps in order and repeats.
func (w *World) delayOnWire() time.Duration {
	if w.chance(w.slow) {
		return w.between(5*ms, 80*ms)
	}
	return w.between(ms/5, 2*ms)
}
