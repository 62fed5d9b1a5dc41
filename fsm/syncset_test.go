package fsm

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func growBy(id NodeID) Command {
	return Command{Grow: &Grow{Epoch: 1, Node: id, Incarnation: "i-" + string(id)}}
}

func intend(c Intend) func(*scene) Command {
	return func(*scene) Command { c.Epoch = 1; return Command{Intend: &c} }
}

// completed is the completion of the change in hand, held by these.
func completed(edit func(*Complete), holders ...SyncMember) func(*scene) Command {
	return func(c *scene) Command {
		done := Complete{Epoch: c.s.Epoch, Index: c.s.Change.Index, Position: "0-1-100", Holders: holders}
		if edit != nil {
			edit(&done)
		}
		return Command{Complete: &done}
	}
}

func abandoned(c *scene) Command {
	return Command{Abandon: &Abandon{Epoch: c.s.Epoch, Index: c.s.Change.Index}}
}

func member(id NodeID) SyncMember { return SyncMember{Node: id, Incarnation: "i-" + string(id)} }

func noChange(c *scene) Command {
	return Command{Complete: &Complete{Epoch: c.s.Epoch, Index: c.index, Holders: c.s.Sync.Members, Gated: true}}
}

// setPromote is a promotion of db2 with a set of its own.
func setPromote(acks int, members ...SyncMember) func(*scene) Command {
	return func(c *scene) Command {
		cmd := promoteOf(c, "db2", WonCount, c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100"))
		cmd.Promote.Members, cmd.Promote.Acks = members, acks
		return cmd
	}
}

func strict(make func(*testing.T) *scene) func(*testing.T) *scene {
	return edited(make, minReplicas(1))
}

var setRefusals = []refusal{
	{"grow of another epoch", without, func(*scene) Command { return Command{Grow: &Grow{Epoch: 0, Node: "db3", Incarnation: "i"}} }, "the epoch is 1"},
	{"grow while nobody is primary", begunTakeover, func(c *scene) Command { return Command{Grow: &Grow{Epoch: 2, Node: "db3", Incarnation: "i"}} }, "with primary"},
	{"grow while the epoch is released", releasingTo, func(*scene) Command { return growBy("db3") }, "at step releasing"},
	{"grow beside a change", leaving, func(*scene) Command { return growBy("db3") }, "is prepared"},
	{"grow by a member", steadyScene, func(*scene) Command { return growBy("db3") }, "already"},
	{"grow by the primary", without, func(*scene) Command { return growBy("db1") }, "no replica"},
	{"grow by a stranger", without, func(*scene) Command { return growBy("db9") }, "no replica"},
	{"grow by a witness", func(t *testing.T) *scene { return steady(t, append(data("db1", "db2"), witness("w1"))...) }, func(*scene) Command { return growBy("w1") }, "no replica"},
	{"grow by nobody knows which incarnation", without, func(*scene) Command { return Command{Grow: &Grow{Epoch: 1, Node: "db3"}} }, "without an incarnation"},
	{"grow beyond who may be needed", func(t *testing.T) *scene {
		c := steady(t, data("db1", "db2", "db3", "db4", "db5")...)
		c.must(t, growBy("db4"))
		return c
	}, func(*scene) Command { return growBy("db5") }, "3 are the most"},

	{"intend for another epoch", steadyScene, func(*scene) Command { return Command{Intend: &Intend{Epoch: 2, Kind: ChangeShrink, Node: "db3"}} }, "the epoch is 1"},
	{"intend while nobody is primary", begunTakeover, func(*scene) Command { return Command{Intend: &Intend{Epoch: 2, Kind: ChangeShrink, Node: "db3"}} }, "with primary"},
	{"intend while the epoch is released", releasingTo, intend(Intend{Kind: ChangeShrink, Node: "db3"}), "at step releasing"},
	{"intend beside a change", leaving, intend(Intend{Kind: ChangeShrink, Node: "db2"}), "already"},
	{"intend something unknown", steadyScene, intend(Intend{Kind: "swap"}), `kind "swap"`},
	{"shrink by one who is outside", without, intend(Intend{Kind: ChangeShrink, Node: "db3"}), "not in the sync set"},
	{"shrink to fewer members than must acknowledge", without, intend(Intend{Kind: ChangeShrink, Node: "db2"}), "commits wait for 1"},
	{"raise beyond the members", func(t *testing.T) *scene { c := unacknowledged(t); c.s.Sync.Members = nil; return c }, intend(Intend{Kind: ChangeAcks, Acks: 1}), "with 0 members"},
	{"raise beyond what the server can", steadyScene, intend(Intend{Kind: ChangeAcks, Acks: 2}), "at most 1"},
	{"lower below nothing", steadyScene, intend(Intend{Kind: ChangeAcks, Acks: -1}), "from 1 to -1"},
	{"as many as before", steadyScene, intend(Intend{Kind: ChangeAcks, Acks: 1}), "from 1 to 1"},
	{"lower below what is never given up", strict(steadyScene), intend(Intend{Kind: ChangeAcks, Acks: 0}), "sync.min_replicas is 1"},

	{"complete: nothing is intended", steadyScene, noChange, "no change is prepared"},
	{"complete: another intention", leaving, completed(func(c *Complete) { c.Index-- }, member("db2")), "no change is prepared"},
	{"complete: another epoch", leaving, completed(func(c *Complete) { c.Epoch++ }, member("db2")), "the epoch is 1"},
	{"complete: while the epoch is released", func(t *testing.T) *scene {
		c := leaving(t)
		c.s.Op = &Operation{Kind: KindSwitchover, Step: StepReleasing}
		return c
	}, completed(nil, member("db2")), "at step releasing"},
	{"shrink: nobody holds it", leaving, completed(nil), "0 counted members"},
	{"shrink: only the one that leaves holds it", leaving, completed(nil, member("db3")), "0 counted members"},
	{"shrink: another incarnation holds it", leaving, completed(nil, SyncMember{"db2", "i-db2-again"}), "0 counted members"},
	{"shrink: one that the log does not count holds it", edited(leaving, func(_ *testing.T, c *scene) { c.s.Sync.Members[0].Incarnation = "" }), completed(nil, SyncMember{Node: "db2"}), "0 counted members"},
	{"shrink: a stranger and a witness hold it", leaving, completed(nil, member("db9"), member("w1")), "0 counted members"},
	{"raise: nobody holds it", raising, completed(nil), "1 must"},
	{"raise: another incarnation holds it", raising, completed(nil, SyncMember{"db2", "i-db2-again"}), "1 must"},
	{"raise to two: one holds it twice", func(t *testing.T) *scene {
		c := fiveMySQL(t)
		c.acks(t, 1)
		c.must(t, Command{Intend: &Intend{Epoch: 1, Kind: ChangeAcks, Acks: 2}})
		return c
	}, completed(nil, member("db2"), member("db2")), "1 counted members"},
	{"lower to none: the gate does not cover the port", lowering, completed(nil, member("db2"), member("db3")), "does not cover"},

	{"abandon: nothing is intended", steadyScene, func(*scene) Command { return Command{Abandon: &Abandon{Epoch: 1, Index: 6}} }, "no change is prepared"},
	{"abandon: another intention", leaving, func(c *scene) Command { return Command{Abandon: &Abandon{Epoch: 1, Index: c.s.Change.Index + 1}} }, "no change is prepared"},
	{"abandon: another epoch", leaving, func(c *scene) Command { return Command{Abandon: &Abandon{Epoch: 2, Index: c.s.Change.Index}} }, "of epoch 2"},

	{"release while a change is prepared", func(t *testing.T) *scene {
		c := switching(t)
		c.must(t, Command{Intend: &Intend{Epoch: 1, Kind: ChangeShrink, Node: "db3"}})
		return c
	}, func(c *scene) Command { return Command{Release: &Release{OpID: c.s.Op.ID, Epoch: 1}} }, "is prepared"},

	{"promote: the new primary in its own set", fencedTakeover, setPromote(1, member("db2"), member("db3")), "cannot be in the new sync set"},
	{"promote: a stranger in the set", fencedTakeover, setPromote(1, member("db9")), "cannot be in the new sync set"},
	{"promote: a witness in the set", func(t *testing.T) *scene {
		c := fencedTakeover(t)
		c.s.Members = append(c.s.Members, witness("w1"))
		return c
	}, setPromote(1, member("w1")), "cannot be in the new sync set"},
	{"promote: somebody twice in the set", fencedTakeover, setPromote(1, member("db3"), member("db3")), "cannot be in the new sync set"},
	{"promote: more acknowledgements than members", fencedTakeover, setPromote(1), "1 acknowledgements of 0 members"},
	{"promote: more acknowledgements than the server can", fencedTakeover, setPromote(2, member("db1"), member("db3")), "at most 1 of 2"},
	{"promote: a larger set than an election can ask", func(t *testing.T) *scene {
		c := fencedTakeover(t)
		c.s.Members = append(c.s.Members, data("db4")...)
		return c
	}, setPromote(1, member("db1"), member("db3"), member("db4")), "at most 1 of 2"},
	{"promote: without the one that always must", strict(fencedTakeover), setPromote(0), "sync.min_replicas is 1"},
	{"promote: fewer acknowledgements than none", fencedTakeover, setPromote(-1), "acknowledgements"},
}

func TestSetRefusals(t *testing.T) {
	for _, r := range setRefusals {
		t.Run(r.name, func(t *testing.T) {
			c := r.make(t)
			before := c.s.Clone()
			err := c.apply(r.cmd(c))
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("error is %v, want a refusal", err)
			}
			if !strings.Contains(err.Error(), r.want) {
				t.Errorf("refusal %q does not say %q", err, r.want)
			}
			if !reflect.DeepEqual(before, c.s) {
				t.Error("a refused command changed the state")
			}
		})
	}
}

// TestAbandonExcludesComplete: of the two exactly one commits, in either order, and neither of them twice.
func TestAbandonExcludesComplete(t *testing.T) {
	for _, make := range []func(*testing.T) *scene{leaving, lowering, raising} {
		start := make(t)
		done := completed(func(c *Complete) { c.Gated = true }, member("db2"))(start)
		undone := abandoned(start)
		for _, order := range [][]Command{{done, undone, done}, {undone, done, undone}} {
			c := *start
			c.s = start.s.Clone()
			c.must(t, order[0])
			if c.s.Change != nil {
				t.Fatalf("%s leaves the change %+v", order[0].Name(), c.s.Change)
			}
			for _, late := range order[1:] {
				if err := c.apply(late); !errors.Is(err, ErrRefused) {
					t.Errorf("%s after %s: %v", late.Name(), order[0].Name(), err)
				}
			}
			// Nor does it fit the same intention made anew.
			c.must(t, Command{Intend: &Intend{Epoch: 1, Kind: ChangeAcks, Acks: 1 - c.s.Sync.Acks}})
			if err := c.apply(done); !errors.Is(err, ErrRefused) {
				t.Errorf("an old completion commits a new intention: %v", err)
			}
		}
	}
}

// TestWhatEndsAnEpochDropsTheChange, and leaves the set as it was committed: that tells who holds what.
func TestWhatEndsAnEpochDropsTheChange(t *testing.T) {
	for _, make := range []func(*testing.T) *scene{leaving, lowering, raising} {
		c := make(t)
		set := c.s.Sync
		late := completed(func(c *Complete) { c.Gated = true }, member("db2"))(c)
		c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}})
		if c.s.Change != nil || !reflect.DeepEqual(c.s.Sync, set) {
			t.Errorf("after begin the change is %+v, the set %+v", c.s.Change, c.s.Sync)
		}
		if err := c.apply(late); !errors.Is(err, ErrRefused) {
			t.Errorf("a completion of the epoch that ended: %v", err)
		}
	}
	c := releasingTo(t)
	c.s.Change = &SetChange{Kind: ChangeShrink, Node: "db3", Index: 1}
	c.must(t, released(c))
	if c.s.Change != nil {
		t.Errorf("a promotion keeps the change %+v of the old set", c.s.Change)
	}
}

func TestSourceAcksAndCoverPort(t *testing.T) {
	for _, x := range []struct {
		name  string
		make  func(*testing.T) *scene
		acks  int
		cover bool
	}{
		{"one acknowledges", steadyScene, 1, false},
		{"one leaves", leaving, 1, false},
		{"to none: as committed until it is committed, the port at once", lowering, 1, true},
		{"none", unacknowledged, 0, true},
		{"to one: waited for at once, the port until it is committed", raising, 1, true},
	} {
		if s := x.make(t).s; s.SourceAcks() != x.acks || s.CoverPort() != x.cover {
			t.Errorf("%s: mysqld waits for %d, port covered %v; want %d, %v", x.name, s.SourceAcks(), s.CoverPort(), x.acks, x.cover)
		}
	}
}

// TestOutsideSince: who is outside stays so since then, whatever else happens; who comes back begins anew.
func TestOutsideSince(t *testing.T) {
	c := steady(t)
	if len(c.s.Outside) != 0 {
		t.Fatalf("outside are %+v", c.s.Outside)
	}
	c.leaves(t, "db3")
	since := c.index
	c.must(t, Command{Recount: &Recount{Epoch: 1, Node: "db2", Incarnation: "i-db2-again"}})
	if got := c.s.OutsideSince("db3"); got != since || c.s.OutsideSince("db2") != 0 || c.s.OutsideSince("db1") != 0 {
		t.Errorf("db3 is outside since %d, want %d; %+v", got, since, c.s.Outside)
	}
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceHook, Node: "db1"}}})
	if c.s.OutsideSince("db3") != since {
		t.Errorf("without a primary the outsiders are %+v", c.s.Outside)
	}
	cmd := promoteOf(c, "db2", WonCount, with(c.answer("db2", "0-1-100"), func(a *Answer) { a.Incarnation = "i-db2-again" }))
	cmd.Promote.Members = []SyncMember{member("db3")}
	c.must(t, cmd)
	if c.s.OutsideSince("db3") != 0 || c.s.OutsideSince("db1") != c.index || c.s.OutsideSince("db2") != 0 {
		t.Errorf("after the promotion %+v", c.s.Outside)
	}
}

func TestWantBlocked(t *testing.T) {
	for _, x := range []struct {
		name      string
		make      func(*testing.T) *scene
		confirmed []NodeID
		want      []NodeID
	}{
		{"all are in", steadyScene, nil, nil},
		{"one leaves: its own word does not count yet", leaving, []NodeID{"db3"}, []NodeID{"db3"}},
		{"one has left", without, nil, []NodeID{"db3"}},
		{"one has left and is off", without, []NodeID{"db3"}, nil},
		{"another one is off", without, []NodeID{"db2"}, []NodeID{"db3"}},
		{"a new cluster", func(t *testing.T) *scene { return bootstrapped(t, data("db1", "db2", "db3")...) }, []NodeID{"db2"}, []NodeID{"db3"}},
	} {
		if got := WantBlocked(x.make(t).s, x.confirmed); !slices.Equal(got, x.want) {
			t.Errorf("%s: blocks %v, want %v", x.name, got, x.want)
		}
	}
}

// TestAckTarget is W of a cluster in which nothing is wrong.
func TestAckTarget(t *testing.T) {
	for _, x := range []struct {
		server          string
		nodes, min      int
		want, floor, of int
	}{
		{"mariadb", 1, 0, 0, 0, 0}, {"mariadb", 2, 0, 1, 0, 2}, {"mariadb", 5, 0, 1, 0, 2}, {"mariadb", 3, 1, 1, 1, 2}, {"mariadb", 3, 2, 1, 1, 2},
		{"mysql", 2, 0, 1, 0, 2}, {"mysql", 3, 0, 1, 0, 2}, {"mysql", 5, 0, 2, 0, 4}, {"mysql", 7, 0, 3, 0, 6}, {"mysql", 3, 2, 2, 2, 4}, {"mysql", 3, 9, 2, 2, 4},
	} {
		s := State{Server: x.server, Settings: Settings{SyncMinReplicas: x.min}}
		for range x.nodes {
			s.Members = append(s.Members, Member{Role: RoleData})
		}
		if s.ackTarget() != x.want || s.floor() != x.floor || s.setLimit() != x.of {
			t.Errorf("%+v: target %d, floor %d, at most %d members", x, s.ackTarget(), s.floor(), s.setLimit())
		}
	}
}
