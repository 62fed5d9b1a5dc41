package fsm

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// damaged changes what a replica sees of its own server.
func damaged(edit func(*ServerStatus)) func(*scene, *Local) {
	return func(_ *scene, l *Local) { edit(&l.Server) }
}

var follows = []ActionKind{ActFollow}

var careCases = []rowCase{
	{code: "care.no-source", name: "RESET SLAVE ALL", hits: true, node: "db2", acts: follows, edit: func(_ *scene, l *Local) {
		l.FollowsRight = false
		l.Server = ServerStatus{State: ServerUp, ReadOnly: true}
	}},
	{code: "care.no-source", name: "follows", node: "db2"},
	{code: "care.source", name: "another source", hits: true, node: "db2", acts: follows, edit: func(_ *scene, l *Local) { l.FollowsRight, l.Server.SourceHost = false, "10.0.0.9" }},
	{code: "care.source", name: "a new primary is no damage", node: "db3", make: promotedTakeover, edit: func(_ *scene, l *Local) { l.Frozen, l.Followed, l.FollowsRight = 2, 1, false }},
	{code: "care.source", name: "promised to a newer epoch: starts nothing", node: "db2", acts: []ActionKind{ActNone}, edit: func(_ *scene, l *Local) { l.FollowsRight, l.Frozen = false, 9 }},
	{code: "care.source-sync", name: "waits for acknowledgements of its own", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.SourceSync = true })},
	{code: "care.source-sync", name: "the primary's own", node: "db1"},
	{code: "care.channel", name: "another account", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.ChannelDrift = []string{`the account is "root"`} })},
	{code: "care.channel", name: "delayed by an operator", node: "db2", acts: []ActionKind{ActNone}, edit: damaged(func(s *ServerStatus) { s.Delay = time.Hour })},
	{code: "care.login", name: "wrong password", hits: true, node: "db2", acts: follows, edit: func(_ *scene, l *Local) {
		l.SourceUp = true
		l.Server.LoginRefused, l.Server.IOConnecting, l.Server.IOStalled, l.Server.ReplicaSync = true, true, true, false
	}},
	{code: "care.login", name: "an old error", node: "db2", edit: damaged(func(s *ServerStatus) { s.LoginRefused = true })},
	{code: "care.applier-error", name: "lock wait", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.SQLRunning, s.ApplyErrno = false, 1205 })},
	{code: "care.applier-error", name: "an old error", node: "db2", edit: damaged(func(s *ServerStatus) { s.ApplyErrno = 1205 })},
	{code: "care.stopped", name: "STOP SLAVE", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.SQLRunning, s.IORunning, s.ReplicaSync = false, false, false })},
	{code: "care.stopped", name: "frozen", node: "db2", acts: []ActionKind{ActNone}, edit: func(_ *scene, l *Local) {
		l.Server.SQLRunning, l.Server.IORunning, l.Frozen = false, false, 9
	}},
	{code: "care.applier-stopped", name: "STOP SQL_THREAD", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.SQLRunning = false })},
	{code: "care.applier-stopped", name: "runs", node: "db2"},
	{code: "care.receiver-stopped", name: "STOP IO_THREAD", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.IORunning, s.ReplicaSync = false, false })},
	{code: "care.receiver-stopped", name: "connecting", node: "db2", edit: tryingInVain},
	{code: "replica.acks", name: "not active", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.ReplicaSync = false })},
	{code: "replica.acks", name: "off from the next connect on", hits: true, node: "db2", acts: follows, edit: damaged(func(s *ServerStatus) { s.ReplicaSyncSet = false })},
	{code: "replica.acks", name: "connecting", node: "db2", edit: damaged(func(s *ServerStatus) { s.ReplicaSync, s.IOConnecting = false, true })},
	{code: "care.settings", name: "a serving primary", hits: true, node: "db1", acts: []ActionKind{ActNone, ActMend}, edit: damaged(func(s *ServerStatus) { s.Weakened = []string{"sync_binlog is 0"} })},
	{code: "care.settings", name: "beside another repair, after it", hits: true, node: "db2", acts: []ActionKind{ActFollow, ActMend}, edit: damaged(func(s *ServerStatus) {
		s.Weakened, s.SQLRunning = []string{"sync_binlog is 0"}, false
	})},
	{code: "care.settings", name: "quarantined: nothing is changed", node: "db2", edit: func(_ *scene, l *Local) {
		l.Quarantine, l.Server.Weakened = "errant", []string{"sync_binlog is 0"}
	}},
	{code: "care.settings", name: "down", node: "db2", edit: damaged(func(s *ServerStatus) { s.State, s.Weakened = ServerDown, []string{"x"} })},
}

// TestCareSaysWhatItSaw: the reason carries the values.
func TestCareSaysWhatItSaw(t *testing.T) {
	c := steady(t)
	l := following(c)
	l.Server.ChannelDrift, l.Server.Weakened = []string{"TLS is off", `the account is "root"`}, []string{"sync_binlog is 0, needed is 1"}
	var why []string
	for _, a := range Reconcile(c.s, "db2", l) {
		why = append(why, a.Rule+" "+a.Why)
	}
	all := strings.Join(why, "\n")
	for _, want := range []string{"care.channel", "TLS is off", `"root"`, "care.settings", "sync_binlog is 0, needed is 1"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not said:\n%s", want, all)
		}
	}
}

func TestCareCodes(t *testing.T) {
	var rules []string
	for _, r := range Rows() {
		if IsCare(r.Code) {
			rules = append(rules, r.Code)
		}
	}
	for _, r := range append(rules, "server.no-right") {
		if !slices.Contains(CareCodes(), r) {
			t.Errorf("%s is a repair and is not counted", r)
		}
	}
	if len(CareCodes()) != len(rules)+1 {
		t.Errorf("%d codes, %d rows", len(CareCodes()), len(rules))
	}
}

func TestRepairPauseGrowsAndIsBounded(t *testing.T) {
	last := time.Duration(0)
	for n := 1; n < 100; n++ {
		p := RepairPause(n)
		if p < last || p > maxRepairPause || n < 10 && p == last {
			t.Fatalf("pause %d is %v after %v", n, p, last)
		}
		last = p
	}
	if last != maxRepairPause {
		t.Fatalf("the longest pause is %v", last)
	}
}
