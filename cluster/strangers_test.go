package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

var outside = netip.MustParseAddr("198.51.100.9")

// stranger connects a replica from an address of no member, which acknowledges unless it is silent.
func (u *unit) stranger(at netip.Addr, thread uint64, silent bool) {
	u.host.change(func() {
		u.host.strangers = append(u.host.strangers, dump{thread, netip.AddrPortFrom(at, uint16(2000+thread))})
		if u.host.silent == nil {
			u.host.silent = map[netip.Addr]bool{}
		}
		u.host.silent[at] = silent
	})
}

func (u *unit) blocks(a netip.Addr) bool {
	u.host.w.mu.Lock()
	defer u.host.w.mu.Unlock()
	return u.host.blocked[a]
}

// looks takes turns until something is heard, or would have been: the first look only knows what has arrived by then.
func (u *unit) looks() {
	u.t.Helper()
	for range 3 {
		if err := u.lookForStrangers(u.short()); err != nil {
			u.t.Fatal(err)
		}
	}
}

func (u *unit) reports(a netip.Addr) bool {
	return slices.ContainsFunc(u.observation().Server.Problems, func(s string) bool { return strings.Contains(s, a.String()) })
}

// TestStrangerIsKeptOut for a while, and everybody is told. Whoever only reads the binary log is left alone, and so are members.
func TestStrangerIsKeptOut(t *testing.T) {
	u := primary(t)
	reader := netip.MustParseAddr("198.51.100.10")
	u.stranger(outside, 1, false)
	u.stranger(reader, 2, true)
	member := u.w.hosts["db3"].addr
	u.host.change(func() { u.host.blocked[member] = true })
	u.looks()
	if !u.blocks(outside) || u.blocks(reader) || len(u.host.strangers) != 1 || u.host.count("CutThread") != 1 {
		t.Fatalf("blocked %t, the reader %t; connected %v", u.blocks(outside), u.blocks(reader), u.host.strangers)
	}
	if !u.reports(outside) || u.reports(reader) {
		t.Errorf("reported: %q", u.observation().Server.Problems)
	}

	// For its time it stays out, also after this hbd has started anew and knows of nobody.
	u.strangers.known, u.strangers.heard = nil, nil
	u.looks()
	if !u.blocks(outside) {
		t.Fatal("let in before its time")
	}
	over := func() {
		e := u.strangers.known[outside]
		e.until = now()
		u.strangers.known[outside] = e
	}
	// After it nobody is let in without a look, nor stays in without one.
	over()
	u.host.fail("Replicas", errBroken)
	if err := u.lookForStrangers(u.short()); err == nil || !u.blocks(outside) {
		t.Fatalf("error %v; blocked: %t", err, u.blocks(outside))
	}
	u.host.fail("Replicas", nil)
	u.looks()
	if u.blocks(outside) || u.reports(outside) {
		t.Fatal("not let in after its time")
	}
	u.host.fail("Replicas", errBroken)
	if err := u.lookForStrangers(u.short()); err == nil || !u.blocks(outside) {
		t.Fatalf("not heard yet, and no look succeeds: error %v; blocked: %t", err, u.blocks(outside))
	}
	u.host.fail("Replicas", nil)
	u.looks()
	over()
	u.looks()
	if u.blocks(outside) || !u.blocks(member) {
		t.Errorf("at the end blocked are %v", u.host.blocked)
	}
}

// TestSetBlocksLeavesStrangersAlone, whichever host they are on: the sync set decides about the other data nodes only.
func TestSetBlocksLeavesStrangersAlone(t *testing.T) {
	u := primary(t)
	i := slices.IndexFunc(u.cfg.Peers, func(m fsm.Member) bool { return m.ID == "db3" })
	u.cfg.Peers[i].Role, u.cfg.Peers[i].Address = fsm.RoleWitness, outside.String()
	u.stranger(outside, 1, false)
	u.looks()
	blocked, err := u.blockedNodes()
	if !u.blocks(outside) || len(blocked) > 0 || err != nil {
		t.Fatalf("on a witness's host: blocked %t; of the nodes %v, %v", u.blocks(outside), blocked, err)
	}
	if l := u.gather(u.store.State()); len(l.Blocked) > 0 {
		t.Errorf("judged by: %v", l.Blocked)
	}
}

// TestStrangerThatCannotBeBlocked is told, and its dump thread ended at each look.
func TestStrangerThatCannotBeBlocked(t *testing.T) {
	u := primary(t)
	for i, at := range []netip.Addr{u.host.addr, netip.MustParseAddr("127.0.0.1")} {
		u.stranger(at, uint64(i+1), false)
	}
	u.looks()
	if len(u.host.blocked) > 0 || u.host.count("CutThread") != 4 {
		t.Errorf("blocked are %v, %d threads were ended", u.host.blocked, u.host.count("CutThread"))
	}
	if !u.reports(u.host.addr) {
		t.Errorf("reported: %q", u.observation().Server.Problems)
	}
}

// TestStrangersOfAnOldPrimary stay out until its server counts nobody's acknowledgements any more.
func TestStrangersOfAnOldPrimary(t *testing.T) {
	u := primary(t)
	u.stranger(outside, 1, false)
	u.looks()
	u.takenOver("db2")
	u.looks()
	if !u.blocks(outside) {
		t.Fatal("let in while the server is still a source")
	}
	u.host.change(func() { u.host.gate, u.host.source = 0, u.w.hosts["db2"].addr })
	u.looks()
	if u.blocks(outside) {
		t.Fatal("kept out by a replica")
	}
}

// TestNoBarrierForAStranger that was heard and cannot be kept out. Not to know holds up no takeover.
func TestNoBarrierForAStranger(t *testing.T) {
	u := ready(t)
	u.host.change(func() {
		for _, o := range u.w.sorted()[1:] {
			o.source, o.io, o.sql, o.ack = u.host.addr, true, true, true
		}
	})
	u.stranger(outside, 1, false)
	barrier := func() error { return u.execute(u.short(), u.action(fsm.ActBarrier)) }
	u.host.fail("Replicas", errBroken)
	if err := barrier(); err != nil {
		t.Fatalf("who replicates is not known, and the service never opens: %v", err)
	}
	u.host.fail("Replicas", nil)
	if err := barrier(); err != nil { // the first look hears nothing
		t.Fatal(err)
	}
	before := u.host.count("WriteBarrier")
	u.host.fail("Block", errBroken)
	if err := barrier(); err == nil || u.host.count("WriteBarrier") > before {
		t.Fatalf("error %v; a barrier was written", err)
	}
	if !u.reports(outside) {
		t.Errorf("reported: %q", u.observation().Server.Problems)
	}
	u.host.fail("Block", nil)
	if err := barrier(); err != nil || u.host.count("WriteBarrier") != before+1 || !u.blocks(outside) {
		t.Fatalf("error %v; %d barriers; blocked: %t", err, u.host.count("WriteBarrier"), u.blocks(outside))
	}
}

// TestStrangerIsKeptOutLonger each time it acknowledges again, and not for being found twice, nor for what failed.
func TestStrangerIsKeptOutLonger(t *testing.T) {
	var s strangers
	at, last := now(), time.Duration(0)
	if pause := s.heardFrom(outside, at, errBroken); pause > 0 || s.known[outside].out || s.known[outside].times > 0 {
		t.Fatalf("not blocked, and kept out for %v", pause)
	}
	for range 20 {
		pause := s.heardFrom(outside, at, nil)
		if again := s.heardFrom(outside, at, nil); again != pause || pause < last || pause > maxStrangerPause || s.due(outside, at+pause-1) || !s.due(outside, at+pause) {
			t.Fatalf("pause %v, then %v, after %v", pause, again, last)
		}
		at, last = at+pause, pause
		s.wasLetIn(outside)
	}
	if last != maxStrangerPause {
		t.Fatalf("the longest pause is %v", last)
	}
	// One that stayed away is forgotten; one that somebody else let in is not said to be out.
	s.are(nil, at+maxStrangerPause+1)
	if len(s.known) > 0 {
		t.Fatalf("still known: %v", s.known)
	}
	s.heardFrom(outside, at, nil)
	s.are(nil, at)
	if p := s.problems(at); len(p) > 0 {
		t.Fatalf("let in by somebody else, and reported: %q", p)
	}
}

// TestConnectionOf finds one by what the server shows of a client, and none rather than a wrong one.
func TestConnectionOf(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	conns := []Inbound{{netip.AddrPortFrom(a, 5001), 1}, {netip.AddrPortFrom(b, 5001), 2}, {netip.AddrPortFrom(b, 5002), 3}}
	for _, x := range []struct {
		r    Replica
		want uint64 // 0: none
	}{
		{Replica{Host: "10.0.0.2", Port: 5001}, 1}, {Replica{Host: "10.0.0.3", Port: 5001}, 2}, {Replica{Host: "db3.example", Port: 5002}, 3},
		{Replica{Host: "::ffff:10.0.0.3", Port: 5002}, 3}, {Replica{Host: "db3.example", Port: 5001}, 0}, {Replica{Host: "10.0.0.2", Port: 5002}, 0},
		{Replica{Host: "localhost"}, 0}, {Replica{Host: "10.0.0.2"}, 0},
	} {
		if c, ok := connectionOf(x.r, conns); ok != (x.want > 0) || c.Received != x.want {
			t.Errorf("%+v: %+v, %t", x.r, c, ok)
		}
	}
}
