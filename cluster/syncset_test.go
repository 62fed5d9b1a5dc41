package cluster

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm"
)

var errBroken = errors.New("broken by the test")

// primary is db1 at work in a set of db2 and db3, one of which must acknowledge.
func primary(t *testing.T) *unit {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	return u
}

// intend commits an intention and gives its index.
func (u *unit) intend(c fsm.Intend) uint64 {
	u.t.Helper()
	c.Epoch = u.store.State().Epoch
	return u.apply(fsm.Command{Intend: &c})
}

// degraded commits that nobody acknowledges.
func (u *unit) degraded() {
	u.t.Helper()
	u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
	u.complete()
}

// complete commits what is intended, held by all members.
func (u *unit) complete() {
	u.t.Helper()
	st := u.store.State()
	u.apply(fsm.Command{Complete: &fsm.Complete{Epoch: st.Epoch, Index: st.Change.Index, Holders: st.Sync.Members, Gated: true}})
}

// leaves commits that a member has left the set.
func (u *unit) leaves(id fsm.NodeID) {
	u.t.Helper()
	u.intend(fsm.Intend{Kind: fsm.ChangeShrink, Node: id})
	u.complete()
}

// says is what another node's hbd has reported of itself last.
func (u *unit) says(id fsm.NodeID, obs fsm.Observation) {
	u.peers.mu.Lock()
	defer u.peers.mu.Unlock()
	pe := u.peers.known[id]
	obs.Node = id
	pe.obs, pe.obsAt = obs, now()
}

func (u *unit) prepared() (uint64, string) {
	_, index, at := u.sync.read()
	return index, at
}

func TestCutOffGoesStepByStep(t *testing.T) {
	steps := []string{"Block", "SeverPeer", "CutReplica"}
	for i, broken := range append([]string{""}, steps...) {
		u := primary(t)
		u.host.fail(broken, errBroken)
		u.host.expect(steps...)
		err := u.cutOff(u.short(), "db3")
		want := steps
		if broken != "" {
			want = steps[:i]
		}
		if got := u.host.made(); !slices.Equal(got, want) || (err != nil) != (broken != "") {
			t.Errorf("%s broken: did %v, want %v; error %v", broken, got, want, err)
		}
	}
}

// TestSetBlocks keeps exactly those out who must not acknowledge, and waits for nobody's end before it lets in who counts.
func TestSetBlocks(t *testing.T) {
	for _, x := range []struct {
		name  string
		make  func(u *unit)
		calls []string
		want  []fsm.NodeID
	}{
		{"all are in", func(*unit) {}, nil, nil},
		{"one leaves", func(u *unit) { u.intend(fsm.Intend{Kind: fsm.ChangeShrink, Node: "db3"}) }, []string{"Block", "SeverPeer", "CutReplica"}, []fsm.NodeID{"db3"}},
		{"one leaves and says that it is off", func(u *unit) {
			u.says("db3", fsm.Observation{SyncOff: u.intend(fsm.Intend{Kind: fsm.ChangeShrink, Node: "db3"})})
		}, []string{"Block", "SeverPeer", "CutReplica"}, []fsm.NodeID{"db3"}},
		{"one has left", func(u *unit) { u.leaves("db3") }, []string{"Block", "SeverPeer", "CutReplica"}, []fsm.NodeID{"db3"}},
		{"one has left, and was off before", func(u *unit) {
			u.leaves("db3")
			u.says("db3", fsm.Observation{SyncOff: u.store.State().OutsideSince("db3") - 1})
		}, []string{"Block", "SeverPeer", "CutReplica"}, []fsm.NodeID{"db3"}},
		{"one has left and is off", func(u *unit) {
			u.leaves("db3")
			u.host.change(func() { u.host.blocked[u.w.hosts["db3"].addr] = true })
			u.says("db3", fsm.Observation{SyncOff: u.store.State().OutsideSince("db3")})
		}, []string{"Unblock"}, nil},
		{"another was blocked", func(u *unit) {
			u.leaves("db3")
			u.host.change(func() { u.host.blocked[u.w.hosts["db2"].addr] = true })
		}, []string{"Unblock", "Block", "SeverPeer", "CutReplica"}, []fsm.NodeID{"db3"}},
		{"it is blocked already", func(u *unit) {
			u.leaves("db3")
			u.host.change(func() { u.host.blocked[u.w.hosts["db3"].addr] = true })
		}, nil, []fsm.NodeID{"db3"}},
	} {
		u := primary(t)
		x.make(u)
		u.host.expect("Block", "SeverPeer", "CutReplica", "Unblock")
		if err := u.setBlocks(u.short()); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		blocked, err := u.blockedNodes()
		if got := u.host.made(); !slices.Equal(got, x.calls) || !slices.Equal(blocked, x.want) || err != nil {
			t.Errorf("%s: did %v, want %v; blocked %v, want %v; %v", x.name, got, x.calls, blocked, x.want, err)
		}
	}
	u := primary(t)
	u.takenOver("db2")
	u.host.expect()
	if err := u.setBlocks(u.short()); !errors.Is(err, errOvertaken) {
		t.Errorf("once another is primary: %v", err)
	}
}

// TestPrepareReadsThePositionLast, after everything else is in force.
func TestPrepareReadsThePositionLast(t *testing.T) {
	u := primary(t)
	index := u.intend(fsm.Intend{Kind: fsm.ChangeShrink, Node: "db3"})
	steps := []string{"Block", "SeverPeer", "CutReplica", "Replicas", "Position"}
	u.host.expect(steps...)
	if err := u.prepare(u.short()); err != nil {
		t.Fatal(err)
	}
	if got := u.host.made(); !slices.Equal(got, steps) {
		t.Errorf("did %v, want %v", got, steps)
	}
	if got, at := u.prepared(); got != index || at != "0-1-2" {
		t.Errorf("prepared %d at %q, want %d at 0-1-2", got, at, index)
	}
	if o := u.observation(); o.Prepared != index || o.PreparedAt != "0-1-2" {
		t.Errorf("reports %d at %q", o.Prepared, o.PreparedAt)
	}
}

// TestPrepareRefuses when anything that the change needs is missing: then nothing is reported as prepared.
func TestPrepareRefuses(t *testing.T) {
	shrink := fsm.Intend{Kind: fsm.ChangeShrink, Node: "db3"}
	for _, x := range []struct {
		name string
		make func(u *unit)
		want string // in the error; "" when all is there
	}{
		{"nothing is intended", func(*unit) {}, errOvertaken.Error()},
		{"another is primary by now", func(u *unit) { u.intend(shrink); u.takenOver("db2") }, errOvertaken.Error()},
		{"it cannot be blocked", func(u *unit) { u.intend(shrink); u.host.fail("Block", errBroken) }, "blocking"},
		{"it cannot be cut", func(u *unit) { u.intend(shrink); u.host.fail("SeverPeer", errBroken) }, "cutting"},
		{"a stranger cannot be kept out", func(u *unit) {
			u.stranger(outside, 1, false)
			u.looks()
			u.host.change(func() { u.host.blocked[outside] = false })
			u.stranger(outside, 2, false)
			u.strangers.heard = map[dump]uint64{{2, netip.AddrPortFrom(outside, 2002)}: 0}
			u.host.fail("Block", errBroken)
			u.degraded()
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 1})
		}, "blocking the stranger"},
		{"to none, a stranger cannot be kept out", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.stranger(outside, 1, false)
			u.strangers.heard = map[dump]uint64{{1, netip.AddrPortFrom(outside, 2001)}: 0}
			u.host.change(func() { u.host.portGated = true })
			u.host.fail("Block", errBroken)
		}, ""},
		{"who replicates is not known", func(u *unit) { u.intend(shrink); u.host.fail("Replicas", errBroken) }, ""},
		{"its dump thread may be left", func(u *unit) { u.intend(shrink); u.host.fail("CutReplica", errBroken) }, "what is left"},
		{"the position is not known", func(u *unit) { u.intend(shrink); u.host.fail("Position", errBroken) }, "broken"},
		{"an outsider is not blocked", func(u *unit) {
			u.leaves("db3")
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.host.change(func() { u.host.portGated = true })
		}, "db3 is not blocked"},
		{"an outsider is off", func(u *unit) {
			u.leaves("db3")
			u.says("db3", fsm.Observation{SyncOff: u.store.State().OutsideSince("db3")})
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.host.change(func() { u.host.portGated = true })
		}, ""},
		{"to none, the port is not covered", func(u *unit) { u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0}) }, "does not cover"},
		{"to none, mysqld waits for none already", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.host.change(func() { u.host.portGated, u.host.acks = true, 0 })
		}, "waits for 0 acknowledgements, 1 are"},
		{"to none", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.host.change(func() { u.host.portGated = true })
		}, ""},
		{"to one, mysqld waits for none", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.complete()
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 1})
			u.host.change(func() { u.host.acks = 0 })
		}, "waits for 0 acknowledgements, 1 are"},
		{"to one", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.complete()
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 1})
		}, ""},
		{"mysqld is down", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.host.change(func() { u.host.portGated = true; u.host.crash() })
		}, "mysqld is down"},
		{"mysqld is a replica", func(u *unit) {
			u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0})
			u.host.change(func() { u.host.portGated, u.host.gate, u.host.source = true, 0, u.w.hosts["db2"].addr })
		}, "mysqld is up"},
	} {
		t.Run(x.name, func(t *testing.T) {
			u := primary(t)
			x.make(u)
			before := u.host.count("Position")
			err := u.prepare(u.short())
			if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
				t.Fatalf("error %v, want %q", err, x.want)
			}
			index, _ := u.prepared()
			if asked := u.host.count("Position") - before; (index > 0) != (err == nil) || err != nil && asked > 0 && x.name != "the position is not known" {
				t.Errorf("prepared %d, the position was read %d times; error %v", index, asked, err)
			}
		})
	}
}

// TestAsyncIsRefused unless the log says so as it is applied now, and the port is covered.
func TestAsyncIsRefused(t *testing.T) {
	degraded := func(u *unit) { u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0}); u.complete() }
	gated := func(u *unit) { u.host.change(func() { u.host.portGated = true }) }
	for _, x := range []struct {
		name string
		make []func(u *unit)
		ok   bool
	}{
		{"the log wants one", []func(*unit){gated}, false},
		{"the log is about to want none", []func(*unit){gated, func(u *unit) { u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 0}) }}, false},
		{"the log wants none", []func(*unit){gated, degraded}, true},
		{"the port is open", []func(*unit){degraded}, false},
		{"the log is about to want one again", []func(*unit){gated, degraded, func(u *unit) { u.intend(fsm.Intend{Kind: fsm.ChangeAcks, Acks: 1}) }}, false},
		{"another is primary", []func(*unit){gated, func(u *unit) { u.takenOver("db2") }}, false},
	} {
		u := primary(t)
		for _, f := range x.make {
			f(u)
		}
		u.host.expect("SourceAsync")
		err := u.async(u.short())
		if want := map[bool]int{true: 1}[x.ok]; u.host.count("SourceAsync") != want || (err == nil) != x.ok || !x.ok && !errors.Is(err, errOvertaken) {
			t.Errorf("%s: switched off %d times, error %v", x.name, u.host.count("SourceAsync"), err)
		}
	}
}

// TestSyncOffRemembersSinceWhen: the index at which it was first outside, and only once it is sure.
func TestSyncOffRemembersSinceWhen(t *testing.T) {
	u := newUnitAs(t, "db3")
	u.steady("db1")
	u.follower("db1")
	u.host.expect()
	if err := u.switchSyncOff(u.short()); !errors.Is(err, errOvertaken) {
		t.Errorf("a member of the set stops acknowledging: %v", err)
	}
	u.leaves("db3")
	since := u.store.State().OutsideSince("db3")
	u.apply(fsm.Command{SetPause: &fsm.SetPause{Paused: true, By: "test"}})
	u.host.expect("SyncOff")
	u.host.fail("SyncOff", errBroken)
	if err := u.switchSyncOff(u.short()); err == nil {
		t.Error("no error")
	}
	if off, _, _ := u.sync.read(); off != 0 {
		t.Errorf("says that it is off since %d", off)
	}
	u.host.fail("SyncOff", nil)
	if err := u.switchSyncOff(u.short()); err != nil {
		t.Fatal(err)
	}
	if off, _, _ := u.sync.read(); off != since || u.observation().SyncOff != since || u.host.ack {
		t.Errorf("says that it is off since %d, was outside since %d; acknowledges: %v", off, since, u.host.ack)
	}
}

// TestRestartedHbdHasPreparedNothing: what it proved is proved anew.
func TestRestartedHbdHasPreparedNothing(t *testing.T) {
	c := newCluster(t, 1, nil)
	m := c.nodes[0]
	m.open()
	m.sync.setPrepared(7, "0-1-7")
	m.sync.setOff(5)
	m.crash()
	m.open()
	if off, index, at := m.sync.read(); off != 0 || index != 0 || at != "" {
		t.Errorf("off since %d, prepared %d at %q", off, index, at)
	}
}

// TestSilentIsAsGoodAsSwitchedOff: of a node that fetches a copy by itself the primary, which may be the donor, must hear that it acknowledges nothing.
func TestSilentIsAsGoodAsSwitchedOff(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.isSilent(u.short())
	if off, _, _ := u.sync.read(); off != 0 {
		t.Errorf("a member says that it is off since %d", off)
	}
	u.leaves("db2")
	u.isSilent(u.short())
	if off, _, _ := u.sync.read(); off != u.store.State().OutsideSince("db2") || off == 0 {
		t.Errorf("off since %d, outside since %d", off, u.store.State().OutsideSince("db2"))
	}
}
