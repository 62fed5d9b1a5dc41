package cluster

import (
	"slices"
	"sync/atomic"

	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/fsm"
)

// turn is the last turn of the local loop: what it saw and what it decided.
type turn struct {
	at       fsm.Instant
	local    fsm.Local
	standing fsm.Standing
	reason   string
	rule     string
}

var sequence atomic.Uint64

// run names this run of hbd.
var run = identity.NewID()

// observation is what this node says of itself, now.
func (n *Node) observation() fsm.Observation {
	st := n.store.State()
	p := n.promises.get()
	o := fsm.Observation{Node: n.cfg.Node, Run: run, Sequence: sequence.Add(1), Applied: st.Index, Epoch: st.Epoch, Standing: fsm.StandingStarting, Sights: n.peers.sights()}
	if n.self.Role == fsm.RoleWitness {
		o.Standing = fsm.StandingWitness
		return o
	}
	o.Leaving = n.leaving.Load()
	o.Server = n.cfg.Prober.Server()
	o.Server.Problems = slices.Concat(o.Server.Problems, n.strangers.problems(now()))
	o.Incarnation, o.Whole = n.incarnation(o.Server, p)
	o.Held = p.own()
	o.Rebuild = n.rebuilds.need(p)
	o.KernelGate = n.cfg.Addresser.KernelGate()
	for _, a := range n.cfg.Addresser.Addresses() {
		o.VIPHeld = o.VIPHeld || a.Held
	}
	o.GateOpen = n.gateOpen()
	o.SyncOff, o.Prepared, o.PreparedAt = n.sync.read()
	o.PortGated = n.cfg.Addresser.PortGated()
	o.LeaseLeft = n.holder.left(st.Epoch)
	o.ServedIndex, o.FailedIndex, o.FailedReason, o.Phases = n.stats.progress()
	if t := n.local.Load(); t != nil {
		o.Standing, o.Reason = t.standing, t.reason
	}
	if st.Primary == n.cfg.Node && o.GateOpen && o.VIPHeld && o.LeaseLeft > 0 && o.Server.State == fsm.ServerUp && !o.Server.ReadOnly &&
		n.barrierOf(p, o.Server.Started) == st.Epoch {
		o.Serving = st.Epoch
	}
	return o
}

// incarnation names a run of mysqld during which nothing received was forgotten, "" when that is not known, and the epoch since whose beginning
// it has forgotten nothing. A repoint drops nothing, because it drains first or the applier runs on: the incarnation stays the same through it.
func (n *Node) incarnation(sv fsm.ServerStatus, p Promises) (id string, whole uint64) {
	generation := n.cfg.Prober.Generation()
	if sv.State != fsm.ServerUp || sv.Started == "" || generation == "" || n.repointing.Load() {
		return "", 0
	}
	id = sv.Started + "/" + generation
	if id == p.IncToken {
		id = p.IncID
	}
	if id == p.WholeID {
		whole = p.WholeEpoch
	}
	return id, whole
}

// gateOpen is as the kernel has it: what this process meant to do is not what counts.
func (n *Node) gateOpen() bool {
	left, err := n.cfg.Addresser.Remaining()
	if err != nil {
		n.stats.note(n.log, "reading the gate", err)
		return false
	}
	return left > 0
}

// gather is everything Reconcile needs to know of this node.
func (n *Node) gather(st fsm.State) fsm.Local {
	p := n.promises.get()
	sv := n.cfg.Prober.Server()
	l := fsm.Local{
		Fresh: n.fresh.Load(), Held: p.Held, Followed: p.Followed, Frozen: p.Frozen, ReleasedOp: p.ReleasedOp, Quarantine: p.Quarantine,
		Server: sv, GateOpen: n.gateOpen(), Stopping: n.stopping.Load(),
		BarrierDone: st.Epoch > 0 && n.barrierOf(p, sv.Started) == st.Epoch,
		OtherClaims: n.other.Load() == st.Epoch && st.Epoch > 0 && st.Primary != n.cfg.Node,
	}
	l.LeaseEpoch, l.LeaseValid = n.holder.valid()
	l.ServedIndex, l.FailedIndex, _, _ = n.stats.progress()
	l.Announced = n.stats.announced(st.Epoch)
	for _, a := range n.cfg.Addresser.Addresses() {
		l.VIPHeld = l.VIPHeld || a.Held
	}
	source := st.SourceOf(n.cfg.Node)
	if m, ok := st.Member(source); ok {
		l.FollowsRight = sv.HasReplication && sv.SourceHost == m.Address && sv.SourcePort == m.MySQLPort
		if obs, _, ok := n.peers.observed(source); ok {
			l.SourceUp = obs.Server.State == fsm.ServerUp
			l.Reconnected = n.hasReconnected(source, obs)
		}
	}
	if obs, _, ok := n.peers.observed(st.Primary); ok {
		l.OtherServes = st.Primary != "" && obs.Serving == st.Epoch
	}
	var err error
	if l.Blocked, err = n.blockedNodes(); err != nil {
		n.stats.note(n.log, "reading the blocked hosts", err)
	}
	l.Confirmed, l.PortGated = n.confirmed(st), n.cfg.Addresser.PortGated()
	l.SyncOff, l.Prepared, _ = n.sync.read()
	l.Copy = n.rebuilds.copy()
	return l
}
