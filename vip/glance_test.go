package vip

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// asked is what the kernel itself says, past what is remembered.
func asked(t *testing.T, m *Manager) (left time.Duration, blocked []netip.Addr, covered bool) {
	t.Helper()
	g := m.gate.(*kernelGate)
	g.mu.Lock()
	defer g.mu.Unlock()
	left, err := g.readRemaining()
	check(t, err, "asking for the lease")
	blocked, err = g.listAddrs(setBlocked4, setBlocked6)
	check(t, err, "asking for the blocks")
	set, err := g.listSet(setCovered)
	check(t, err, "asking for the cover")
	return left, blocked, len(set) > 0
}

// TestGlanceTellsWhatTheKernelWould: right after each change, over and over, what is remembered is what the kernel says.
func TestGlanceTellsWhatTheKernelWould(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	if !m.State().Protected {
		t.Skip("skipping, this kernel does not protect tables: nothing is remembered")
	}
	begin := Now()
	same := func(after string) {
		t.Helper()
		late := Now() - begin // of a lease just written it is known since when it runs at most
		read := Now()
		left := remaining(t, m)
		blocked, err := m.Blocked()
		check(t, err, "reading the blocks")
		covered := m.PortGated()
		kernelLeft, kernelBlocked, kernelCovered := asked(t, m)
		if (left == 0) != (kernelLeft == 0) || left > 0 && (left < kernelLeft-jiffiesMargin-late || left > kernelLeft+Now()-read+jiffiesMargin) {
			t.Fatalf("after %s: %s left, in the kernel %s", after, left, kernelLeft)
		}
		if !slices.Equal(blocked, kernelBlocked) || covered != kernelCovered {
			t.Fatalf("after %s: blocked %v, gated %t; in the kernel %v, %t", after, blocked, covered, kernelBlocked, kernelCovered)
		}
		begin = Now()
	}
	for range 20 {
		open(t, m, longLease)
		same("opening")
		check(t, m.Renew(Now()+2*longLease), "renewing")
		same("renewing")
		check(t, m.Block(client9), "blocking")
		same("blocking")
		check(t, m.GatePort(true), "gating")
		same("gating")
		check(t, m.Close(), "closing")
		same("closing")
		check(t, m.Unblock(client9), "unblocking")
		same("unblocking")
		check(t, m.GatePort(false), "ungating")
		same("ungating")
	}
}

// TestGlanceEndsWithTheLease: nobody tells that a lease has ended, and who says that the gate is closed must be right.
func TestGlanceEndsWithTheLease(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	for range 3 {
		open(t, m, 300*time.Millisecond)
		eventually(t, "the lease to end", func() bool { return remaining(t, m) == 0 })
		if left, _, _ := asked(t, m); left != 0 {
			t.Fatalf("it was called closed, and is open for %s", left)
		}
	}
}

// TestGlanceAsksCloseToTheEnd: a countdown may be some milliseconds ahead of the kernel's clock.
func TestGlanceAsksCloseToTheEnd(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	open(t, m, longLease)
	g := m.gate.(*kernelGate)
	for _, left := range []time.Duration{time.Millisecond, jiffiesMargin, -time.Millisecond} {
		g.mu.Lock()
		g.seen.lease = glance[time.Duration]{value: 100*time.Millisecond + left, at: Now() - 100*time.Millisecond}
		g.mu.Unlock()
		if got := remaining(t, m); got < longLease/2 {
			t.Fatalf("with %s left by memory it tells %s, without asking", left, got)
		}
	}
}

// TestGlanceIsCheap: who looks often asks the kernel seldom.
func TestGlanceIsCheap(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	cfg := testConfig(t)
	cfg.skipWatches = true // its own looks would be counted
	m, _ := newManager(t, cfg)
	if !m.State().Protected {
		t.Skip("skipping, this kernel does not protect tables: nothing is remembered")
	}
	open(t, m, longLease)
	g := m.gate.(*kernelGate)
	requests := func() uint32 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.sock.seq
	}
	g.mu.Lock()
	g.seen = glances{}
	g.mu.Unlock()
	before, begin := requests(), Now()
	const looks = 1000
	for range looks {
		remaining(t, m)
		m.PortGated()
		_, err := m.Blocked()
		check(t, err, "reading the blocks")
	}
	// Each reading is of the sets of three tables; how often one is due goes by the time that the looks took.
	most := uint32(1+(Now()-begin)/glanceAge) * 10
	if took := requests() - before; took == 0 || took > most {
		t.Fatalf("%d looks made %d requests in %s, at most %d are due", looks, took, Now()-begin, most)
	}
}

// TestGlanceSeesWhatOthersDoToAnAddress: somebody takes the address away with a tool, and the kernel's notice makes it seen.
func TestGlanceSeesWhatOthersDoToAnAddress(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	m, rec := newManager(t, testConfig(t))
	present := func() bool { return m.State().Addresses[0].Present }
	hold(t, m, true)
	if !present() { // behind a closed gate it is not put back
		t.Fatal("a held address is not seen")
	}
	link, err := n.self.h.LinkByName("eth0")
	check(t, err, "finding eth0")
	eventually(t, "the loss to be seen", func() bool {
		// Again and again: the manager may be just prolonging it, and put it back with that.
		if err := n.self.h.AddrDel(link, &netlink.Addr{IPNet: hostAddr(vip4).IPNet}); !errors.Is(err, unix.EADDRNOTAVAIL) {
			check(t, err, "taking the address away")
		}
		return !present()
	})
	hold(t, m, true)
	if !present() {
		t.Fatal("put back by its holder, it is not seen at once")
	}
	hold(t, m, false)
	if present() {
		t.Fatal("let go, it is still seen")
	}
	if rec.count(AddressMissing) != 0 {
		t.Fatal("behind a closed gate an address was put back")
	}
}

func TestAcceptedCounts(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	m, _ := newManager(t, testConfig(t))
	for range 3 {
		before, err := m.Accepted()
		check(t, err, "counting")
		client.mustReach(netip.MustParseAddr("10.77.0.1"), "db1")
		if after, err := m.Accepted(); err != nil || after != before+1 {
			t.Fatalf("one came: %d accepted, before %d, %v", after, before, err)
		}
	}
}

func TestPassiveOpens(t *testing.T) {
	const ip = "Ip: Forwarding DefaultTTL\nIp: 1 64\n"
	for in, want := range map[string]uint64{
		ip + "Tcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 5 7\n":                     7,
		"Tcp: PassiveOpens\nTcp: 18446744073709551615\n":                                18446744073709551615,
		"Tcp: MaxConn PassiveOpens CurrEstab\nTcp: -1 0 3\nUdp: PassiveOpens\nUdp: 9\n": 0,
	} {
		if got, err := passiveOpens([]byte(in)); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", ip, "Tcp: PassiveOpens\n", "Tcp: ActiveOpens PassiveOpens\nTcp: 1\n", "Tcp: PassiveOpens\nTcp: many\n", "Tcp: ActiveOpens\nTcp: 5\n"} {
		if got, err := passiveOpens([]byte(in)); err == nil {
			t.Errorf("%q: %d and no error", in, got)
		}
	}
}
