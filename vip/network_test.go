package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var client9 = netip.MustParseAddr("10.77.0.9")

// TestNeighboursFollowTheAddress moves both addresses between two hosts under a client's connections.
func TestNeighboursFollowTheAddress(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	other, client := n.add(2), n.add(9)
	n.self.serve("db1", testPort)
	other.serve("db2", testPort)
	a, _ := newManager(t, testConfig(t))
	var b *Manager
	other.do(func() { b, _ = newManager(t, testConfig(t)) })
	open(t, a, longLease)
	hold(t, a, true)
	for _, addr := range a.cfg.Addresses {
		client.mustReach(addr.IP, "db1")
	}
	check(t, a.Close(), "closing the old gate")
	client.mustBeRefused(vip4) // the old holder still answers, with resets
	other.do(func() {
		open(t, b, longLease)
		hold(t, b, true)
	})
	for _, addr := range a.cfg.Addresses {
		eventually(t, "neighbour entry of the new holder", func() bool {
			return bytes.Equal(client.neighbour(addr.IP), other.mac())
		})
		client.mustReach(addr.IP, "db2")
	}
	hold(t, a, false)
	client.mustReach(vip4, "db2")
	if got := client.neighbour(vip4); !bytes.Equal(got, other.mac()) {
		t.Fatalf("neighbour entry went back to %s", got)
	}
}

// serving is a network in which this host holds the addresses behind an open gate, a client in it, and what the manager says.
func serving(t *testing.T) (*network, *host, *Manager, *recorder) {
	t.Helper()
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	m, rec := newManager(t, testConfig(t))
	open(t, m, longLease)
	hold(t, m, true)
	return n, client, m, rec
}

func TestRepairsWhatVanishes(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, client, m, rec := serving(t)
	client.mustReach(vip4, "db1")
	present := func() bool {
		st := m.State()
		return st.Addresses[0].Present && st.Addresses[1].Present
	}
	for _, ip := range []netip.Addr{vip4, vip6} {
		check(t, n.self.h.AddrDel(n.self.eth0(), hostAddr(ip)), "deleting an address by hand")
		eventually(t, "repair of "+ip.String(), present)
		client.mustReach(ip, "db1")
	}
	rec.await(t, AddressMissing)
	check(t, n.self.h.LinkSetDown(n.self.eth0()), "taking the link down")
	rec.await(t, LinkDown)
	check(t, n.self.h.LinkSetUp(n.self.eth0()), "taking the link up")
	rec.await(t, LinkUp)
	n.self.addAddr("fd77::1/64") // the kernel forgets IPv6 addresses with the link
	eventually(t, "repair after the link came back", present)
	for _, ip := range []netip.Addr{vip4, vip6} {
		client.mustReach(ip, "db1")
	}
}

// TestShortCutIsAnnounced: a link that is back before anybody looked is announced over all the same.
func TestShortCutIsAnnounced(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, client, m, rec := serving(t)
	eth0 := n.self.eth0()
	cut := func() {
		// The loop cannot look in between: it would have to hold ops.
		m.ops.Lock()
		defer m.ops.Unlock()
		check(t, n.self.h.LinkSetDown(eth0), "taking the link down")
		check(t, n.self.h.LinkSetUp(eth0), "taking the link up")
	}
	burst := func() time.Duration {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.sched.start
	}
	for range 20 {
		before, at := rec.count(LinkUp), Now()
		cut()
		eventually(t, "announcements over the link that is back", func() bool { return burst() > at && rec.count(LinkUp) > before })
	}
	eventually(t, "each loss of the link to have its end", func() bool { return rec.count(LinkDown) == rec.count(LinkUp) })
	eventually(t, "the address after the last cut", func() bool { return m.State().Addresses[0].Present })
	client.mustReach(vip4, "db1")
}

// TestLostCarriersAreCounted: notices of what is over again are merged, and one that shows a link can be all there is.
func TestLostCarriersAreCounted(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	l, err := newLinks()
	check(t, err, "opening links")
	defer l.close()
	eth0 := n.self.eth0()
	index := eth0.Attrs().Index
	cut := func() bool {
		t.Helper()
		check(t, l.count(), "counting")
		return l.wasCut()[index]
	}
	cut() // perhaps the link was on its way up
	if cut() {
		t.Fatal("nothing was cut")
	}
	check(t, n.self.h.LinkSetDown(eth0), "taking the link down")
	check(t, n.self.h.LinkSetUp(eth0), "taking the link up")
	eventually(t, "the link", func() bool {
		st, err := l.find("eth0")
		return err == nil && st.up
	})
	counted := l.downs[index]
	if !cut() {
		t.Fatal("a cut that is over was not noticed")
	}
	// What tells nothing new: a bridge's notice about its port, one without the count, one that comes late.
	bridge, bare := make([]byte, unix.SizeofIfInfomsg), make([]byte, unix.SizeofIfInfomsg)
	for _, b := range [][]byte{bridge, bare} {
		binary.NativeEndian.PutUint32(b[4:], uint32(index))
		binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
	}
	bridge[0] = unix.AF_BRIDGE
	late := append(slices.Clone(bare), attrs(nil).u32(unix.IFLA_CARRIER_DOWN_COUNT, 0)...)
	binary.NativeEndian.PutUint32(late[len(late)-4:], counted)
	for _, b := range [][]byte{bridge, bare, late} {
		check(t, l.hear(unix.RTM_NEWLINK, b), "hearing")
	}
	check(t, l.hear(unix.RTM_DELLINK, bridge), "hearing that a port left its bridge")
	if cut() {
		t.Fatal("took a notice that tells nothing for a cut")
	}
	down := slices.Clone(bare)
	binary.NativeEndian.PutUint32(down[8:], 0)
	check(t, l.hear(unix.RTM_NEWLINK, down), "hearing")
	if !cut() {
		t.Fatal("a notice of an interface that is down was not taken for a cut")
	}
}

// TestClosedGateRepairsNothing: behind a closed gate a missing address may be another host's by now.
func TestClosedGateRepairsNothing(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	m, rec := newManager(t, testConfig(t))
	hold(t, m, true)
	check(t, n.self.h.AddrDel(n.self.eth0(), hostAddr(vip4)), "deleting an address by hand")
	check(t, n.self.h.LinkSetDown(n.self.eth0()), "taking the link down")
	rec.await(t, LinkDown) // the loop has looked at everything since
	if m.State().Addresses[0].Present {
		t.Fatal("put an address back behind a closed gate")
	}
	check(t, n.self.h.LinkSetUp(n.self.eth0()), "taking the link up")
	rec.await(t, LinkUp)
	open(t, m, longLease)
	eventually(t, "repair once the gate is open", func() bool { return m.State().Addresses[0].Present })
}

func TestReplacedInterface(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, client, m, rec := serving(t)
	client.mustReach(vip4, "db1")
	check(t, n.self.h.LinkDel(n.self.eth0()), "removing the interface")
	rec.await(t, LinkDown)
	n.attach(n.self, 1)
	rec.await(t, LinkUp)
	// Where the kernel takes the egress chain with the interface the gate was made anew, closed.
	eventually(t, "service over the new interface", func() bool {
		if remaining(t, m) == 0 {
			open(t, m, longLease)
		}
		_, name, err := client.dial(vip4, 200*time.Millisecond)
		return err == nil && name == "db1"
	})
	check(t, m.Close(), "closing")
	if err := m.sendAnnouncement(m.cfg.Addresses[0]); !errors.Is(err, errSuppressed) {
		t.Fatalf("announcing over the new interface behind a closed gate: %v", err)
	}
}

func TestForeignClaimIsDefended(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	thief, client := n.add(2), n.add(9)
	n.self.serve("db1", testPort)
	m, rec := newManager(t, testConfig(t))
	open(t, m, longLease)
	hold(t, m, true)
	var port *framePort
	thief.do(func() {
		port = newFramePort("eth0", []netip.Addr{vip4, vip6})
		for _, proto := range port.protocols() {
			_, err := port.conn(proto, thief.eth0().Attrs().Index)
			check(t, err, "opening the thief's socket")
		}
	})
	t.Cleanup(func() { check(t, port.close(), "closing the thief's sockets") })
	na, err := ndAnnouncement(vip6, thief.mac())
	check(t, err, "encoding")
	for _, theft := range []struct {
		ip    netip.Addr
		proto uint16
		frame []byte
	}{{vip4, protoARP, arpAnnouncements(vip4, thief.mac())[0]}, {vip6, protoIPv6, na}} {
		client.mustReach(theft.ip, "db1")
		before := rec.count(ForeignClaim)
		check(t, port.send(int(theft.proto), 0, theft.frame), "stealing the address")
		eventually(t, "report of the claim", func() bool { return rec.count(ForeignClaim) > before })
		eventually(t, "defence", func() bool { return bytes.Equal(client.neighbour(theft.ip), n.self.mac()) })
		client.mustReach(theft.ip, "db1")
	}
	st := m.State().Addresses[0]
	if st.ForeignClaims == 0 || !bytes.Equal(st.LastClaim, thief.mac()) {
		t.Fatalf("counted %+v", st.Counters)
	}
}

func TestConflictFindsAHolder(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	other := n.add(2)
	m, _ := newManager(t, testConfig(t))
	probe := func() (net.HardwareAddr, bool) {
		mac, found, err := m.Conflict(context.Background())
		check(t, err, "probing")
		return mac, found
	}
	if mac, found := probe(); found {
		t.Fatalf("found %s on an empty network", mac)
	}
	for _, cidr := range []string{"10.77.0.100/32", "fd77::100/128"} {
		other.addAddr(cidr)
		eventually(t, "finding the holder of "+cidr, func() bool {
			mac, found := probe()
			return found && bytes.Equal(mac, other.mac())
		})
		a, err := netlink.ParseAddr(cidr)
		check(t, err, "parsing")
		check(t, other.h.AddrDel(other.eth0(), a), "removing the address")
	}
	if mac, found := probe(); found {
		t.Fatalf("found %s after the holder left", mac)
	}
	// A host whose gate is closed has the address but does not speak for it.
	var b *Manager
	other.do(func() {
		b, _ = newManager(t, testConfig(t))
		hold(t, b, true)
	})
	if mac, found := probe(); found {
		t.Fatalf("found %s behind a closed gate", mac)
	}
}

func TestSever(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	n.self.addAddr("10.77.0.50/24")
	m, _ := newManager(t, testConfig(t))
	open(t, m, longLease)
	hold(t, m, true)
	c4, c6 := client.mustReach(vip4, "db1"), client.mustReach(vip6, "db1")
	own := client.mustReach(netip.MustParseAddr("10.77.0.50"), "db1")
	count, err := m.Sever()
	if err != nil || count != 2 {
		t.Fatalf("severed %d connections, %v; want 2", count, err)
	}
	for _, c := range []net.Conn{c4, c6} {
		client.mustBeReset(c)
	}
	_, err = own.Write([]byte("alive"))
	check(t, err, "writing over a connection to another address")
	if got, err := client.read(own, waitLimit); got != "alive" {
		t.Fatalf("over a connection to another address: %q, %v", got, err)
	}
	client.mustReach(vip4, "db1") // the listener is still there

	// By peer: a filter on the wrong port touches nothing, the right one ends it.
	if count, err = m.SeverPeer(testPort+1, netip.AddrPortFrom(client9, 0)); err != nil || count != 0 {
		t.Fatalf("severed %d by a wrong port, %v", count, err)
	}
	if count, err = m.SeverPeer(testPort, netip.AddrPortFrom(client9, 0)); err != nil || count == 0 {
		t.Fatalf("severed %d of the peer, %v", count, err)
	}
	client.mustBeReset(own)
}

func TestBlock(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer := n.add(2)
	self1, peer2 := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	self6, peer6 := netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fd77::2")
	n.self.serve("db1", testPort)
	peer.serve("db2", testPort)
	m, _ := newManager(t, testConfig(t))
	peer.mustReach(self1, "db1")
	old := n.self.mustReach(peer2, "db2")
	for range 2 { // idempotent
		check(t, m.Block(peer2), "blocking")
		check(t, m.Block(peer6), "blocking")
	}
	for _, ip := range []netip.Addr{self1, self6} {
		peer.mustBeRefused(ip)
	}
	for _, ip := range []netip.Addr{peer2, peer6} {
		n.self.mustBeRefused(ip)
	}
	_, err := old.Write([]byte("x"))
	check(t, err, "writing into the block")
	n.self.mustBeReset(old)
	check(t, m.Stop(), "stopping")
	m, _ = newManager(t, testConfig(t)) // a block outlives its manager
	blocked, err := m.Blocked()
	check(t, err, "listing blocks")
	if len(blocked) != 2 {
		t.Fatalf("after a restart blocked are %v", blocked)
	}
	n.self.mustBeRefused(peer2)
	for range 2 {
		check(t, m.Unblock(peer2), "unblocking")
		check(t, m.Unblock(peer6), "unblocking")
	}
	peer.mustReach(self1, "db1")
	n.self.mustReach(peer6, "db2")
}

// TestBlockedPeerIsTold: a host that waits for an answer of this one, which is blocked before it gives it, learns of the end at once. It is
// not written to any more, so nothing else would tell it.
func TestBlockedPeerIsTold(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer := n.add(2)
	self1, peer2 := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	var l net.Listener
	n.self.do(func() {
		var err error
		l, err = net.Listen("tcp", netip.AddrPortFrom(self1, testPort).String())
		check(t, err, "listening")
	})
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("db1"))
			accepted <- c
		}
	}()
	m, _ := newManager(t, testConfig(t))
	waits := peer.mustReach(self1, "db1")
	answers := <-accepted
	defer answers.Close()
	check(t, m.Block(peer2), "blocking")
	_, err := answers.Write([]byte("late"))
	check(t, err, "answering into the block")
	if got, err := n.self.read(answers, 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the answering end read %q, %v: it has ended, and nobody tells the other", got, err)
	}
	if count, err := m.SeverPeer(testPort, netip.AddrPortFrom(peer2, 0)); err != nil || count != 1 {
		t.Fatalf("severed %d, %v; want 1", count, err)
	}
	peer.mustBeReset(waits)
}

func TestWithoutNFTables(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	cfg := testConfig(t)
	cfg.userSpace = true
	m, rec := newManager(t, cfg)
	rec.await(t, ProtectionWeaker)
	if m.KernelGate() {
		t.Fatal("claims a kernel gate")
	}
	if err := m.Block(client9); !errors.Is(err, ErrNoKernelGate) {
		t.Fatalf("blocking: %v", err)
	}
	if err := m.GatePort(true); !errors.Is(err, ErrNoKernelGate) || m.PortGated() {
		t.Fatalf("gating the port: %v, gated %v", err, m.PortGated())
	}
	if err := m.Renew(Now() + longLease); !errors.Is(err, ErrExpired) {
		t.Fatalf("renewing a gate that was never open: %v", err)
	}
	open(t, m, time.Second)
	hold(t, m, true)
	conn := client.mustReach(vip4, "db1")
	client.mustBeReset(conn)
	eventually(t, "removal at the end of the lease", func() bool { return !m.State().Addresses[0].Present })
	open(t, m, longLease)
	eventually(t, "return with a new lease", func() bool { return m.State().Addresses[0].Present })
	client.mustReach(vip4, "db1")
}

func TestDestroyLeavesNothing(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	open(t, m, longLease)
	hold(t, m, true)
	check(t, m.Destroy(context.Background()), "destroying")
	if out := nft(t, "list", "ruleset"); out != "" {
		t.Fatalf("left behind:\n%s", out)
	}
	links, err := newLinks()
	check(t, err, "opening links")
	defer links.close()
	st, err := links.read("eth0")
	check(t, err, "reading eth0")
	if st.has(vip4) || st.has(vip6) {
		t.Fatalf("left behind %v", st.addresses)
	}
	if err := m.Open(Now() + longLease); !errors.Is(err, ErrStopped) {
		t.Fatalf("opening after the end: %v", err)
	}
}
