package vip

import (
	"net"
	"net/netip"
	"testing"
)

// TestInbound counts what arrives over each connection to a port, and nothing of what is sent.
func TestInbound(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	peer := n.add(2)
	n.self.serve("db1", testPort)
	m, _ := newManager(t, testConfig(t))
	for _, ip := range []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")} {
		talks, silent := peer.mustReach(ip, "db1"), peer.mustReach(ip, "db1")
		received := func(of netip.AddrPort) (uint64, bool) {
			list, err := m.Inbound(testPort)
			check(t, err, "listing")
			for _, c := range list {
				if c.Remote == of {
					return c.Received, true
				}
			}
			return 0, false
		}
		a, b := talks.LocalAddr().(*net.TCPAddr).AddrPort(), silent.LocalAddr().(*net.TCPAddr).AddrPort()
		for i := range 3 {
			if got, ok := received(a); !ok || got != uint64(5*i) {
				t.Fatalf("%s: %d bytes arrived (%t), want %d", a, got, ok, 5*i)
			}
			if got, ok := received(b); !ok || got != 0 {
				t.Fatalf("%s: %d bytes arrived (%t), nothing was sent", b, got, ok)
			}
			_, err := talks.Write([]byte("alive"))
			check(t, err, "writing")
			if got, err := peer.read(talks, waitLimit); got != "alive" {
				t.Fatalf("the echo: %q, %v", got, err)
			}
		}
	}
	// One that the other side has closed is not listed: its FIN would count as a byte.
	closed := peer.mustReach(netip.MustParseAddr("10.77.0.1"), "db1")
	gone := closed.LocalAddr().(*net.TCPAddr).AddrPort()
	check(t, closed.(*net.TCPConn).CloseWrite(), "closing")
	eventually(t, "the closed connection to be left out", func() bool {
		list, err := m.Inbound(testPort)
		check(t, err, "listing")
		for _, c := range list {
			if c.Remote == gone && c.Received == 0 {
				return false
			}
			if c.Remote == gone {
				t.Fatalf("%d bytes arrived over a connection that was only closed", c.Received)
			}
		}
		return true
	})
	if list, err := m.Inbound(testPort + 1); err != nil || len(list) > 0 {
		t.Fatalf("at another port: %v, %v", list, err)
	}
}
