package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// ready is a primary that has written its barrier and does not serve yet.
func ready(t *testing.T) *unit {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.host.change(func() {
		u.host.mode, u.host.gate, u.host.held, u.host.opened, u.w.answers = modeBarrier, 0, false, 0, nil
	})
	return u
}

var opening = []string{"SetWritable", "Open", "Take", "Announce"}

func TestServiceOpensStepByStep(t *testing.T) {
	u := ready(t)
	u.host.expect(opening...)
	if err := u.execute(u.short(), u.action(fsm.ActOpen)); err != nil {
		t.Fatal(err)
	}
	if got := u.host.made(); !slices.Equal(got, opening) {
		t.Errorf("it did %v, want %v", got, opening)
	}
	// Again is harmless: the gate stays as it is and nobody hears it twice.
	u.host.expect("SetWritable", "Take")
	if err := u.execute(u.short(), u.action(fsm.ActOpen)); err != nil {
		t.Error(err)
	}
}

func TestNothingOpensWithoutALease(t *testing.T) {
	u := ready(t)
	u.holder.drop()
	u.host.expect()
	if err := u.execute(u.short(), u.action(fsm.ActOpen)); err == nil {
		t.Error("it serves")
	}
	u.lease(time.Hour)
	u.holder.mu.Lock()
	u.holder.epoch = 7
	u.holder.mu.Unlock()
	if err := u.execute(u.short(), u.action(fsm.ActOpen)); err == nil {
		t.Error("it serves on the lease of another epoch")
	}
}

// TestRightIsCheckedAgainBeforeTheGateOpens: becoming writable may take long.
func TestRightIsCheckedAgainBeforeTheGateOpens(t *testing.T) {
	for name, lose := range map[string]func(u *unit){
		"lease lost": func(u *unit) { u.holder.drop() },
		"overtaken by an order": func(u *unit) {
			if err := u.acceptOrder(u.order0(fsm.OrderFence)); err != nil {
				u.t.Error(err)
			}
		},
		"epoch ended": func(u *unit) { u.begin() },
	} {
		t.Run(name, func(t *testing.T) {
			if breakEpoch {
				t.Skip("the epoch protects nothing in this build")
			}
			u := ready(t)
			u.host.expect("SetWritable")
			k := u.host.holdCall("SetWritable")
			result := make(chan error, 1)
			go func() { result <- u.execute(u.short(), u.action(fsm.ActOpen)) }()
			<-k.entered
			lose(u)
			close(k.released)
			if err := <-result; err == nil {
				t.Error("it serves")
			}
		})
	}
}

func TestBarrierIsPromisedOnBothSides(t *testing.T) {
	for _, fails := range []bool{false, true} {
		u := newUnit(t)
		u.steady("db1")
		u.lease(time.Hour)
		u.host.change(func() {
			for _, o := range u.w.sorted()[1:] {
				o.source, o.io, o.sql, o.ack = u.host.addr, true, true, true
			}
		})
		k := u.host.holdCall("WriteBarrier")
		result := make(chan error, 1)
		go func() { result <- u.execute(u.short(), u.action(fsm.ActBarrier)) }()
		<-k.entered
		if p := u.host.promised(); p.Held != 1 || p.BarrierEpoch != 0 {
			t.Errorf("while it is written the disk says %+v", p)
		}
		// Who acknowledges is looked at beside the rest; the connections need not be listed for that, as only members replicate.
		got := u.host.made()
		beside := slices.DeleteFunc(slices.Clone(got), func(c string) bool { return c == "Replicas" })
		if want := []string{"SourceSync", "SetBarrierWritable", "WriteBarrier"}; !slices.Equal(beside, want) || len(got) != 4 || got[3] != "WriteBarrier" {
			t.Errorf("it did %v, want %v and a look for strangers before the last", got, want)
		}
		if fails {
			u.host.fail("WriteBarrier", errors.New("no"))
		}
		close(k.released)
		if err := <-result; (err != nil) != fails {
			t.Errorf("error %v", err)
		}
		run := u.host.Server().Started
		if done := u.barrierOf(Promises{}, run) == 1; done == fails {
			t.Errorf("failed %t, and afterwards it knows of a barrier: %t", fails, done)
		}
		if fails {
			if p := u.host.promised(); p.BarrierEpoch != 0 {
				t.Errorf("failed, and afterwards the disk says %+v", p)
			}
			continue
		}
		// The service opens without waiting for the disk.
		await(t, "the barrier is on disk", func() bool {
			p := u.host.promised()
			return p.BarrierEpoch == 1 && p.BarrierRun == run
		})
	}
}

// TestBarrierWaitsForWhatItNeeds: neither before it is known who acknowledges nor before Held is on disk.
func TestBarrierWaitsForWhatItNeeds(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.lease(time.Hour)
	u.host.change(func() {
		for _, o := range u.w.sorted()[1:] {
			o.source, o.io, o.sql, o.ack = u.host.addr, true, true, true
		}
	})
	looked, written := u.host.holdCall("Replicas"), u.host.holdCall("WriteBarrier")
	result := make(chan error, 1)
	go func() { result <- u.execute(u.short(), u.action(fsm.ActBarrier)) }()
	<-looked.entered
	await(t, "the manager may write", func() bool { return u.host.count("SetBarrierWritable") == 1 })
	if p := u.host.promised(); p.Held != 1 {
		t.Errorf("the manager may write, and the disk says %+v", p)
	}
	if u.host.count("WriteBarrier") > 0 {
		t.Error("the barrier did not wait for the look")
	}
	close(looked.released)
	<-written.entered
	close(written.released)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// TestHeldIsNotPromisedLate: a node that has promised to a newer epoch has answered of what it was before.
func TestHeldIsNotPromisedLate(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.begin()
	if _, err := u.obey(u.short(), u.order(fsm.OrderFreeze)); err != nil {
		t.Fatal(err)
	}
	if err := u.promiseHeld(1); !errors.Is(err, errOvertaken) || u.promises.get().Held != 0 {
		t.Errorf("error %v, promised %+v", err, u.promises.get())
	}
	if err := u.promiseHeld(2); err != nil || u.promises.get().Held != 2 {
		t.Errorf("error %v, promised %+v", err, u.promises.get())
	}
}

// TestPromotedReplicaDrainsBeforeItStops: up to the position that the log names.
func TestPromotedReplicaDrainsBeforeItStops(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.host.change(func() { u.host.stalled = true })
	u.w.hosts["db1"].change(func() {
		src := u.w.hosts["db1"]
		src.log = append(src.log, txn{server: 1, seq: 3, serial: nextSerial()})
	})
	u.begin()
	if _, err := u.obey(u.short(), u.order(fsm.OrderFreeze)); err != nil {
		t.Fatal(err)
	}
	u.fencedAndPromoted("db2")
	want := []string{"Block", "Freeze", "SeverPeer", "Drain", "StopReplication", "SourceSync"}
	u.host.expect(want...)
	result := make(chan error, 1)
	go func() { result <- u.execute(u.short(), u.action(fsm.ActStopFollow)) }()
	await(t, "it drains", func() bool { return u.host.count("Drain") == 1 })
	select {
	case err := <-result:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	u.host.change(func() { u.host.stalled = false })
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	// Who may connect is decided before the barrier, by the set as it is then: not here.
	if got := u.host.made(); !slices.Equal(got, want) || place(u.host.log) != "0-1-3" {
		t.Errorf("it did %v and is at %s, want %v", got, place(u.host.log), want)
	}
}
