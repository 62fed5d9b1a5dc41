package cluster

import (
	"testing"

	"github.com/highbase/highbase/fsm"
)

// TestServingIsTimedFromItsFirstReport, of the epoch and the operation under way.
func TestServingIsTimedFromItsFirstReport(t *testing.T) {
	u := newUnit(t)
	u.bootstrapped("db2")
	l := leadsOver(u)
	seq := uint64(0)
	hear := func(serving uint64) fsm.Instant {
		seq++
		u.peers.received("db2", fsm.Observation{Node: "db2", Run: "r", Sequence: seq, Serving: serving, Server: fsm.ServerStatus{State: fsm.ServerUp}})
		return l.view(u.store.State()).ServingSince
	}
	if got := hear(0); got != 0 {
		t.Errorf("counted from %v before it serves", got)
	}
	first := hear(1)
	if first == 0 || hear(1) != first {
		t.Errorf("counted from %v, then %v", first, l.served)
	}
	if got := hear(0); got != 0 {
		t.Errorf("counted from %v although it serves no longer", got)
	}
	if got := hear(1); got <= first {
		t.Errorf("the second time counts from %v, the first from %v", got, first)
	}
	u.apply(fsm.Command{Settle: &fsm.Settle{OpID: 1, Epoch: 1}})
	if got := l.view(u.store.State()).ServingSince; got != 0 {
		t.Errorf("counted from %v with nothing under way", got)
	}
}
