package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"
)

// sumOfPacket adds up what a receiver adds up: the IPv4 header, and the segment with its pseudo header. Both are 0 when right.
func sumOfPacket(b []byte) (header, segment uint16) {
	pseudo := []byte{0, 6, 0, 20}
	if b[0]>>4 == 4 {
		return checksumOf(b[:20]), checksumOf(b[12:20], pseudo, b[20:])
	}
	return 0, checksumOf(b[8:40], pseudo, b[40:])
}

func TestTicklePacket(t *testing.T) {
	for _, c := range []Connection{
		{netip.MustParseAddrPort("10.77.0.100:3306"), netip.MustParseAddrPort("10.77.0.9:40000")},
		{netip.MustParseAddrPort("[fd77::100]:3306"), netip.MustParseAddrPort("[fd77::9]:40000")},
	} {
		b := ticklePacket(c, 0x80000000)
		tcp, length := b[len(b)-20:], binary.BigEndian.Uint16(b[2:])
		if c.Local.Addr().Is6() {
			length = binary.BigEndian.Uint16(b[4:]) + 40
		}
		if int(length) != len(b) {
			t.Errorf("%v: says %d bytes, has %d", c, length, len(b))
		}
		if ports := binary.BigEndian.Uint32(tcp); ports != 3306<<16|40000 {
			t.Errorf("%v: ports are %#x", c, ports)
		}
		if seq, ack, flags := binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), tcp[13]; seq != 0x80000000 || ack != 0 || flags != tcpACK {
			t.Errorf("%v: seq %#x, ack %#x, flags %#x", c, seq, ack, flags)
		}
		if header, segment := sumOfPacket(b); header != 0 || segment != 0 {
			t.Errorf("%v: checksums are off by %#x and %#x", c, header, segment)
		}
	}
}

// TestTickleSeq: whatever a client's window, at most one attempt can lie in it.
func TestTickleSeq(t *testing.T) {
	for a := range len(tickleOffsets) - 1 {
		for b := range a {
			if d := tickleSeq(a) - tickleSeq(b); min(d, -d) < 1<<30 {
				t.Errorf("attempts %d and %d are %d apart", a, b, d)
			}
		}
	}
	if !slices.IsSorted(tickleOffsets) {
		t.Errorf("offsets are %v", tickleOffsets)
	}
}

func FuzzTicklePacket(f *testing.F) {
	f.Add(vip4.AsSlice(), uint16(3306), client9.AsSlice(), uint16(1), uint32(0))
	f.Add(vip6.AsSlice(), uint16(65535), vip6.AsSlice(), uint16(0), uint32(1<<31))
	f.Add(bytes.Repeat([]byte{0xff}, 16), uint16(0xffff), bytes.Repeat([]byte{0xff}, 16), uint16(0xffff), uint32(0xffffffff))
	f.Fuzz(func(t *testing.T, local []byte, lport uint16, remote []byte, rport uint16, seq uint32) {
		l, ok1 := netip.AddrFromSlice(local)
		r, ok2 := netip.AddrFromSlice(remote)
		if !ok1 || !ok2 || l.Is4() != r.Is4() {
			return
		}
		b := ticklePacket(Connection{netip.AddrPortFrom(l, lport), netip.AddrPortFrom(r, rport)}, seq)
		if header, segment := sumOfPacket(b); header != 0 || segment != 0 {
			t.Fatalf("checksums are off by %#x and %#x: %x", header, segment, b)
		}
		if tcp := b[len(b)-20:]; binary.BigEndian.Uint16(tcp) != lport || binary.BigEndian.Uint16(tcp[2:]) != rport || binary.BigEndian.Uint32(tcp[4:]) != seq {
			t.Fatalf("packet is %x", b)
		}
	})
}

// waiting is a client that waits for an answer without any time limit.
type waiting struct {
	ip    netip.Addr
	ended chan error
}

func (h *host) waitOver(c net.Conn, ip netip.Addr) waiting {
	h.t.Helper()
	check(h.t, c.SetReadDeadline(time.Time{}), "waiting without a limit")
	w := waiting{ip, make(chan error, 1)}
	go func() {
		_, err := c.Read(make([]byte, 1))
		w.ended <- err
	}()
	return w
}

// waits fails unless the client still does.
func (w waiting) waits(t *testing.T, when string) {
	t.Helper()
	select {
	case err := <-w.ended:
		t.Fatalf("the client of %s ended %s: %v", w.ip, when, err)
	default:
	}
}

// freed fails unless the client's read ends with this error.
func (w waiting) freed(t *testing.T, want syscall.Errno) {
	t.Helper()
	select {
	case err := <-w.ended:
		if !errors.Is(err, want) {
			t.Fatalf("the client of %s ended with %v, want %v", w.ip, err, want)
		}
	case <-time.After(waitLimit):
		t.Fatalf("the client of %s still waits", w.ip)
	}
}

// TestTickleFreesClients takes the addresses from a host that vanished under waiting clients.
func TestTickleFreesClients(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	old, client := n.add(2), n.add(9)
	n.self.serve("db1", testPort)
	old.serve("db2", testPort)
	m, _ := newManager(t, testConfig(t))
	var before *Manager
	var list []Connection
	var clients, own []waiting
	old.do(func() {
		before, _ = newManager(t, testConfig(t))
		open(t, before, longLease)
		hold(t, before, true)
	})
	for _, ip := range []netip.Addr{vip4, vip6} {
		clients = append(clients, client.waitOver(client.mustReach(ip, "db2"), ip))
		// One on the host that takes over: its packets to the address will not leave it any more.
		own = append(own, n.self.waitOver(n.self.mustReach(ip, "db2"), ip))
	}
	old.mustReach(vip4, "db2") // comes from the address itself and goes down with it
	old.do(func() {
		var err error
		list, err = before.Connections()
		check(t, err, "listing connections")
	})
	if len(list) != len(clients)+len(own) {
		t.Fatalf("listed %v, want %d", list, len(clients)+len(own))
	}
	if none, err := m.Connections(); err != nil || len(none) != 0 {
		t.Fatalf("the other host lists %v, %v", none, err)
	}
	check(t, old.h.LinkSetDown(old.eth0()), "pulling the plug")
	open(t, m, longLease)
	hold(t, m, true)
	// The control: the client knows the new holder and is served by it, and still nobody told the old connections.
	var served []net.Conn
	for _, ip := range []netip.Addr{vip4, vip6} {
		eventually(t, "neighbour entry of the new holder", func() bool { return bytes.Equal(client.neighbour(ip), n.self.mac()) })
		served = append(served, client.mustReach(ip, "db1"))
	}
	for _, w := range append(clients, own...) {
		w.waits(t, "before anything was done for it")
	}
	mine, err := m.Connections()
	check(t, err, "listing connections")
	if len(mine) != len(served) {
		t.Fatalf("the new holder lists %v, want %d", mine, len(served))
	}
	count, err := m.Tickle(context.Background(), append(list, mine...))
	if err != nil || count != len(list) {
		t.Fatalf("provoked %d, %v; want %d and none of its own", count, err, len(list))
	}
	for _, w := range clients {
		w.freed(t, syscall.ECONNRESET)
	}
	for _, w := range own {
		w.freed(t, syscall.ECONNABORTED)
	}
	for _, c := range served {
		_, err := c.Write([]byte("alive"))
		check(t, err, "writing over a connection that lives")
		if got, err := client.read(c, waitLimit); got != "alive" {
			t.Fatalf("over a connection that lives: %q, %v", got, err)
		}
	}
}

// TestTickleNeedsTheGate: a holder that was held up sends nothing in the address's name.
func TestTickleNeedsTheGate(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	n.add(9)
	m, _ := newManager(t, testConfig(t))
	of := []Connection{{netip.AddrPortFrom(vip4, testPort), netip.AddrPortFrom(client9, 40000)}}
	if _, err := m.Tickle(context.Background(), of); err == nil {
		t.Fatal("without the address: no error")
	}
	hold(t, m, true)
	if count, err := m.Tickle(context.Background(), of); err == nil || count != 0 {
		t.Fatalf("behind a closed gate: provoked %d, %v", count, err)
	}
	open(t, m, longLease)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Tickle(ctx, of); !errors.Is(err, context.Canceled) {
		t.Fatalf("after the end of its context: %v", err)
	}
	foreign := []Connection{{netip.AddrPortFrom(netip.MustParseAddr("10.77.0.50"), testPort), of[0].Remote}}
	if count, err := m.Tickle(context.Background(), foreign); err != nil || count != 0 {
		t.Fatalf("for another's address: provoked %d, %v", count, err)
	}
}

// BenchmarkConnections: what a look at the clients costs; it is taken several times a second.
func BenchmarkConnections(b *testing.B) {
	at := netip.MustParseAddr("127.0.0.100")
	m := &Manager{cfg: Config{Addresses: []Address{{IP: at}, {IP: netip.MustParseAddr("::1")}}}}
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	check(b, err, "listening")
	b.Cleanup(func() { _ = l.Close() })
	have := 0
	for _, clients := range []int{0, 100, 1000} {
		for ; have < clients; have++ {
			c, err := net.Dial("tcp", l.Addr().String())
			check(b, err, "dialling")
			s, err := l.Accept()
			check(b, err, "accepting")
			b.Cleanup(func() { _, _ = c.Close(), s.Close() })
		}
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				got, err := m.Connections()
				if err != nil || len(got) != clients {
					b.Fatalf("listed %d, %v", len(got), err)
				}
			}
		})
	}
}
