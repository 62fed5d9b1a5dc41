package fsm

import (
	"slices"
	"time"
)

// NodeID is the stable name of a node, such as "db1". It is never an address.
type NodeID string

// Instant is a reading of CLOCK_BOOTTIME on one machine. Instants of two machines are never compared; only durations travel.
type Instant = time.Duration

// Role tells what a member brings to the cluster.
type Role string

// The roles of a member.
const (
	RoleData    Role = "data"    // a database and a vote
	RoleWitness Role = "witness" // a vote only
)

// Member is one node of the cluster as the log knows it.
type Member struct {
	ID           NodeID `json:"id"`
	Instance     string `json:"instance"`   // made once and kept beside the Raft store: a wiped node is another instance
	Address      string `json:"address"`    // host part of every address of this node
	API          string `json:"api"`        // host:port of the API and the node RPC
	Raft         string `json:"raft"`       // host:port of Raft
	MySQLPort    uint16 `json:"mysql_port"` // port replicas connect to
	Role         Role   `json:"role"`
	Priority     int    `json:"priority"` // higher is preferred among equally advanced candidates
	NeverPromote bool   `json:"never_promote"`
}

// Phase says where the cluster stands with its primary.
type Phase string

// The phases. "none" is a cluster that has no primary and no operation that is about to give it one.
const (
	PhaseNone       Phase = "none"
	PhaseSteady     Phase = "steady"
	PhaseRestarting Phase = "restarting"
	PhaseFencing    Phase = "fencing"
	PhasePromoting  Phase = "promoting"
)

// Phases lists every phase, for tables and metrics.
func Phases() []Phase {
	return []Phase{PhaseNone, PhaseSteady, PhaseRestarting, PhaseFencing, PhasePromoting}
}

// SyncMember is one replica whose acknowledgement counts. The incarnation is empty until the log knows that this incarnation holds everything
// acknowledged so far: a member without one does not count in a freeze.
type SyncMember struct {
	Node        NodeID `json:"node"`
	Incarnation string `json:"incarnation"`
}

// SyncSet is S and W: whose acknowledgement counts, and how many a commit needs.
type SyncSet struct {
	Members []SyncMember `json:"members"`
	Acks    int          `json:"acks"`
}

// Needed is |S| - W + 1: so many frozen members are sure to include one that holds any acknowledged transaction.
func (s SyncSet) Needed() int { return len(s.Members) - s.Acks + 1 }

// Member finds a member of the set.
func (s SyncSet) Member(id NodeID) (SyncMember, bool) {
	i := slices.IndexFunc(s.Members, func(m SyncMember) bool { return m.Node == id })
	if i < 0 {
		return SyncMember{}, false
	}
	return s.Members[i], true
}

// Won says how an epoch's primary came to it.
type Won string

// How an epoch was won.
const (
	WonBootstrap  Won = "bootstrap"
	WonCount      Won = "count"      // enough members of the sync set answered the freeze
	WonSwitchover Won = "switchover" // the old primary released it
	WonOwn        Won = "own"        // the old primary itself, with its own data
	WonLossy      Won = "lossy"      // an operator accepted the loss of acknowledged writes
)

// EpochRecord is what the log keeps of an epoch for ever: a returning node judges by it whether its tail may be rewound.
type EpochRecord struct {
	Epoch   uint64    `json:"epoch"`
	Primary NodeID    `json:"primary"`
	Won     Won       `json:"won"`
	Lossy   bool      `json:"lossy"`   // won by accepting the loss of acknowledged writes
	Settled bool      `json:"settled"` // its barrier was acknowledged
	Since   time.Time `json:"since"`   // proposer's wall clock, for people only
}

// Base is the newest settled grant, kept beside an unsettled one: until the barrier of the new epoch is known to be acknowledged,
// the old set may still be the only one that holds everything.
type Base struct {
	Epoch   uint64  `json:"epoch"`
	Primary NodeID  `json:"primary"`
	Sync    SyncSet `json:"sync"`
}

// Pause stops new operations; leases and self-fencing go on.
type Pause struct {
	By    string    `json:"by"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"` // proposer's wall clock, for people only
}

// State is everything the Raft log says. It is a value: Apply returns a new one and never changes the one it was given.
type State struct {
	Format        int           `json:"format"`
	Index         uint64        `json:"index"` // log index of the last command applied
	ClusterID     string        `json:"cluster_id"`
	Cluster       string        `json:"cluster"`
	Server        string        `json:"server"` // "mariadb" or "mysql": the form of every position
	Members       []Member      `json:"members"`
	Settings      Settings      `json:"settings"`
	Epoch         uint64        `json:"epoch"`
	Primary       NodeID        `json:"primary"` // "" while fencing: nobody may serve
	Phase         Phase         `json:"phase"`
	Op            *Operation    `json:"op,omitempty"`
	Sync          SyncSet       `json:"sync"`
	Change        *SetChange    `json:"change,omitempty"` // of the sync set, being prepared by the primary
	Outside       []Outsider    `json:"outside"`          // data nodes whose acknowledgement must not count
	Base          *Base         `json:"base,omitempty"`
	Degraded      *Degradation  `json:"degraded,omitempty"` // nil while commits wait for somebody
	Epochs        []EpochRecord `json:"epochs"`
	LeaseMax      time.Duration `json:"lease_max"` // the longest lease that may be outstanding anywhere
	Paused        *Pause        `json:"paused,omitempty"`
	Incidents     []Incident    `json:"incidents"`
	NextOperation uint64        `json:"next_operation"`
	Restarts      []time.Time   `json:"restarts"` // when the primary's service was restarted, for the budget (proposer's wall clock)
	Rebuilds      []Rebuilding  `json:"rebuilds,omitempty"`
	Rebuilt       []RebuildEnd  `json:"rebuilt,omitempty"` // the newest of each node
}

// Format is the version of the encoded State.
const Format = 1

// Member finds a member by id.
func (s State) Member(id NodeID) (Member, bool) {
	i := slices.IndexFunc(s.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return s.Members[i], true
}

// DataNodes lists the members with a database, in the order of their ids.
func (s State) DataNodes() []NodeID {
	var out []NodeID
	for _, m := range s.Members {
		if m.Role == RoleData {
			out = append(out, m.ID)
		}
	}
	return out
}

// Quorum is the number of voters that make a majority.
func (s State) Quorum() int { return len(s.Members)/2 + 1 }

// Bootstrapped tells whether the cluster exists.
func (s State) Bootstrapped() bool { return s.ClusterID != "" }

// EpochOf finds the record of an epoch.
func (s State) EpochOf(epoch uint64) (EpochRecord, bool) {
	i := slices.IndexFunc(s.Epochs, func(r EpochRecord) bool { return r.Epoch == epoch })
	if i < 0 {
		return EpochRecord{}, false
	}
	return s.Epochs[i], true
}

// Settled is the newest settled epoch, 0 when there is none.
func (s State) Settled() uint64 {
	for i := len(s.Epochs) - 1; i >= 0; i-- {
		if s.Epochs[i].Settled {
			return s.Epochs[i].Epoch
		}
	}
	return 0
}

// LossySince tells whether any epoch after the given one was won by accepting a loss.
func (s State) LossySince(epoch uint64) bool {
	return slices.ContainsFunc(s.Epochs, func(r EpochRecord) bool { return r.Epoch > epoch && r.Lossy })
}

// Clone copies the state so deeply that no change of the copy is seen in the original.
func (s State) Clone() State {
	s.Members = slices.Clone(s.Members)
	s.Sync.Members = slices.Clone(s.Sync.Members)
	s.Outside = slices.Clone(s.Outside)
	s.Epochs = slices.Clone(s.Epochs)
	s.Restarts = slices.Clone(s.Restarts)
	s.Rebuilds, s.Rebuilt = slices.Clone(s.Rebuilds), slices.Clone(s.Rebuilt)
	s.Incidents = slices.Clone(s.Incidents)
	for i := range s.Incidents {
		s.Incidents[i].Timeline = slices.Clone(s.Incidents[i].Timeline)
		s.Incidents[i].Phases = slices.Clone(s.Incidents[i].Phases)
		if f := s.Incidents[i].Fence; f != nil {
			fence := *f
			s.Incidents[i].Fence = &fence
		}
	}
	if s.Op != nil {
		op := s.Op.clone()
		s.Op = &op
	}
	if s.Change != nil {
		c := *s.Change
		s.Change = &c
	}
	if s.Base != nil {
		b := *s.Base
		b.Sync.Members = slices.Clone(b.Sync.Members)
		s.Base = &b
	}
	if s.Degraded != nil {
		d := *s.Degraded
		s.Degraded = &d
	}
	if s.Paused != nil {
		p := *s.Paused
		s.Paused = &p
	}
	return s
}
