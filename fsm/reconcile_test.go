package fsm

import (
	"slices"
	"testing"
)

// serving is what the primary of a steady cluster knows of itself.
func serving(c *scene) Local {
	return Local{Fresh: true, Held: c.s.Epoch, LeaseEpoch: c.s.Epoch, LeaseValid: true, GateOpen: true, VIPHeld: true, BarrierDone: true, Announced: true,
		ServedIndex: c.index, Server: ServerStatus{State: ServerUp, SourceSync: true, Acks: 1}}
}

// following is what a replica of a steady cluster knows of itself.
func following(c *scene) Local {
	return Local{Fresh: true, Followed: c.s.Epoch, FollowsRight: true, OtherServes: true,
		Server: ServerStatus{State: ServerUp, ReadOnly: true, HasReplication: true, IORunning: true, SQLRunning: true, ReplicaSync: true, ReplicaSyncSet: true}}
}

// rowCase is one situation of one row of the local table.
type rowCase struct {
	code string
	name string
	hits bool
	node NodeID
	make func(t *testing.T) *scene
	edit func(c *scene, l *Local)
	acts []ActionKind // all that the node is to do, when it matters
}

func steadyScene(t *testing.T) *scene { return steady(t) }

var roleRowCases = []rowCase{
	{code: "gate.no-right", name: "lease over", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.LeaseValid = false }, acts: []ActionKind{ActCloseGate, ActSelfFence, ActNone}},
	{code: "gate.no-right", name: "lease of another epoch", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.LeaseEpoch = 0 }},
	{code: "gate.no-right", name: "no barrier by this run", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.BarrierDone = false }},
	{code: "gate.no-right", name: "mysqld down", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.State = ServerDown }},
	{code: "gate.no-right", name: "commits would not wait", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.SourceSync = false }},
	{code: "gate.no-right", name: "adopted by a restarted hbd: the kernel ends it", node: "db1", edit: func(_ *scene, l *Local) { l.Fresh, l.LeaseValid = false, false }, acts: []ActionKind{ActNone}},
	{code: "gate.no-right", name: "promised to a newer epoch", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Frozen = 2 }},
	{code: "gate.no-right", name: "released", hits: true, node: "db1", make: releasingTo, edit: func(c *scene, l *Local) { l.ReleasedOp = c.s.Op.ID }},
	{code: "gate.no-right", name: "another node is primary", hits: true, node: "db1", make: promotedTakeover},
	{code: "gate.no-right", name: "serves by right", node: "db1"},

	{code: "server.no-right", name: "lease over", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.LeaseValid = false }},
	{code: "server.no-right", name: "a writable replica", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Server.ReadOnly = false }},
	{code: "server.no-right", name: "writable by right", node: "db1"},
	{code: "server.no-right", name: "not heard from a leader, gate closed", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Fresh, l.GateOpen = false, false }},
	{code: "server.no-right", name: "not heard from a leader, gate adopted", node: "db1", edit: func(_ *scene, l *Local) { l.Fresh = false }},
	{code: "server.no-right", name: "read-only", node: "db1", edit: func(_ *scene, l *Local) { l.LeaseValid, l.Server.ReadOnly = false, true }},

	{code: "vip.let-go", name: "another serves", hits: true, node: "db1", make: promotedTakeover, edit: func(_ *scene, l *Local) { l.OtherServes = true }},
	{code: "vip.let-go", name: "another announced it", hits: true, node: "db1", make: promotedTakeover, edit: func(_ *scene, l *Local) { l.OtherClaims = true }},
	{code: "vip.let-go", name: "a replica of a steady cluster has it", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.VIPHeld = true }},
	{code: "vip.let-go", name: "nobody serves yet: keep answering resets", node: "db1", make: promotedTakeover},

	{code: "node.quarantined", name: "kept out", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Quarantine = "errant transactions" }, acts: []ActionKind{ActNone}},
	{code: "node.quarantined", name: "a quarantined primary stops", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Quarantine = "errant" }, acts: []ActionKind{ActCloseGate, ActSelfFence, ActNone}},
	{code: "node.quarantined", name: "healthy", node: "db2"},

	{code: "node.not-fresh", name: "hbd has just started", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Fresh = false }},
	{code: "node.not-fresh", name: "heard from a leader", node: "db2"},

	{code: "frozen.start", name: "its answer is needed", hits: true, node: "db2", make: begunTakeover, edit: func(_ *scene, l *Local) { l.Server = ServerStatus{State: ServerDown} }, acts: []ActionKind{ActStart}},
	{code: "frozen.start", name: "was primary: a plain start would commit its tail", node: "db1", make: begunTakeover, edit: func(_ *scene, l *Local) { *l = Local{Fresh: true, Held: 1, Server: ServerStatus{State: ServerDown}} }, acts: []ActionKind{ActNone}},
	{code: "frozen.start", name: "up", node: "db2", make: begunTakeover},

	{code: "cluster.no-primary", name: "fencing", hits: true, node: "db2", make: begunTakeover},
	{code: "cluster.no-primary", name: "there is one", node: "db2"},

	{code: "primary.released", name: "let go", hits: true, node: "db1", make: releasingTo, edit: func(c *scene, l *Local) { l.ReleasedOp = c.s.Op.ID }},
	{code: "primary.released", name: "rolled back", node: "db1", make: releasingTo, edit: func(c *scene, l *Local) {
		l.ReleasedOp = c.s.Op.ID
		if err := c.apply(Command{Rollback: &Rollback{OpID: c.s.Op.ID, Epoch: 1}}); err != nil {
			panic(err)
		}
	}},
	{code: "primary.released", name: "let go in an earlier operation", node: "db1", make: releasingTo, edit: func(_ *scene, l *Local) { l.ReleasedOp = 1 }},

	{code: "primary.hung", name: "restart committed", hits: true, node: "db1", make: restartingPrimary, edit: func(_ *scene, l *Local) { l.Server.State = ServerHung },
		acts: []ActionKind{ActCloseGate, ActCloseGate, ActKill, ActStart}},
	{code: "primary.hung", name: "promoted with data of its own", hits: true, node: "db2", make: promotedTakeover, edit: func(_ *scene, l *Local) {
		*l = Local{Fresh: true, Held: 2, Followed: 1, Server: ServerStatus{State: ServerHung}}
	}},
	{code: "primary.hung", name: "promoted, and may hold what a kill would make it forget", node: "db2", make: promotedTakeover, edit: func(_ *scene, l *Local) {
		*l = Local{Fresh: true, Followed: 1, Server: ServerStatus{State: ServerHung}}
	}},
	{code: "primary.hung", name: "no restart committed", node: "db1", edit: func(_ *scene, l *Local) { l.Server.State = ServerHung }},

	{code: "primary.start", name: "restart committed", hits: true, node: "db1", make: restartingPrimary, edit: func(_ *scene, l *Local) { *l = Local{Fresh: true, Held: 1, Server: ServerStatus{State: ServerDown}} }},
	{code: "primary.start", name: "this start has failed", node: "db1", make: restartingPrimary, edit: func(c *scene, l *Local) {
		*l = Local{Fresh: true, Held: 1, FailedIndex: c.s.Op.Index, Server: ServerStatus{State: ServerDown}}
	}},
	{code: "primary.start", name: "nobody has decided yet", node: "db1", edit: func(_ *scene, l *Local) { l.Server.State = ServerDown }},

	{code: "primary.no-server", name: "down", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.State = ServerDown }},
	{code: "primary.no-server", name: "unknown", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.State = ServerUnknown }},
	{code: "primary.no-server", name: "up", node: "db1"},

	{code: "primary.drain", name: "still a replica", hits: true, node: "db2", make: promotedTakeover, edit: func(c *scene, l *Local) { *l = following(c) }, acts: []ActionKind{ActStopFollow}},
	{code: "primary.drain", name: "stopped following", node: "db2", make: promotedTakeover, edit: func(c *scene, l *Local) { *l = following(c); l.Server.HasReplication = false }},

	{code: "primary.sync", name: "commits do not wait", hits: true, node: "db2", make: promotedTakeover, edit: func(_ *scene, l *Local) {
		*l = Local{Fresh: true, Blocked: []NodeID{"db1"}, Server: ServerStatus{State: ServerUp, ReadOnly: true}}
	}, acts: []ActionKind{ActSourceSync}},
	{code: "primary.sync", name: "they do", node: "db1"},

	{code: "primary.no-lease", name: "none yet", hits: true, node: "db2", make: promotedTakeover, edit: func(_ *scene, l *Local) {
		*l = Local{Fresh: true, Blocked: []NodeID{"db1"}, Server: ServerStatus{State: ServerUp, ReadOnly: true, SourceSync: true, Acks: 1}}
	}, acts: []ActionKind{ActNone}},
	{code: "primary.no-lease", name: "valid", node: "db1"},

	{code: "primary.barrier", name: "lease, no barrier", hits: true, node: "db2", make: promotedTakeover, edit: func(c *scene, l *Local) {
		*l = Local{Fresh: true, Blocked: []NodeID{"db1"}, LeaseValid: true, LeaseEpoch: 2, Server: ServerStatus{State: ServerUp, ReadOnly: true, SourceSync: true, Acks: 1}}
	}, acts: []ActionKind{ActBarrier}},
	{code: "primary.barrier", name: "acknowledged", node: "db1"},

	{code: "primary.open", name: "barrier acknowledged", hits: true, node: "db2", make: promotedTakeover, edit: func(c *scene, l *Local) {
		*l = Local{Fresh: true, Held: 2, Blocked: []NodeID{"db1"}, LeaseValid: true, LeaseEpoch: 2, BarrierDone: true, Server: ServerStatus{State: ServerUp, ReadOnly: true, SourceSync: true, Acks: 1}}
	}, acts: []ActionKind{ActOpen}},
	{code: "primary.open", name: "the address is missing", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.VIPHeld = false }},
	{code: "primary.open", name: "serves, and the restart that was ordered is answered", hits: true, node: "db1", make: restartingPrimary, edit: func(c *scene, l *Local) { l.ServedIndex = c.s.Op.Index - 1 }},
	{code: "primary.open", name: "open already", node: "db1"},

	{code: "primary.nudge", name: "an acknowledgement was lost", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.CommitsWait = true }, acts: []ActionKind{ActNudge}},
	{code: "primary.nudge", name: "nothing waits", node: "db1"},
	{code: "primary.nudge", name: "its gate is closed", node: "db1", edit: func(_ *scene, l *Local) { l.Server.CommitsWait, l.GateOpen = true, false }},

	{code: "primary.block", name: "serves, traffic blocked", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Blocked = []NodeID{"db3"} }, acts: []ActionKind{ActBlock}},
	{code: "primary.block", name: "a barrier waits for those it blocked as a replica or when it released", hits: true, node: "db1", edit: func(_ *scene, l *Local) {
		l.Blocked, l.BarrierDone, l.GateOpen, l.Server.ReadOnly = []NodeID{"db3"}, false, false, true
	}, acts: []ActionKind{ActBlock}},
	{code: "primary.block", name: "still a replica: drain first", node: "db2", make: promotedTakeover, edit: func(c *scene, l *Local) { *l = following(c); l.Blocked = []NodeID{"db3"} }, acts: []ActionKind{ActStopFollow}},
	{code: "primary.block", name: "nothing blocked", node: "db1"},

	{code: "primary.serving", name: "serves", hits: true, node: "db1", acts: []ActionKind{ActNone}},
	{code: "primary.serving", name: "a replica does not", node: "db2"},

	{code: "return.not-settled", name: "nobody has settled since", hits: true, node: "db1", make: promotedTakeover, edit: wasPrimary, acts: []ActionKind{ActNone}},
	{code: "return.not-settled", name: "it handed over itself", node: "db1", make: switched, edit: handedOver},
	{code: "return.not-settled", name: "settled", node: "db1", make: settledTakeover, edit: wasPrimary},
	{code: "return.decide", name: "settled", hits: true, node: "db1", make: settledTakeover, edit: wasPrimary, acts: []ActionKind{ActReturn}},
	{code: "return.decide", name: "it handed over itself: the barrier may need its acknowledgement", hits: true, node: "db1", make: switched, edit: handedOver, acts: []ActionKind{ActReturn}},
	{code: "return.decide", name: "its mysqld is down", hits: true, node: "db1", make: settledTakeover, edit: func(c *scene, l *Local) { wasPrimary(c, l); l.Server.State = ServerDown }, acts: []ActionKind{ActReturn}},
	{code: "return.decide", name: "returned already", node: "db1", make: settledTakeover, edit: func(c *scene, l *Local) { wasPrimary(c, l); l.Followed = 2 }},
	{code: "return.decide", name: "never was primary", node: "db3", make: settledTakeover},

	{code: "replica.start", name: "down", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Server = ServerStatus{State: ServerDown} }, acts: []ActionKind{ActStart}},
	{code: "replica.start", name: "up", node: "db2"},
	{code: "replica.start", name: "down, with a tail of its own", node: "db1", make: settledTakeover, edit: func(c *scene, l *Local) { wasPrimary(c, l); l.Server.State = ServerDown }},

	{code: "replica.hung", name: "hangs", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Server = ServerStatus{State: ServerHung, ReadOnly: true} }, acts: []ActionKind{ActKill, ActStart}},
	{code: "replica.hung", name: "up", node: "db2"},

	{code: "replica.unknown", name: "not looked at", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Server = ServerStatus{State: ServerUnknown, ReadOnly: true} }, acts: []ActionKind{ActNone}},
	{code: "replica.unknown", name: "up", node: "db2"},

	{code: "replica.frozen", name: "promised to a newer epoch than it has applied", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Frozen = 2; l.FollowsRight, l.Server.IORunning = false, false }, acts: []ActionKind{ActNone}},
	{code: "replica.frozen", name: "that epoch is here", node: "db3", make: promotedTakeover, edit: func(_ *scene, l *Local) { l.Frozen = 2 }},

	{code: "replica.reconnect", name: "the primary's mysqld is back", hits: true, node: "db2", edit: tryingInVain, acts: []ActionKind{ActReconnect}},
	{code: "replica.reconnect", name: "it is not back yet", node: "db2", edit: func(_ *scene, l *Local) { l.Server.IOConnecting, l.Server.ReplicaSync = true, false }, acts: []ActionKind{ActNone}},
	{code: "replica.reconnect", name: "restarted in place: its first try has failed", hits: true, node: "db2", make: restartingPrimary, edit: triedOnce, acts: []ActionKind{ActReconnect}},
	{code: "replica.reconnect", name: "restarted in place: it connects", node: "db2", make: restartingPrimary, acts: []ActionKind{ActNone}, edit: func(c *scene, l *Local) { triedOnce(c, l); l.Server.IOErrno = 0 }},
	{code: "replica.reconnect", name: "restarted in place: it was made to try again", node: "db2", make: restartingPrimary, acts: []ActionKind{ActNone}, edit: func(c *scene, l *Local) { triedOnce(c, l); l.Reconnected = true }},
	{code: "replica.reconnect", name: "restarted in place: made to try again, it waits all the same", hits: true, node: "db2", make: restartingPrimary, edit: func(c *scene, l *Local) { tryingInVain(c, l); l.Reconnected = true }},
	{code: "replica.reconnect", name: "restarted in place: its login is refused", node: "db2", make: restartingPrimary, edit: func(c *scene, l *Local) { triedOnce(c, l); l.Server.LoginRefused = true }},
	{code: "replica.reconnect", name: "its first try has failed, and nothing was restarted", node: "db2", acts: []ActionKind{ActNone}, edit: triedOnce},
	{code: "replica.reconnect", name: "kept out for a planned change", node: "db3", make: switching, acts: []ActionKind{ActNone}, edit: tryingInVain},
	{code: "replica.reconnect", name: "a position is being given up", node: "db3", make: releasingTo, edit: tryingInVain},
	{code: "replica.reconnect", name: "connected", node: "db2", edit: func(_ *scene, l *Local) { l.SourceUp = true }},

	{code: "replica.follow", name: "a new epoch, frozen for it", hits: true, node: "db3", make: promotedTakeover, edit: func(_ *scene, l *Local) { l.Frozen, l.Followed, l.FollowsRight = 2, 1, false }},
	{code: "replica.follow", name: "follows", node: "db2"},

	{code: "replica.unblock", name: "follows, traffic blocked", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.Blocked = []NodeID{"db3"} }, acts: []ActionKind{ActUnblock}},
	{code: "replica.unblock", name: "nothing blocked", node: "db2"},

	{code: "replica.following", name: "follows", hits: true, node: "db2", acts: []ActionKind{ActNone}},
	{code: "replica.following", name: "the primary does not", node: "db1"},
}

func settledTakeover(t *testing.T) *scene {
	c := promotedTakeover(t)
	c.serve("db2")
	c.follow(t)
	if c.s.Phase != PhaseSteady || c.s.Settled() != 2 {
		t.Fatalf("phase %s, settled %d", c.s.Phase, c.s.Settled())
	}
	return c
}

// switched is a switchover that has just promoted.
func switched(t *testing.T) *scene {
	c := releasingTo(t)
	a := c.answer("db1", "0-1-100")
	c.release, c.reached = &a, true
	c.follow(t)
	if c.s.Primary != "db2" || c.s.Epoch != 2 {
		t.Fatalf("primary %s of epoch %d", c.s.Primary, c.s.Epoch)
	}
	return c
}

func handedOver(c *scene, l *Local) {
	wasPrimary(c, l)
	l.ReleasedOp = c.s.Op.ID
}

func tryingInVain(_ *scene, l *Local) {
	l.SourceUp, l.Server.IOConnecting, l.Server.IOStalled, l.Server.ReplicaSync = true, true, true, false
}

// triedOnce has lost its source and failed to reach it, a moment ago.
func triedOnce(_ *scene, l *Local) {
	l.SourceUp, l.Server.IOConnecting, l.Server.IOErrno, l.Server.ReplicaSync = true, true, 2003, false
}

func wasPrimary(c *scene, l *Local) {
	*l = Local{Fresh: true, Held: 1, SyncOff: c.s.OutsideSince("db1"), Server: ServerStatus{State: ServerUp, ReadOnly: true}}
}

func TestReconcileRows(t *testing.T) {
	for _, rc := range append(rowCases, careCases...) {
		t.Run(rc.code+"/"+rc.name, func(t *testing.T) {
			if rc.make == nil {
				rc.make = steadyScene
			}
			c := rc.make(t)
			l := following(c)
			if rc.node == "db1" {
				l = serving(c)
			}
			if rc.edit != nil {
				rc.edit(c, &l)
			}
			actions := Reconcile(c.s, rc.node, l)
			if got := slices.ContainsFunc(actions, func(a Action) bool { return a.Rule == rc.code }); got != rc.hits {
				t.Errorf("row matches: %v, want %v; actions %+v", got, rc.hits, actions)
			}
			var kinds []ActionKind
			for _, a := range actions {
				kinds = append(kinds, a.Kind)
				if a.Epoch != c.s.Epoch || a.Index != c.s.Index {
					t.Errorf("%s carries (%d, %d), the state is at (%d, %d)", a.Kind, a.Epoch, a.Index, c.s.Epoch, c.s.Index)
				}
			}
			if rc.acts != nil && !slices.Equal(kinds, rc.acts) {
				t.Errorf("does %v, want %v", kinds, rc.acts)
			}
		})
	}
}

func TestEveryRowHasCases(t *testing.T) {
	rowCases := append(rowCases, careCases...)
	for _, r := range Rows() {
		for _, want := range []bool{true, false} {
			if !slices.ContainsFunc(rowCases, func(c rowCase) bool { return c.code == r.Code && c.hits == want }) {
				t.Errorf("row %s has no case with hits=%v", r.Code, want)
			}
		}
	}
	for _, c := range rowCases {
		if !slices.ContainsFunc(Rows(), func(r Row) bool { return r.Code == c.code }) {
			t.Errorf("case of row %q, which does not exist", c.code)
		}
	}
}

// TestEveryActionIsOrdered: each kind stands in some row, and no row orders a kind that is not listed.
func TestEveryActionIsOrdered(t *testing.T) {
	for _, k := range ActionKinds() {
		if !slices.ContainsFunc(Rows(), func(r Row) bool { return slices.Contains(r.Actions, k) }) {
			t.Errorf("no row orders %s", k)
		}
	}
	for _, r := range Rows() {
		for _, k := range r.Actions {
			if !slices.Contains(ActionKinds(), k) {
				t.Errorf("row %s orders %s, which is not listed", r.Code, k)
			}
		}
	}
}

func TestWitnessesAndStrangersDoNothing(t *testing.T) {
	c := steady(t, append(data("db1", "db2"), witness("w1"))...)
	for _, id := range []NodeID{"w1", "nobody"} {
		if a := Reconcile(c.s, id, Local{Fresh: true, GateOpen: true}); len(a) > 0 {
			t.Errorf("%s does %+v", id, a)
		}
	}
}

// TestOpenNeedsEveryRight is I7: of all combinations of what opening depends on, only the full one opens.
func TestOpenNeedsEveryRight(t *testing.T) {
	c := steady(t)
	takeAway := []func(*Local){
		func(l *Local) { l.Fresh = false },
		func(l *Local) { l.LeaseValid = false },
		func(l *Local) { l.LeaseEpoch = 7 },
		func(l *Local) { l.BarrierDone = false },
		func(l *Local) { l.Frozen = 9 },
		func(l *Local) { l.Quarantine = "x" },
		func(l *Local) { l.Server.State = ServerHung },
		func(l *Local) { l.Server.HasReplication = true },
		func(l *Local) { l.Server.SourceSync = false },
	}
	for mask := range 1 << len(takeAway) {
		l := serving(c)
		l.GateOpen, l.Server.ReadOnly = false, true
		for i, f := range takeAway {
			if mask&(1<<i) != 0 {
				f(&l)
			}
		}
		opens := slices.ContainsFunc(Reconcile(c.s, "db1", l), func(a Action) bool { return a.Kind == ActOpen })
		if opens != (mask == 0) {
			t.Errorf("opens = %v with rights %09b taken away", opens, mask)
		}
	}
}
