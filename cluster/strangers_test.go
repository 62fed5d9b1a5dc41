package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// stranger is somebody outside the cluster whose acknowledgements this host counts.
func (u *unit) stranger() netip.Addr {
	a := netip.MustParseAddr("198.51.100.9")
	u.host.change(func() { u.host.strangers = append(u.host.strangers, a) })
	return a
}

func (u *unit) blocks(a netip.Addr) bool {
	u.host.w.mu.Lock()
	defer u.host.w.mu.Unlock()
	return u.host.blocked[a]
}

// TestStrangerIsKeptOut for a minute at a time, and everybody is told.
func TestStrangerIsKeptOut(t *testing.T) {
	u := primary(t)
	a := u.stranger()
	member := u.w.hosts["db3"].addr
	u.host.change(func() { u.host.blocked[member] = true })
	cut := []string{"Strangers", "Block", "SeverPeer", "CutReplica"}
	u.host.expect(cut...)
	if err := u.lookForStrangers(u.short()); err != nil {
		t.Fatal(err)
	}
	if got := u.host.made(); !slices.Equal(got, cut) || !u.blocks(a) {
		t.Fatalf("did %v, want %v; blocked: %v", got, cut, u.blocks(a))
	}
	if p := u.observation().Server.Problems; !slices.ContainsFunc(p, func(s string) bool { return strings.Contains(s, a.String()) }) {
		t.Errorf("it is not reported: %q", p)
	}

	// Within the minute it stays out, also after this hbd has started anew and knows of nobody.
	u.strangers.forget(a)
	for range 2 {
		if err := u.lookForStrangers(u.short()); err != nil || !u.blocks(a) {
			t.Fatalf("error %v; blocked: %v", err, u.blocks(a))
		}
	}
	// After it, it is looked at again: here it has been mended.
	u.strangers.keep(a, now())
	u.host.change(func() { u.host.strangers = nil })
	u.host.expect("Unblock", "Strangers")
	if err := u.lookForStrangers(u.short()); err != nil || u.blocks(a) {
		t.Fatalf("error %v; blocked: %v", err, u.blocks(a))
	}
	if p := u.observation().Server.Problems; len(p) > 0 {
		t.Errorf("still reported: %q", p)
	}
	if !u.blocks(member) {
		t.Error("a member was let in, which the sync set alone decides")
	}
}

// TestStrangersAreOnlyThePrimarys: a node that is not primary counts nobody's acknowledgements and keeps nobody out.
func TestStrangersAreOnlyThePrimarys(t *testing.T) {
	u := primary(t)
	a := u.stranger()
	if err := u.lookForStrangers(u.short()); err != nil || !u.blocks(a) {
		t.Fatalf("error %v; blocked: %v", err, u.blocks(a))
	}
	u.takenOver("db2")
	u.host.expect("Unblock")
	if err := u.lookForStrangers(u.short()); err != nil || u.blocks(a) {
		t.Fatalf("error %v; blocked: %v", err, u.blocks(a))
	}
}

// TestNoBarrierForAStranger: its acknowledgement would stand for that of a member.
func TestNoBarrierForAStranger(t *testing.T) {
	u := ready(t)
	u.host.change(func() {
		for _, o := range u.w.sorted()[1:] {
			o.source, o.io, o.sql, o.ack = u.host.addr, true, true, true
		}
	})
	a := u.stranger()
	u.host.fail("CutReplica", errBroken)
	if err := u.execute(u.short(), u.action(fsm.ActBarrier)); err == nil || u.host.count("WriteBarrier") > 0 {
		t.Fatalf("error %v; %d barriers", err, u.host.count("WriteBarrier"))
	}
	u.host.fail("CutReplica", nil)
	if err := u.execute(u.short(), u.action(fsm.ActBarrier)); err != nil || u.host.count("WriteBarrier") != 1 || !u.blocks(a) {
		t.Fatalf("error %v; %d barriers; blocked: %v", err, u.host.count("WriteBarrier"), u.blocks(a))
	}
}
