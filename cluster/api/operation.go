package api

import "encoding/json"

// Outcome is how a request ended. There are four values and no fifth: a request that was begun and
// whose end nobody knows yet is OutcomeUnknown, never a guess.
type Outcome string

const (
	// OutcomeDone: it happened, on every node it concerns.
	OutcomeDone Outcome = "done"
	// OutcomeRefused: a rule said no before anything was changed; the result names it.
	OutcomeRefused Outcome = "refused"
	// OutcomeFailed: it was begun, did not succeed, and was ended or rolled back.
	OutcomeFailed Outcome = "failed"
	// OutcomeUnknown: it may or may not have happened. With an operation id it goes on and can be followed.
	OutcomeUnknown Outcome = "unknown"
)

// Kinds of operations and incidents.
const (
	KindRestart    = "restart"    // the primary's service was restarted in place
	KindFailover   = "failover"   // the primary's service was fenced and another node promoted
	KindTakeover   = "takeover"   // the primary's host was lost and another node promoted
	KindSwitchover = "switchover" // asked for by an operator
	KindHandover   = "handover"   // the primary gave up its role to stop
)

// Result answers a request that changes something, and GET /v1/operations/{id}.
type Result struct {
	Outcome Outcome `json:"outcome"`
	// Operation is the id of the operation, 0 when none was begun.
	Operation uint64 `json:"operation,string"`
	// Rule is the name of the rule that refused or ended the request, "" when none did.
	Rule string `json:"rule"`
	// Node is the node the rule speaks about.
	Node string `json:"node"`
	// Value is what the rule saw, Threshold what it demands; both with their units.
	Value     string `json:"value"`
	Threshold string `json:"threshold"`
	// Message is one sentence for people, complete without the other fields.
	Message string `json:"message"`
	// Phases are the phases passed so far, in order.
	Phases []Phase `json:"phases"`
	// Plan is what a request with "plan": true would do; null otherwise.
	Plan *Plan `json:"plan"`
	// Risk is what a failover that accepts a loss could lose, with "plan": true; null otherwise.
	Risk *Risk `json:"risk"`
}

// Running says that the operation was begun and its end is not known yet.
func (r Result) Running() bool { return r.Outcome == OutcomeUnknown && r.Operation != 0 }

// Phase is one passed phase of an operation.
type Phase struct {
	Name string `json:"name"`
	// MS is how long the phase took, in milliseconds.
	MS float64 `json:"ms"`
}

// Plan tells what a switchover would do without doing it.
type Plan struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Steps are sentences in the order in which they would be carried out.
	Steps []string `json:"steps"`
	// Gates are all rules that were looked at, the refusing ones too.
	Gates []Verdict `json:"gates"`
	// PauseMS is the expected write pause in milliseconds, PrepareMS what is expected before it, while the old primary serves:
	// as in the last planned change, whose phases Phases are.
	PauseMS   float64 `json:"pause_ms"`
	PrepareMS float64 `json:"prepare_ms"`
	Phases    []Phase `json:"phases"`
	// Token stands for what the plan rests on; a request with it in IfPlan is refused once that has changed.
	Token string `json:"token"`
}

// Operation is an operation under way, as in Status.
type Operation struct {
	ID   uint64 `json:"id,string"`
	Kind string `json:"kind"`
	// From is the old primary, To the candidate; either may be "" while not chosen.
	From string `json:"from"`
	To   string `json:"to"`
	// Step is the phase it is in.
	Step string `json:"step"`
	// Actor is who asked: a person, or the node that decided.
	Actor   string `json:"actor"`
	Started Time   `json:"started"`
	// ElapsedMS is how long the operation has run, LimitMS when it must be over (0: no bound is known).
	ElapsedMS float64 `json:"elapsed_ms"`
	LimitMS   float64 `json:"limit_ms"`
	// Phases are the phases already passed.
	Phases []Phase `json:"phases"`
}

// Incident is one closed or running change of the primary, kept in the replicated state.
type Incident struct {
	ID   uint64 `json:"id,string"`
	Kind string `json:"kind"`
	From string `json:"from"`
	To   string `json:"to"`
	// Epoch is the epoch the incident led to.
	Epoch uint64 `json:"epoch"`
	// Cause says in words why it began, Actor who asked: a person, or the node that decided.
	Cause   string  `json:"cause"`
	Actor   string  `json:"actor"`
	Started Time    `json:"started"`
	Phases  []Phase `json:"phases"`
	// WriteGapMS is the time from the last acknowledgement before to the first one after, null when not measured.
	WriteGapMS *float64 `json:"write_gap_ms"`
	Outcome    Outcome  `json:"outcome"`
	// Lossy says that acknowledged writes may have been lost by it, as an operator accepted. It stays so for ever.
	Lossy    bool    `json:"lossy"`
	Timeline []Event `json:"timeline"`
}

// Event is one line of an incident's timeline.
type Event struct {
	// MS is the offset from the incident's start in milliseconds, on the clock of the node that recorded it.
	MS   float64 `json:"ms"`
	Node string  `json:"node"`
	Text string  `json:"text"`
}

// Verdict is what one rule said about one node.
type Verdict struct {
	Rule      string `json:"rule"`
	Node      string `json:"node"`
	OK        bool   `json:"ok"`
	Value     string `json:"value"`
	Threshold string `json:"threshold"`
	Why       string `json:"why"`
}

// MarshalJSON writes every list as a list, never null.
func (r Result) MarshalJSON() ([]byte, error) {
	type plain Result
	r.Phases = list(r.Phases)
	return json.Marshal(plain(r))
}

// MarshalJSON writes every list as a list, never null.
func (p Plan) MarshalJSON() ([]byte, error) {
	type plain Plan
	p.Steps, p.Gates, p.Phases = list(p.Steps), list(p.Gates), list(p.Phases)
	return json.Marshal(plain(p))
}

// MarshalJSON writes every list as a list, never null.
func (o Operation) MarshalJSON() ([]byte, error) {
	type plain Operation
	o.Phases = list(o.Phases)
	return json.Marshal(plain(o))
}

// MarshalJSON writes every list as a list, never null.
func (i Incident) MarshalJSON() ([]byte, error) {
	type plain Incident
	i.Phases, i.Timeline = list(i.Phases), list(i.Timeline)
	return json.Marshal(plain(i))
}
