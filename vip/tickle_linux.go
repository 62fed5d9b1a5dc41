package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// clientStates are those of a connection whose client may be waiting: SYN_RECV too, as the client may have
	// taken the handshake for finished, and CLOSE_WAIT, as a client may close one direction only.
	clientStates = 1<<1 | 1<<3 | 1<<4 | 1<<8
	// diagBytecode and the rest: a filter that the kernel applies to a dump (linux/inet_diag.h).
	diagBytecode   = 1 // INET_DIAG_REQ_BYTECODE
	diagSourceCond = 7 // INET_DIAG_BC_S_COND
	diagOpLen      = 4
	diagCondLen    = 8
	diagAnyPort    = 0xffffffff
)

// Connections lists the clients' connections to the manager's addresses on this host, in no order. The list is
// never of one instant. Clients on this host that come from such an address themselves are not in it: they go
// down with it.
func (m *Manager) Connections() ([]Connection, error) {
	mine := m.mine()
	sock, err := dialNetlink(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	var out []Connection
	for _, a := range m.cfg.Addresses {
		families := []byte{unix.AF_INET6}
		if a.IP.Is4() { // A server that listens on both has its IPv4 clients in IPv6 sockets.
			families = []byte{unix.AF_INET, unix.AF_INET6}
		}
		for _, family := range families {
			err = sock.dump(nlMessage{typ: sockDiagByFamily, data: clientRequest(family, a.IP)}, func(_ uint16, data []byte) error {
				if s, ok := parseSocket(data); ok && s.local.Addr() == a.IP && !mine[s.remote.Addr()] {
					out = append(out, Connection{s.local, s.remote})
				}
				return nil
			})
			if err != nil && !errors.Is(err, errDumpInterrupted) {
				return nil, errors.Join(fmt.Errorf("listing the clients of %s: %w", a.IP, err), sock.close())
			}
		}
	}
	return out, sock.close()
}

// clientRequest asks for the connections whose local address is ip, so that the kernel need not tell of others.
func clientRequest(family byte, ip netip.Addr) []byte {
	b := diagRequest(family, nil)
	binary.NativeEndian.PutUint32(b[4:], clientStates)
	addr := ip.AsSlice()
	length := diagOpLen + diagCondLen + len(addr)
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+length))
	b = binary.NativeEndian.AppendUint16(b, diagBytecode)
	// One condition: met, go on to the end and accept; not met, beyond the end and refuse.
	b = append(b, diagSourceCond, byte(length))
	b = binary.NativeEndian.AppendUint16(b, uint16(length+diagOpLen))
	condFamily := byte(unix.AF_INET6)
	if ip.Is4() {
		condFamily = unix.AF_INET
	}
	b = append(b, condFamily, byte(ip.BitLen()), 0, 0)
	b = binary.NativeEndian.AppendUint32(b, diagAnyPort)
	return append(b, addr...)
}

// Tickle makes the clients of the old holder notice that their connections are dead: each is sent a bare ACK
// from the address, the client's kernel answers, and this host, which does not have the connection, resets it.
// It is repeated for about three seconds or until ctx ends, and returns how many connections were provoked.
// The addresses must be held and the gate open: a closed one stops the packets, and Tickle with an error.
// Connections that this host serves are left alone; those of its own programs are destroyed instead.
func (m *Manager) Tickle(ctx context.Context, conns []Connection) (int, error) {
	if breakTickle {
		return 0, nil
	}
	t := &tickler{m: m, raw: map[netip.Addr]rawSocket{}, done: map[Connection]bool{}}
	err := t.run(ctx, conns)
	return len(t.done), errors.Join(err, t.close())
}

// tickler is one call of Tickle.
type tickler struct {
	m      *Manager
	raw    map[netip.Addr]rawSocket
	done   map[Connection]bool // those provoked or destroyed
	failed error               // why one of them could not be, at the last attempt
	misses int
}

// rawSocket sends whole IP packets from one address.
type rawSocket struct {
	fd   int
	zone uint32 // interface of the address, for clients with a link-local one
}

// tickleBatch packets are sent in a row, then tickleRest is left for the neighbours to be found and the queues
// to drain: the kernel keeps few packets for a neighbour whose MAC it does not know yet.
const (
	tickleBatch = 200
	tickleRest  = 2 * time.Millisecond
)

func (t *tickler) run(ctx context.Context, conns []Connection) error {
	if err := t.open(); err != nil {
		return err
	}
	start := Now()
	for attempt, offset := range tickleOffsets {
		if err := t.wait(ctx, start+offset-Now()); err != nil {
			return err
		}
		left, err := t.sortOut(conns)
		if err != nil {
			return err
		}
		if err := t.provoke(ctx, left, tickleSeq(attempt)); err != nil {
			return err
		}
	}
	if t.misses > 0 {
		return fmt.Errorf("%d connections could not be provoked at the last attempt, one of them because of: %w", t.misses, t.failed)
	}
	return nil
}

// wait returns early with an error when ctx ends or the manager stops.
func (t *tickler) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-t.m.quit:
		return ErrStopped
	}
}

func (t *tickler) open() error {
	for _, a := range t.m.cfg.Addresses {
		link, err := t.m.links.find(a.Interface)
		if err != nil {
			return err
		}
		fd, err := openRaw(a.IP)
		if err != nil {
			return fmt.Errorf("opening a raw socket at %s: %w", a.IP, err)
		}
		t.raw[a.IP] = rawSocket{fd, uint32(link.index)}
	}
	return nil
}

// openRaw makes a socket for whole packets, bound to the address so that rules of routing by source apply.
// With the protocol IPPROTO_RAW it receives nothing and the header is the caller's, for IPv6 as well.
func openRaw(ip netip.Addr) (int, error) {
	family := unix.AF_INET
	var at unix.Sockaddr
	if ip.Is4() {
		at = &unix.SockaddrInet4{Addr: ip.As4()}
	} else {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Addr: ip.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, at); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (t *tickler) close() error {
	var errs []error
	for _, s := range t.raw {
		errs = append(errs, unix.Close(s.fd))
	}
	return errors.Join(errs...)
}

// sortOut returns the connections that must be provoked over the network: not those that this host serves, and
// not those of its own programs, which it destroys, as their packets would not leave it.
func (t *tickler) sortOut(conns []Connection) ([]Connection, error) {
	wanted := make(map[Connection]bool, len(conns))
	for _, c := range conns {
		if _, mine := t.raw[c.Local.Addr()]; mine && c.Remote.IsValid() && c.Remote.Addr().Is4() == c.Local.Addr().Is4() {
			wanted[c] = true
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	served, err := t.m.Connections()
	if err != nil {
		return nil, err
	}
	for _, c := range served {
		delete(wanted, c)
	}
	destroyed := map[Connection]bool{}
	_, err = destroySockets(func(s tcpSocket) bool {
		c := Connection{Local: s.remote, Remote: s.local}
		if !wanted[c] {
			return false
		}
		destroyed[c] = true
		return true
	})
	left := make([]Connection, 0, len(wanted))
	for c := range wanted {
		if destroyed[c] {
			t.done[c] = true
		} else {
			left = append(left, c)
		}
	}
	return left, err
}

// provoke sends one packet for each connection. One that cannot be sent is tried again at the next attempt; only
// the closed gate ends it all.
func (t *tickler) provoke(ctx context.Context, conns []Connection, seq uint32) error {
	t.misses = 0
	for i, c := range conns {
		if i > 0 && i%tickleBatch == 0 {
			if err := t.wait(ctx, tickleRest); err != nil {
				return err
			}
		}
		switch err := t.raw[c.Local.Addr()].send(c, seq); {
		case err == nil:
			t.done[c] = true
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("the gate is closed: %w", err)
		default:
			t.misses++
			t.failed = fmt.Errorf("sending to %s: %w", c.Remote, err)
		}
	}
	return nil
}

func (s rawSocket) send(c Connection, seq uint32) error {
	to := c.Remote.Addr()
	var at unix.Sockaddr
	if to.Is4() {
		at = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		in6 := &unix.SockaddrInet6{Addr: to.As16()}
		if to.IsLinkLocalUnicast() {
			in6.ZoneId = s.zone
		}
		at = in6
	}
	return unix.Sendto(s.fd, ticklePacket(c, seq), unix.MSG_DONTWAIT, at)
}
