package cluster

import (
	"errors"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// TestReceiverIsMadeToConnectOncePerRunOfItsSource: another run of that needs another, and one that failed was none.
func TestReceiverIsMadeToConnectOncePerRunOfItsSource(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	sequence := uint64(0)
	runs := func(run string) {
		sequence++
		u.peers.received("db1", fsm.Observation{Node: "db1", Run: "r", Sequence: sequence, Server: fsm.ServerStatus{State: fsm.ServerUp, Started: run}})
	}
	reconnected := func() bool { return u.gather(u.store.State()).Reconnected }
	runs("run-1")
	if reconnected() {
		t.Fatal("before it was made to")
	}
	u.host.fail("Reconnect", errors.New("mysqld does not answer"))
	if err := u.reconnect(u.short(), u.action(fsm.ActReconnect)); err == nil || reconnected() {
		t.Errorf("it failed: %v", err)
	}
	u.host.fail("Reconnect", nil)
	if err := u.reconnect(u.short(), u.action(fsm.ActReconnect)); err != nil || !reconnected() {
		t.Errorf("not remembered: %v", err)
	}
	if err := u.reconnect(u.short(), u.action(fsm.ActReconnect)); err != nil || u.host.count("Reconnect") != 2 {
		t.Errorf("stopped in the middle of connecting: %v, %d calls", err, u.host.count("Reconnect"))
	}
	runs("run-2")
	if reconnected() {
		t.Error("to a run that is no more")
	}
	// The source is restarted under the call: it may have connected to the run before.
	k := u.host.holdCall("Reconnect")
	done := make(chan error, 1)
	go func() { done <- u.reconnect(u.short(), u.action(fsm.ActReconnect)) }()
	<-k.entered
	runs("run-3")
	close(k.released)
	if err := <-done; err != nil || reconnected() {
		t.Errorf("to a run that began during the call: %v", err)
	}
}
