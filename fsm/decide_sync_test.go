package fsm

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var ruleCases = slices.Concat(operationCases, setCases, chainCases)

// sick is a cluster some of whose members could not acknowledge for so long.
func sick(d time.Duration, members []Member, ids ...NodeID) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := steady(t, members...)
		for _, id := range ids {
			c.obs[id].Server.State = ServerDown
		}
		c.decide()
		c.wait(d)
		return c
	}
}

func edited(make func(*testing.T) *scene, edit func(t *testing.T, c *scene)) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := make(t)
		edit(t, c)
		return c
	}
}

func minReplicas(n int) func(*testing.T, *scene) {
	return func(_ *testing.T, c *scene) { c.s.Settings.SyncMinReplicas = n }
}

const (
	shrinkAfter  = 2 * time.Second
	degradeAfter = 10 * time.Second
)

func fiveMySQL(t *testing.T) *scene {
	c := bootstrapped(t, data("db1", "db2", "db3", "db4", "db5")...)
	c.s.Server = "mysql"
	for _, o := range c.obs {
		o.Server.Received, o.Server.Executed = "00000000-0000-0000-0000-000000000001:1-100", "00000000-0000-0000-0000-000000000001:1-100"
	}
	c.serve("db1")
	c.must(t, Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 1}})
	c.fillSet(t)
	c.serve("db1")
	return c
}

// grown is a cluster with one member less than it could have.
func grown(t *testing.T) *scene {
	c := without(t)
	c.caughtUp = []SyncMember{{Node: "db3", Incarnation: "i-db3"}}
	return c
}

// prepared has the primary report that it has done its part of the change.
func (c *scene) prepared(at string) {
	c.obs["db1"].Prepared, c.obs["db1"].PreparedAt, c.obs["db1"].PortGated = c.s.Change.Index, at, c.s.CoverPort()
}

var setCases = []ruleCase{
	{code: "sync.set", name: "all can acknowledge", acts: true, commands: []string{}, make: steadyScene},
	{code: "sync.set", name: "there is no primary", make: begunTakeover},
	{code: "sync.set", name: "the primary does not report", make: bent(func(_ *testing.T, c *scene) { c.silent["db1"] = true })},
	{code: "sync.set", name: "a switchover prepares", commands: []string{"release"}, make: edited(sick(shrinkAfter, nil, "db3"), func(t *testing.T, c *scene) {
		c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}})
	})},
	{code: "sync.set", name: "a switchover prepares: what was intended before ends first", acts: true, commands: []string{"complete"}, verdict: "sync.at-rest", make: edited(leaving, func(t *testing.T, c *scene) {
		c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}})
		c.prepared("0-1-100")
	})},
	{code: "sync.set", name: "a switchover prepares: nor is anything waited for that takes too long", acts: true, commands: []string{"abandon"}, verdict: "sync.at-rest", make: edited(leaving, func(t *testing.T, c *scene) {
		c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}})
		c.decide()
		c.wait(c.s.Settings.OrderTimeout + c.s.Settings.ShrinkAfter + 1)
	})},
	{code: "sync.set", name: "the epoch is being released", make: edited(releasingTo, func(_ *testing.T, c *scene) { c.obs["db3"].Server.State = ServerDown })},
	{code: "sync.set", name: "something else is committed first", acts: true, commands: []string{"recount"}, make: edited(grown, func(_ *testing.T, c *scene) {
		c.caughtUp = append(c.caughtUp, SyncMember{Node: "db2", Incarnation: "i-db2-again"})
	})},
	{code: "sync.set", name: "while a promotion waits for its barrier", acts: true, commands: []string{"intend"}, verdict: "sync.shrink", make: func(t *testing.T) *scene {
		c := fencedTakeover(t)
		c.find("db1")
		c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-90"), c.answer("db1", "0-1-90")}
		c.follow(t)
		c.obs["db1"].Server.State = ServerDown
		c.decide()
		c.wait(shrinkAfter)
		return c
	}},
	{code: "sync.set", name: "paused: the set follows all the same", acts: true, commands: []string{"intend"}, verdict: "sync.shrink", make: edited(sick(shrinkAfter, nil, "db3"), func(t *testing.T, c *scene) {
		c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
	})},

	{code: "sync.set", name: "shrink: sick for long enough", acts: true, commands: []string{"intend"}, verdict: "sync.shrink", make: sick(shrinkAfter, nil, "db3")},
	{code: "sync.set", name: "shrink: not for long enough", acts: true, commands: []string{}, make: sick(shrinkAfter-1, nil, "db3")},
	{code: "sync.set", name: "shrink: nobody else could acknowledge", acts: true, commands: []string{}, verdict: "sync.lower", make: sick(shrinkAfter, nil, "db2", "db3")},
	{code: "sync.set", name: "shrink: the set is as small as it may be", acts: true, commands: []string{}, make: edited(without, func(t *testing.T, c *scene) {
		c.obs["db2"].Server.State = ServerDown
		c.decide()
		c.wait(shrinkAfter)
	})},
	{code: "sync.set", name: "shrink: who is kept out leaves at once", acts: true, commands: []string{"intend"}, verdict: "sync.shrink", make: bent(func(_ *testing.T, c *scene) { c.obs["db3"].Standing = StandingQuarantined })},

	{code: "sync.set", name: "shrink: who is kept out does not wait for one that has been sick for a moment longer", acts: true, commands: []string{"intend"}, verdict: "sync.shrink", make: func(t *testing.T) *scene {
		c := fiveMySQL(t)
		c.obs["db2"].Server.State = ServerDown
		c.decide()
		c.wait(shrinkAfter - 1)
		c.obs["db3"].Standing = StandingQuarantined
		return c
	}},

	{code: "sync.set", name: "lower: for long enough", acts: true, commands: []string{"intend"}, verdict: "sync.lower", make: sick(degradeAfter, data("db1", "db2"), "db2")},
	{code: "sync.set", name: "lower: not for long enough", acts: true, commands: []string{}, verdict: "sync.lower", make: sick(degradeAfter-1, data("db1", "db2"), "db2")},
	{code: "sync.set", name: "lower: one of two has been sick for a moment only", acts: true, commands: []string{}, verdict: "sync.lower", make: edited(sick(degradeAfter, nil, "db2"), func(_ *testing.T, c *scene) { c.obs["db3"].Server.State = ServerDown })},
	{code: "sync.set", name: "lower: one always must", acts: true, commands: []string{}, verdict: "sync.min-replicas", make: edited(sick(time.Hour, data("db1", "db2"), "db2"), minReplicas(1))},

	{code: "sync.set", name: "grow: caught up", acts: true, commands: []string{"grow"}, verdict: "sync.grow", make: grown},
	{code: "sync.set", name: "grow: not caught up", acts: true, commands: []string{}, make: without},
	{code: "sync.set", name: "grow: caught up as another incarnation", acts: true, commands: []string{}, make: edited(grown, func(_ *testing.T, c *scene) { c.obs["db3"].Incarnation = "i-db3-again" })},
	{code: "sync.set", name: "grow: caught up, and stopped since", acts: true, commands: []string{}, make: edited(grown, func(_ *testing.T, c *scene) { c.obs["db3"].Server.IOConnecting = true })},
	{code: "sync.set", name: "grow: the set is full", acts: true, commands: []string{}, make: func(t *testing.T) *scene {
		c := steady(t, data("db1", "db2", "db3", "db4")...)
		c.caughtUp = []SyncMember{{Node: "db4", Incarnation: "i-db4"}}
		return c
	}},

	{code: "sync.set", name: "raise: one can", acts: true, commands: []string{"intend"}, verdict: "sync.raise", make: unacknowledged},
	{code: "sync.set", name: "raise: it can, and does not count", acts: true, commands: []string{}, make: edited(unacknowledged, func(_ *testing.T, c *scene) {
		c.obs["db2"].Incarnation, c.obs["db3"].Incarnation = "i-db2-again", "i-db3-again"
	})},
	{code: "sync.set", name: "raise: its semi-sync is not in force yet", acts: true, commands: []string{}, make: edited(unacknowledged, func(_ *testing.T, c *scene) {
		c.obs["db2"].Server.ReplicaSync, c.obs["db3"].Server.ReplicaSync = false, false
	})},

	{code: "sync.set", name: "one at a time: another could leave", acts: true, commands: []string{}, make: edited(leaving, func(_ *testing.T, c *scene) {
		c.obs["db2"].Standing = StandingQuarantined
	})},
	{code: "sync.set", name: "shrink: prepared and held", acts: true, commands: []string{"complete"}, verdict: "sync.complete", make: edited(leaving, func(_ *testing.T, c *scene) { c.prepared("0-1-100") })},
	{code: "sync.set", name: "shrink: prepared, held by none", acts: true, commands: []string{}, verdict: "sync.complete", make: edited(leaving, func(_ *testing.T, c *scene) { c.prepared("0-1-101") })},
	{code: "sync.set", name: "shrink: held only by who leaves", acts: true, commands: []string{}, verdict: "sync.complete", make: edited(leaving, func(_ *testing.T, c *scene) {
		c.prepared("0-1-101")
		c.obs["db3"].Server.Received = "0-1-101"
	})},
	{code: "sync.set", name: "shrink: held by another incarnation", acts: true, commands: []string{}, verdict: "sync.complete", make: edited(leaving, func(_ *testing.T, c *scene) {
		c.prepared("0-1-100")
		c.obs["db2"].Incarnation = "i-db2-again"
	})},
	{code: "sync.set", name: "an earlier change was prepared", acts: true, commands: []string{}, make: edited(leaving, func(_ *testing.T, c *scene) { c.prepared("0-1-100"); c.obs["db1"].Prepared-- })},
	{code: "sync.set", name: "lower: prepared", acts: true, commands: []string{"complete"}, make: edited(lowering, func(_ *testing.T, c *scene) {
		c.obs["db2"].Server.State, c.obs["db3"].Server.State = ServerDown, ServerDown
		c.prepared("0-1-100")
	})},
	{code: "sync.set", name: "lower: prepared, the port is not covered", acts: true, commands: []string{}, verdict: "sync.complete", make: edited(lowering, func(_ *testing.T, c *scene) {
		c.obs["db2"].Server.State, c.obs["db3"].Server.State = ServerDown, ServerDown
		c.prepared("0-1-100")
		c.obs["db1"].PortGated = false
	})},
	{code: "sync.set", name: "lower: one is back, prepared or not", acts: true, commands: []string{"abandon"}, verdict: "sync.abandon", make: edited(lowering, func(_ *testing.T, c *scene) { c.prepared("0-1-100") })},
	{code: "sync.set", name: "not prepared in time", acts: true, commands: []string{"abandon"}, verdict: "sync.abandon", make: edited(leaving, func(_ *testing.T, c *scene) {
		c.decide()
		c.wait(c.s.Settings.OrderTimeout + c.s.Settings.ShrinkAfter + 1)
	})},
}

// TestLowerGoesNoFurtherThanItMust: with five nodes one acknowledgement is given up, then the other.
func TestLowerGoesNoFurtherThanItMust(t *testing.T) {
	for _, c := range []struct {
		name  string
		sick  []NodeID
		floor int
		want  int // -1: nothing is given up
	}{
		{"two of four are sick: the others do", []NodeID{"db2", "db3"}, 0, -1},
		{"one is left", []NodeID{"db2", "db3", "db4"}, 0, 1},
		{"none is left", []NodeID{"db2", "db3", "db4", "db5"}, 0, 0},
		{"none is left, one always must", []NodeID{"db2", "db3", "db4", "db5"}, 1, 1},
		{"one is left, two always must", []NodeID{"db2", "db3", "db4"}, 2, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fiveMySQL(t)
			if s.s.Sync.Acks != 2 || len(s.s.Sync.Members) != 4 {
				t.Fatalf("the set is %+v", s.s.Sync)
			}
			s.s.Settings.SyncMinReplicas = c.floor
			for _, id := range c.sick {
				s.obs[id].Server.State = ServerDown
			}
			s.decide()
			s.wait(degradeAfter)
			got := -1
			for _, cmd := range s.decide().Commands {
				if cmd.Intend != nil && cmd.Intend.Kind == ChangeAcks {
					got = cmd.Intend.Acks
					s.must(t, cmd)
				}
			}
			if got != c.want {
				t.Errorf("acknowledgements go to %d, want %d; verdicts %v", got, c.want, s.last.Verdicts)
			}
			if c.want < 0 && c.floor == 2 && !hasVerdict(s.last.Verdicts, "sync.min-replicas", "db1") {
				t.Errorf("nobody says why: %v", s.last.Verdicts)
			}
		})
	}
}

// TestReplicaStandsIn: when every member is gone a healthy replica outside the set takes over their part, also when nothing may be given up; the set
// is brought back to its size afterwards, whether they come back or not.
func TestReplicaStandsIn(t *testing.T) {
	for _, back := range []bool{false, true} {
		c := steady(t, data("db1", "db2", "db3", "db4", "db5")...)
		c.s.Settings.SyncMinReplicas = 1
		c.caughtUp = []SyncMember{member("db4")}
		c.obs["db2"].Server.State, c.obs["db3"].Server.State = ServerDown, ServerDown
		if d := c.decide(); len(d.Commands) > 0 {
			t.Fatalf("decides %v at once", commandNames(d))
		}
		c.wait(c.s.Settings.FailAfter)
		c.follow1(t)
		if m, in := c.s.Sync.Member("db4"); !in || m.Incarnation != "i-db4" || c.s.Sync.Acks != 1 {
			t.Fatalf("the set is %+v, verdicts %v", c.s.Sync, c.last.Verdicts)
		}
		if back {
			c.obs["db2"].Server.State, c.obs["db3"].Server.State = ServerUp, ServerUp
		}
		c.wait(shrinkAfter)
		for range 8 {
			if c.s.Change != nil {
				c.prepared("0-1-100")
			}
			c.follow1(t)
			c.wait(time.Millisecond)
		}
		if c.s.Change != nil || len(c.s.Sync.Members) > c.s.setLimit() || c.s.Sync.Acks != 1 {
			t.Errorf("back %v: the set is %+v, change %+v", back, c.s.Sync, c.s.Change)
		}
		if _, in := c.s.Sync.Member("db4"); in == back {
			t.Errorf("back %v: the set is %+v", back, c.s.Sync)
		}
	}
}

// TestLongestSickLeavesFirst, and the verdict says who and why.
func TestLongestSickLeavesFirst(t *testing.T) {
	c := fiveMySQL(t)
	c.obs["db5"].Server.State = ServerDown
	c.decide()
	c.wait(time.Second)
	c.obs["db2"].Server.IOConnecting = true
	c.decide()
	c.wait(shrinkAfter)
	d := c.decide()
	if len(d.Commands) != 1 || d.Commands[0].Intend == nil || d.Commands[0].Intend.Node != "db5" || !strings.Contains(d.Commands[0].Intend.Cause, "no running mysqld") {
		t.Fatalf("decides %+v, verdicts %v", d.Commands, d.Verdicts)
	}
}

// TestSetGrowsFromNothing: a new cluster begins without acknowledgements and wins them one by one.
func TestSetGrowsFromNothing(t *testing.T) {
	c := bootstrapped(t, data("db1", "db2", "db3")...)
	if len(c.s.Sync.Members) != 0 || c.s.Sync.Acks != 0 || len(c.s.Outside) != 2 || !c.s.CoverPort() {
		t.Fatalf("begins with %+v, outside %+v", c.s.Sync, c.s.Outside)
	}
	c.serve("db1")
	c.must(t, Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 1}})
	c.caughtUp = []SyncMember{{Node: "db2", Incarnation: "i-db2"}, {Node: "db3", Incarnation: "i-db3"}}
	var story []string
	for range 8 {
		if c.s.Change != nil {
			c.prepared("0-1-100")
		}
		d := c.decide()
		story = append(story, commandNames(d)...)
		for _, cmd := range d.Commands {
			c.must(t, cmd)
		}
	}
	if want := []string{"grow", "grow", "intend", "complete"}; !slices.Equal(story, want) {
		t.Errorf("committed %v, want %v", story, want)
	}
	if c.s.Sync.Acks != 1 || len(c.s.Sync.Members) != 2 || len(c.s.Outside) != 0 || c.s.CoverPort() {
		t.Errorf("ends with %+v, outside %+v", c.s.Sync, c.s.Outside)
	}
}

// TestLongStartGivesNothingUp: while the primary's mysqld recovers nobody can be connected to it, and nobody is sick for that when it is back.
func TestLongStartGivesNothingUp(t *testing.T) {
	c := restartingPrimary(t)
	for _, id := range []NodeID{"db2", "db3"} {
		c.obs[id].Server.IOConnecting, c.obs[id].Standing = true, StandingCatching
	}
	for range 5 {
		if d := c.decide(); len(d.Commands) > 0 {
			t.Fatalf("decides %v", commandNames(d))
		}
		c.wait(degradeAfter)
	}
	c.obs["db1"].Server = ServerStatus{State: ServerUp, ReadOnly: true, SourceSync: true, Acks: 1}
	if d := c.decide(); len(d.Commands) > 0 {
		t.Fatalf("decides %v before anybody had time to connect", commandNames(d))
	}
	c.wait(degradeAfter)
	if d := c.decide(); len(d.Commands) != 1 || d.Commands[0].Intend == nil {
		t.Errorf("decides %v when nobody has connected since; verdicts %v", commandNames(d), d.Verdicts)
	}
}

// TestCannotAck names every reason.
func TestCannotAck(t *testing.T) {
	for _, r := range []struct {
		want string
		edit func(c *scene)
	}{
		{"", func(*scene) {}},
		{"out of reach", func(c *scene) { c.lose("db2") }},
		{"out of reach", func(c *scene) { c.noAgent["db2"] = true }},
		{"does not report", func(c *scene) { c.silent["db2"] = true }},
		{"is quarantined: errant", func(c *scene) { c.obs["db2"].Standing, c.obs["db2"].Reason = StandingQuarantined, "errant" }},
		{"no running mysqld", func(c *scene) { c.obs["db2"].Server.State = ServerHung }},
		{"does not replicate: drains", func(c *scene) { c.obs["db2"].Standing, c.obs["db2"].Reason = StandingCatching, "drains" }},
		{"has server_id 7, which db1 has too", func(c *scene) { c.obs["db1"].Server.ServerID, c.obs["db2"].Server.ServerID = 7, 7 }},
		{"", func(c *scene) { c.obs["db2"].Server.ServerID, c.obs["db3"].Server.ServerID = 7, 7 }}, // it is db3 that does not count
		{"is not connected", func(c *scene) { c.obs["db2"].Server.IOConnecting = true }},
		{"", func(c *scene) { c.obs["db2"].Server.IOConnecting, c.obs["db1"].Server.State = true, ServerDown }},
		{"", func(c *scene) { c.obs["db2"].Standing, c.obs["db1"].Server.State = StandingCatching, ServerHung }},
		{"no running mysqld", func(c *scene) { c.obs["db2"].Server.State, c.obs["db1"].Server.State = ServerDown, ServerDown }},
	} {
		c := steady(t)
		r.edit(c)
		if got := CannotAck(c.s, c.view(), "db2"); (got == "") != (r.want == "") || !strings.Contains(got, r.want) {
			t.Errorf("says %q, want %q", got, r.want)
		}
	}
}

// TestTwinsCountOnce: of replicas with one server_id the first counts, and none that has the primary's.
func TestTwinsCountOnce(t *testing.T) {
	c := steady(t)
	for id, server := range map[NodeID]uint32{"db1": 1, "db2": 2, "db3": 2} {
		c.obs[id].Server.ServerID = server
	}
	v := c.view()
	if TwinOf(c.s, v, "db1") != "" || CannotAck(c.s, v, "db2") != "" || !strings.Contains(CannotAck(c.s, v, "db3"), "which db2 has too") {
		t.Errorf("db1 %q, db2 %q, db3 %q", TwinOf(c.s, v, "db1"), CannotAck(c.s, v, "db2"), CannotAck(c.s, v, "db3"))
	}
	c.obs["db2"].Server.IOConnecting = true
	if why := CannotAck(c.s, c.view(), "db3"); why != "" {
		t.Errorf("db3 %q although db2 is connected to nobody", why)
	}
	c.obs["db2"].Server.IOConnecting, c.silent["db2"] = false, true
	if why := CannotAck(c.s, c.view(), "db3"); why != "" {
		t.Errorf("db3 %q although db2 does not report", why)
	}
}

func TestHolds(t *testing.T) {
	for _, h := range []struct {
		server, a, b string
		want         bool
	}{
		{"mariadb", "0-1-100", "0-1-100", true},
		{"mariadb", "0-1-99", "0-1-100", false},
		{"mariadb", "0-2-101", "0-1-100", false}, // of another server: positions alone do not tell
		{"mariadb", "0-1-100", "", true},
		{"mariadb", "nonsense", "", false},
		{"mariadb", "0-1-100", "nonsense", false},
		{"mysql", "00000000-0000-0000-0000-000000000001:1-9", "00000000-0000-0000-0000-000000000001:1-8", true},
		{"mysql", "00000000-0000-0000-0000-000000000001:1-9", "00000000-0000-0000-0000-000000000002:1", false},
	} {
		if got := Holds(h.server, h.a, h.b); got != h.want {
			t.Errorf("%s: %q holds %q: %v", h.server, h.a, h.b, got)
		}
	}
}
