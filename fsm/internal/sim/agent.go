package sim

import (
	"time"

	"github.com/highbase/highbase/fsm"
)

// node is one host: its daemon, its kernel's gate and its mysqld.
type node struct {
	w      *World
	idx    int
	id     fsm.NodeID
	data   bool
	rate   float64       // of its clock
	offset time.Duration // of its clock

	hostUp      bool
	hbdUp       bool
	hbdRun      int           // which start of hbd: events of an earlier one are void
	frozenUntil time.Duration // hbd is stopped until then; kernel and mysqld go on
	sv          server

	// What hbd keeps on disk.
	held, followed, frozen, releasedOp uint64
	acceptedEpoch, acceptedIndex       uint64
	wholeEpoch                         uint64 // epoch that was first followed ...
	wholeID                            string // ... by this incarnation
	chainEpoch                         uint64 // epoch to come, whose primary-to-be is followed already ...
	chainID                            string // ... and this was the incarnation when that began
	term, applied                      int

	// What it keeps in memory.
	fresh        bool
	hint         *node // whom it believes to be the Raft leader
	lead         *leader
	leaseEpoch   uint64
	leaseEnd     time.Duration // on its clock
	leaseFloor   time.Duration // answers to requests sent before are void
	otherClaims  bool
	announced    bool
	servedIndex  uint64
	failedIndex  uint64
	busy         bool
	sights       map[*node]*sight
	hungSince    time.Duration
	waitsSince   time.Duration // how long commits have waited without progress, on its clock
	waitsAt      int           // with so much acknowledged
	lastReported string

	syncOff    uint64 // index of its leaving the sync set since which its semi-sync was seen off
	prepared   uint64 // index of the change of the sync set that it has prepared
	preparedAt string
	heardOff   map[*node]uint64 // what the others say of their semi-sync

	// What the kernel keeps.
	portGated bool
	gateOpen  bool
	gateEnd   time.Duration // on its clock
	vipHeld   bool
}

type sight struct{ agent, server time.Duration }

func (n *node) clock() time.Duration {
	return n.offset + time.Duration(float64(n.w.now)*n.rate)
}

func (n *node) state() fsm.State { return n.w.raft.states[n.applied] }

func (n *node) gateLive() bool { return n.hostUp && n.gateOpen && n.clock() < n.gateEnd }

func (n *node) leaseValid() bool { return n.clock() < n.leaseEnd }

func (n *node) serverState() fsm.ServerState {
	if n.sv.state == fsm.ServerHung && n.clock()-n.hungSince < settings().HungAfter {
		return fsm.ServerUp
	}
	return n.sv.state
}

// startAgent starts hbd: all it has is what is on disk. The state it knows may be older than the one it knew.
func (n *node) startAgent() {
	n.hbdUp, n.fresh, n.hint, n.lead = true, false, nil, nil
	n.hbdRun++
	n.leaseEpoch, n.leaseEnd, n.leaseFloor = 0, 0, n.clock()
	n.otherClaims, n.announced, n.servedIndex, n.failedIndex, n.busy = false, false, 0, 0, false
	n.applied = max(0, n.applied-n.w.rng.IntN(4))
	n.syncOff, n.prepared, n.preparedAt, n.heardOff = 0, 0, "", map[*node]uint64{}
	n.sights = map[*node]*sight{}
	for _, o := range n.w.nodes {
		n.sights[o] = &sight{n.clock(), n.clock()}
	}
	n.loop(20*ms, n.reconcile)
	n.loop(settings().Ping, n.ping)
	n.loop(settings().Renew, n.renew)
}

// loop repeats in this run of hbd.
func (n *node) loop(d time.Duration, do func()) {
	n.hbd(n.w.between(d/2, d+d/2), func() { do(); n.loop(d, do) })
}

func (n *node) stopAgent() {
	n.hbdUp, n.lead = false, nil
	n.hbdRun++
	n.sv.unretire()
}

// startKernelAndServer sets going what hbd does not drive.
func (n *node) startKernelAndServer() {
	if !n.data {
		return
	}
	n.w.every(8*ms, n.sv.replicate)
	n.w.every(6*ms, n.sv.applyRelay)
	n.w.every(15*ms, n.sv.client)
	n.w.every(40*ms, n.sv.direct)
}

func (n *node) applyUpTo(index int) {
	if index > n.applied {
		n.applied = index
	}
}

// ping looks at every other node and reports to the leader.
func (n *node) ping() {
	for _, o := range n.w.nodes {
		if o == n {
			n.sights[o] = &sight{n.clock(), n.clock()}
			continue
		}
		if s := n.sights[o]; s == nil {
			n.sights[o] = &sight{n.clock(), n.clock()}
		} else if n.w.linked(n, o) && !n.w.chance(n.w.loss) {
			if o.awake() {
				s.agent = n.clock()
			}
			if o.sv.up() {
				s.server = n.clock()
			}
		}
	}
	obs := n.observe()
	if to := n.hint; to != nil {
		n.w.send(n, to, func() { to.report(obs) })
	}
	for _, o := range n.w.nodes {
		n.w.send(n, o, func() { o.heardOff[n] = obs.SyncOff })
	}
}

func (n *node) observe() fsm.Observation {
	s := n.state()
	o := fsm.Observation{Node: n.id, Applied: s.Index, Epoch: s.Epoch, Standing: fsm.StandingWitness}
	for _, p := range n.w.nodes {
		if p != n {
			o.Sights = append(o.Sights, fsm.Sight{Node: p.id, AgentAge: n.clock() - n.sights[p].agent, ServerAge: n.clock() - n.sights[p].server})
		}
	}
	if !n.data {
		return o
	}
	l := n.local()
	lag := 0.0
	o.Server, o.Incarnation, o.Standing = l.Server, n.sv.incarnation(), fsm.StandingCatching
	o.Server.Lag, o.Server.Received, o.Server.Executed = &lag, n.sv.position(len(n.sv.log)), n.sv.position(n.sv.done)
	o.Held, o.Whole = n.own(), n.whole()
	o.ServedIndex, o.FailedIndex, o.GateOpen, o.VIPHeld = n.servedIndex, n.failedIndex, l.GateOpen, l.VIPHeld
	o.Prepared, o.PreparedAt, o.PortGated, o.SyncOff, o.Server.LastEpoch = n.prepared, n.preparedAt, n.portGated, n.syncOff, n.sv.lastEpoch()
	if l.FollowsRight && l.Server.IORunning && !l.Server.IOConnecting && l.Server.ReplicaSync == s.MayAcknowledge(n.id) {
		o.Standing = fsm.StandingReplica
	}
	if s.Primary == n.id && n.gateLive() && l.BarrierDone {
		o.Serving, o.Standing = s.Epoch, fsm.StandingServing
	}
	if n.sv.state == fsm.ServerDown {
		o.Incarnation = ""
	}
	return o
}

func (n *node) local() fsm.Local {
	s := n.state()
	v := &n.sv
	l := fsm.Local{Fresh: n.fresh, Held: n.held, Followed: n.followed, Frozen: n.frozen, ReleasedOp: n.releasedOp, LeaseEpoch: n.leaseEpoch,
		LeaseValid: n.leaseValid(), GateOpen: n.gateLive(), VIPHeld: n.vipHeld, OtherClaims: n.otherClaims, Announced: n.announced, ServedIndex: n.servedIndex,
		FailedIndex: n.failedIndex, Blocked: n.blocks(), Confirmed: n.confirmed(), SyncOff: n.syncOff, Prepared: n.prepared, PortGated: n.portGated, FollowsRight: v.hasReplication && v.source != nil && v.source.id == s.SourceOf(n.id)}
	l.BarrierDone = n.barrierDone(s.Epoch)
	if p := n.w.node(s.SourceOf(n.id)); p != nil {
		l.SourceUp = p.sv.up() && n.w.linked(n, p)
	}
	l.Server = fsm.ServerStatus{State: n.serverState(), ReadOnly: v.readOnly, HasReplication: v.hasReplication, Leftover: v.leftover != nil, IORunning: v.io, SQLRunning: v.hasReplication,
		ReplicaSync: v.replicaSync, ReplicaSyncSet: v.syncSet, SourceSync: v.sourceSync, Acks: v.acks, Waiting: v.waiting(), CommitsWait: n.commitsWait()}
	if v.hasReplication && v.source != nil {
		l.Server.SourceHost, l.Server.SourcePort = string(v.source.id), port
	}
	if !s.MayAcknowledge(n.id) && n.w.cfg.Controls.AckOutside {
		l.Server.ReplicaSync, l.Server.ReplicaSyncSet = false, false // it is not even looked at
	}
	l.Server.IOConnecting = v.io && v.source != nil && !v.connected(v.source)
	return l
}

// confirmed is whom this node has heard to have switched off its acknowledgements, since it is outside the set.
func (n *node) confirmed() []fsm.NodeID {
	var out []fsm.NodeID
	for _, o := range n.w.nodes {
		if since := n.state().OutsideSince(o.id); since > 0 && n.heardOff[o] >= since || n.w.cfg.Controls.Unblocked {
			out = append(out, o.id)
		}
	}
	return out
}

func (n *node) blocks() []fsm.NodeID {
	var out []fsm.NodeID
	for _, o := range n.w.nodes {
		if n.sv.blocked[o] {
			out = append(out, o.id)
		}
	}
	return out
}

// own is the epoch whose primary this node was, while its data is still its own.
func (n *node) own() uint64 {
	if n.held > n.followed {
		return n.held
	}
	return 0
}

// whole is the epoch since whose beginning this incarnation has forgotten nothing.
func (n *node) whole() uint64 {
	if n.wholeID == n.sv.incarnation() {
		return n.wholeEpoch
	}
	return 0
}

// follows promises that this epoch's primary is followed, before anything of it is received. Whoever is chained to the primary-to-be may receive
// something of its epoch long before: it has forgotten nothing only if it has forgotten nothing since then.
func (n *node) follows(epoch uint64, source *node) {
	s := n.state()
	if n.followed < epoch {
		n.followed, n.wholeEpoch, n.wholeID = epoch, epoch, n.sv.incarnation()
		if n.chainEpoch == epoch && !n.w.cfg.Controls.ForgetChain {
			n.wholeID = n.chainID
		}
	}
	if source.id != s.Primary && n.chainEpoch != s.Epoch+1 {
		n.chainEpoch, n.chainID = s.Epoch+1, n.sv.incarnation()
	}
}

// commitsWait tells whether commits have waited for an acknowledgement for a while, and none has come through.
func (n *node) commitsWait() bool {
	v := &n.sv
	if !v.up() || v.hasReplication || v.waiting() == 0 || v.done != n.waitsAt {
		n.waitsSince, n.waitsAt = n.clock(), v.done
	}
	return n.clock()-n.waitsSince > 500*ms
}

func (n *node) barrierDone(epoch uint64) bool {
	if n.w.cfg.Controls.SkipBarrier {
		return true
	}
	v := &n.sv
	return v.barrierEpoch == epoch && v.barrierRun == v.run && v.done >= v.barrierAt
}

// reconcile asks the local table and carries out what it says. What only takes away happens at once; the rest takes its time, one thing after
// another, and asks again right before it takes effect.
func (n *node) reconcile() {
	if !n.data {
		return
	}
	n.rewindAlone()
	var slow []fsm.Action
	for _, a := range fsm.Reconcile(n.state(), n.id, n.local()) {
		switch a.Kind {
		case fsm.ActCloseGate, fsm.ActSelfFence, fsm.ActReleaseVIP, fsm.ActKill:
			n.effect(a)
		case fsm.ActNone:
		default:
			slow = append(slow, a)
		}
	}
	if len(slow) > 0 && !n.busy {
		n.busy = true
		n.execute(slow)
	}
}

func (n *node) execute(todo []fsm.Action) {
	d := n.w.between(ms, 10*ms)
	if todo[0].Kind == fsm.ActStart {
		d = n.w.between(50*ms, 300*ms)
	}
	if n.w.chance(n.w.slow) {
		d += n.w.between(0, 500*ms)
	}
	n.hbd(d, func() {
		if n.allowed(todo[0]) {
			n.effect(todo[0])
			if len(todo) > 1 {
				n.execute(todo[1:])
				return
			}
		}
		n.busy = false
	})
}

// allowed is the executor's check: an action that was decided before the newest order accepted is void.
func (n *node) allowed(a fsm.Action) bool {
	if n.w.cfg.Controls.SkipEpochCheck {
		return true
	}
	return a.Epoch > n.acceptedEpoch || a.Epoch == n.acceptedEpoch && a.Index >= n.acceptedIndex
}

// renew asks the leader for the lease, counting from before it asks.
func (n *node) renew() {
	s := n.state()
	if !n.data || !n.fresh || s.Primary != n.id || n.hint == nil {
		return
	}
	sent, epoch, leader := n.clock(), s.Epoch, n.hint
	n.w.send(n, leader, func() {
		leader.grant(n, epoch, func(length time.Duration) { n.granted(sent, epoch, length) })
	})
}

func (n *node) granted(sent time.Duration, epoch uint64, length time.Duration) {
	if sent <= n.leaseFloor {
		return
	}
	if n.leaseEpoch != epoch {
		n.leaseEpoch, n.leaseEnd = epoch, 0
	}
	n.leaseEnd = max(n.leaseEnd, fsm.HolderDeadline(sent, length))
	if n.gateLive() && epoch == n.state().Epoch {
		n.setGate(func() bool { return n.gateLive() }, nil)
	}
}

// setGate is a guarded kernel write: held up for longer than the guard between the clock and the kernel, it is refused.
func (n *node) setGate(still func() bool, then func()) {
	s := settings()
	read, run := n.clock(), n.sv.run
	left := fsm.GateTimeout(s, n.leaseEnd, read)
	if left <= 0 {
		return
	}
	n.hbd(n.w.between(0, s.Guard/2), func() {
		if n.clock()-read > s.Guard || !still() || n.sv.run != run {
			return
		}
		n.gateOpen, n.gateEnd = true, n.clock()+left+n.w.between(0, s.Jiffies)
		n.w.checkGates(n)
		if then != nil {
			then()
		}
	})
}

// dropLease forgets the lease: only an answer to a request sent from now on brings one again.
func (n *node) dropLease() {
	n.leaseEnd, n.leaseFloor = 0, n.clock()
}

func (n *node) closeGate() {
	if n.gateLive() {
		n.w.say(n, "gate closed")
	}
	n.gateOpen = false
}
