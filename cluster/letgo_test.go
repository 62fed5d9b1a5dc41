package cluster

import (
	"testing"

	"github.com/highbase/highbase/fsm"
)

// TestLetGo: only a release says that nothing can have been sent behind a position. After any other fence a transaction may have come in half, and an
// applier that ran on would hold its locks.
func TestLetGo(t *testing.T) {
	op := func(edit func(*fsm.Operation)) fsm.State {
		o := &fsm.Operation{Kind: fsm.KindSwitchover, Step: fsm.StepPromoted, From: "db1", To: "db2", Position: "0-1-7", Fence: &fsm.Evidence{Kind: fsm.EvidenceRelease, Node: "db1"}}
		edit(o)
		return fsm.State{Op: o}
	}
	for _, c := range []struct {
		name string
		st   fsm.State
		want bool
	}{
		{"released", op(func(*fsm.Operation) {}), true},
		{"no operation", fsm.State{}, false},
		{"another candidate", op(func(o *fsm.Operation) { o.To = "db3" }), false},
		{"no position", op(func(o *fsm.Operation) { o.Position = "" }), false},
		{"no evidence", op(func(o *fsm.Operation) { o.Fence = nil }), false},
		{"its lease ran out", op(func(o *fsm.Operation) { o.Fence.Kind = fsm.EvidenceLease }), false},
		{"fenced by its hbd", op(func(o *fsm.Operation) { o.Fence.Kind = fsm.EvidenceAgent }), false},
		{"catches up from another", op(func(o *fsm.Operation) { o.Fetch = "db3" }), false},
	} {
		if got := letGo(c.st, "db2"); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
