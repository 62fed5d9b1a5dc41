package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// released is db1, the old primary of a switchover to db2 under which db3 replicates already.
func released(t *testing.T) *unit {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.positions("db2", 2)
	u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
	u.leaves("db3")
	u.chain()
	op := u.store.State().Op
	u.promise(func(p *Promises) { p.ReleasedOp = op.ID })
	u.host.change(func() {
		u.host.gate, u.host.held, u.host.mode, u.host.acks, u.host.w.answers = 0, false, modeReadOnly, 0, nil
	})
	return u
}

// asideOf turns a node round, and demands that its server is not touched before the new primary serves, or the limit has passed.
func asideOf(t *testing.T, u *unit, turn func() error, serves bool) {
	t.Helper()
	if serves {
		u.asideLimit = awaitLimit // what ends the waiting is that it serves
	}
	first := u.host.holdCall("Position")
	result := make(chan error, 1)
	begun := now()
	go func() { result <- turn() }()
	if serves {
		select {
		case <-first.entered:
			t.Fatal("it turned round while the clients waited")
		case <-time.After(asideLimit / 4):
		}
		u.says("db2", fsm.Observation{Serving: 2})
	}
	<-first.entered
	if took := now() - begun; !serves && took < asideLimit {
		t.Errorf("it waited %v for a primary that does not serve, want %v", took, asideLimit)
	}
	close(first.released)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// TestSpareNodesStandAside: in a pause nobody turns round who is not needed, until the new primary serves; and not for ever.
func TestSpareNodesStandAside(t *testing.T) {
	for _, serves := range []bool{true, false} {
		u := released(t)
		u.switchedOver()
		u.w.hosts["db2"].change(func() { u.w.hosts["db2"].log = slices.Clone(u.host.log) })
		u.host.expect("Position", "FinishRewind", "Unblock", "Follow")
		asideOf(t, u, u.comesBack, serves)
	}
	for _, serves := range []bool{true, false} {
		u := chained(t)
		for range 2 { // it leaves, and then acknowledges
			if err := u.follows(); err != nil {
				t.Fatal(err)
			}
		}
		u.switchedOver()
		u.host.expect("Position", "Unblock", "Follow")
		asideOf(t, u, u.follows, serves)
	}
}

// TestNeededNodesDoNot: whose acknowledgement the barrier may need turns round at once, and whoever is named in another state goes by that.
func TestNeededNodesDoNot(t *testing.T) {
	alone := released(t)
	alone.switchedTo([]fsm.SyncMember{{Node: "db1"}})
	if alone.spare(alone.store.State()) {
		t.Error("the old primary is the only one who can acknowledge, and is spared")
	}
	taken := newUnit(t)
	taken.steady("db1")
	taken.serving()
	taken.begin()
	taken.fencedAndPromoted("db2")
	if taken.spare(taken.store.State()) {
		t.Error("after a takeover somebody is spared")
	}
	idle := chained(t) // it was not turned in time
	idle.switchedOver()
	if idle.spare(idle.store.State()) {
		t.Error("a chained replica that does not acknowledge yet is spared")
	}

	u := released(t)
	u.asideLimit = awaitLimit
	u.switchedOver()
	u.host.expect()
	result := make(chan error, 1)
	a, st := u.action(fsm.ActReturn), u.store.State()
	go func() { result <- u.comeBack(u.short(), a, st) }()
	u.begin()
	if err := <-result; !errors.Is(err, errOvertaken) {
		t.Errorf("the candidate was given up meanwhile: %v", err)
	}
}

// TestFenceAfterTheReleaseIsNotDue: the release has made mysqld read-only while the fence waited for its turn. Without a release it is always carried out.
func TestFenceAfterTheReleaseIsNotDue(t *testing.T) {
	for what, then := range map[string]func(*unit){
		"the log has not gone on":        func(*unit) {},
		"another is named":               func(u *unit) { u.switchedOver() },
		"another is named, and needs it": func(u *unit) { u.switchedTo([]fsm.SyncMember{{Node: "db1"}}) },
	} {
		u := released(t)
		then(u)
		u.host.expect()
		u.carryOut(context.Background(), []fsm.Action{u.action(fsm.ActSelfFence)})
		if got := u.host.made(); len(got) > 0 {
			t.Errorf("%s: it did %v", what, got)
		}
	}
	u := released(t)
	u.host.change(func() { u.host.mode = modeWritable })
	u.host.expect("SetReadOnly", "KillClients")
	u.carryOut(context.Background(), []fsm.Action{u.action(fsm.ActSelfFence)})
	if got := u.host.made(); !slices.Contains(got, "SetReadOnly") {
		t.Errorf("writable after its release, it did %v", got)
	}
}
