package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	inetDiagInfo = 2   // attribute with a struct tcp_info (linux/inet_diag.h)
	offReceived  = 128 // of tcpi_bytes_received in it (linux/tcp.h, since Linux 4.1)
	// tcpEstablished is the state of a connection that neither side has closed: the other side's FIN counts as a byte.
	tcpEstablished = 1
)

// Inbound is a TCP connection to a port of this host.
type Inbound struct {
	Remote netip.AddrPort
	// Received is how many bytes have arrived over it (tcpi_bytes_received).
	Received uint64
}

// Inbound lists the connections to a local port that neither side has closed.
func (m *Manager) Inbound(localPort uint16) (list []Inbound, err error) {
	sock, err := dialNetlink(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sock.close()) }()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := diagRequest(family, nil)
		req[2] = 1 << (inetDiagInfo - 1)
		binary.BigEndian.PutUint16(req[8:], localPort)
		err := sock.dump(nlMessage{typ: sockDiagByFamily, data: req}, func(_ uint16, data []byte) error {
			s, ok := parseSocket(data)
			if !ok || s.local.Port() != localPort || data[1] != tcpEstablished {
				return nil
			}
			if n, ok := bytesReceived(data[diagMsgLen:]); ok {
				list = append(list, Inbound{s.remote, n})
			}
			return nil
		})
		if err != nil && !errors.Is(err, errDumpInterrupted) {
			return nil, fmt.Errorf("listing the connections to port %d: %w", localPort, err)
		}
	}
	return list, nil
}

// bytesReceived reads the attributes that follow an inet_diag_msg.
func bytesReceived(b []byte) (uint64, bool) {
	for len(b) >= unix.SizeofNlAttr {
		n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofNlAttr || n > len(b) {
			return 0, false
		}
		if info := b[unix.SizeofNlAttr:n]; typ == inetDiagInfo && len(info) >= offReceived+8 {
			return binary.NativeEndian.Uint64(info[offReceived:]), true
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return 0, false
}
