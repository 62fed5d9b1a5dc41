package cluster

import (
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// incarnationOf is what this node would say of itself now.
func (u *unit) incarnationNow() (id string, whole uint64) {
	o := u.observation()
	return o.Incarnation, o.Whole
}

// followed is db3, which has followed db1 in epoch 1 by itself.
func followed(t *testing.T) *unit {
	u := newUnitAs(t, "db3")
	u.steady("db1")
	u.positions("db1", 1)
	u.w.hosts["db1"].change(func() { u.w.hosts["db1"].log = []txn{{server: 1, seq: 1, epoch: 1, serial: nextSerial()}} })
	if err := u.follow(u.short(), u.action(fsm.ActFollow), u.store.State()); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestIncarnationSurvivesACleanRepoint(t *testing.T) {
	u := followed(t)
	before, whole := u.incarnationNow()
	if before == "" || whole != 1 {
		t.Fatalf("incarnation %q, whole since %d", before, whole)
	}
	generation := u.host.Generation()
	for range 2 {
		if err := u.follow(u.short(), u.action(fsm.ActFollow), u.store.State()); err != nil {
			t.Fatal(err)
		}
	}
	if u.host.Generation() == generation {
		t.Fatal("the fake's repoint changes no generation: this test shows nothing")
	}
	if got, whole := u.incarnationNow(); got != before || whole != 1 {
		t.Errorf("incarnation %q (whole %d) after a repoint, before it %q", got, whole, before)
	}
}

func TestWholeIsOfTheEpochFirstFollowed(t *testing.T) {
	u := followed(t)
	before, _ := u.incarnationNow()
	u.takenOver("db2")
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].log = u.w.hosts["db1"].log })
	u.positions("db2", 2)
	if _, whole := u.incarnationNow(); whole != 1 {
		t.Errorf("whole since epoch %d before it follows epoch 2", whole)
	}
	if err := u.follow(u.short(), u.action(fsm.ActFollow), u.store.State()); err != nil {
		t.Fatal(err)
	}
	if got, whole := u.incarnationNow(); got != before || whole != 2 {
		t.Errorf("incarnation %q, whole since %d, want %q and 2", got, whole, before)
	}
}

func TestIncarnationEndsWhereSomethingMayBeForgotten(t *testing.T) {
	for _, c := range []struct {
		name   string
		forget func(u *unit)
	}{
		{"mysqld was started again", func(u *unit) { u.host.run++ }},
		{"relay logs were dropped behind our back", func(u *unit) { u.host.receiver++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := followed(t)
			before, _ := u.incarnationNow()
			u.host.change(func() { c.forget(u) })
			got, whole := u.incarnationNow()
			if got == before || got == "" || whole != 0 {
				t.Errorf("incarnation %q, whole since %d; before %q", got, whole, before)
			}
			// Not even a repoint makes the new one the old one, or whole: the epoch was followed before.
			if err := u.follow(u.short(), u.action(fsm.ActFollow), u.store.State()); err != nil {
				t.Fatal(err)
			}
			if got, whole := u.incarnationNow(); got == before || whole != 0 {
				t.Errorf("after a repoint: %q, whole since %d", got, whole)
			}
		})
	}
}

// TestDelayedReplicaIsAnotherAfterARepoint: what it had received was dropped.
func TestDelayedReplicaIsAnotherAfterARepoint(t *testing.T) {
	u := followed(t)
	before, _ := u.incarnationNow()
	u.host.change(func() { u.host.delay = time.Hour })
	if err := u.follow(u.short(), u.action(fsm.ActFollow), u.store.State()); err != nil {
		t.Fatal(err)
	}
	if got, whole := u.incarnationNow(); got == before || got == "" || whole != 0 || u.host.count("Follow") != 2 {
		t.Errorf("incarnation %q, whole since %d; before %q", got, whole, before)
	}
}

func TestIncarnationIsUnknown(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(u *unit)
	}{
		{"while repointing", func(u *unit) { u.repointing.Store(true) }},
		{"while mysqld is down", func(u *unit) { u.host.change(u.host.crash) }},
		{"while mysqld hangs", func(u *unit) { u.host.change(func() { u.host.state = fsm.ServerHung }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := followed(t)
			c.change(u)
			if id, whole := u.incarnationNow(); id != "" || whole != 0 {
				t.Errorf("incarnation %q, whole since %d", id, whole)
			}
		})
	}
}

// TestFailedRepointNamesNoSuccessor: what a repoint left half-way is not the old incarnation.
func TestFailedRepointNamesNoSuccessor(t *testing.T) {
	u := followed(t)
	before, _ := u.incarnationNow()
	k := u.host.holdCall("Follow")
	result := make(chan error, 1)
	ctx := u.short()
	go func() { result <- u.follow(ctx, u.action(fsm.ActFollow), u.store.State()) }()
	<-k.entered
	if id, _ := u.incarnationNow(); id != "" {
		t.Errorf("while it is repointed it calls itself %q", id)
	}
	u.host.fail("Follow", errDown)
	u.host.change(func() { u.host.receiver++ }) // CHANGE MASTER was done, START was not
	close(k.released)
	if err := <-result; err == nil {
		t.Fatal("no error")
	}
	if id, whole := u.incarnationNow(); id == before || whole != 0 {
		t.Errorf("incarnation %q, whole since %d, before %q", id, whole, before)
	}
}
