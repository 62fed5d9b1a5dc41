package sim

import "time"

// Single faults rarely meet. These strike together, in the order in which each breaks something unless one rule stands in its way.

// replicas are the data nodes that are not the primary, in random order.
func (w *World) replicas(p *node) []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.data && n != p {
			out = append(out, n)
		}
	}
	w.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// flap has somebody stop a replica's IO thread by hand, again and again.
func (n *node) flap(d time.Duration) {
	end := n.w.now + d
	n.w.say(n, "its IO thread is stopped by hand, again and again for %v", d)
	var next func()
	next = func() {
		if n.w.now >= end || n.w.calm {
			return
		}
		if n.sv.up() && n.sv.io {
			n.stopIO()
		}
		n.w.after(n.w.between(5*ms, 120*ms), next)
	}
	next()
}

// powerLoss: one replica alone has received what was acknowledged, has not applied it, and dies with the primary. It is back long before the
// primary, as a node that has forgotten. (Counting it all the same loses the writes.)
func (w *World) powerLoss() {
	p := w.primaryOrAny()
	others := w.replicas(p)
	holder := others[0]
	w.say(nil, "a rack loses its power: %s and %s", p.id, holder.id)
	holder.stallApplier(time.Second)
	for _, o := range others[1:] {
		w.cut[o.idx][p.idx], w.cut[p.idx][o.idx] = true, true
	}
	w.after(w.between(100*ms, 400*ms), func() {
		p.crashHost(w.between(3*time.Second, 8*time.Second))
		holder.crashHost(w.between(100*ms, 600*ms))
		w.healNet()
	})
}

// lateRepair: the primary is cut off just long enough to lose its epoch and does not notice, because its hbd is frozen: commits still wait there.
// The replicas' daemons were about to repair their replication when the freeze came. (A repair that was decided before the freeze and runs after
// it acknowledges what nobody counts.)
func (w *World) lateRepair() {
	p := w.primaryOrAny()
	for _, o := range w.replicas(p) {
		o.flap(w.between(500*ms, 900*ms))
	}
	w.slow = w.between(0, 1000*ms).Seconds() / 2
	p.isolate()
	p.freezeAgent(3 * time.Second)
	w.after(w.between(650*ms, 1000*ms), w.healNet)
}

// doubleCrash: mysqld dies with commits waiting, is restarted in place, and soon after its host dies. (Its recovery committed what nobody had
// acknowledged: whoever reads it before a barrier reads what the failover takes back.)
func (w *World) doubleCrash() {
	p := w.primaryOrAny()
	for _, o := range w.replicas(p) {
		o.flap(w.between(time.Second, 2*time.Second))
	}
	w.after(w.between(50*ms, 300*ms), func() {
		p.crashServer()
		p.whenServing(time.Second, func() { w.after(w.between(0, 100*ms), func() { p.crashHost(w.between(3*time.Second, 8*time.Second)) }) })
	})
}

// replicaHostDies loses a replica for as long as it takes the set to do without it, and soon after the primary.
func (w *World) replicaHostDies() {
	p := w.primaryOrAny()
	w.replicas(p)[0].crashHost(w.between(2*time.Second, 6*time.Second))
	w.after(w.between(500*ms, 3*time.Second), func() { p.crashHost(w.between(300*ms, 4*time.Second)) })
}

// allReplicasDie leaves the primary alone for as long as it takes to give up acknowledgements. They come back one after the other, and the primary
// dies about then.
func (w *World) allReplicasDie() {
	p := w.primaryOrAny()
	for _, o := range w.replicas(p) {
		o.crashHost(w.between(2500*ms, 5*time.Second))
	}
	w.after(w.between(2*time.Second, 6*time.Second), func() { p.crashHost(w.between(2*time.Second, 6*time.Second)) })
}

// lonely cuts the daemon of one replica off, while its mysqld still reaches the primary: the leader misses it, the primary's mysqld does not.
func (w *World) lonely() {
	p := w.primaryOrAny()
	o := w.replicas(p)[0]
	o.stopAgent()
	w.say(o, "hbd dies, mysqld lives on")
	w.after(w.between(time.Second, 4*time.Second), func() {
		p.crashHost(w.between(2*time.Second, 5*time.Second))
		w.after(w.between(0, 500*ms), func() {
			if o.hostUp && !o.hbdUp {
				o.startAgent()
			}
		})
	})
}

// whenServing waits until a node's gate is open again, for a while.
func (n *node) whenServing(patience time.Duration, then func()) {
	if patience <= 0 {
		return
	}
	n.w.after(5*ms, func() {
		if n.sv.up() && n.gateLive() && n.barrierDone(n.state().Epoch) {
			then()
			return
		}
		n.whenServing(patience-5*ms, then)
	})
}
