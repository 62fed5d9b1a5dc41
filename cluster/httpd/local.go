package httpd

import "time"

// Local is this node alone, as plain data: what the health checks judge and the metrics print. The
// Backend fills a new one for each call from its own counters; nothing here refers back to it.
type Local struct {
	Node      string // this node's id
	ClusterID string // "" before bootstrap or join
	Dialect   string // "mariadb", "mysql", or "none" on a witness
	Role      string // api.RolePrimary and so on
	Mode      string // "auto", "observe", "paused"
	Phase     string // phase of the replicated state, api.PhaseSteady and so on
	Primary   string // id of the primary in the applied state, "" when none

	Epoch        uint64
	AppliedIndex uint64    // last Raft index applied here
	PrimarySince time.Time // zero when there is no primary

	// Age is how old the local view is (its last turn of the loop). The health checks refuse an old one.
	Age time.Duration
	// NotReady says why this node cannot do its part yet, "" when it can.
	NotReady string

	LeaseRemaining time.Duration // 0 when none or ended
	GateOpen       bool          // clients of the VIPs are let through at this moment
	GateKernel     bool          // the kernel closes the gate by itself

	VIPs    []VIP
	Clients Clients
	Raft    Raft
	Peers   []Peer

	Server      Database
	Replication Replication
	// Repairs counts the repairs of this node's server begun since hbd started, by rule.
	Repairs map[string]uint64
	Rebuild Rebuild
	// CommitsWaiting counts commits (groups of them) that wait for acknowledgements.
	CommitsWaiting  int
	SyncMembers     int       // members of the committed sync set
	SyncAcks        int       // acknowledgements a commit needs
	Degraded        bool      // writes are acknowledged that only the primary holds
	SyncMinReplicas int       // acknowledgements that are never given up
	SyncChanging    bool      // the primary prepares a change of the sync set
	DegradedSince   time.Time // zero when not Degraded
	LossyEpochs     uint64    // epochs that were won by accepting the loss of acknowledged writes
	// FailuresTolerated is how many more nodes may be lost, in the worst order.
	FailuresTolerated int

	// Operations counts the operations that ended while this hbd ran, as the replicated state tells them: the same on all nodes.
	Operations map[OperationKey]uint64
	// Phases are the durations of operation phases, by phase name.
	Phases map[string]Histogram
	// WriteGaps are the write gaps of ended operations, by kind.
	WriteGaps map[string]Histogram
	// LastPhases is each phase of the last operation with how long it took.
	LastPhases map[string]time.Duration
	// LastWriteGap is the write gap of the last operation, 0 when none was measured.
	LastWriteGap time.Duration
}

// OperationKey names a counter of ended operations.
type OperationKey struct {
	Kind   string // api.KindRestart and so on
	Result string // ResultDone and so on
}

// Results of ended operations, as in OperationKey.
const (
	ResultDone       = "done"
	ResultRolledBack = "rolled_back"
	ResultRefused    = "refused"
	ResultStuck      = "stuck"
)

// Phases of an operation, the labels of operation_phase_duration_seconds that exist from the start.
var phaseNames = []string{"prepare", "release", "restart", "fence", "freeze", "drain", "barrier", "announce"}

// VIP is one virtual address on this node.
type VIP struct {
	Address       string
	Held          bool // the address is on this node's interface
	Open          bool // and the gate lets its clients through
	Conflicts     uint64
	Repairs       uint64
	Announcements uint64
}

// Clients is about the connections of clients to the virtual addresses.
type Clients struct {
	Shared   int    // of this node, shared with the others as the primary
	Unshared int    // of this node, beyond the bound
	Known    int    // of other nodes, as they shared them
	Tickled  uint64 // provoked after taking over, since this hbd started
}

// Raft is this node's view of the consensus.
type Raft struct {
	Leader        bool
	HasLeader     bool
	Voters        int
	LeaderChanges uint64 // since this hbd started
}

// Peer is one other member as reached from here.
type Peer struct {
	ID string
	// Paths says by path ("gossip", "rpc", "mysql", "arp") whether the peer answers on it; paths that
	// are not tried are absent.
	Paths map[string]bool
}

// Database is this node's database server.
type Database struct {
	Present  bool // false on a witness
	Up       bool
	Restarts uint64    // starts by hbd since hbd started, the first one apart
	Rewinds  uint64    // returns of a former primary by a rewind since hbd started
	Started  time.Time // zero when it is down
}

// Rebuild is this node as one whose data is of no use.
type Rebuild struct {
	// Cause is why ("errant", "purged", "quarantined", "empty", "asked"), "" when its data is good.
	Cause string
	// Active: its data is being replaced by a copy, of which Received of about Size bytes have arrived.
	Active         bool
	Received, Size int64
}

// Replication is this node as a replica.
type Replication struct {
	// IO and SQL say whether the receiving and the applying thread run.
	IO, SQL bool
	// Lag is the age of the oldest transaction not applied, nil when unknown or not a replica.
	Lag *time.Duration
}
