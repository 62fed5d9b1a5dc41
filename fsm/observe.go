package fsm

import (
	"slices"
	"time"
)

// ServerState is what a node's hbd sees of its own mysqld.
type ServerState string

// The states of a server. Unknown is not down: nothing is decided from it.
const (
	ServerUnknown ServerState = "unknown"
	ServerUp      ServerState = "up"
	ServerDown    ServerState = "down" // no process, or it refuses connections
	ServerHung    ServerState = "hung" // a process that answers no statement
)

// ServerStatus is one look at one mysqld, taken by its own hbd.
type ServerStatus struct {
	State          ServerState   `json:"state"`
	Fault          string        `json:"fault"`             // in words: "too many connections", "disk full", "commits wait for acknowledgement", ...
	For            time.Duration `json:"for"`               // how long it has been in this state
	Stopped        bool          `json:"stopped,omitempty"` // down, and it stopped in good order: who waited for an acknowledgement may have heard success, and only its own data holds that
	Version        string        `json:"version"`
	Started        string        `json:"started"`   // identifies this run of mysqld
	ServerID       uint32        `json:"server_id"` // its own; 0 when not known
	ReadOnly       bool          `json:"read_only"`
	Executed       string        `json:"executed"`
	Received       string        `json:"received"`
	HasReplication bool          `json:"has_replication"`
	Leftover       bool          `json:"leftover,omitempty"` // of a source whom it replicated from before it became one itself: to be forgotten
	SourceHost     string        `json:"source_host"`
	SourcePort     uint16        `json:"source_port"`
	SourceID       string        `json:"source_id"`     // whom the receiver was connected to, as positions name servers; "" when not known
	IORunning      bool          `json:"io_running"`    // runs, connected or not
	IOConnecting   bool          `json:"io_connecting"` // runs and is not connected
	IOStalled      bool          `json:"io_stalled"`    // has not connected for longer than connecting takes: it tries about once a second
	SQLRunning     bool          `json:"sql_running"`
	ReplError      string        `json:"repl_error"`
	IOErrno        int           `json:"io_errno"`         // what the receiver stopped with, 0 for none
	Lag            *float64      `json:"lag"`              // seconds, nil when unknown
	SourceSync     bool          `json:"source_sync"`      // semi-sync enabled as a source
	ReplicaSync    bool          `json:"replica_sync"`     // semi-sync active as a replica
	ReplicaSyncSet bool          `json:"replica_sync_set"` // semi-sync enabled as a replica: the setting
	Acks           int           `json:"acks"`             // as a source, so many acknowledgements are waited for
	CommitsWait    bool          `json:"commits_wait"`     // commits have waited for an acknowledgement without progress for a while
	Waiting        int           `json:"waiting"`          // commit groups that wait for an acknowledgement; above 0 means "unknown number"
	LastEpoch      uint64        `json:"last_epoch"`       // newest epoch row
	Problems       []string      `json:"problems"`         // settings that break a guarantee
	Weakened       []string      `json:"weakened"`         // those of them that can be put back at run time
	ChannelDrift   []string      `json:"channel"`          // what of a replica's channel is not as configured
	LoginRefused   bool          `json:"login"`            // the source refuses this replica's login
	ApplyErrno     int           `json:"apply_errno"`      // what the applier stopped with, 0 for none
	Delay          time.Duration `json:"delay"`            // what an operator lets the applier lag behind
}

// Sight is what one node sees of another, directly. Ages are since the last success, measured on the reporting node.
type Sight struct {
	Node      NodeID        `json:"node"`
	AgentAge  time.Duration `json:"agent_age"`  // its hbd answered a call so long ago
	ServerAge time.Duration `json:"server_age"` // its mysqld accepted a connection so long ago
}

// Standing is what a node is at the moment, in one word.
type Standing string

// The standings.
const (
	StandingStarting    Standing = "starting"    // has not heard from a leader since it started
	StandingServing     Standing = "serving"     // primary, gate open
	StandingPrimary     Standing = "primary"     // named primary, not serving yet
	StandingReplica     Standing = "replica"     // follows the primary
	StandingCatching    Standing = "catching_up" // on its way to follow
	StandingFrozen      Standing = "frozen"      // waits for a primary to be named
	StandingFenced      Standing = "fenced"      // was primary, may not serve
	StandingQuarantined Standing = "quarantined" // needs a human; the reason says why
	StandingWitness     Standing = "witness"
)

// Observation is everything a node tells the leader about itself and about what it sees of the others.
type Observation struct {
	Node         NodeID        `json:"node"`
	Run          string        `json:"run"`      // names this run of hbd
	Sequence     uint64        `json:"sequence"` // rises with each observation of this run of hbd
	Held         uint64        `json:"held"`     // as in Answer
	Whole        uint64        `json:"whole"`    // as in Answer
	Applied      uint64        `json:"applied"`
	Epoch        uint64        `json:"epoch"`
	Standing     Standing      `json:"standing"`
	Reason       string        `json:"reason"`
	Server       ServerStatus  `json:"server"`
	Incarnation  string        `json:"incarnation"`
	Serving      uint64        `json:"serving"`       // epoch it serves: barrier acknowledged and gate open; 0 when not serving
	ServedIndex  uint64        `json:"served_index"`  // index of the order (promote, restart) it last finished serving for
	FailedIndex  uint64        `json:"failed_index"`  // index of the restart whose start failed
	FailedReason string        `json:"failed_reason"` //
	GateOpen     bool          `json:"gate_open"`
	KernelGate   bool          `json:"kernel_gate"`
	VIPHeld      bool          `json:"vip_held"`
	LeaseLeft    time.Duration `json:"lease_left"`
	Sights       []Sight       `json:"sights"`
	Leaving      bool          `json:"leaving"`     // hbd is shutting down
	Prepared     uint64        `json:"prepared"`    // index of the change of the sync set that it has prepared as primary
	PreparedAt   string        `json:"prepared_at"` // its position, read after that
	PortGated    bool          `json:"port_gated"`  // the gate covers its own port
	SyncOff      uint64        `json:"sync_off"`    // outside since this index: its semi-sync was seen off after that
	Phases       []PhaseTime   `json:"phases"`      // how long the steps of its last promotion or restart took
	Rebuild      RebuildNeed   `json:"rebuild"`
}

// RebuildNeed is a node's own judgement that its data is of no use, and how far its rebuild is.
type RebuildNeed struct {
	Cause    RebuildCause  `json:"cause"`  // "" when there is no need
	Reason   string        `json:"reason"` // in words
	Phase    string        `json:"phase"`  // of the rebuild under way: "receiving", ...; "" when none is
	Received int64         `json:"received"`
	Size     int64         `json:"size"` // bytes to receive, about
	Elapsed  time.Duration `json:"elapsed"`
}

// Health is a node's condition as the leader judges it.
type Health string

// The health of a node.
const (
	HealthUnknown Health = "unknown"
	HealthOK      Health = "ok"
	HealthSuspect Health = "suspect" // something is wrong, too little to act on
	HealthFailed  Health = "failed"  // a quorum of voters failed to reach its hbd and its mysqld
)

// NodeView is what the leader knows of one node.
type NodeView struct {
	ID        NodeID
	Obs       Observation
	Known     bool    // an observation has arrived since this leader took office
	At        Instant // when it arrived, on the leader's clock
	Health    Health
	Reason    string
	AgentLost bool // a quorum failed to reach its hbd; its mysqld may be reachable
	Lost      bool // a quorum failed to reach both
	// UnableSince is since when it cannot acknowledge as a member of the sync set (CannotAck), on the leader's clock; 0 when it can or is none.
	UnableSince Instant
	// Untried: chained to the candidate of a switchover, and what that had afterwards has not arrived yet. A source looks through its binary log for
	// where to begin, and sends nothing meanwhile.
	Untried bool
}

// View is the leader's picture: what arrived, stamped on arrival. It begins empty with each leadership.
type View struct {
	Self         NodeID
	Now          Instant
	Wall         time.Time // leader's wall clock, for the restart budget only
	Nodes        []NodeView
	LeaseClear   Instant   // when every lease this or an earlier leader may have granted has run out, drift included
	ChangeSince  Instant   // when this leader first saw the change of the sync set that is prepared
	StepSince    Instant   // when this leader first saw the operation at its present step
	Answers      []Answer  // to freezes of the present epoch
	Fence        *Evidence // the old primary's hbd or the hook reported the fence done
	Release      *Answer   // the old primary released the epoch
	Reached      bool      // the switchover's candidate holds the released position
	ReleaseError string
	Busy         *Busy        // what the primary last answered about its clients; nil when it was not asked
	NotServing   Instant      // since when the primary at rest says that it does not serve; 0 when it does
	ServingSince Instant      // since when the primary of an operation under way says that it serves the present epoch; 0 when it does not
	Phases       []PhaseTime  // how long the phases took that this leader led
	CaughtUp     []SyncMember // incarnations seen to hold what the primary had after they were first seen
}

// Node finds a node's view; the zero value is "unknown".
func (v View) Node(id NodeID) NodeView {
	i := slices.IndexFunc(v.Nodes, func(n NodeView) bool { return n.ID == id })
	if i < 0 {
		return NodeView{ID: id, Health: HealthUnknown, Reason: "never heard of"}
	}
	return v.Nodes[i]
}

// Fresh tells whether the node's last observation is young enough to judge by.
func (v View) Fresh(s State, id NodeID) bool {
	n := v.Node(id)
	return n.Known && v.Now-n.At <= s.Settings.ReportMaxAge
}
