package cluster

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

var (
	nightly = EventName{"app", "nightly"}
	hourly  = EventName{"app", "hourly"}
	retired = EventName{"app", "retired"} // disabled on purpose
)

func noted(names ...EventName) map[EventName]bool {
	out := map[EventName]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

// TestEventsFollowThePrimary through a takeover: those that were enabled, nobody else runs them, and the rest stays as it is.
func TestEventsFollowThePrimary(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.w.withEvents("db1", map[EventName]EventState{nightly: EventEnabled, hourly: EventEnabled, retired: EventDisabled})
	c.bootstrap()
	db1, db2 := c.node("db1"), c.node("db2")
	await(t, "what is enabled is noted", func() bool {
		_, got := c.w.eventsOf(db1.host)
		return maps.Equal(got, noted(nightly, hourly))
	})
	c.switchOver("db2")
	want := map[EventName]EventState{nightly: EventEnabled, hourly: EventEnabled, retired: EventOnSource}
	await(t, "the new primary runs them", func() bool {
		got, _ := c.w.eventsOf(db2.host)
		return maps.Equal(got, want)
	})
	c.healthy("db2")
	for _, h := range []*host{db1.host, c.node("db3").host} {
		got, notes := c.w.eventsOf(h)
		if got[nightly] != EventOnSource || got[hourly] != EventOnSource || got[retired] == EventEnabled || !maps.Equal(notes, noted(nightly, hourly)) {
			t.Errorf("%s has %v, noted are %v", h.id, got, notes)
		}
	}
	if n := db2.host.count("EnableEvent"); n != 2 {
		t.Errorf("%d times, for two events", n)
	}
}

// eventful is a primary at work in whose epoch nothing of its events was done yet: it has them all disabled on its side, and two are noted.
func eventful(t *testing.T) *unit {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.host.change(func() { u.host.ackedBy["db2"] = 1 << 40 })
	u.barriers.note(1, u.host.Server().Started)
	u.w.withEvents("db2", map[EventName]EventState{nightly: EventEnabled, hourly: EventEnabled, retired: EventDisabled})
	u.host.change(func() { u.w.noted = noted(nightly, hourly) })
	return u
}

func (u *unit) expectEvents(want map[EventName]EventState, notes map[EventName]bool) {
	u.t.Helper()
	got, has := u.w.eventsOf(u.host)
	if !maps.Equal(got, want) || !maps.Equal(has, notes) {
		u.t.Errorf("it has %v, noted are %v; want %v and %v", got, has, want, notes)
	}
}

var (
	allOnSource = map[EventName]EventState{nightly: EventOnSource, hourly: EventOnSource, retired: EventOnSource}
	bothEnabled = map[EventName]EventState{nightly: EventEnabled, hourly: EventEnabled, retired: EventOnSource}
)

// TestEventsAreEnabledOncePerTenure: what an operator does with them afterwards stays, and is noted.
func TestEventsAreEnabledOncePerTenure(t *testing.T) {
	u, e := eventful(t), &events{}
	for range 2 {
		if err := u.lookAtEvents(u.short(), e); err != nil {
			t.Fatal(err)
		}
		u.expectEvents(bothEnabled, noted(nightly, hourly))
	}
	if n := u.host.count("EnableEvent"); n != 2 || u.host.count("ListEvents") != 0 {
		t.Errorf("it did %v", u.host.made())
	}
	u.host.change(func() { u.host.events[hourly] = EventOnSource }) // by hand
	if err := u.lookAtEvents(u.short(), e); err != nil {
		t.Fatal(err)
	}
	u.expectEvents(map[EventName]EventState{nightly: EventEnabled, hourly: EventOnSource, retired: EventOnSource}, noted(nightly))
	u.host.change(func() { u.host.events[retired] = EventEnabled; delete(u.host.events, nightly) })
	if err := u.lookAtEvents(u.short(), e); err != nil {
		t.Fatal(err)
	}
	u.expectEvents(map[EventName]EventState{hourly: EventOnSource, retired: EventEnabled}, noted(retired))
	if n := u.host.count("EnableEvent"); n != 2 {
		t.Errorf("enabled again: %v", u.host.made())
	}
	// Another run of mysqld is looked at anew, and has nothing to be enabled.
	u.host.change(func() { u.host.run++ })
	u.barriers.note(1, u.host.Server().Started)
	if err := u.lookAtEvents(u.short(), e); err != nil || u.host.count("EnableEvent") != 2 {
		t.Errorf("after a restart in place: %v, %v", u.host.made(), err)
	}
}

// TestEventsNotYetEnabledStayNoted: or a primary that is lost before that leaves nothing to the next. One that fails holds up no other.
func TestEventsNotYetEnabledStayNoted(t *testing.T) {
	u, e := eventful(t), &events{}
	u.host.change(func() { u.host.events[retired] = EventEnabled }) // an operator was faster
	u.host.fail("EnableEvent", errors.New("no"))
	for range 2 {
		if err := u.lookAtEvents(u.short(), e); err == nil {
			t.Error("nothing is said of it")
		}
	}
	if n := u.host.count("EnableEvent"); n != 2 {
		t.Errorf("%d attempts at two events, in no time", n)
	}
	all := noted(nightly, hourly, retired)
	u.expectEvents(map[EventName]EventState{nightly: EventOnSource, hourly: EventOnSource, retired: EventEnabled}, all)
	u.host.fail("EnableEvent", nil)
	e.again = 0
	if err := u.lookAtEvents(u.short(), e); err != nil {
		t.Error(err)
	}
	u.expectEvents(map[EventName]EventState{nightly: EventEnabled, hourly: EventEnabled, retired: EventEnabled}, all)
}

// TestMissingRightsAreAskedForOnce: they are the same for every event.
func TestMissingRightsAreAskedForOnce(t *testing.T) {
	u, e := eventful(t), &events{}
	u.host.fail("EnableEvent", ErrEventRights)
	if err := u.lookAtEvents(u.short(), e); !errors.Is(err, ErrEventRights) || u.host.count("EnableEvent") != 1 {
		t.Errorf("%v, %v", err, u.host.made())
	}
	u.expectEvents(allOnSource, noted(nightly, hourly))
	u.host.fail("Events", ErrEventRights) // as MySQL says it
	if err := u.lookAtEvents(u.short(), e); !errors.Is(err, ErrEventRights) {
		t.Error(err)
	}
}

// losses of the right to write: each before a look, and in the middle of one.
var losses = map[string]func(u *unit){
	"lease lost":       func(u *unit) { u.holder.drop() },
	"lease of another": func(u *unit) { u.holder.mu.Lock(); u.holder.epoch = 7; u.holder.mu.Unlock() },
	"gate closed":      func(u *unit) { u.host.change(func() { u.host.gate = 0 }) },
	"operation begun":  func(u *unit) { u.releasing("db2") },
	"epoch ended":      func(u *unit) { u.begin() },
	"order accepted": func(u *unit) {
		if err := u.acceptOrder(u.order0(fsm.OrderFence)); err != nil {
			u.t.Error(err)
		}
	},
	"stopping":      func(u *unit) { u.stopping.Store(true) },
	"another run":   func(u *unit) { u.host.change(func() { u.host.run++ }) },
	"read-only":     func(u *unit) { u.host.change(func() { u.host.mode = modeReadOnly }) },
	"not confirmed": func(u *unit) { u.fresh.Store(false) },
}

func TestEventsNeedTheRoleBeforeEveryStatement(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			if breakEpoch {
				t.Skip("the epoch protects nothing in this build")
			}
			u := eventful(t)
			lose(u)
			u.host.expect()
			if err := u.lookAtEvents(u.short(), &events{}); err != nil {
				t.Error(err)
			}
			u = eventful(t)
			k := u.host.holdCall("EnableEvent")
			result := make(chan error, 1)
			go func() { result <- u.lookAtEvents(u.short(), &events{}) }()
			<-k.entered
			lose(u)
			close(k.released)
			if err := <-result; err != nil {
				t.Errorf("to lose the right is no failure: %v", err)
			}
			u.expectEvents(allOnSource, noted(nightly, hourly))
			if n := u.host.count("EnableEvent"); n != 1 {
				t.Errorf("it went on: %v", u.host.made())
			}
		})
	}
}

// taking are the ways in which the role is taken from a primary at work; before names the call before which nothing may be under way any more.
var taking = []struct {
	name, before string
	take         func(u *unit) error
}{
	{"release", "SetReadOnly", func(u *unit) error {
		_, err := u.obey(u.short(), u.releasing("db2"))
		return err
	}},
	{"fence", "SetReadOnly", func(u *unit) error {
		u.begin()
		_, err := u.obey(u.short(), u.order(fsm.OrderFence))
		return err
	}},
}

// TestEventsEndBeforeTheRoleIsGivenUp: what was sent is waited for, what was not is not sent any more.
func TestEventsEndBeforeTheRoleIsGivenUp(t *testing.T) {
	for _, c := range taking {
		for _, at := range []string{"EnableEvent", "EnableEvent, sent"} {
			t.Run(c.name+" at "+at, func(t *testing.T) {
				u := eventful(t)
				u.readOnlyLimit = awaitLimit // a machine that stands still is not what is tested
				k := u.host.holdCall(at)
				ended := make(chan error, 1)
				go func() { ended <- u.lookAtEvents(u.short(), &events{}) }()
				write := <-k.entered
				end := u.host.holdCall(c.before)
				result := make(chan error, 1)
				go func() { result <- c.take(u) }()
				sent := at != "EnableEvent"
				if sent {
					u.ended()
					if write.Err() != nil || u.host.count(c.before) != 0 {
						t.Errorf("it is not waited for: %v", u.host.made())
					}
					close(k.released)
				}
				select {
				case <-end.entered:
				case err := <-result:
					t.Fatalf("it ended without %s: %v", c.before, err)
				}
				u.ownWrite.mu.Lock()
				if u.ownWrite.done != nil {
					t.Errorf("it may be under way when %s is asked for", c.before)
				}
				u.ownWrite.mu.Unlock()
				close(end.released)
				if !sent { // it has been cancelled
					close(k.released)
				}
				for _, ch := range []chan error{result, ended} {
					if err := <-ch; err != nil {
						t.Error(err)
					}
				}
				if got, _ := u.w.eventsOf(u.host); sent != (got[nightly] == EventEnabled || got[hourly] == EventEnabled) {
					t.Errorf("it has %v", got)
				}
			})
		}
	}
}

// ended waits until whoever takes the role has said that nothing more is to be sent.
func (u *unit) ended() {
	await(u.t, "nothing more may be sent", func() bool {
		u.ownWrite.mu.Lock()
		defer u.ownWrite.mu.Unlock()
		return u.ownWrite.ended
	})
}

// TestEventNobodyAcknowledgesHoldsUpNoFence: like any commit that waits, it gets mysqld killed, and a release gives up and says so.
func TestEventNobodyAcknowledgesHoldsUpNoFence(t *testing.T) {
	u := eventful(t)
	u.host.change(func() { clear(u.host.ackedBy) })
	ended := make(chan error, 1)
	go func() { ended <- u.lookAtEvents(u.short(), &events{}) }()
	await(t, "it waits for its acknowledgement", func() bool { return u.host.Server().Waiting > 0 })
	ctx, cancel := context.WithTimeout(u.short(), 50*time.Millisecond)
	defer cancel()
	if err := u.endOwnWrites(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it has ended, they say: %v", err)
	}
	u.begin()
	if _, err := u.obey(u.short(), u.order(fsm.OrderFence)); err != nil {
		t.Fatal(err)
	}
	if u.host.count("Kill") != 1 {
		t.Errorf("it did %v", u.host.made())
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := u.endOwnWrites(u.short()); err != nil {
		t.Error(err)
	}
}
