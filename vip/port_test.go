package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	own4, own6   = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")
	peer4, peer6 = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	loopback     = netip.MustParseAddr("127.0.0.1")
)

// peeredConfig has a host that passes a gated port.
func peeredConfig(t *testing.T) Config {
	cfg := testConfig(t)
	cfg.Peers = []netip.Addr{peer4, peer6}
	return cfg
}

// mustEcho fails unless the connection carries a message there and back.
func (h *host) mustEcho(c net.Conn) {
	h.t.Helper()
	_, err := c.Write([]byte("ping"))
	check(h.t, err, "writing over a connection")
	if got, err := h.read(c, waitLimit); got != "ping" {
		h.t.Fatalf("over a connection to %s: read %q, %v", c.RemoteAddr(), got, err)
	}
}

// mustEndReset fails unless writing to the connection is answered by a reset.
func (h *host) mustEndReset(c net.Conn) {
	h.t.Helper()
	if _, err := c.Write([]byte("ping")); errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return
	}
	h.mustBeReset(c)
}

func TestGatedPort(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer, client := n.add(2), n.add(9)
	n.self.serve("db1", testPort)
	m, _ := newManager(t, peeredConfig(t))
	client.mustReach(own4, "db1") // the control: off by default, it passes without a lease
	client.mustReach(own6, "db1")
	if m.PortGated() {
		t.Fatal("gated without having been asked")
	}

	open(t, m, longLease)
	check(t, m.GatePort(true), "gating")
	conns := map[*host][]net.Conn{}
	for _, ip := range []netip.Addr{own4, own6} {
		conns[client] = append(conns[client], client.mustReach(ip, "db1"))
		conns[peer] = append(conns[peer], peer.mustReach(ip, "db1"))
	}
	conns[n.self] = append(conns[n.self], n.self.mustReach(loopback, "db1"), n.self.mustReach(own4, "db1"))
	hold(t, m, true)
	client.mustReach(vip4, "db1")
	viaVIP := peer.mustReach(vip6, "db1")

	// The lease ends by itself, as with the manager frozen.
	check(t, m.Renew(Now()+300*time.Millisecond), "shortening the lease")
	eventually(t, "end of the lease", func() bool { return remaining(t, m) == 0 })
	for _, h := range []*host{client, n.self} {
		for _, c := range conns[h] {
			h.mustEndReset(c)
		}
	}
	for _, c := range conns[peer] {
		peer.mustEcho(c)
	}
	for _, ip := range []netip.Addr{own4, own6} {
		client.mustBeRefused(ip)
		n.self.mustBeRefused(ip)
		peer.mustReach(ip, "db1")
	}
	n.self.mustBeRefused(loopback)
	// Peers pass the port, not the virtual addresses.
	peer.mustEndReset(viaVIP)
	client.mustBeRefused(vip4)

	open(t, m, longLease)
	late := client.mustReach(own4, "db1")
	client.mustReach(vip4, "db1")
	check(t, m.Close(), "closing")
	client.mustEndReset(late)
	for range 2 {
		check(t, m.GatePort(false), "taking the gate from the port")
		client.mustReach(own4, "db1")
	}
	client.mustBeRefused(vip4)
	check(t, m.GatePort(true), "gating without a lease") // closed at once
	client.mustBeRefused(own4)
}

// TestGatedPortIsOfTCP: what another protocol has under the same number passes, in and out.
func TestGatedPortIsOfTCP(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	m, _ := newManager(t, peeredConfig(t))
	check(t, m.GatePort(true), "gating without a lease")
	for _, ip := range []netip.Addr{own4, own6} {
		client.mustBeRefused(ip)
		at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, testPort))
		server, err := net.ListenUDP("udp", at)
		check(t, err, "listening")
		defer server.Close()
		var c *net.UDPConn
		client.do(func() { c, err = net.DialUDP("udp", nil, at) })
		check(t, err, "connecting")
		defer c.Close()
		for _, conn := range []*net.UDPConn{server, c} {
			check(t, conn.SetDeadline(time.Now().Add(waitLimit)), "setting a deadline")
		}
		_, err = c.Write([]byte("ping"))
		check(t, err, "asking")
		got := make([]byte, 8)
		length, from, err := server.ReadFromUDPAddrPort(got)
		check(t, err, "being asked")
		_, err = server.WriteToUDPAddrPort(got[:length], from)
		check(t, err, "answering")
		length, err = c.Read(got)
		check(t, err, "reading the answer")
		if string(got[:length]) != "ping" {
			t.Errorf("read %q", got[:length])
		}
	}
}

// TestGatedPortAnswersNobodyLate: what was asked for before the lease ended is not acknowledged after it.
func TestGatedPortAnswersNobodyLate(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	for _, gated := range []bool{false, true} { // without the gate: the control
		t.Run(fmt.Sprintf("gated %v", gated), func(t *testing.T) {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", testPort))
			check(t, err, "listening")
			defer func() { check(t, l.Close(), "closing the listener") }()
			m, _ := newManager(t, testConfig(t))
			open(t, m, longLease)
			check(t, m.GatePort(gated), "gating")
			var asked net.Conn
			client.do(func() { asked, err = net.DialTimeout("tcp", netip.AddrPortFrom(own4, testPort).String(), waitLimit) })
			check(t, err, "connecting")
			defer func() { _ = asked.Close() }() // it was reset
			served, err := l.Accept()
			check(t, err, "accepting")
			defer func() { _ = served.Close() }() // it was reset
			check(t, m.Close(), "closing")
			_, err = served.Write([]byte("done"))
			check(t, err, "answering late")
			if !gated {
				if got, err := client.read(asked, waitLimit); got != "done" {
					t.Fatalf("without the gate read %q, %v", got, err)
				}
				check(t, m.Destroy(context.Background()), "destroying")
				return
			}
			n.self.mustBeReset(served) // the answer met the gate on its way out
			_, err = asked.Write([]byte("well?"))
			check(t, err, "asking again")
			if got, err := client.read(asked, waitLimit); got != "" || !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("after the end of the lease the client read %q, %v", got, err)
			}
			check(t, m.GatePort(false), "taking the gate from the port")
		})
	}
}

// hammer connects to ip without a pause and counts who gets through.
type hammer struct {
	passed, refused atomic.Int64
	end             chan struct{}
	ended           chan struct{}
}

func (h *host) hammer(ip netip.Addr) *hammer {
	k := &hammer{end: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		for {
			select {
			case <-k.end:
				return
			default:
			}
			var c net.Conn
			var err error
			h.do(func() { c, err = net.DialTimeout("tcp", netip.AddrPortFrom(ip, testPort).String(), waitLimit) })
			if err != nil {
				k.refused.Add(1)
				continue
			}
			k.passed.Add(1)
			_ = c.Close() // nothing was written
		}
	}()
	h.t.Cleanup(k.stop)
	return k
}

func (k *hammer) stop() {
	select {
	case <-k.end:
	default:
		close(k.end)
	}
	<-k.ended
}

// goesOn waits for some more attempts.
func (k *hammer) goesOn(t *testing.T) {
	t.Helper()
	begun := k.refused.Load() + k.passed.Load()
	eventually(t, "attempts to connect", func() bool { return k.refused.Load()+k.passed.Load() >= begun+5 })
}

// restart is a way from one start of hbd to the next.
type restart struct {
	name string
	cfg  Config
}

// restarts begins with a table that is replaced and ends with two that are adopted.
func restarts(t *testing.T) []restart {
	replaced, smaller, unprotected := peeredConfig(t), peeredConfig(t), peeredConfig(t)
	replaced.PeerPorts = []uint16{3307}
	smaller.Addresses = nil
	unprotected.unowned = true
	return []restart{
		{"replaced", replaced}, {"without addresses", smaller}, {"replaced by an unprotected one", unprotected},
		{"replaced again", peeredConfig(t)}, {"adopted", peeredConfig(t)},
	}
}

func TestBlocksSurviveRestarts(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer := n.add(2)
	n.self.serve("db1", testPort)
	m, err := New(peeredConfig(t))
	check(t, err, "making a manager")
	peer.mustReach(own4, "db1")
	check(t, m.Block(peer4), "blocking")
	k := peer.hammer(own4)
	defer k.stop()
	for _, r := range restarts(t) {
		for _, clean := range []bool{false, true} {
			k.goesOn(t)
			if clean {
				err = m.Destroy(context.Background())
			} else {
				err = m.Stop()
			}
			check(t, err, "ending a manager")
			k.goesOn(t) // with no manager at all
			if m, err = New(r.cfg); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			k.goesOn(t)
			check(t, m.Block(netip.MustParseAddr("10.77.0.77")), "blocking another")
			check(t, m.Unblock(netip.MustParseAddr("10.77.0.77")), "unblocking another")
			if blocked, err := m.Blocked(); err != nil || len(blocked) != 1 || blocked[0] != peer4 {
				t.Fatalf("%s: blocked are %v, %v", r.name, blocked, err)
			}
		}
	}
	k.stop()
	if got := k.passed.Load(); got != 0 {
		t.Fatalf("%d connections passed the block, %d were refused", got, k.refused.Load())
	}
	t.Logf("%d connections refused", k.refused.Load())
	check(t, m.Unblock(peer4), "unblocking")
	peer.mustReach(own4, "db1")
	check(t, m.Destroy(context.Background()), "destroying")
	if out := nft(t, "list", "ruleset"); out != "" {
		t.Fatalf("left behind:\n%s", out)
	}
}

func TestGatedPortSurvivesRestarts(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer, client := n.add(2), n.add(9)
	n.self.serve("db1", testPort)
	m, err := New(peeredConfig(t))
	check(t, err, "making a manager")
	check(t, m.GatePort(true), "gating")
	client.mustBeRefused(own4)
	k := client.hammer(own4)
	defer k.stop()
	for _, r := range restarts(t) {
		check(t, m.Stop(), "stopping")
		k.goesOn(t)
		if m, err = New(r.cfg); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		if !m.PortGated() {
			t.Fatalf("%s: not gated any more", r.name)
		}
		k.goesOn(t)
		peer.mustReach(own4, "db1")
	}
	check(t, m.Destroy(context.Background()), "destroying")
	k.goesOn(t)
	fewer := peeredConfig(t)
	fewer.Peers = nil // adopted, but the configuration's peers count, not those of the last run
	m, _ = newManager(t, fewer)
	peer.mustBeRefused(own4)
	k.stop()
	if got := k.passed.Load(); got != 0 {
		t.Fatalf("%d connections passed the gate, %d were refused", got, k.refused.Load())
	}
	check(t, m.GatePort(false), "taking the gate from the port")
	client.mustReach(own4, "db1")
}

// TestForgottenBlocks is the control of the two tests above: a gate that is replaced and not read before
// lets through who was blocked and opens the port.
func TestForgottenBlocks(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer, client := n.add(2), n.add(9)
	n.self.serve("db1", testPort)
	m, err := New(peeredConfig(t))
	check(t, err, "making a manager")
	check(t, m.Block(peer4), "blocking")
	check(t, m.GatePort(true), "gating")
	peer.mustBeRefused(own4)
	check(t, m.Stop(), "stopping")
	cfg := restarts(t)[0].cfg
	cfg.forgetful = true
	m, _ = newManager(t, cfg)
	peer.mustReach(own4, "db1")
	client.mustReach(own4, "db1")
	if blocked, err := m.Blocked(); err != nil || len(blocked) != 0 || m.PortGated() {
		t.Fatalf("blocked are %v, %v, gated %v", blocked, err, m.PortGated())
	}
}

// TestFlushedBlocksAreNotThere: whoever flushed the ruleset, Blocked and PortGated say what the kernel has.
func TestFlushedBlocksAreNotThere(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	cfg := peeredConfig(t)
	cfg.unowned, cfg.skipWatches = true, true // as on kernels before 6.9, and nobody mends it
	m, err := New(cfg)
	check(t, err, "making a manager")
	check(t, m.Block(peer4), "blocking")
	check(t, m.GatePort(true), "gating")
	nft(t, "flush", "ruleset")
	if blocked, err := m.Blocked(); !errors.Is(err, ErrGateLost) {
		t.Fatalf("after a flush blocked are %v, %v; want ErrGateLost", blocked, err)
	}
	if m.PortGated() {
		t.Fatal("after a flush the port is said to be gated")
	}
	if err := m.GatePort(true); !errors.Is(err, ErrGateLost) {
		t.Fatalf("gating what is not there: %v", err)
	}
	if err := m.Block(peer4); !errors.Is(err, ErrGateLost) {
		t.Fatalf("blocking where nothing is: %v", err)
	}
	check(t, m.Stop(), "stopping")
	cfg.skipWatches = false
	m, _ = newManager(t, cfg)
	if blocked, err := m.Blocked(); err != nil || len(blocked) != 0 || m.PortGated() {
		t.Fatalf("after a flush with no manager blocked are %v, %v, gated %v", blocked, err, m.PortGated())
	}
	// With a manager that looks after it both are put back.
	check(t, m.Block(peer4), "blocking")
	check(t, m.GatePort(true), "gating")
	nft(t, "flush", "ruleset")
	eventually(t, "repair", func() bool {
		blocked, err := m.Blocked()
		return err == nil && len(blocked) == 1 && m.PortGated()
	})
}
