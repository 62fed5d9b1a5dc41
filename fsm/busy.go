package fsm

import (
	"fmt"
	"slices"
	"time"
)

// BusyPolicy says what a planned change does about clients that it would break off in the middle of something long.
type BusyPolicy string

// The policies. The empty one does not look.
const (
	BusyRefuse BusyPolicy = "refuse" // wait for Operation.Wait, then give up
	BusyKill   BusyPolicy = "kill"   // break them off at the pause
)

// Session is one client of the primary that is in the middle of something.
type Session struct {
	ID          uint64        `json:"id"` // the server's number of the connection
	User        string        `json:"user"`
	Age         time.Duration `json:"age"`         // of its transaction or statement, whole seconds rounded down
	Statement   string        `json:"statement"`   // how it begins, without literals; "" between two statements
	Transaction bool          `json:"transaction"` // it has a transaction open
	DDL         bool          `json:"ddl"`         // its statement changes definitions
	Locks       bool          `json:"locks"`       // it holds table locks
}

// String names a session for an operator.
func (s Session) String() string {
	what := s.Statement
	switch {
	case what == "" && s.Locks:
		what = "holds table locks"
	case what == "":
		what = "idle in a transaction"
	}
	return fmt.Sprintf("connection %d of %s, %v: %s", s.ID, s.User, s.Age, what)
}

// Busy is what the primary answered when it was asked for its sessions.
type Busy struct {
	At       Instant // when the answer arrived
	Sessions []Session
	Error    string // why there was none
}

// The gates about what the primary's clients are doing.
const (
	GateLongTransaction = "primary.long-transaction"
	GateDDL             = "primary.ddl"
)

// GateOfClients tells whether a gate is one that --wait and --kill are for.
func GateOfClients(rule string) bool { return rule == GateLongTransaction || rule == GateDDL }

// BusyGates judges what the primary's clients are doing. A transaction that is open for longer would be rolled back; DDL and table locks would also
// make read_only hang. Without a fresh answer of the primary neither is known to be clear.
func BusyGates(s State, v View) []Verdict {
	limit := s.Settings.MaxTransaction
	long := Verdict{Rule: GateLongTransaction, Node: s.Primary, Threshold: limit.String()}
	ddl := Verdict{Rule: GateDDL, Node: s.Primary, Threshold: "0"}
	if b := v.Busy; b == nil || b.Error != "" || v.Now-b.At > s.Settings.ReportMaxAge {
		why := "the primary has not said what its clients are doing"
		if b != nil && b.Error != "" {
			why += ": " + b.Error
		}
		long.Value, ddl.Value, long.Why, ddl.Why = "unknown", "unknown", why, why
		return []Verdict{long, ddl}
	}
	var old, changing []Session
	var age time.Duration
	for _, one := range v.Busy.Sessions {
		if age = max(age, one.Age); one.Age > limit {
			old = append(old, one)
		}
		if one.DDL || one.Locks {
			changing = append(changing, one)
		}
	}
	long.OK, long.Value, long.Why = len(old) == 0, age.String(), sessionNames(old)
	ddl.OK, ddl.Value, ddl.Why = len(changing) == 0, fmt.Sprint(len(changing)), sessionNames(changing)
	return []Verdict{long, ddl}
}

// sessionNames names the first, which is the oldest, and counts the others.
func sessionNames(of []Session) string {
	switch len(of) {
	case 0:
		return ""
	case 1:
		return of[0].String()
	}
	return fmt.Sprintf("%s; and %d more", of[0], len(of)-1)
}

// quiet waits for clients that a planned change would break off, while the old primary still serves, and rolls it back when they take too long.
func (d *deciding) quiet() bool {
	op := d.s.Op
	if op.Busy != BusyRefuse {
		return true
	}
	verdicts := BusyGates(d.s, d.v)
	d.out.Verdicts = append(d.out.Verdicts, verdicts...)
	i := slices.IndexFunc(verdicts, func(v Verdict) bool { return !v.OK })
	if i < 0 {
		return true
	}
	limit := op.Wait
	if limit <= 0 {
		limit = d.s.Settings.PrepareTimeout
	}
	if d.v.Now-d.v.StepSince > limit {
		d.rollback(fmt.Sprintf("not clear within %v: %s", limit, verdicts[i]))
	}
	return false
}

// heldUp names who is seen to keep the old primary from its release.
func (d *deciding) heldUp() string {
	if d.v.Release != nil || d.v.Busy == nil || len(d.v.Busy.Sessions) == 0 {
		return ""
	}
	return "; it may wait for " + sessionNames(d.v.Busy.Sessions)
}
