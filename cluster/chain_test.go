package cluster

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// chained is db3, which is told to replicate from db2 while db1 is primary still.
func chained(t *testing.T) *unit {
	u := followed(t)
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].log = slices.Clone(u.w.hosts["db1"].log) })
	u.positions("db2", 0)
	u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
	u.leaves("db3")
	u.chain()
	return u
}

func (u *unit) chain() {
	u.t.Helper()
	u.apply(fsm.Command{Chain: &fsm.Chain{OpID: u.store.State().Op.ID, Epoch: 1}})
}

// rollBack ends the running change.
func (u *unit) rollBack() {
	u.t.Helper()
	st := u.store.State()
	u.apply(fsm.Command{Rollback: &fsm.Rollback{OpID: st.Op.ID, Epoch: st.Epoch, Reason: "test"}})
}

// switchedOver carries the chained change on to its promote.
func (u *unit) switchedOver() {
	u.t.Helper()
	u.switchedTo([]fsm.SyncMember{{Node: "db1"}, {Node: "db3"}})
}

// switchedTo is that with another set.
func (u *unit) switchedTo(members []fsm.SyncMember) {
	u.t.Helper()
	op := u.store.State().Op
	if op.Step != fsm.StepReleasing {
		u.apply(fsm.Command{Release: &fsm.Release{OpID: op.ID, Epoch: 1}})
	}
	u.apply(fsm.Command{Promote: &fsm.Promote{OpID: op.ID, Epoch: 1, To: op.To, Won: fsm.WonSwitchover, Position: "0-1-1",
		Release: &fsm.Answer{Node: "db1", Epoch: 1, Received: "0-1-1"}, Members: members, Acks: 1}})
}

// towards is what Reconcile asks for at this moment.
func (u *unit) towards() fsm.Action {
	a := u.action(fsm.ActFollow)
	a.Target = u.store.State().SourceOf(u.cfg.Node)
	return a
}

func (u *unit) follows() error {
	return u.follow(u.short(), u.towards(), u.store.State())
}

// TestChainedLeavesBeforeItAcknowledges: until it has left the old primary its acknowledgements would count there, although it is not in the set.
func TestChainedLeavesBeforeItAcknowledges(t *testing.T) {
	u := chained(t)
	u.sync.setOff(u.store.State().OutsideSince("db3"))
	id, _ := u.incarnationNow()
	to := u.w.hosts["db2"].addr
	if err := u.follows(); err != nil {
		t.Fatal(err)
	}
	if off, _, _ := u.sync.read(); u.host.source != to || u.host.ack || off == 0 {
		t.Fatalf("at first it replicates from %s and acknowledges: %v", u.host.source, u.host.ack)
	}
	if p := u.host.promised(); p.Followed != 1 || p.ChainEpoch != 2 || p.ChainID != id {
		t.Errorf("promised %+v, was %s", p, id)
	}
	if err := u.follows(); err != nil {
		t.Fatal(err)
	}
	if off, _, _ := u.sync.read(); u.host.source != to || !u.host.ack || off != 0 {
		t.Errorf("then it replicates from %s, acknowledges: %v, says that it is off since %d", u.host.source, u.host.ack, off)
	}
	if got, whole := u.incarnationNow(); got != id || whole != 1 {
		t.Errorf("incarnation %q, whole since %d; before %q", got, whole, id)
	}
}

// TestChainIsPromisedFirst: the fake refuses to follow, and still the disk says that something of the next epoch may have arrived.
func TestChainIsPromisedFirst(t *testing.T) {
	u := chained(t)
	id, _ := u.incarnationNow()
	u.host.fail("Follow", errBroken)
	if err := u.follows(); err == nil {
		t.Fatal("no error")
	}
	if p := u.host.promised(); p.ChainEpoch != 2 || p.ChainID != id {
		t.Errorf("promised %+v", p)
	}
}

// TestOvertakenRepointDoesNothing: an action decided from an older state names another source than the log does now. To carry it out would have the
// old primary hear acknowledgements of an outsider, or have something of the next epoch arrive that nobody promised.
func TestOvertakenRepointDoesNothing(t *testing.T) {
	t.Run("it repaired its replication from the primary and is chained now", func(t *testing.T) {
		u := followed(t)
		u.w.hosts["db2"].change(func() { u.w.hosts["db2"].log = slices.Clone(u.w.hosts["db1"].log) })
		u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
		u.leaves("db3")
		a := u.towards()
		u.chain()
		u.host.expect("Position", "Unblock")
		if err := u.follow(u.short(), a, u.store.State()); !errors.Is(err, errOvertaken) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("it was chained and is not any more", func(t *testing.T) {
		u := chained(t)
		a := u.towards()
		u.rollBack()
		u.host.expect("Position", "Unblock")
		if err := u.follow(u.short(), a, u.store.State()); !errors.Is(err, errOvertaken) {
			t.Errorf("error %v", err)
		}
		if p := u.host.promised(); p.ChainEpoch != 0 {
			t.Errorf("promised %+v", p)
		}
	})
	t.Run("the candidate is primary by now", func(t *testing.T) {
		u := chained(t)
		a := u.towards()
		src, _ := u.store.State().Member("db2")
		u.switchedOver()
		u.host.expect("Unblock")
		if err := u.repoint(u.short(), a, src); !errors.Is(err, errOvertaken) {
			t.Errorf("error %v", err)
		}
	})
}

// TestChainedIsWholeAsItWasThen: what it received of the new epoch it may have received long before it promised to follow it.
func TestChainedIsWholeAsItWasThen(t *testing.T) {
	for _, x := range []struct {
		name   string
		forget func(u *unit)
		whole  bool
	}{
		{"it has forgotten nothing", func(*unit) {}, true},
		{"mysqld was started again", func(u *unit) { u.host.run++ }, false},
		{"relay logs were dropped", func(u *unit) { u.host.receiver++ }, false},
	} {
		for _, restarted := range []bool{false, true} {
			u := chained(t)
			for range 2 {
				if err := u.follows(); err != nil {
					t.Fatal(err)
				}
			}
			u.switchedOver()
			u.host.change(func() { x.forget(u) })
			if restarted { // without what a running hbd remembers
				u.promise(func(p *Promises) { p.IncToken = "" })
			}
			want := uint64(0)
			if x.whole && !restarted {
				want = 2
			}
			if err := u.follows(); err != nil {
				t.Fatal(err)
			}
			if p := u.host.promised(); p.Followed != 2 || p.WholeEpoch != 2 || p.WholeID != p.ChainID {
				t.Errorf("%s: promised %+v", x.name, p)
			}
			if _, whole := u.incarnationNow(); whole != want {
				t.Errorf("%s (its name lost: %v): whole since %d, want %d", x.name, restarted, whole, want)
			}
		}
	}
}

// TestChainedTwice in one epoch: it counts from the first time.
func TestChainedTwice(t *testing.T) {
	u := chained(t)
	id, _ := u.incarnationNow()
	if err := u.follows(); err != nil {
		t.Fatal(err)
	}
	u.rollBack()
	u.host.change(func() { u.host.receiver++ })
	if err := u.follows(); err != nil {
		t.Fatal(err)
	}
	if now, _ := u.incarnationNow(); now == id || u.host.source != u.w.hosts["db1"].addr || u.host.ack {
		t.Fatalf("rolled back: incarnation %q, replicates from %s, acknowledges: %v", now, u.host.source, u.host.ack)
	}
	u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
	u.chain()
	if err := u.follows(); err != nil {
		t.Fatal(err)
	}
	if p := u.host.promised(); p.ChainEpoch != 2 || p.ChainID != id {
		t.Errorf("promised %+v, first was %q", p, id)
	}
}

// TestChainedWaitsForACandidateThatIsBehind: it neither drops what it has nor calls it errant.
func TestChainedWaitsForACandidateThatIsBehind(t *testing.T) {
	u := chained(t)
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].log = nil })
	u.host.expect("Freeze", "Drain", "Position")
	if err := u.follows(); err == nil || !strings.Contains(err.Error(), "does not hold 0-1-1 yet") {
		t.Errorf("error %v", err)
	}
	if p := u.host.promised(); p.Quarantine != "" || p.ChainEpoch != 0 || u.host.source != u.w.hosts["db1"].addr {
		t.Errorf("promised %+v, replicates from %s", p, u.host.source)
	}
}

// TestChainedReceivesNothingMore once it has asked whether the candidate holds all that it has.
func TestChainedReceivesNothingMore(t *testing.T) {
	u := chained(t)
	k := u.host.holdCall("Follow")
	result := make(chan error, 1)
	ctx, a, st := u.short(), u.towards(), u.store.State()
	go func() { result <- u.follow(ctx, a, st) }()
	<-k.entered
	h := u.w.hosts["db1"]
	h.change(func() { h.log = append(h.log, txn{server: 1, seq: 2, serial: nextSerial()}) })
	close(k.released)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if got, want := u.host.made(), []string{"Freeze", "Drain", "Position", "Unblock", "Follow"}; !slices.Equal(got[len(got)-len(want):], want) || place(u.host.log) != "0-1-1" {
		t.Errorf("did %v, is at %s", got, place(u.host.log))
	}
}
