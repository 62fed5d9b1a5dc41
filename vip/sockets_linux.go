package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Messages and states of sock_diag (linux/sock_diag.h, linux/inet_diag.h).
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	tcpDiagGetSock   = 18
	tcpTimeWait      = 6
	tcpListen        = 10
	// diagStates are the states to list: all of a connection but TIME_WAIT (6), without CLOSE (7), LISTEN
	// (10) and the bound but unconnected ones, which would make the kernel walk further tables.
	diagStates    = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11 | 1<<12
	diagReqLen    = 56
	oldDiagReqLen = 60
	diagMsgLen    = 72
)

// tcpSocket is one TCP socket of this host.
type tcpSocket struct {
	local, remote netip.AddrPort // an IPv4 address in an IPv6 socket is shown as IPv4
	family        byte
	id            [48]byte // the kernel's own identification, with its cookie, handed back to destroy it
}

// destroySockets aborts every TCP connection that match accepts: the local end sees ECONNABORTED and the
// peer gets a reset. Listeners are left alone. It returns how many were destroyed.
func destroySockets(match func(tcpSocket) bool) (int, error) {
	sock, err := dialNetlink(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	n, err := destroyOver(sock, match)
	return n, errors.Join(err, sock.close())
}

func destroyOver(sock *nlSocket, match func(tcpSocket) bool) (int, error) {
	found, err := listSockets(sock, socketQuestions(), match)
	if err != nil {
		return 0, fmt.Errorf("listing TCP sockets: %w", err)
	}
	count := 0
	var errs []error
	for _, s := range found {
		req := nlMessage{typ: sockDestroy, flags: unix.NLM_F_REQUEST, data: diagRequest(s.family, s.id[:])}
		err := sock.execute([]nlMessage{req}, 0)
		switch {
		case err == nil:
			count++
		case errors.Is(err, unix.ENOENT): // It ended meanwhile.
		default:
			errs = append(errs, fmt.Errorf("destroying socket %s to %s: %w", s.local, s.remote, err))
		}
	}
	return count, errors.Join(errs...)
}

// socketQuestions are the ways to ask for all connections, in the order in which they are tried. The kernel walks its whole table for each question,
// for half a millisecond and more, and only the older form is about both families at once (inet_diag_dump_compat). Where that is not to be had there
// are two questions.
func socketQuestions() [][]nlMessage {
	return [][]nlMessage{
		{{typ: tcpDiagGetSock, data: oldDiagRequest()}},
		{{typ: sockDiagByFamily, data: diagRequest(unix.AF_INET, nil)}, {typ: sockDiagByFamily, data: diagRequest(unix.AF_INET6, nil)}},
	}
}

// listSockets returns those that match accepts, by the first way that the kernel knows.
func listSockets(sock *nlSocket, ways [][]nlMessage, match func(tcpSocket) bool) (found []tcpSocket, err error) {
	for _, questions := range ways {
		if found, err = askAll(sock, questions, match); err == nil {
			return found, nil
		}
	}
	return nil, err
}

func askAll(sock *nlSocket, questions []nlMessage, match func(tcpSocket) bool) (found []tcpSocket, err error) {
	for _, q := range questions {
		some, err := askSockets(sock, q, match)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

func askSockets(sock *nlSocket, question nlMessage, match func(tcpSocket) bool) (found []tcpSocket, err error) {
	err = sock.dump(question, func(_ uint16, data []byte) error {
		if s, ok := parseSocket(data); ok && match(s) {
			found = append(found, s)
		}
		return nil
	})
	// A dump of sockets is never of one instant: whoever must be sure looks again.
	if errors.Is(err, errDumpInterrupted) {
		err = nil
	}
	return found, err
}

// oldDiagRequest encodes an inet_diag_req (linux/inet_diag.h) that lists connections of both families.
func oldDiagRequest() []byte {
	b := make([]byte, oldDiagReqLen)
	binary.NativeEndian.PutUint32(b[4+48:], diagStates)
	return b
}

// diagRequest encodes an inet_diag_req_v2: for a dump without an id, for a destroy with one.
func diagRequest(family byte, id []byte) []byte {
	b := make([]byte, diagReqLen)
	b[0], b[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], diagStates)
	copy(b[8:], id)
	return b
}

// parseSocket decodes an inet_diag_msg.
func parseSocket(b []byte) (tcpSocket, bool) {
	if len(b) < diagMsgLen {
		return tcpSocket{}, false
	}
	s := tcpSocket{family: b[0]}
	if state := b[1]; state == tcpListen || state == tcpTimeWait {
		return tcpSocket{}, false
	}
	copy(s.id[:], b[4:52])
	addr := func(b []byte) netip.Addr {
		if s.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	s.local = netip.AddrPortFrom(addr(s.id[4:20]), binary.BigEndian.Uint16(s.id[0:]))
	s.remote = netip.AddrPortFrom(addr(s.id[20:36]), binary.BigEndian.Uint16(s.id[2:]))
	return s, true
}

// Sever destroys every TCP connection whose local address is one of the manager's. It returns how many.
func (m *Manager) Sever() (int, error) {
	mine := m.mine()
	return destroySockets(func(s tcpSocket) bool { return mine[s.local.Addr()] })
}

// mine are the manager's addresses.
func (m *Manager) mine() map[netip.Addr]bool {
	mine := map[netip.Addr]bool{}
	for _, a := range m.cfg.Addresses {
		mine[a.IP] = true
	}
	return mine
}

// SeverPeer destroys TCP connections with a peer, in both directions: those to or from remote's address
// whose remote port is remote's port and whose local port is localPort. A port of 0 stands for any.
// A replica's IO thread is found as (0, source:3306), a vanished replica's dump threads as
// (3306, replica:0).
func (m *Manager) SeverPeer(localPort uint16, remote netip.AddrPort) (int, error) {
	peer := remote.Addr().Unmap().WithZone("")
	return destroySockets(func(s tcpSocket) bool {
		return s.remote.Addr() == peer &&
			(remote.Port() == 0 || s.remote.Port() == remote.Port()) &&
			(localPort == 0 || s.local.Port() == localPort)
	})
}
