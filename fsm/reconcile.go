package fsm

import "slices"

// Local is what a node knows of itself: what it promised durably, what its lease, gate, address and mysqld are, and whether the state it has
// applied is known to be recent.
type Local struct {
	Fresh        bool   // a leader has confirmed since this start of hbd that the applied state is recent
	Held         uint64 // newest epoch in which this node may have been writable (durable)
	Followed     uint64 // newest epoch whose primary it follows with verified data (durable)
	Frozen       uint64 // it has promised to follow no source of an older epoch (durable)
	ReleasedOp   uint64 // operation for which it released its epoch (durable)
	Quarantine   string // why it keeps out, "" when it does not (durable)
	LeaseEpoch   uint64
	LeaseValid   bool
	GateOpen     bool
	VIPHeld      bool
	OtherClaims  bool // another MAC has announced the VIP since this node closed its gate
	OtherServes  bool // the primary of the present epoch reports that it serves
	BarrierDone  bool // the barrier of the present epoch was written by this run of mysqld
	Announced    bool // the VIP was announced since the gate opened
	ServedIndex  uint64
	FailedIndex  uint64 // index of the restart order whose start failed
	Server       ServerStatus
	FollowsRight bool     // its source is the one it should have: State.SourceOf
	SourceUp     bool     // the node that it should replicate from says that its mysqld runs
	Reconnected  bool     // its receiver was made to connect once since that run of the source's mysqld was seen
	Blocked      []NodeID // nodes with which replication traffic is blocked here
	Confirmed    []NodeID // outsiders whose own hbd has confirmed that their semi-sync is off, since they are outside
	SyncOff      uint64   // index since which this node, outside the set, has seen its own semi-sync off; 0 when it has not
	Prepared     uint64   // index of the change of the sync set that this node has prepared
	PortGated    bool     // the gate covers this node's own port
	Stopping     bool     // hbd has given up the role and stops: it never serves again
	Copy         Copy     // what a rebuild has done to this node's data
}

// ActionKind is one thing a node does to itself.
type ActionKind string

// The actions. Each is idempotent, and each is checked against the newest accepted order again right before it takes effect.
const (
	ActCloseGate  ActionKind = "close_gate"  // clients of the VIP get resets from now on; their sockets are destroyed
	ActSelfFence  ActionKind = "self_fence"  // make mysqld take no writes: read-only, or SIGKILL when commits wait
	ActReleaseVIP ActionKind = "release_vip" // take the address off
	ActStart      ActionKind = "start"       // start mysqld as it is
	ActKill       ActionKind = "kill"        // SIGKILL a mysqld that hangs
	ActStopFollow ActionKind = "stop_follow" // drain what was received, then stop being a replica
	ActSourceSync ActionKind = "source_sync" // acknowledgements are needed from now on
	ActBarrier    ActionKind = "barrier"     // write the epoch row and wait for its acknowledgement
	ActOpen       ActionKind = "open"        // writable, gate open, VIP here and announced
	ActForget     ActionKind = "forget"      // remove what is left of the source whom it replicated from
	ActFollow     ActionKind = "follow"      // replicate from the primary
	ActReconnect  ActionKind = "reconnect"   // make the IO thread connect now instead of at its next try
	ActNudge      ActionKind = "nudge"       // commit a row, so that waiters whose acknowledgement was lost are released
	ActReturn     ActionKind = "return"      // once primary: follow, rewind, or quarantine
	ActUnblock    ActionKind = "unblock"     // let replication traffic pass again
	ActBlock      ActionKind = "block"       // keep exactly those from replicating whose acknowledgement must not count
	ActCoverPort  ActionKind = "cover_port"  // the gate covers the own port, too
	ActUncover    ActionKind = "uncover"     // the own port is everybody's again
	ActPrepare    ActionKind = "prepare"     // all that a change of the sync set needs is in force: say at which position
	ActAsync      ActionKind = "async"       // commits wait for nobody from now on
	ActSyncOff    ActionKind = "sync_off"    // this node's acknowledgement does not count from now on
	ActMend       ActionKind = "mend"        // put back settings that the guarantees rest on
	ActRebuild    ActionKind = "rebuild"     // see to it that the rebuild under way goes on: it works beside the actions
	ActNone       ActionKind = "none"        // wait; the row says for what
)

// ActionKinds lists every action, for the test that each has an executor.
func ActionKinds() []ActionKind {
	return []ActionKind{ActCloseGate, ActSelfFence, ActReleaseVIP, ActStart, ActKill, ActStopFollow, ActSourceSync, ActBarrier, ActOpen, ActForget, ActFollow, ActReconnect, ActNudge, ActReturn, ActUnblock,
		ActBlock, ActCoverPort, ActUncover, ActPrepare, ActAsync, ActSyncOff, ActMend, ActRebuild, ActNone}
}

// Action is one thing to do, by whose right.
type Action struct {
	Kind   ActionKind
	Epoch  uint64
	Index  uint64 // log index of the state it was decided from: weakening actions need it applied, and it is
	Target NodeID // follow: the source; return: the primary
	Rule   string // the row that ordered it
	Why    string
}

// Row is one line of the local table.
type Row struct {
	Code    string
	Why     string
	When    func(*place) bool
	Actions []ActionKind
}

// place is one node's situation with a few answers worked out.
type place struct {
	s    State
	self NodeID
	l    Local
}

func (p *place) isPrimary() bool { return p.s.Primary == p.self }

// released: this node let go of its epoch in a switchover that the log has not rolled back yet.
func (p *place) released() bool {
	return p.s.Op != nil && p.s.Op.ID == p.l.ReleasedOp && p.s.Op.Kind.Planned() && p.s.Op.From == p.self
}

// mayServe is the right to serve, lease apart: invariant I7's first half.
func (p *place) mayServe() bool {
	return p.l.Fresh && p.isPrimary() && !p.released() && p.l.Frozen <= p.s.Epoch && p.l.Quarantine == "" && !p.l.Stopping
}

// handedOver: the unsettled epoch was given by this node's own release, after which it had nothing that the new primary lacks. It may turn round
// at once: the barrier may need its acknowledgement.
func (p *place) handedOver() bool {
	return p.s.Op != nil && p.s.Op.Step == StepPromoted && p.s.Op.Kind.Planned() && p.s.Op.ID == p.l.ReleasedOp
}

// copyDue: the log orders a rebuild of this node that has not brought its copy into use yet.
func (p *place) copyDue() bool {
	r, ok := p.s.RebuildOf(p.self)
	return ok && p.l.Fresh && !(p.l.Copy.Stage == CopyAdopted && p.l.Copy.Of == r.Index)
}

func (p *place) serverUp() bool   { return p.l.Server.State == ServerUp }
func (p *place) tail() bool       { return p.l.Held > p.l.Followed }
func (p *place) restarting() bool { return p.s.Op != nil && p.s.Op.Step == StepRestart }

// mayOpen is invariant I7.
func (p *place) mayOpen() bool {
	return p.mayServe() && p.l.LeaseValid && p.l.LeaseEpoch == p.s.Epoch && p.l.BarrierDone && p.serverUp() && !p.l.Server.HasReplication && p.synced()
}

// synced: a commit waits for acknowledgements, if the log wants any; and it wants at least as many as are never given up.
func (p *place) synced() bool {
	return p.s.Sync.Acks >= p.s.floor() && (p.l.Server.SourceSync || p.s.Sync.Acks == 0)
}

// inSync: the source waits for as many acknowledgements as it must.
func (p *place) inSync() bool {
	want := p.s.SourceAcks()
	return want == 0 || p.l.Server.SourceSync && p.l.Server.Acks == want
}

// syncRight: a replica acknowledges if it is in the set, and only then.
func (p *place) syncRight() bool {
	sv := p.l.Server
	if p.s.MayAcknowledge(p.self) {
		return sv.ReplicaSyncSet && (sv.ReplicaSync || sv.IOConnecting)
	}
	return !sv.ReplicaSync && !sv.ReplicaSyncSet
}

// WantBlocked is whom the primary keeps from connecting: who is leaving the set, and who is outside and has not confirmed it.
func WantBlocked(s State, confirmed []NodeID) []NodeID {
	var out []NodeID
	for _, id := range s.DataNodes() {
		leaving := s.Change != nil && s.Change.Kind == ChangeShrink && s.Change.Node == id
		if leaving || s.OutsideSince(id) > 0 && !slices.Contains(confirmed, id) {
			out = append(out, id)
		}
	}
	return out
}

func (p *place) blocksRight() bool {
	want := WantBlocked(p.s, p.l.Confirmed)
	return len(want) == len(p.l.Blocked) && !slices.ContainsFunc(want, func(id NodeID) bool { return !slices.Contains(p.l.Blocked, id) })
}

// startDue: this restart's start has not failed yet.
func (p *place) startDue() bool {
	switch {
	case p.restarting():
		return p.l.FailedIndex < p.s.Op.Index
	case p.s.Phase == PhasePromoting:
		return true
	}
	return false
}

// guardRows come first and do not exclude the others: they only take away.
var guardRows = []Row{
	{"gate.no-right", "no valid lease, no barrier or no running mysqld: the gate is closed", func(p *place) bool { return p.l.Fresh && p.l.GateOpen && !p.mayOpen() }, []ActionKind{ActCloseGate}},
	{"server.no-right", "writable without a valid lease for the present epoch", func(p *place) bool {
		// A restarted hbd leaves an open gate alone until it has heard from a leader: the kernel ends it in time.
		adopted := !p.l.Fresh && p.l.GateOpen
		return p.serverUp() && !p.l.Server.ReadOnly && !adopted && !(p.mayServe() && p.l.LeaseValid && p.l.LeaseEpoch == p.s.Epoch)
	}, []ActionKind{ActSelfFence}},
	{"vip.let-go", "another node serves at the address", func(p *place) bool {
		// Never from a state that may be old: a restarted hbd replays epochs in which another was primary.
		return p.l.Fresh && p.l.VIPHeld && !p.isPrimary() && (p.l.OtherClaims || p.l.OtherServes || (p.s.Primary != "" && p.s.Phase == PhaseSteady))
	}, []ActionKind{ActReleaseVIP}},
}

// rows is the local table: the first that matches decides.
var rows = []Row{
	{"rebuild.running", "its data is being replaced by a copy", func(p *place) bool { return p.l.Copy.Running }, []ActionKind{ActNone}},
	{"rebuild.unfinished", "a copy is half in its place: mysqld cannot run before it is whole", func(p *place) bool { return p.l.Copy.Stage == CopyPlacing }, []ActionKind{ActRebuild}},
	{"rebuild.run", "the log orders its data replaced by a copy", (*place).copyDue, []ActionKind{ActRebuild}},
	{"rebuild.useless", "the copy has what the primary lacks: the rebuild has failed", func(p *place) bool { return p.l.Copy.Stage == CopyAdopted && p.l.Quarantine != "" }, []ActionKind{ActRebuild}},
	{"rebuild.waits", "its data was given up and the copy is not whole: it waits for the log to order one", func(p *place) bool { return p.l.Copy.Stage == CopyHalf }, []ActionKind{ActNone}},
	{"node.quarantined", "kept out until a human has looked", func(p *place) bool { return p.l.Quarantine != "" }, []ActionKind{ActNone}},
	{"node.not-fresh", "the applied state may be old: no leader has been heard since hbd started", func(p *place) bool { return !p.l.Fresh }, []ActionKind{ActNone}},
	{"node.empty", "has no data yet: a start would make an empty server", func(p *place) bool { return p.l.Copy.Empty && !p.isPrimary() }, []ActionKind{ActNone}},
	{"frozen.start", "mysqld is down on a replica whose answer is needed", func(p *place) bool {
		return p.s.Primary == "" && !p.tail() && p.l.Server.State == ServerDown
	}, []ActionKind{ActStart}},
	{"cluster.no-primary", "waiting for a primary to be named", func(p *place) bool { return p.s.Primary == "" }, []ActionKind{ActNone}},

	{"primary.released", "this node let go of its epoch: only the log gives it back", func(p *place) bool { return p.isPrimary() && p.released() }, []ActionKind{ActNone}},
	{"primary.hung", "mysqld hangs and its restart is committed", func(p *place) bool {
		// A promotion orders the start too; but a candidate that has not written its barrier may hold what a kill would make it forget.
		return p.isPrimary() && (p.restarting() || p.tail()) && p.l.Server.State == ServerHung && p.startDue()
	}, []ActionKind{ActCloseGate, ActKill, ActStart}},
	{"primary.start", "mysqld is down and its start is committed", func(p *place) bool { return p.isPrimary() && p.l.Server.State == ServerDown && p.startDue() }, []ActionKind{ActStart}},
	{"primary.no-server", "mysqld does not serve: the leader decides on restart or failover", func(p *place) bool { return p.isPrimary() && !p.serverUp() }, []ActionKind{ActNone}},
	{"primary.drain", "named primary while still a replica: drain, then stop following", func(p *place) bool { return p.isPrimary() && p.l.Server.HasReplication }, []ActionKind{ActStopFollow}},
	{"primary.cover-port", "without acknowledgements nothing may be written without a lease, at no address", func(p *place) bool {
		return p.isPrimary() && p.s.CoverPort() && !p.l.PortGated
	}, []ActionKind{ActCoverPort}},
	{"primary.block", "who must not acknowledge may not connect, and all others may", func(p *place) bool { return p.isPrimary() && !p.blocksRight() }, []ActionKind{ActBlock}},
	{"primary.sync", "a commit must wait for its acknowledgements", func(p *place) bool { return p.isPrimary() && !p.inSync() }, []ActionKind{ActSourceSync}},
	{"primary.async", "the log says that commits wait for nobody", func(p *place) bool {
		return p.isPrimary() && p.s.SourceAcks() == 0 && p.l.Server.SourceSync
	}, []ActionKind{ActAsync}},
	{"primary.prepare", "a change of the sync set is intended, and what it needs is in force", func(p *place) bool {
		return p.isPrimary() && p.s.Change != nil && p.l.Prepared != p.s.Change.Index
	}, []ActionKind{ActPrepare}},
	{"primary.nudge", "commits wait although replicas are connected: an acknowledgement may have been lost", func(p *place) bool {
		return p.isPrimary() && p.l.GateOpen && p.l.Server.CommitsWait
	}, []ActionKind{ActNudge}},
	{"primary.no-lease", "waiting for the lease of the present epoch", func(p *place) bool { return p.isPrimary() && !(p.l.LeaseValid && p.l.LeaseEpoch == p.s.Epoch) }, []ActionKind{ActNone}},
	{"primary.barrier", "nothing of this epoch may be read before its barrier is acknowledged", func(p *place) bool { return p.isPrimary() && !p.l.BarrierDone }, []ActionKind{ActBarrier}},
	{"primary.open", "lease valid, barrier acknowledged: serve", func(p *place) bool {
		return p.mayOpen() && (!p.l.GateOpen || !p.l.VIPHeld || p.l.Server.ReadOnly || !p.l.Announced || (p.s.Op != nil && p.l.ServedIndex < p.s.Op.Index && (p.restarting() || p.s.Op.Step == StepPromoted)))
	}, []ActionKind{ActOpen}},
	{"primary.uncover", "what is acknowledged elsewhere needs no cover of the own port", func(p *place) bool {
		return p.isPrimary() && p.l.PortGated && !p.s.CoverPort()
	}, []ActionKind{ActUncover}},
	{"primary.forget", "clients are back: what is left of whom it replicated from may go", func(p *place) bool {
		return p.isPrimary() && p.s.Op == nil && p.l.GateOpen && p.l.Server.Leftover
	}, []ActionKind{ActForget}},
	{"primary.serving", "serves", func(p *place) bool { return p.isPrimary() }, []ActionKind{ActNone}},

	{"return.not-settled", "was primary; keeps every byte while no newer epoch is settled", func(p *place) bool { return p.tail() && p.s.Settled() <= p.l.Held && !p.handedOver() }, []ActionKind{ActNone}},
	{"return.decide", "was primary: compare with the settled primary, then follow, rewind or keep out", func(p *place) bool { return p.tail() && p.l.Server.State != ServerUnknown }, []ActionKind{ActReturn}},
	{"replica.start", "mysqld is down on a replica", func(p *place) bool { return p.l.Server.State == ServerDown }, []ActionKind{ActStart}},
	{"replica.hung", "mysqld hangs on a replica", func(p *place) bool { return p.l.Server.State == ServerHung }, []ActionKind{ActKill, ActStart}},
	{"replica.unknown", "mysqld has not been looked at yet", func(p *place) bool { return !p.serverUp() }, []ActionKind{ActNone}},
	{"replica.frozen", "has promised to follow no source of an older epoch", func(p *place) bool { return p.s.Epoch < p.l.Frozen }, []ActionKind{ActNone}},
	{"replica.candidate", "holds what the old primary had, and leaves it to the log whether it goes on receiving", func(p *place) bool {
		op := p.s.Op
		return op != nil && op.Step == StepReleasing && op.To == p.self && p.l.FollowsRight && p.l.Server.SQLRunning && slices.Contains(p.l.Blocked, op.From)
	}, []ActionKind{ActNone}},
	{"replica.sync-off", "outside the sync set: its acknowledgement must not count", func(p *place) bool {
		// An applier that stopped with an error comes first: the receiver is not restarted beside it. Until then the primary lets nothing through.
		broken := !p.l.Server.SQLRunning && p.l.Server.ApplyErrno != 0
		return p.s.OutsideSince(p.self) > p.l.SyncOff && !p.s.MayAcknowledge(p.self) && !broken
	}, []ActionKind{ActSyncOff}},
	{"replica.acks", "acknowledges as the sync set says: as a member, and only then", func(p *place) bool { return p.l.FollowsRight && !p.syncRight() && p.l.Followed >= p.s.Epoch }, []ActionKind{ActFollow}},
	{"replica.unblock", "follows: what was blocked for a change of primary may pass again", func(p *place) bool {
		sv := p.l.Server
		return len(p.l.Blocked) > 0 && p.l.FollowsRight && sv.IORunning && sv.SQLRunning && p.l.Followed >= p.s.Epoch
	}, []ActionKind{ActUnblock}},
	{"replica.reconnect", "the primary's mysqld is back, the IO thread still waits to try again", func(p *place) bool {
		sv := p.l.Server
		// A restart in place is what such a replica's first failed try was about: its second would come after a second. The error stays until
		// it is connected: a receiver that was just made to try must not be stopped in the middle of it.
		waits := sv.IOStalled || p.restarting() && sv.IOConnecting && sv.IOErrno != 0 && !sv.LoginRefused && !p.l.Reconnected
		return p.l.FollowsRight && p.l.SourceUp && waits && sv.SQLRunning && p.l.Followed >= p.s.Epoch && p.s.Phase != PhaseFencing && !p.beforePause()
	}, []ActionKind{ActReconnect}},
	{"replica.follow", "does not replicate from the primary with acknowledgements", func(p *place) bool {
		sv := p.l.Server
		return !p.l.FollowsRight || !sv.IORunning || !sv.SQLRunning || !p.syncRight() || sv.SourceSync || p.l.Followed < p.s.Epoch
	}, []ActionKind{ActFollow}},
	{"replica.uncover", "follows the new primary: its own port is for its own readers", func(p *place) bool { return p.l.PortGated }, []ActionKind{ActUncover}},
	{"rebuild.done", "follows on its copy: the old data may go", func(p *place) bool { return p.l.Copy.Stage == CopyAdopted }, []ActionKind{ActRebuild}},
	{"replica.following", "follows", func(*place) bool { return true }, []ActionKind{ActNone}},
}

// beforePause: a planned change is being prepared. Who cannot connect then is kept out on purpose, and about to be turned.
func (p *place) beforePause() bool {
	op := p.s.Op
	return op != nil && op.Kind.Planned() && op.Step != StepPromoted
}

// Rows gives the tables for printing: guards, the local table, and what names damage.
func Rows() []Row {
	out := append(append([]Row{}, guardRows...), rows...)
	for _, c := range append(careRows, careSettings) {
		out = append(out, c.Row)
	}
	return out
}

// Reconcile runs on every node. It turns what is committed and what is seen here into local actions, in order. Self-fencing lives here, so it
// works with no leader and no network.
func Reconcile(s State, self NodeID, l Local) []Action {
	if m, ok := s.Member(self); !ok || m.Role != RoleData {
		return nil
	}
	p := &place{s: s, self: self, l: l}
	var out []Action
	add := func(r Row) {
		for _, k := range r.Actions {
			target := s.SourceOf(self)
			if k == ActReturn {
				target = s.Primary // whoever was primary itself is compared with the one that is
			}
			out = append(out, Action{Kind: k, Epoch: s.Epoch, Index: s.Index, Target: target, Rule: r.Code, Why: r.Why})
		}
	}
	for _, r := range guardRows {
		if r.When(p) {
			add(r)
		}
	}
	for _, r := range rows {
		if r.When(p) {
			add(refine(p, r))
			break
		}
	}
	if careSettings.When(p) {
		add(careSettings.named(p)) // last: whatever hinders it must hinder nothing else
	}
	return out
}
