package vip

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Connection is one TCP connection of a client to an address.
type Connection struct {
	Local  netip.AddrPort // the virtual address and the server's port
	Remote netip.AddrPort // the client
}

// tickleOffsets are the instants at which a connection is provoked. The second covers a lost packet; the third
// an answer that went to the old holder's MAC, and comes later because a Linux client answers only one packet
// outside its window per half second (net.ipv4.tcp_invalid_ratelimit); the last two, a network that is still
// learning where the address is.
var tickleOffsets = []time.Duration{0, 100 * time.Millisecond, 650 * time.Millisecond, 1300 * time.Millisecond, 3 * time.Second}

const (
	ip4HeaderLen = 20
	tcpHeaderLen = 20
	tcpACK       = 0x10
	tickleTTL    = 64
	tickleWindow = 1024 // of no meaning: the connection is dead
)

// tickleSeq is the sequence number of an attempt. One that happens to lie within the client's window is
// ignored instead of answered, so the attempts lie a quarter of the space apart: no window is that wide.
func tickleSeq(attempt int) uint32 { return uint32(attempt) << 30 }

// ticklePacket is a bare ACK from one end of a connection to the other, an IP packet of their family. The
// receiver must answer one outside its window with an ACK that says what it expects (RFC 9293, 3.10.7.4). A
// host that does not have the connection resets it then with a sequence number that the receiver accepts. A
// connection that lives is not harmed by it. Both addresses must be of one family.
func ticklePacket(c Connection, seq uint32) []byte {
	tcp := make([]byte, tcpHeaderLen)
	binary.BigEndian.PutUint16(tcp[0:], c.Local.Port())
	binary.BigEndian.PutUint16(tcp[2:], c.Remote.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = tcpHeaderLen/4<<4, tcpACK
	binary.BigEndian.PutUint16(tcp[14:], tickleWindow)
	src, dst := c.Local.Addr().AsSlice(), c.Remote.Addr().AsSlice()
	sum := checksumOf(src, dst, []byte{0, unix.IPPROTO_TCP, 0, tcpHeaderLen}, tcp) // the pseudo header's fields
	binary.BigEndian.PutUint16(tcp[16:], sum)
	var ip []byte
	if c.Local.Addr().Is4() {
		const dontFragment = 0x40
		ip = []byte{0x45, 0, 0, ip4HeaderLen + tcpHeaderLen, 0, 0, dontFragment, 0, tickleTTL, unix.IPPROTO_TCP, 0, 0}
		binary.BigEndian.PutUint16(ip[10:], checksumOf(ip, src, dst))
	} else {
		ip = []byte{0x60, 0, 0, 0, 0, tcpHeaderLen, unix.IPPROTO_TCP, tickleTTL}
	}
	return append(append(append(ip, src...), dst...), tcp...)
}

// checksumOf is the Internet checksum (RFC 1071) over parts, each of an even length.
func checksumOf(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
