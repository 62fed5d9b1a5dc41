package fsm

import (
	"slices"
	"testing"
)

var rowCases = slices.Concat(roleRowCases, setRowCases)

// intended is a steady cluster in which a change of the set is being prepared.
func intended(c Intend) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		s := steady(t)
		if c.Kind == ChangeAcks && c.Acks > 0 {
			s.acks(t, 0)
		}
		c.Epoch = s.s.Epoch
		s.must(t, Command{Intend: &c})
		return s
	}
}

var (
	leaving  = intended(Intend{Kind: ChangeShrink, Node: "db3"})
	lowering = intended(Intend{Kind: ChangeAcks, Acks: 0})
	raising  = intended(Intend{Kind: ChangeAcks, Acks: 1})
)

// without is a steady cluster that a member has left.
func without(t *testing.T) *scene {
	c := steady(t)
	c.leaves(t, "db3")
	return c
}

func unacknowledged(t *testing.T) *scene {
	c := steady(t)
	c.acks(t, 0)
	return c
}

// alone is what the primary knows of itself when commits wait for nobody.
func alone(_ *scene, l *Local) { l.PortGated, l.Server.SourceSync, l.Server.Acks = true, false, 0 }

// outside is what a replica outside the set knows of itself: it follows and does not acknowledge.
func outside(c *scene, l *Local) {
	l.Server.ReplicaSync, l.SyncOff = false, c.s.OutsideSince("db3")
}

var setRowCases = []rowCase{
	{code: "primary.cover-port", name: "commits wait for nobody", hits: true, node: "db1", make: unacknowledged, acts: []ActionKind{ActCoverPort}},
	{code: "primary.cover-port", name: "they will soon wait for nobody", hits: true, node: "db1", make: lowering, acts: []ActionKind{ActCoverPort}},
	{code: "primary.cover-port", name: "they will wait again, and do not yet", hits: true, node: "db1", make: raising, acts: []ActionKind{ActCoverPort}},
	{code: "primary.cover-port", name: "covered", node: "db1", make: unacknowledged, edit: alone, acts: []ActionKind{ActNone}},
	{code: "primary.cover-port", name: "somebody acknowledges", node: "db1"},
	{code: "primary.cover-port", name: "a replica's port is for its readers", node: "db2", make: unacknowledged},

	{code: "primary.block", name: "who leaves the set is blocked before its commit", hits: true, node: "db1", make: leaving, acts: []ActionKind{ActBlock}},
	{code: "primary.block", name: "who has left stays blocked until it says that it is off", node: "db1", make: without, edit: func(_ *scene, l *Local) { l.Blocked = []NodeID{"db3"} }, acts: []ActionKind{ActNone}},
	{code: "primary.block", name: "who has left must be blocked, hbd restarted or not", hits: true, node: "db1", make: without, acts: []ActionKind{ActBlock}},
	{code: "primary.block", name: "who has left and says that it is off may connect", hits: true, node: "db1", make: without, edit: func(_ *scene, l *Local) {
		l.Blocked, l.Confirmed = []NodeID{"db3"}, []NodeID{"db3"}
	}, acts: []ActionKind{ActBlock}},
	{code: "primary.block", name: "as it should be", node: "db1", make: without, edit: func(_ *scene, l *Local) { l.Confirmed = []NodeID{"db3"} }, acts: []ActionKind{ActNone}},

	{code: "primary.sync", name: "more acknowledgements are intended: waited for before they are promised", hits: true, node: "db1", make: raising, edit: alone, acts: []ActionKind{ActSourceSync}},
	{code: "primary.sync", name: "fewer are intended: those promised are waited for until that is committed", node: "db1", make: lowering, edit: func(_ *scene, l *Local) { l.PortGated = true }, acts: []ActionKind{ActPrepare}},
	{code: "primary.sync", name: "waits for another number", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.Acks = 2 }, acts: []ActionKind{ActSourceSync}},

	{code: "primary.async", name: "committed: commits wait for nobody", hits: true, node: "db1", make: unacknowledged, edit: func(_ *scene, l *Local) { l.PortGated = true }, acts: []ActionKind{ActAsync}},
	{code: "primary.async", name: "only intended", node: "db1", make: lowering, edit: func(_ *scene, l *Local) { l.PortGated = true }},
	{code: "primary.async", name: "the port is not covered yet", node: "db1", make: unacknowledged, acts: []ActionKind{ActCoverPort}},
	{code: "primary.async", name: "more are intended already", node: "db1", make: raising, edit: func(_ *scene, l *Local) { l.PortGated = true }},
	{code: "primary.async", name: "done", node: "db1", make: unacknowledged, edit: alone},
	{code: "primary.async", name: "a primary that is not fresh does nothing", node: "db1", make: unacknowledged, edit: func(_ *scene, l *Local) { l.Fresh, l.PortGated = false, true }, acts: []ActionKind{ActNone}},

	{code: "primary.prepare", name: "shrink: blocked", hits: true, node: "db1", make: leaving, edit: func(_ *scene, l *Local) { l.Blocked = []NodeID{"db3"} }, acts: []ActionKind{ActPrepare}},
	{code: "primary.prepare", name: "shrink: not blocked yet", node: "db1", make: leaving, acts: []ActionKind{ActBlock}},
	{code: "primary.prepare", name: "raise: mysqld waits", hits: true, node: "db1", make: raising, edit: func(_ *scene, l *Local) { l.PortGated = true }, acts: []ActionKind{ActPrepare}},
	{code: "primary.prepare", name: "raise: mysqld does not wait yet", node: "db1", make: raising, edit: alone, acts: []ActionKind{ActSourceSync}},
	{code: "primary.prepare", name: "lower: the port is not covered yet", node: "db1", make: lowering, acts: []ActionKind{ActCoverPort}},
	{code: "primary.prepare", name: "prepared", node: "db1", make: leaving, edit: func(c *scene, l *Local) { l.Blocked, l.Prepared = []NodeID{"db3"}, c.s.Change.Index }, acts: []ActionKind{ActNone}},
	{code: "primary.prepare", name: "prepared an earlier one", hits: true, node: "db1", make: leaving, edit: func(c *scene, l *Local) { l.Blocked, l.Prepared = []NodeID{"db3"}, c.s.Change.Index-1 }},
	{code: "primary.prepare", name: "nothing is intended", node: "db1"},

	{code: "primary.uncover", name: "commits wait for a replica again", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.PortGated = true }, acts: []ActionKind{ActUncover}},
	{code: "primary.uncover", name: "they will, and it is not committed", node: "db1", make: raising, edit: func(c *scene, l *Local) { l.PortGated, l.Prepared = true, c.s.Change.Index }, acts: []ActionKind{ActNone}},
	{code: "primary.uncover", name: "it does not serve yet: barrier first", node: "db1", edit: func(_ *scene, l *Local) {
		l.PortGated, l.BarrierDone, l.GateOpen, l.Server.ReadOnly = true, false, false, true
	}, acts: []ActionKind{ActBarrier}},

	{code: "primary.forget", name: "it serves, and a channel is left", hits: true, node: "db1", edit: func(_ *scene, l *Local) { l.Server.Leftover = true }, acts: []ActionKind{ActForget}},
	{code: "primary.forget", name: "an operation runs: its clients may not be back yet", node: "db1", make: restartingPrimary, edit: func(c *scene, l *Local) {
		l.Server.Leftover, l.ServedIndex = true, c.s.Op.Index
	}, acts: []ActionKind{ActNone}},
	{code: "primary.forget", name: "the gate is closed", node: "db1", edit: func(_ *scene, l *Local) { l.Server.Leftover, l.GateOpen = true, false }, acts: []ActionKind{ActOpen}},
	{code: "primary.forget", name: "a replica forgets nothing", node: "db2", edit: func(_ *scene, l *Local) { l.Server.Leftover = true }, acts: []ActionKind{ActNone}},

	{code: "primary.open", name: "commits wait for nobody, as the log says", hits: true, node: "db1", make: unacknowledged, edit: func(c *scene, l *Local) { alone(c, l); l.GateOpen = false }, acts: []ActionKind{ActOpen}},
	{code: "primary.open", name: "fewer acknowledgements than are never given up", node: "db1", make: func(t *testing.T) *scene {
		c := unacknowledged(t)
		c.s.Settings.SyncMinReplicas = 1
		return c
	}, edit: func(c *scene, l *Local) { alone(c, l); l.GateOpen, l.Server.ReadOnly = false, true }},

	{code: "replica.candidate", name: "its receiver is stopped", hits: true, node: "db2", make: releasingTo, acts: []ActionKind{ActNone}, edit: func(c *scene, l *Local) {
		damaged(func(s *ServerStatus) { s.IORunning, s.ReplicaSync = false, false })(c, l)
		l.Blocked = []NodeID{"db1"}
	}},
	{code: "replica.candidate", name: "is about to stop its receiver", hits: true, node: "db2", make: releasingTo, acts: []ActionKind{ActNone}, edit: func(_ *scene, l *Local) { l.Blocked = []NodeID{"db1"} }},
	{code: "replica.candidate", name: "still receives", node: "db2", make: releasingTo, acts: []ActionKind{ActNone}},
	{code: "replica.candidate", name: "somebody stopped its receiver", node: "db2", make: releasingTo, acts: []ActionKind{ActFollow}, edit: damaged(func(s *ServerStatus) { s.IORunning, s.ReplicaSync = false, false })},
	{code: "replica.candidate", name: "another is blocked", node: "db2", make: releasingTo, acts: []ActionKind{ActUnblock}, edit: func(_ *scene, l *Local) { l.Blocked = []NodeID{"db3"} }},
	{code: "replica.candidate", name: "applies nothing either", node: "db2", make: releasingTo, acts: []ActionKind{ActFollow}, edit: func(c *scene, l *Local) {
		damaged(func(s *ServerStatus) { s.IORunning, s.SQLRunning, s.ReplicaSync = false, false, false })(c, l)
		l.Blocked = []NodeID{"db1"}
	}},
	{code: "replica.candidate", name: "taken back: receives again", node: "db2", acts: []ActionKind{ActFollow}, edit: func(c *scene, l *Local) {
		damaged(func(s *ServerStatus) { s.IORunning, s.ReplicaSync = false, false })(c, l)
		l.Blocked = []NodeID{"db1"}
	}},
	{code: "replica.unblock", name: "its receiver waits at a blocked source", hits: true, node: "db2", acts: []ActionKind{ActUnblock}, edit: func(_ *scene, l *Local) {
		l.SourceUp, l.Server.IOConnecting, l.Server.IOStalled, l.Server.ReplicaSync, l.Blocked = true, true, true, false, []NodeID{"db1"}
	}},
	{code: "replica.unblock", name: "has not followed this epoch yet", node: "db3", make: promotedTakeover, edit: func(_ *scene, l *Local) {
		l.Frozen, l.Followed, l.FollowsRight, l.Blocked = 2, 1, false, []NodeID{"db1"}
	}},

	{code: "replica.sync-off", name: "left the set", hits: true, node: "db3", make: without, acts: []ActionKind{ActSyncOff}},
	{code: "replica.sync-off", name: "was off when it was outside before", hits: true, node: "db3", make: without, edit: func(c *scene, l *Local) { l.SyncOff = c.s.OutsideSince("db3") - 1 }, acts: []ActionKind{ActSyncOff}},
	{code: "replica.sync-off", name: "seen off since", node: "db3", make: without, edit: func(c *scene, l *Local) { outside(c, l); l.Server.ReplicaSync, l.Server.ReplicaSyncSet = false, false }, acts: []ActionKind{ActNone}},
	{code: "replica.sync-off", name: "about to leave: it counts until that is committed", node: "db3", make: leaving, acts: []ActionKind{ActNone}},
	{code: "replica.sync-off", name: "in the set", node: "db2", make: without},
	{code: "replica.sync-off", name: "has promised to a newer epoch: nothing of an older one is touched", node: "db3", make: without, edit: func(_ *scene, l *Local) { l.Frozen = 2 }, acts: []ActionKind{ActNone}},
	{code: "replica.sync-off", name: "its mysqld is down: it boots with semi-sync off", node: "db3", make: without, edit: func(_ *scene, l *Local) { l.Server = ServerStatus{State: ServerDown} }, acts: []ActionKind{ActStart}},

	{code: "replica.acks", name: "outside the set, and it would acknowledge", hits: true, node: "db3", make: without, edit: func(c *scene, l *Local) { outside(c, l); l.Server.ReplicaSync = true }, acts: []ActionKind{ActFollow}},
	{code: "replica.acks", name: "outside the set, and it is set to acknowledge from the next connection on", hits: true, node: "db3", make: without, edit: func(c *scene, l *Local) { outside(c, l); l.Server.ReplicaSyncSet = true }, acts: []ActionKind{ActFollow}},

	{code: "replica.uncover", name: "was primary without acknowledgements", hits: true, node: "db2", edit: func(_ *scene, l *Local) { l.PortGated = true }, acts: []ActionKind{ActUncover}},
	{code: "replica.uncover", name: "not turned round yet", node: "db2", edit: func(_ *scene, l *Local) { l.PortGated, l.FollowsRight = true, false }, acts: []ActionKind{ActFollow}},
	{code: "replica.uncover", name: "not covered", node: "db2"},
}

// TestRowsThatGiveUpFollowTheLog: whatever makes mysqld wait for less, or opens a port, is done only from a committed state, never from an intention.
func TestRowsThatGiveUpFollowTheLog(t *testing.T) {
	for _, make := range []func(*testing.T) *scene{leaving, lowering, raising} {
		c := make(t)
		l := serving(c)
		alone(c, &l)
		l.Server.SourceSync, l.Server.Acks, l.Blocked = c.s.SourceAcks() > 0, c.s.SourceAcks(), WantBlocked(c.s, nil)
		for range 3 {
			for _, a := range Reconcile(c.s, "db1", l) {
				if a.Kind == ActAsync || a.Kind == ActUncover && c.s.Sync.Acks == 0 {
					t.Errorf("%s while %+v is only intended", a.Kind, c.s.Change)
				}
				if a.Kind == ActPrepare {
					l.Prepared = c.s.Change.Index
				}
			}
		}
		if l.Prepared != c.s.Change.Index {
			t.Errorf("%+v is never prepared", c.s.Change)
		}
	}
}
