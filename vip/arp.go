package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// ARP over Ethernet (RFC 826): an Ethernet header and 28 bytes for IPv4.
const (
	etherHeaderLen = 14
	arpLen         = 28
	arpRequest     = 1
	arpReply       = 2
)

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arpPacket is the content of one ARP packet.
type arpPacket struct {
	op        uint16
	senderMAC net.HardwareAddr
	senderIP  netip.Addr
	targetMAC net.HardwareAddr
	targetIP  netip.Addr
}

// frame encodes p for broadcast.
func (p arpPacket) frame() []byte {
	b := make([]byte, 0, etherHeaderLen+arpLen)
	b = append(b, broadcastMAC...)
	b = append(b, p.senderMAC...)
	b = binary.BigEndian.AppendUint16(b, protoARP)
	b = append(b, 0, 1, 8, 0, 6, 4) // Ethernet, IPv4, and the lengths of their addresses
	b = binary.BigEndian.AppendUint16(b, p.op)
	b = append(b, p.senderMAC...)
	b = append(b, p.senderIP.AsSlice()...)
	b = append(b, p.targetMAC...)
	return append(b, p.targetIP.AsSlice()...)
}

// parseARP decodes an Ethernet frame. It returns false for anything but ARP for IPv4 over Ethernet. The
// frame comes from the network: every length is checked, those it claims too.
func parseARP(b []byte) (arpPacket, bool) {
	if len(b) < etherHeaderLen+arpLen || binary.BigEndian.Uint16(b[12:]) != protoARP {
		return arpPacket{}, false
	}
	a := b[etherHeaderLen:]
	if [6]byte(a[:6]) != [6]byte{0, 1, 8, 0, 6, 4} {
		return arpPacket{}, false
	}
	return arpPacket{
		op:        binary.BigEndian.Uint16(a[6:]),
		senderMAC: append(net.HardwareAddr(nil), a[8:14]...),
		senderIP:  netip.AddrFrom4([4]byte(a[14:18])),
		targetMAC: append(net.HardwareAddr(nil), a[18:24]...),
		targetIP:  netip.AddrFrom4([4]byte(a[24:28])),
	}, true
}

// arpAnnouncements are the two gratuitous forms. Linux takes the request at once; it ignores a reply for
// a second after an entry's last update unless the target MAC equals the sender's, and others want the
// reply: so both are sent, the reply with the sender's MAC as target.
func arpAnnouncements(ip netip.Addr, mac net.HardwareAddr) [][]byte {
	p := arpPacket{op: arpRequest, senderMAC: mac, senderIP: ip, targetMAC: make(net.HardwareAddr, 6), targetIP: ip}
	request := p.frame()
	p.op, p.targetMAC = arpReply, mac
	return [][]byte{request, p.frame()}
}

// arpProbe asks who has ip without claiming it (RFC 5227: the sender's address is 0.0.0.0).
func arpProbe(ip netip.Addr, mac net.HardwareAddr) []byte {
	return arpPacket{
		op: arpRequest, senderMAC: mac, senderIP: netip.IPv4Unspecified(),
		targetMAC: make(net.HardwareAddr, 6), targetIP: ip,
	}.frame()
}
