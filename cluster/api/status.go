package api

import "encoding/json"

// Standing is the first word of a status: what the cluster amounts to at this moment.
type Standing string

// The standings. Only StandingHealthy is free of a need to act.
const (
	// StandingHealthy: one primary takes writes and at least one more failure is survived.
	StandingHealthy Standing = "healthy"
	// StandingDegraded: one primary takes writes, but something that protects it is missing; Status.Why says what.
	StandingDegraded Standing = "degraded"
	// StandingNoPrimary: nobody takes writes, for now (an operation runs) or until someone acts.
	StandingNoPrimary Standing = "no_primary"
	// StandingNoQuorum: the node that answered sees no Raft leader; the primary stops when its lease ends.
	StandingNoQuorum Standing = "no_quorum"
	// StandingNotBootstrapped: nobody has named a first primary yet.
	StandingNotBootstrapped Standing = "not_bootstrapped"
	// StandingUnknown: the node that answered cannot say, and will not guess.
	StandingUnknown Standing = "unknown"
)

// Phases of the replicated state, as in Status.Phase.
const (
	PhaseNone       = "none"       // no primary was ever named
	PhaseSteady     = "steady"     // one primary, nothing under way
	PhaseRestarting = "restarting" // the primary's service is being restarted in place
	PhaseFencing    = "fencing"    // the old primary is being made unable to take writes
	PhasePromoting  = "promoting"  // the candidate is becoming the primary
	PhaseSettling   = "settling"   // the new primary serves; the others are being turned round
)

// Health values of a node. Unknown is not dead.
const (
	HealthUnknown = "unknown"
	HealthOK      = "healthy"
	HealthSuspect = "suspect"
	HealthFailed  = "failed"
)

// Roles of a node, as in Node.Role.
const (
	RolePrimary     = "primary"
	RoleReplica     = "replica"
	RoleWitness     = "witness"
	RoleJoining     = "joining"
	RoleRebuilding  = "rebuilding"
	RoleQuarantined = "quarantined"
	RoleFenced      = "fenced"
)

// States of a node's database server, as in Node.Server.
const (
	ServerUp       = "up"
	ServerDown     = "down"
	ServerStarting = "starting"
	ServerUnknown  = "unknown"
	ServerNone     = "none" // a witness has no server
)

// Status is the whole cluster as the node that answered knows it (GET /v1/status).
type Status struct {
	// Cluster is the human name of the cluster.
	Cluster string `json:"cluster"`
	// Verdict is the one word an operator reads first.
	Verdict Standing `json:"verdict"`
	// FailuresTolerated is how many more nodes may be lost, in the worst order, with the service staying up.
	FailuresTolerated int `json:"failures_tolerated"`
	// Why lists what keeps the verdict from being healthy, worst first; empty when healthy.
	Why []string `json:"why"`
	// IfPrimaryDied says in one sentence what would happen if the primary died now.
	IfPrimaryDied string `json:"if_primary_died"`
	// Epoch numbers the grants of the primary role; it only rises.
	Epoch uint64 `json:"epoch"`
	// Primary is the id of the node that may take writes in this epoch, "" when there is none.
	Primary string `json:"primary"`
	// PrimarySince is when this epoch's primary was promoted, null when there is none.
	PrimarySince Time `json:"primary_since"`
	// Leader is the id of the Raft leader, "" when the node that answered knows none.
	Leader string `json:"leader"`
	// Phase is the phase of the replicated state (PhaseSteady and so on).
	Phase string `json:"phase"`
	// Mode is "auto", or "observe" when decisions are only logged.
	Mode string `json:"mode"`
	// Paused says that no new operation may begin; Pause has the particulars.
	Paused bool `json:"paused"`
	// Pause is null unless Paused.
	Pause *Pause `json:"pause"`
	// Next lists what to do about Why: a command, or the page that explains; empty when nothing is to be done.
	Next []string `json:"next"`
	// Degraded says that the cluster acknowledges writes that only the primary holds.
	Degraded bool `json:"degraded"`
	// DegradedSince is when that began, null unless Degraded; DegradedWhy what led to it.
	DegradedSince Time   `json:"degraded_since"`
	DegradedWhy   string `json:"degraded_why"`
	// DisksSurvived is W: acknowledged writes survive the loss of the disks of any so many nodes.
	DisksSurvived int `json:"disks_survived"`
	// LossyEpoch is the newest epoch in which acknowledged writes may have been lost, as an operator accepted; 0 when there is none.
	LossyEpoch uint64 `json:"lossy_epoch"`
	// VIPs are the virtual addresses and who answers for them.
	VIPs []VIP `json:"vips"`
	// Sync is the committed set of replicas whose acknowledgement counts.
	Sync Sync `json:"sync"`
	// Nodes are all members, in the order of their ids.
	Nodes []Node `json:"nodes"`
	// Operation is the operation under way, null when there is none.
	Operation *Operation `json:"operation"`
	// LastIncident is the latest closed incident, null when there was none.
	LastIncident *Incident `json:"last_incident"`
	// GateKernel says that the kernel ends the primary's lease even if hbd is frozen. False is a weaker guarantee.
	GateKernel bool `json:"gate_kernel"`
	// ToldBy is the id of the node that answered.
	ToldBy string `json:"told_by"`
	// AgeMS is how old the answering node's view is, in milliseconds on its own clock.
	AgeMS int64 `json:"age_ms"`
}

// VIP is one virtual address.
type VIP struct {
	Address string `json:"address"`
	// Holder is the id of the node that answers for the address, "" when nobody does.
	Holder string `json:"holder"`
}

// Sync is the sync set: an acknowledged write is held by the primary and by Acks members of Set.
type Sync struct {
	Set  []string `json:"set"`
	Acks int      `json:"acks"`
	// MinReplicas is the fewest replicas the cluster may run with before writes wait instead of degrading.
	MinReplicas int `json:"min_replicas"`
	// Change is a change of the set that the primary prepares, null when there is none.
	Change *SyncChange `json:"change"`
}

// SyncChange is a change of the sync set under preparation.
type SyncChange struct {
	// Kind is "shrink" (Node leaves) or "acks" (Acks are to be waited for).
	Kind  string `json:"kind"`
	Node  string `json:"node"`
	Acks  int    `json:"acks"`
	Cause string `json:"cause"`
	Since Time   `json:"since"`
}

// What a data node is to the sync set, as in Node.Sync.
const (
	SyncAck     = "ack"     // its acknowledgement counts
	SyncReserve = "reserve" // it replicates without acknowledging
	SyncLeaving = "leaving" // it is being taken out of the set
	SyncBlocked = "blocked" // it is out, has not confirmed it, and is kept from replicating until it has
)

// Node is one member as the answering node sees it.
type Node struct {
	ID     string `json:"id"`
	Role   string `json:"role"`
	Health string `json:"health"`
	// Server is the state of the node's database server (ServerUp and so on).
	Server string `json:"server"`
	// Version is the server's own name and version ("MariaDB 10.11.19"), "" when not known.
	Version string `json:"version"`
	// Writable says that the server takes writes from clients.
	Writable bool `json:"writable"`
	// GTID is the position the server has reached, in its own notation.
	GTID string `json:"gtid"`
	// LagSeconds is the age of the oldest transaction received or missing and not yet applied;
	// null when it does not apply (a primary, a witness) or is not known.
	LagSeconds *float64 `json:"lag_seconds"`
	// LeaseMS is what is left of the node's lease, 0 when it holds none.
	LeaseMS int64 `json:"lease_ms"`
	// Voter says that the node has a vote in Raft.
	Voter bool `json:"voter"`
	// Sync is what the node is to the sync set (SyncAck and so on), "" for the primary and a witness.
	Sync string `json:"sync"`
	// Note is a word for people: "next", "reserve", "in maintenance", "" for nothing.
	Note string `json:"note"`
	// Rebuild is how far the node's rebuild is, null when none is ordered.
	Rebuild *Rebuild `json:"rebuild"`
}

// Rebuild is a node's rebuild under way.
type Rebuild struct {
	// From is the donor, Cause why ("errant", "purged", "quarantined", "empty", "asked"), Reason the same in words.
	From   string `json:"from"`
	Cause  string `json:"cause"`
	Reason string `json:"reason"`
	Actor  string `json:"actor"`
	Since  Time   `json:"since"`
	// Phase is "waiting", "receiving", "preparing", "placing", "starting" or "following".
	Phase string `json:"phase"`
	// Bytes have arrived of about Size; Percent of that, at most 100 (99 until the end is known).
	Bytes   int64   `json:"bytes"`
	Size    int64   `json:"size"`
	Percent float64 `json:"percent"`
	// Rate is bytes per second since it began; LeftSeconds is what is left at that rate, null when not known.
	Rate        float64  `json:"rate"`
	LeftSeconds *float64 `json:"left_seconds"`
}

// Pause is an operator's ban on new operations.
type Pause struct {
	By    string `json:"by"`
	Why   string `json:"why"`
	Since Time   `json:"since"`
	// Until is when the pause ends by itself, null when only `hbctl resume` ends it.
	Until Time `json:"until"`
}

// MarshalJSON writes every list as a list, never null.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	s.Why, s.Next, s.VIPs, s.Nodes = list(s.Why), list(s.Next), list(s.VIPs), list(s.Nodes)
	return json.Marshal(plain(s))
}

// MarshalJSON writes every list as a list, never null.
func (s Sync) MarshalJSON() ([]byte, error) {
	type plain Sync
	s.Set = list(s.Set)
	return json.Marshal(plain(s))
}

// list turns a nil slice into an empty one: scripts iterate without asking first.
func list[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}
