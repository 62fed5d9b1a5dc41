package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// TestOnlyANewerOrderCancelsTheActionInHand: a refused one and a repeated one do not.
func TestOnlyANewerOrderCancelsTheActionInHand(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.begin()
	accepted := u.order(fsm.OrderFreeze)
	if err := u.acceptOrder(accepted); err != nil {
		t.Fatal(err)
	}
	k := u.host.holdCall("Reconnect")
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.carryOut(u.short(), []fsm.Action{u.action(fsm.ActReconnect)})
	}()
	inHand := <-k.entered

	lower := accepted
	lower.Index--
	if err := u.acceptOrder(lower); err == nil && !breakEpoch {
		t.Error("a lower order was accepted")
	}
	if err := u.acceptOrder(accepted); err != nil && !breakEpoch {
		t.Errorf("the same order again: %v", err)
	}
	if inHand.Err() != nil && !breakEpoch {
		t.Fatalf("the action in hand was cancelled: %v", context.Cause(inHand))
	}
	// The control: a newer one does.
	if err := u.acceptOrder(u.order0(fsm.OrderFreeze)); err != nil {
		t.Fatal(err)
	}
	<-inHand.Done()
	if !errors.Is(context.Cause(inHand), errPreempted) {
		t.Errorf("cancelled because of %v", context.Cause(inHand))
	}
	<-done
}

func TestExecutorTakesTurns(t *testing.T) {
	var e executor
	ctx := context.Background()
	inside := make(chan struct{})
	release := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		result <- e.order(ctx, func(ctx context.Context) error {
			close(inside)
			<-release
			return ctx.Err()
		})
	}()
	<-inside
	e.preempt()
	if e.turn.TryLock() {
		t.Fatal("a second change could begin")
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("preempt reached an order: %v", err)
	}
}

func TestNothingRunsWhoseCallerHasGone(t *testing.T) {
	var e executor
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("gone")
	cancel(why)
	ran := func(context.Context) error { t.Error("it ran"); return nil }
	if err := e.action(ctx, ran); !errors.Is(err, why) {
		t.Errorf("action: %v", err)
	}
	if err := e.order(ctx, ran); !errors.Is(err, why) {
		t.Errorf("order: %v", err)
	}
	// The control: somebody who waits gets it done.
	done := false
	if err := e.action(context.Background(), func(context.Context) error { done = true; return nil }); err != nil || !done {
		t.Errorf("done %t, %v", done, err)
	}
}

// TestEveryActionHasAnExecutor: none is unknown to this version.
func TestEveryActionHasAnExecutor(t *testing.T) {
	for _, kind := range fsm.ActionKinds() {
		t.Run(string(kind), func(t *testing.T) {
			u := newUnit(t)
			u.steady("db1")
			u.host.change(func() { u.host.state = fsm.ServerDown })
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			err := u.execute(ctx, u.action(kind))
			if err != nil && strings.Contains(err.Error(), "not known to this version") {
				t.Error(err)
			}
		})
	}
}

// TestStoppingNodeOnlyTakesAway: hbd has given up the role, whatever was decided a moment before.
func TestStoppingNodeOnlyTakesAway(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.stopping.Store(true)
	takesAway := []fsm.ActionKind{fsm.ActSelfFence, fsm.ActReleaseVIP, fsm.ActCloseGate}
	for _, kind := range fsm.ActionKinds() {
		if err := u.mayStill(u.action(kind)); (err == nil) != slices.Contains(takesAway, kind) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	u.stopping.Store(false)
	for _, kind := range fsm.ActionKinds() {
		if err := u.mayStill(u.action(kind)); err != nil {
			t.Errorf("not stopping, %s: %v", kind, err)
		}
	}
}

// TestActionYieldsToAnOrderThatHasCome: what it would do is the order's own part by then. A release that hangs rolls back; a fence of this node's
// own in its place would kill mysqld.
func TestActionYieldsToAnOrderThatHasCome(t *testing.T) {
	var e executor
	ctx := context.Background()
	var ran []string // under the executor's turn
	first, second := e.expect(), e.expect()
	acted := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		close(begun)
		acted <- e.action(ctx, func(context.Context) error { ran = append(ran, "action"); return nil })
	}()
	<-begun
	for _, had := range []func(){first, second} {
		err := e.order(ctx, func(context.Context) error { had(); had(); ran = append(ran, "order"); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-acted; err != nil {
		t.Fatal(err)
	}
	if want := []string{"order", "order", "action"}; !slices.Equal(ran, want) {
		t.Errorf("%v, want %v", ran, want)
	}
	if err := e.action(ctx, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestRefusedOrderHoldsNothingUp, nor does one that failed.
func TestRefusedOrderHoldsNothingUp(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	o := u.releasing("db2")
	late := o
	late.Epoch, late.Index = 0, 0
	if _, err := u.obey(u.short(), late); err == nil && !breakEpoch {
		t.Error("an order of an old epoch was obeyed")
	}
	u.host.fail("SetReadOnly", errBroken)
	ctx, cancel := context.WithTimeout(u.short(), time.Second)
	defer cancel()
	if _, err := u.obey(ctx, o); err == nil {
		t.Error("a release that failed gave no error")
	}
	if err := u.exec.action(u.short(), func(context.Context) error { return nil }); err != nil {
		t.Errorf("an action after it: %v", err)
	}
}
