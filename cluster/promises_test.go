package cluster

import (
	"testing"

	"github.com/highbase/highbase/fsm"
)

// lowerOrders are refused by whoever has accepted epoch 5, index 50. With break_epoch they are not: see break_epoch_test.go.
var lowerOrders = []fsm.Order{
	{Kind: fsm.OrderFence, Epoch: 5, Index: 49},
	{Kind: fsm.OrderFreeze, Epoch: 4, Index: 50},
	{Kind: fsm.OrderRelease, Epoch: 4, Index: 1000},
	{Kind: fsm.OrderFence, Epoch: 0, Index: 0},
}

// acceptsLower makes the promise and offers the lower orders to whoever reads it back from the disk. It gives those that were accepted.
func acceptsLower(t *testing.T) []fsm.Order {
	t.Helper()
	dir := t.TempDir()
	p := mustOpenPromises(t, dir)
	if newer, err := p.accept(fsm.Order{Epoch: 5, Index: 50}, nil); err != nil || !newer {
		t.Fatalf("first order: newer %t, %v", newer, err)
	}
	var accepted []fsm.Order
	for _, o := range lowerOrders {
		reopened := mustOpenPromises(t, dir)
		if _, err := reopened.accept(o, func(v *Promises) { v.Frozen = 99 }); err == nil {
			accepted = append(accepted, o)
		} else if v := reopened.get(); v.HighestEpoch != 5 || v.HighestIndex != 50 || v.Frozen != 0 {
			t.Errorf("refused order %+v changed the promise: %+v", o, v)
		}
	}
	return accepted
}

func mustOpenPromises(t *testing.T, dir string) promises {
	t.Helper()
	p, err := openPromises(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAcceptTellsNewOrdersFromRepeatedOnes(t *testing.T) {
	p := mustOpenPromises(t, t.TempDir())
	for _, c := range []struct {
		epoch, index uint64
		newer        bool
	}{{1, 10, true}, {1, 10, false}, {1, 11, true}, {1, 11, false}, {2, 5, true}, {2, 5, false}} {
		called := false
		newer, err := p.accept(fsm.Order{Epoch: c.epoch, Index: c.index}, func(*Promises) { called = true })
		if err != nil || newer != c.newer || !called {
			t.Errorf("epoch %d index %d: newer %t (want %t), change made %t, %v", c.epoch, c.index, newer, c.newer, called, err)
		}
	}
}

func TestPromisesOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	want := Promises{HighestEpoch: 7, HighestIndex: 70, Held: 6, Followed: 5, Frozen: 7, ReleasedOp: 4, BarrierEpoch: 6, BarrierRun: "run", Turned: 3,
		IncToken: "token", IncID: "id", WholeEpoch: 6, WholeID: "whole", Quarantine: "why"}
	if err := mustOpenPromises(t, dir).update(func(p *Promises) { *p = want }); err != nil {
		t.Fatal(err)
	}
	if got := mustOpenPromises(t, dir).get(); got != want {
		t.Errorf("read back %+v, want %+v", got, want)
	}
}

func TestDataIsOwnUntilTheNodeTurns(t *testing.T) {
	for _, c := range []struct {
		p    Promises
		want uint64
	}{
		{Promises{}, 0},
		{Promises{Held: 3}, 3},
		{Promises{Held: 3, Followed: 2}, 3},
		{Promises{Held: 3, Followed: 3}, 0},
		{Promises{Held: 3, Turned: 2}, 3},
		{Promises{Held: 3, Turned: 4}, 0},
		{Promises{Held: 3, Followed: 4}, 0},
		{Promises{Held: 5, Followed: 4, Turned: 4}, 5},
	} {
		if got := c.p.own(); got != c.want {
			t.Errorf("%+v: own %d, want %d", c.p, got, c.want)
		}
	}
}

// outdatedActions were decided before an order of epoch 5, index 50 was accepted.
var outdatedActions = [][2]uint64{{5, 49}, {4, 50}, {4, 51}, {0, 0}}

func TestActionsOfTodayAreNotOutdated(t *testing.T) {
	v := Promises{HighestEpoch: 5, HighestIndex: 50}
	for _, at := range [][2]uint64{{5, 50}, {5, 51}, {6, 1}} {
		if v.outdated(at[0], at[1]) {
			t.Errorf("an action of epoch %d index %d is called outdated", at[0], at[1])
		}
	}
}
