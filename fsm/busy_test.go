package fsm

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// decideBusy decides a switchover from db1 to db2 whose primary answered so, age ago.
func decideBusy(t *testing.T, policy BusyPolicy, wait, since time.Duration, busy *Busy) Decision {
	t.Helper()
	c := steady(t)
	c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2", Busy: policy, Wait: wait}})
	v := c.view()
	v.StepSince = v.Now - since
	if busy != nil {
		busy.At += v.Now
		v.Busy = busy
	}
	return Decide(c.s, v)
}

func rolledBack(d Decision) string {
	for _, c := range d.Commands {
		if c.Rollback != nil {
			return c.Rollback.Reason
		}
	}
	return ""
}

func TestSwitchoverWaitsForClients(t *testing.T) {
	t.Parallel()
	old := Session{ID: 7, User: "app", Age: 2 * time.Second, Transaction: true}
	young := Session{ID: 8, User: "app", Age: time.Second, Transaction: true}
	ddl := Session{ID: 9, User: "ann", Statement: "ALTER TABLE t", DDL: true}
	locks := Session{ID: 10, User: "ann", Locks: true}
	for _, c := range []struct {
		name   string
		policy BusyPolicy
		wait   time.Duration
		since  time.Duration
		busy   *Busy
		goes   bool
		says   string // of the roll-back
	}{
		{name: "nobody", policy: BusyRefuse, busy: &Busy{}, goes: true},
		{name: "a young transaction", policy: BusyRefuse, busy: &Busy{Sessions: []Session{young}}, goes: true},
		{name: "an old transaction is waited for", policy: BusyRefuse, busy: &Busy{Sessions: []Session{young, old}}},
		{name: "not asked yet", policy: BusyRefuse},
		{name: "an old answer is none", policy: BusyRefuse, busy: &Busy{At: -time.Minute}},
		{name: "an error is no answer", policy: BusyRefuse, busy: &Busy{Error: "no"}},
		{name: "too long", policy: BusyRefuse, since: 11 * time.Second, busy: &Busy{Sessions: []Session{old}}, says: "connection 7 of app, 2s: idle in a transaction"},
		{name: "longer by --wait", policy: BusyRefuse, wait: time.Minute, since: 11 * time.Second, busy: &Busy{Sessions: []Session{old}}},
		{name: "shorter by --wait", policy: BusyRefuse, wait: time.Second, since: 2 * time.Second, busy: &Busy{Sessions: []Session{ddl, locks}}, says: "connection 9 of ann, 0s: ALTER TABLE t; and 1 more"},
		{name: "locks", policy: BusyRefuse, since: 11 * time.Second, busy: &Busy{Sessions: []Session{locks}}, says: "holds table locks"},
		{name: "killed", policy: BusyKill, busy: &Busy{Sessions: []Session{old, ddl}}, goes: true},
		{name: "not looked at", goes: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := decideBusy(t, c.policy, c.wait, c.since, c.busy)
			why := rolledBack(d)
			if goes := len(d.Commands) > 0 && why == ""; goes != c.goes {
				t.Errorf("goes on: %t; %+v", goes, d.Commands)
			}
			if (why == "") != (c.says == "") || !strings.Contains(why, c.says) {
				t.Errorf("rolled back with %q, want %q", why, c.says)
			}
		})
	}
}

// TestKillIsOrdered with the release, and only when asked for.
func TestKillIsOrdered(t *testing.T) {
	t.Parallel()
	for _, policy := range []BusyPolicy{"", BusyRefuse, BusyKill} {
		c := steady(t, data("db1", "db2")...)
		c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2", Busy: policy}})
		c.must(t, Command{Release: &Release{OpID: c.s.Op.ID, Epoch: 1}})
		d := Decide(c.s, c.view())
		i := slices.IndexFunc(d.Orders, func(o Order) bool { return o.Kind == OrderRelease })
		if i < 0 || d.Orders[i].Kill != (policy == BusyKill) {
			t.Errorf("%q: orders %+v", policy, d.Orders)
		}
	}
}

func TestChangedBefore(t *testing.T) {
	t.Parallel()
	c := steady(t)
	before := c.s.Clone()
	shrunk, chained := ChangedBefore(c.s, c.view(), "db1", "db2")
	if !slices.Equal(shrunk, []NodeID{"db3"}) || !slices.Equal(chained, []NodeID{"db3"}) {
		t.Errorf("shrunk %v, chained %v", shrunk, chained)
	}
	if c.s.Op != nil || before.Index != c.s.Index {
		t.Error("a plan changed the state")
	}
	two := steady(t, data("db1", "db2")...)
	if shrunk, chained = ChangedBefore(two.s, two.view(), "db1", "db2"); shrunk != nil || chained != nil {
		t.Errorf("with two nodes: shrunk %v, chained %v", shrunk, chained)
	}
}
