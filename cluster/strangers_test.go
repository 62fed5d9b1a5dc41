package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestStrangerIsKeptOut for a while, and everybody is told.
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

	// For its time it stays out, also after this hbd has started anew and knows of nobody.
	u.strangers.known = nil
	for range 2 {
		if err := u.lookForStrangers(u.short()); err != nil || !u.blocks(a) {
			t.Fatalf("error %v; blocked: %v", err, u.blocks(a))
		}
	}
	// After it, it is looked at again: here it has been mended.
	u.strangers.known[a] = stranger{out: true, times: 1, until: now()}
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
	u.host.change(func() { u.host.blocked[a] = true })
	u.host.fail("Strangers", errBroken)
	if err := u.execute(u.short(), u.action(fsm.ActBarrier)); err != nil {
		t.Fatalf("who acknowledges is not known, and the service never opens: %v", err)
	}
	u.host.fail("Strangers", nil)
	u.host.change(func() { u.host.blocked[a] = false })

	before := u.host.count("WriteBarrier")
	u.host.fail("CutReplica", errBroken)
	if err := u.execute(u.short(), u.action(fsm.ActBarrier)); err == nil || u.host.count("WriteBarrier") > before {
		t.Fatalf("error %v; a barrier was written", err)
	}
	u.host.fail("CutReplica", nil)
	if err := u.execute(u.short(), u.action(fsm.ActBarrier)); err != nil || u.host.count("WriteBarrier") != before+1 || !u.blocks(a) {
		t.Fatalf("error %v; %d barriers; blocked: %v", err, u.host.count("WriteBarrier"), u.blocks(a))
	}
}

// TestStrangerIsKeptOutLonger each time it acknowledges again.
func TestStrangerIsKeptOutLonger(t *testing.T) {
	var s strangers
	a, at, last := netip.MustParseAddr("198.51.100.9"), now(), time.Duration(0)
	for range 20 {
		pause := s.keep(a, at)
		if pause < last || pause > maxStrangerPause || !s.known[a].out || s.over(a, at+pause-1) || !s.over(a, at+pause) {
			t.Fatalf("pause %v after %v", pause, last)
		}
		at, last = at+pause, pause
		s.letIn(a, at)
	}
	if last != maxStrangerPause {
		t.Fatalf("the longest pause is %v", last)
	}
	// One that stayed away is forgotten.
	s.letIn(a, at+maxStrangerPause+1)
	if len(s.known) > 0 {
		t.Fatalf("still known: %v", s.known)
	}
}
