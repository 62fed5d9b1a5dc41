package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// hire is a worker over a unit whose lists run under ctx.
func hire(u *unit) *worker {
	w := &worker{n: u.Node}
	u.t.Cleanup(w.stop)
	return w
}

// quiet waits until the worker has ended what it had.
func quiet(t *testing.T, w *worker) {
	t.Helper()
	await(t, "the worker is done", func() bool { return !w.busy() })
}

func TestListIsNotStartedTwice(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	w := hire(u)
	k := u.host.holdCall("Reconnect")
	list := []fsm.Action{u.action(fsm.ActReconnect)}
	w.give(u.short(), list)
	inHand := <-k.entered
	for range 10 {
		w.again = backoff{} // it is not the pause between two tries that keeps them apart
		w.give(u.short(), list)
	}
	if inHand.Err() != nil {
		t.Error("a list that is still wanted was cancelled")
	}
	close(k.released)
	quiet(t, w)
	if n := u.host.count("Reconnect"); n != 1 {
		t.Errorf("done %d times", n)
	}
}

// cutOff waits for the end of an action in hand, which must not be that of its own time limit.
func cutOff(t *testing.T, inHand context.Context) {
	t.Helper()
	<-inHand.Done()
	if !errors.Is(inHand.Err(), context.Canceled) {
		t.Errorf("not cut off, it went on until %v", inHand.Err())
	}
}

func TestUnwantedListIsCancelled(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	w := hire(u)
	k := u.host.holdCall("Follow")
	w.give(u.short(), []fsm.Action{u.action(fsm.ActFollow)})
	inHand := <-k.entered
	// Nothing to do is no reason to cut off what is being done.
	w.give(u.short(), nil)
	if inHand.Err() != nil {
		t.Error("cancelled by an empty list")
	}
	w.give(u.short(), []fsm.Action{u.action(fsm.ActForget)})
	cutOff(t, inHand)
	quiet(t, w)
	if n := u.host.count("ForgetSource"); n != 0 {
		t.Error("the new list was started beside the old one")
	}
}

// TestStartIsNotCutOff: that the server's state has moved on under a start, a kill or a reconnect is no reason; a new epoch is.
func TestStartIsNotCutOff(t *testing.T) {
	for kind, name := range map[fsm.ActionKind]string{fsm.ActStart: "Start", fsm.ActKill: "Kill", fsm.ActReconnect: "Reconnect"} {
		t.Run(string(kind), func(t *testing.T) {
			u := newUnitAs(t, "db2")
			u.steady("db1")
			u.follower("db1")
			if kind != fsm.ActReconnect {
				u.host.change(u.host.crash)
			}
			w := hire(u)
			k := u.host.holdCall(name)
			w.give(u.short(), []fsm.Action{u.action(kind)})
			inHand := <-k.entered
			w.give(u.short(), []fsm.Action{u.action(fsm.ActFollow)})
			if inHand.Err() != nil {
				t.Fatal("cut off in its own epoch")
			}
			u.begin()
			w.give(u.short(), []fsm.Action{u.action(fsm.ActFollow)})
			cutOff(t, inHand)
			quiet(t, w)
		})
	}
}

// TestFenceCutsAReconnectOff: a replica that may be written to is closed at once, always.
func TestFenceCutsAReconnectOff(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	w := hire(u)
	k := u.host.holdCall("Reconnect")
	w.give(u.short(), []fsm.Action{u.action(fsm.ActReconnect)})
	inHand := <-k.entered
	w.give(u.short(), []fsm.Action{u.action(fsm.ActSelfFence), u.action(fsm.ActReconnect)})
	cutOff(t, inHand)
	quiet(t, w)
}

func TestActionThatDoesNotHelpIsNotRepeatedAtOnce(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	w := hire(u)
	u.host.fail("Reconnect", errors.New("no"))
	for i := range 9 {
		before := now()
		w.again.until = before // the pause of the last try is over
		w.give(u.short(), []fsm.Action{u.action(fsm.ActReconnect)})
		quiet(t, w)
		if pause, least := w.again.until-before, 10*time.Millisecond<<min(i, 6); pause < least {
			t.Errorf("try %d is followed by a pause of %v, want %v", i+1, pause, least)
		}
	}
	w.again.until = now() + time.Hour
	w.give(u.short(), []fsm.Action{u.action(fsm.ActReconnect)})
	if w.done != nil || u.host.count("Reconnect") != 9 {
		t.Errorf("done %d times, the last in its own pause", u.host.count("Reconnect"))
	}
	// Another action has not waited for anything yet.
	w.give(u.short(), []fsm.Action{u.action(fsm.ActUnblock)})
	if w.done == nil {
		t.Error("another action has to wait")
	}
}

func TestListEndsWithItsFirstFailure(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.host.fail("Kill", errors.New("no"))
	u.carryOut(u.short(), []fsm.Action{u.action(fsm.ActKill), u.action(fsm.ActStart)})
	if got := u.host.made(); len(got) != 1 || got[0] != "Kill" {
		t.Errorf("it did %v", got)
	}
	if got := u.stats.lastError(); got != "kill: no" {
		t.Errorf("last error %q", got)
	}
}

// restarting is a primary whose restart in place is committed.
func restarting(t *testing.T) *unit {
	u := newUnit(t)
	u.steady("db1")
	u.apply(fsm.Command{Restart: &fsm.Restart{Epoch: 1, Attempt: 1, Cause: "test"}})
	u.host.change(u.host.crash)
	return u
}

func TestFailedStartIsReported(t *testing.T) {
	u := restarting(t)
	u.host.fail("Start", errors.New("exit status 1"))
	if err := u.start(u.short(), u.store.State(), false); err == nil {
		t.Fatal("no error")
	}
	if _, failed, why, _ := u.stats.progress(); failed != u.store.State().Op.Index || why != "exit status 1" {
		t.Errorf("failed index %d (%s), want %d", failed, why, u.store.State().Op.Index)
	}
}

// TestOvertakenStartHasNotFailed: the leader would spend an attempt of the budget on it.
func TestOvertakenStartHasNotFailed(t *testing.T) {
	u := restarting(t)
	k := u.host.holdCall("Start")
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- u.start(ctx, u.store.State(), false) }()
	<-k.entered
	cancel()
	if err := <-result; err == nil {
		t.Fatal("no error")
	}
	if _, failed, why, _ := u.stats.progress(); failed != 0 {
		t.Errorf("reported as failed: %d, %s", failed, why)
	}
}

func TestStartThatIsNobodysAttemptIsNotReported(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.host.change(u.host.crash)
	u.host.fail("Start", errors.New("no"))
	if err := u.start(u.short(), u.store.State(), false); err == nil {
		t.Fatal("no error")
	}
	if _, failed, _, _ := u.stats.progress(); failed != 0 {
		t.Errorf("a replica's start is reported as attempt %d", failed)
	}
}

// TestGuardsCloseTheGateBesideTheWorker: it waits for no change of the database.
func TestGuardsCloseTheGateBesideTheWorker(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.exec.turn.Lock()
	defer u.exec.turn.Unlock()
	rest := u.guards(u.short(), []fsm.Action{u.action(fsm.ActCloseGate), u.action(fsm.ActSelfFence), u.action(fsm.ActNone)})
	if u.gateOpen() {
		t.Error("the gate is open")
	}
	if len(rest) != 1 || rest[0].Kind != fsm.ActSelfFence {
		t.Errorf("left for the worker: %v", rest)
	}
}
