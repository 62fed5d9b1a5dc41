package fsm

import "fmt"

// Verdict is the answer of one named rule, with the values it saw. Every refusal is one.
type Verdict struct {
	Rule      string `json:"rule"`
	Node      NodeID `json:"node"`
	OK        bool   `json:"ok"`
	Value     string `json:"value"`
	Threshold string `json:"threshold"`
	Why       string `json:"why"`
}

// String gives the verdict as one line for a log.
func (v Verdict) String() string {
	s := v.Rule
	if v.Node != "" {
		s += " " + string(v.Node)
	}
	if v.Value != "" {
		s += fmt.Sprintf(" value=%s", v.Value)
	}
	if v.Threshold != "" {
		s += fmt.Sprintf(" threshold=%s", v.Threshold)
	}
	return s + ": " + v.Why
}

// OrderKind is the kind of an order.
type OrderKind string

// The orders a leader may send. All of them only make the receiver stricter, so they may overtake the log; whatever weakens is done by a node
// only when it has applied the entry itself, by Reconcile.
const (
	OrderFreeze  OrderKind = "freeze"  // follow nobody of an older epoch any more, and say what you received
	OrderFence   OrderKind = "fence"   // close the gate, cut the clients, make sure of mysqld
	OrderRelease OrderKind = "release" // the same, politely, and say where you are
	OrderAwait   OrderKind = "await"   // answer when you hold this position
)

// OrderKinds lists every order, for the test that each is one a node can carry out.
func OrderKinds() []OrderKind { return []OrderKind{OrderFreeze, OrderFence, OrderRelease, OrderAwait} }

// Order is one instruction from the leader to a node. A node keeps the highest (Epoch, Index) it has accepted and refuses lower ones.
type Order struct {
	Kind     OrderKind `json:"kind"`
	Node     NodeID    `json:"node"`
	Epoch    uint64    `json:"epoch"` // fencing token: that of the state when it was decided
	Index    uint64    `json:"index"` // log index of the step that orders it
	Step     Step      `json:"step"`
	OpID     uint64    `json:"op_id"`
	From     NodeID    `json:"from"`           // old primary
	To       NodeID    `json:"to"`             // release: whose acknowledgements stay
	Position string    `json:"position"`       // await
	Kill     bool      `json:"kill,omitempty"` // release: break off clients in the middle of something
	Drained  bool      `json:"drained"`        // freeze: answer only when everything received is applied, so that the epoch rows can be read
}

// Decision is what Decide wants done, and why.
type Decision struct {
	Commands []Command
	Orders   []Order
	Verdicts []Verdict
	Transfer NodeID // hand Raft leadership to this node, "" for no
}
