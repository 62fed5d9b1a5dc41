package sim

import (
	"time"

	"github.com/highbase/highbase/fsm"
)

// fault is one thing that goes wrong, and how often compared with the others.
type fault struct {
	name   string
	weight int
	strike func(w *World)
}

func faults() []fault {
	return []fault{
		{"split", 4, (*World).splitInTwo},
		{"isolate", 3, func(w *World) { w.primaryOrAny().isolate() }},
		{"one-way", 3, (*World).cutOneWay},
		{"heal", 3, func(w *World) { w.healNet() }},
		{"freeze", 4, func(w *World) { w.anyNode().freezeAgent(w.between(50*ms, 3*time.Second)) }},
		{"bounce", 2, func(w *World) { w.anyNode().bounceAgent(w.between(20*ms, 2*time.Second)) }},
		{"host", 4, func(w *World) { w.anyNode().crashHost(w.between(300*ms, 6*time.Second)) }},
		{"primary-host", 4, func(w *World) { w.primaryOrAny().crashHost(w.between(300*ms, 8*time.Second)) }},
		{"server", 3, func(w *World) { w.dataNode().crashServer() }},
		{"primary-server", 3, func(w *World) { w.primaryOrAny().crashServer() }},
		{"hang", 2, func(w *World) { w.primaryOrAny().hangServer(w.between(200*ms, 3*time.Second)) }},
		{"break", 1, func(w *World) { w.primaryOrAny().breakServer(w.between(time.Second, 8*time.Second)) }},
		{"stall", 3, func(w *World) { w.dataNode().stallApplier(w.between(50*ms, 1500*ms)) }},
		{"forget", 2, func(w *World) { w.dataNode().forgetRelay() }},
		{"leader", 3, (*World).anotherLeader},
		{"switchover", 4, (*World).askSwitchover},
		{"pause", 1, (*World).pauseCluster},
		{"power-loss", 3, (*World).powerLoss},
		{"late-repair", 3, (*World).lateRepair},
		{"double-crash", 3, (*World).doubleCrash},
		{"replica-host", 3, (*World).replicaHostDies},
		{"all-replicas", 2, (*World).allReplicasDie},
		{"lonely", 2, (*World).lonely},
		{"torn-switchover", 2, (*World).tornSwitchover},
		{"holder-dies", 2, (*World).holderDies},
		{"replicas-cut", 1, (*World).replicasCut},
		{"regrown", 1, (*World).regrown},
		{"regained", 1, (*World).regained},
		{"reboot-frozen", 2, (*World).rebootFrozen},
		{"candidate-dies", 2, (*World).candidateDies},
		{"shrink-and-die", 2, (*World).shrinkAndDie},
		{"chain-torn", 1, (*World).chainTorn},
		{"chain-dies", 2, (*World).chainDies},
		{"chain-forgets", 1, (*World).chainForgets},
		{"members-die", 0, (*World).membersDie}, // only where replicas are left outside the set
		{"loss", 2, func(w *World) { w.loss, w.slow = w.rng.Float64()*0.2, w.rng.Float64()*0.2 }},
	}
}

func (w *World) startChaos() {
	total := 0
	all := faults()
	for _, f := range all {
		total += f.weight
	}
	w.loss, w.slow = w.rng.Float64()*0.05, w.rng.Float64()*0.05
	pace := w.between(200*ms, 2*time.Second) // some seeds are gentle, some are not
	if w.cfg.Focus != "" {
		pace = w.between(1500*ms, 4*time.Second) // what it does should end before the next one strikes
	}
	var next func()
	next = func() {
		if w.calm {
			return
		}
		pick := w.rng.IntN(total)
		focused := w.chance(0.6)
		for _, f := range all {
			if pick -= f.weight; f.name == w.cfg.Focus && focused || pick < 0 && (w.cfg.Focus == "" || !focused) {
				f.strike(w)
				break
			}
		}
		w.after(w.between(pace/4, 2*pace), next)
	}
	next()
}

func (w *World) anyNode() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

func (w *World) dataNode() *node { return w.nodes[w.rng.IntN(w.cfg.Data)] }

func (w *World) primaryOrAny() *node {
	if p := w.node(w.raft.state().Primary); p != nil {
		return p
	}
	return w.dataNode()
}

func (w *World) splitInTwo() {
	w.healNet()
	side := w.rng.Uint64()
	w.say(nil, "the network splits, %b", side&(1<<len(w.nodes)-1))
	for a := range w.nodes {
		for b := range w.nodes {
			w.cut[a][b] = side>>a&1 != side>>b&1
		}
	}
}

func (n *node) isolate() {
	w := n.w
	w.say(n, "is cut off")
	for b := range w.nodes {
		w.cut[n.idx][b], w.cut[b][n.idx] = b != n.idx, b != n.idx
	}
}

func (w *World) cutOneWay() {
	a, b := w.anyNode(), w.anyNode()
	if a != b {
		w.say(a, "no longer reaches %s", b.id)
		w.cut[a.idx][b.idx] = true
	}
}

func (w *World) healNet() {
	for a := range w.cut {
		clear(w.cut[a])
	}
}

func (n *node) freezeAgent(d time.Duration) {
	if n.hbdUp {
		n.w.say(n, "hbd freezes for %v", d)
		n.frozenUntil = n.w.now + d
	}
}

func (n *node) bounceAgent(d time.Duration) {
	if !n.hbdUp || !n.hostUp {
		return
	}
	n.w.say(n, "hbd dies for %v", d)
	n.stopAgent()
	n.w.after(d, func() {
		if n.hostUp && !n.hbdUp {
			n.startAgent()
		}
	})
}

func (n *node) crashHost(d time.Duration) {
	if !n.hostUp {
		return
	}
	n.w.say(n, "host dies for %v", d)
	n.stopAgent()
	n.sv.crash()
	n.hostUp, n.gateOpen, n.portGated, n.vipHeld, n.frozenUntil = false, false, false, false, 0
	clear(n.sv.blocked)
	n.w.after(d, n.boot)
}

func (n *node) boot() {
	if n.hostUp {
		return
	}
	n.w.say(n, "host boots")
	n.hostUp = true
	if n.w.cfg.Controls.AutoStart && !n.w.calm {
		n.bootAlone()
		n.w.after(2*time.Second, func() {
			if n.hostUp && !n.hbdUp {
				n.startAgent()
			}
		})
		return
	}
	n.startAgent()
}

func (n *node) crashServer() {
	if n.sv.up() {
		n.w.say(n, "mysqld dies")
		n.sv.crash()
	}
}

func (n *node) hangServer(d time.Duration) {
	if !n.sv.up() {
		return
	}
	n.w.say(n, "mysqld hangs for %v", d)
	n.sv.state, n.hungSince = fsm.ServerHung, n.clock()
	run := n.sv.run
	n.w.after(d, func() {
		if n.sv.state == fsm.ServerHung && n.sv.run == run {
			n.sv.state = fsm.ServerUp
		}
	})
}

func (n *node) breakServer(d time.Duration) {
	n.w.say(n, "mysqld dies and does not start for %v", d)
	n.sv.crash()
	n.sv.broken = true
	n.w.after(d, func() { n.sv.broken = false })
}

func (n *node) stallApplier(d time.Duration) {
	n.sv.stalled = true
	n.w.after(d, func() { n.sv.stalled = false })
}

func (n *node) forgetRelay() {
	if n.sv.hasReplication && n.sv.up() {
		n.w.say(n, "both replication threads are restarted by hand: %d received transactions forgotten", n.sv.waiting())
		n.sv.forget()
	}
}

// anotherLeader makes a member leader, whatever the old one thinks.
func (w *World) anotherLeader() {
	if n := w.anyNode(); w.majority(n) && n != w.raft.leader {
		w.elect(n)
	}
}

func (w *World) ask(cmd fsm.Command) {
	if l := w.raft.leader; l != nil && l.lead != nil {
		w.propose(l, l.lead.term, cmd)
	}
}

func (w *World) askSwitchover() {
	s := w.raft.state()
	w.ask(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: s.Epoch, From: s.Primary, To: w.dataNode().id, Actor: "operator"}})
}

func (w *World) pauseCluster() {
	w.ask(fsm.Command{SetPause: &fsm.SetPause{Paused: true, By: "operator"}})
	w.after(w.between(500*ms, 4*time.Second), func() { w.ask(fsm.Command{SetPause: &fsm.SetPause{}}) })
}

// healAll ends every fault. What is broken by then must come back by itself.
func (w *World) healAll() {
	w.calm = true
	w.healNet()
	w.loss, w.slow = 0, 0
	w.say(nil, "every fault ends")
	for _, n := range w.nodes {
		n.frozenUntil = 0
		n.sv.broken, n.sv.stalled = false, false
		n.boot()
		if !n.hbdUp {
			n.startAgent()
		}
		if n.sv.state == fsm.ServerHung {
			n.sv.state = fsm.ServerUp
		}
	}
	w.resume()
}

// resume takes the operator's pause back, as often as it takes.
func (w *World) resume() {
	if w.raft.state().Paused != nil {
		w.ask(fsm.Command{SetPause: &fsm.SetPause{}})
	}
	w.after(500*ms, w.resume)
}

// acceptLoss is an operator who finds an operation that cannot be decided, switches the old primary's host off for a while, vouches for that and
// accepts that acknowledged writes may be lost. Asked again he names a node: histories that cannot be ordered are not chosen among without him.
func (w *World) acceptLoss(to fsm.NodeID) {
	s := w.raft.state()
	if s.Op == nil {
		return
	}
	if s.Op.Step == fsm.StepPromoted {
		w.ask(fsm.Command{Begin: &fsm.Begin{Kind: fsm.KindFailover, Epoch: s.Epoch, OpID: s.Op.ID, Cause: "asked for", Actor: "operator", Lossy: true}})
	} else {
		w.node(s.Op.From).crashHost(5 * time.Second)
		w.ask(fsm.Command{AcceptLoss: &fsm.AcceptLoss{OpID: s.Op.ID, Epoch: s.Epoch, To: to, Vouched: true, Actor: "operator"}})
	}
	w.after(time.Second, func() {
		if now := w.raft.state(); now.Op != nil && now.Op.Step != fsm.StepPromoted && now.Epoch >= s.Epoch && !w.healthy() {
			w.acceptLoss(w.fullest(now.Op.From))
		}
	})
}

// fullest is the node besides one that holds most of what was acknowledged.
func (w *World) fullest(not fsm.NodeID) fsm.NodeID {
	var best *node
	for _, n := range w.nodes {
		if n.data && n.id != not && n.sv.up() && (best == nil || common(n.sv.log, w.chain) > common(best.sv.log, w.chain)) {
			best = n
		}
	}
	if best == nil {
		return ""
	}
	return best.id
}
