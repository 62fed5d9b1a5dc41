package fsm

import (
	"slices"
	"time"
)

// Kind is the kind of an operation.
type Kind string

// The kinds of operation.
const (
	KindBootstrap  Kind = "bootstrap"
	KindRestart    Kind = "restart"    // the primary's service is started again in place
	KindFailover   Kind = "failover"   // the service is lost, its host is not
	KindTakeover   Kind = "takeover"   // the host, its link or its hbd is lost
	KindSwitchover Kind = "switchover" // asked for by an operator
	KindHandover   Kind = "handover"   // a primary that shuts down gives the role away
)

// Kinds lists every kind, for tables and metrics.
func Kinds() []Kind {
	return []Kind{KindBootstrap, KindRestart, KindFailover, KindTakeover, KindSwitchover, KindHandover}
}

// Planned tells whether the old primary co-operates.
func (k Kind) Planned() bool { return k == KindSwitchover || k == KindHandover }

// Step is where an operation stands. Steps only go forward; each is entered by one committed command.
type Step string

// The steps. A failover goes begun, fenced, promoted; a switchover prepared, chained if there are others, releasing, promoted; a restart has one.
const (
	StepPrepared  Step = "prepared"  // switchover: checked, still serving
	StepChained   Step = "chained"   // switchover: still serving, and the others already replicate from the candidate
	StepReleasing Step = "releasing" // switchover: the old primary is asked to stop and say what it has
	StepBegun     Step = "begun"     // failover: the old epoch's lease is no longer renewed; freeze and fence are under way
	StepFenced    Step = "fenced"    // failover: evidence that the old primary can do no harm is committed
	StepPromoted  Step = "promoted"  // the new primary is named; it drains, writes the barrier and opens
	StepRestart   Step = "restart"   // restart in place is ordered
)

// EvidenceKind says how we know that the old primary cannot acknowledge or answer any more.
type EvidenceKind string

// The kinds of fence evidence.
const (
	EvidenceAgent   EvidenceKind = "agent"    // its hbd closed the gate, cut the clients and made sure of mysqld
	EvidenceLease   EvidenceKind = "lease"    // its lease has run out, drift included
	EvidenceHook    EvidenceKind = "hook"     // the external fence reported success
	EvidenceHuman   EvidenceKind = "human"    // an operator vouches that it is switched off
	EvidenceRelease EvidenceKind = "release"  // it released the epoch in a switchover
	EvidenceNone    EvidenceKind = "unneeded" // nobody held the epoch before (bootstrap)
)

// Evidence is what a fence committed.
type Evidence struct {
	Kind   EvidenceKind `json:"kind"`
	Node   NodeID       `json:"node"`
	Detail string       `json:"detail"`
}

// Answer is what one member said to a freeze, or the old primary to a fence or release. It stands for a durable promise:
// the member follows no source of an epoch below Epoch again.
type Answer struct {
	Node        NodeID `json:"node"`
	Epoch       uint64 `json:"epoch"`
	Incarnation string `json:"incarnation"`
	Received    string `json:"received"`         // position, in the server's own text form
	LastEpoch   uint64 `json:"last_epoch"`       // newest epoch row it holds
	Held        uint64 `json:"held"`             // epoch whose primary it was, with all its data still its own; 0 otherwise
	Whole       uint64 `json:"whole"`            // epoch since whose beginning this incarnation has forgotten nothing; 0 when not known
	Source      string `json:"source,omitempty"` // whom it followed in the epoch that ended, as positions name servers; "" when it did not, or it is not known
	// Unapplied is how many transactions of what it received it had not applied yet. It is a preference of the leader's and not in the log.
	Unapplied uint64 `json:"-"`
}

// Operation is a running change. It lives in the log, so the next leader carries on where the last one stopped.
type Operation struct {
	ID       uint64          `json:"id"`
	Kind     Kind            `json:"kind"`
	Step     Step            `json:"step"`
	Index    uint64          `json:"index"` // log index at which the step was entered: orders carry it
	Epoch    uint64          `json:"epoch"` // epoch the operation belongs to: that of the new grant once there is one
	From     NodeID          `json:"from"`
	To       NodeID          `json:"to"`
	Actor    string          `json:"actor"`
	Cause    string          `json:"cause"`
	Attempt  int             `json:"attempt"` // restart: which one; failover: how often it has begun again
	Excluded []NodeID        `json:"excluded,omitempty"`
	Chained  bool            `json:"chained,omitempty"` // switchover: whoever is outside the sync set replicates from To
	Busy     BusyPolicy      `json:"busy,omitempty"`    // switchover: what becomes of clients in the middle of something long
	Wait     time.Duration   `json:"wait,omitempty"`    // switchover: how long they are waited for
	Lossy    bool            `json:"lossy,omitempty"`   // an operator accepted that acknowledged writes may be lost
	Fence    *Evidence       `json:"fence,omitempty"`
	Answers  []Answer        `json:"answers,omitempty"`
	Fetch    NodeID          `json:"fetch,omitempty"`    // frozen node that the candidate catches up from first: up to Position, or to Extra if there is one
	Extra    string          `json:"extra,omitempty"`    // what Fetch holds beyond Position, unacknowledged: taken over if that takes no time
	Position string          `json:"position,omitempty"` // what the candidate must hold before it serves
	Started  time.Time       `json:"started"`
	Timeline []TimelineEntry `json:"timeline"`
}

func (o Operation) clone() Operation {
	o.Excluded = slices.Clone(o.Excluded)
	o.Answers = slices.Clone(o.Answers)
	o.Timeline = slices.Clone(o.Timeline)
	if o.Fence != nil {
		f := *o.Fence
		o.Fence = &f
	}
	return o
}

// TimelineEntry is one line of an incident's story. At is the proposer's wall clock, for people only: nothing is decided from it.
type TimelineEntry struct {
	At   time.Time `json:"at"`
	Step Step      `json:"step"`
	Text string    `json:"text"`
}

// PhaseTime is how long one phase of an operation took.
type PhaseTime struct {
	Name string        `json:"name"` // detect, freeze, fence, promote, drain, barrier, announce, settle, ...
	Took time.Duration `json:"took"`
}

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	OutcomeDone       Outcome = "done"
	OutcomeRolledBack Outcome = "rolled_back"
	OutcomeSuperseded Outcome = "superseded" // another operation took its place, such as a failover after a failed restart
	OutcomeFailed     Outcome = "failed"     // a rebuild that could not be carried out
)

// Incident is an ended operation as history keeps it.
type Incident struct {
	ID       uint64          `json:"id"`
	Kind     Kind            `json:"kind"`
	From     NodeID          `json:"from"`
	To       NodeID          `json:"to"`
	Epoch    uint64          `json:"epoch"`
	Cause    string          `json:"cause"`
	Actor    string          `json:"actor"`
	Started  time.Time       `json:"started"`
	Ended    time.Time       `json:"ended"`
	Outcome  Outcome         `json:"outcome"`
	Reason   string          `json:"reason"` // why it was rolled back or superseded
	Fence    *Evidence       `json:"fence,omitempty"`
	Phases   []PhaseTime     `json:"phases"`
	Timeline []TimelineEntry `json:"timeline"`
}

// maxIncidents bounds the history kept in the replicated state.
const maxIncidents = 64

// maxTimeline bounds one incident's story: an operation that is retried for days must not fill the log's snapshot.
const maxTimeline = 40
