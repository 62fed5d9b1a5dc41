package vip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"
)

// Neighbour discovery (RFC 4861) in an IPv6 packet without extension headers.
const (
	ip6HeaderLen    = 40
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndHopLimit      = 255 // a receiver drops anything else: it proves that no router forwarded it
	protoICMPv6     = 58
)

var allNodes = netip.MustParseAddr("ff02::1")

// ndAnnouncement is an unsolicited advertisement to all nodes, with the override flag, so that every
// neighbour replaces what it had.
func ndAnnouncement(ip netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	msg := &ndp.NeighborAdvertisement{
		Override:      true,
		TargetAddress: ip,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	}
	return ndFrame(msg, mac, ip, allNodes)
}

// ndProbe asks who has ip without claiming it: the form of duplicate address detection, from the
// unspecified address, which the holder answers to all nodes.
func ndProbe(ip netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	b := ip.As16()
	// The solicited-node group of the address: ff02::1:ff and its last three bytes.
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	return ndFrame(&ndp.NeighborSolicitation{TargetAddress: ip}, mac, netip.IPv6Unspecified(), group)
}

// ndFrame wraps a message in IPv6 and Ethernet, to the multicast MAC of dst.
func ndFrame(msg ndp.Message, mac net.HardwareAddr, src, dst netip.Addr) ([]byte, error) {
	body, err := ndp.MarshalMessageChecksum(msg, src, dst)
	if err != nil {
		return nil, fmt.Errorf("encoding neighbour discovery for %s: %w", dst, err)
	}
	group := dst.As16()
	b := make([]byte, 0, etherHeaderLen+ip6HeaderLen+len(body))
	b = append(b, 0x33, 0x33, group[12], group[13], group[14], group[15])
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, protoIPv6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, protoICMPv6, ndHopLimit)
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	return append(b, body...), nil
}

// parseNA decodes a frame that is a neighbour advertisement, into the address it claims and the MAC it
// claims it for. The MAC is the option's if there is one, else the frame's.
func parseNA(b []byte) (ip netip.Addr, mac net.HardwareAddr, ok bool) {
	const naLen = 24
	if len(b) < etherHeaderLen+ip6HeaderLen+naLen || binary.BigEndian.Uint16(b[12:]) != protoIPv6 {
		return ip, nil, false
	}
	h := b[etherHeaderLen:]
	payload := int(binary.BigEndian.Uint16(h[4:]))
	if h[0]>>4 != 6 || h[6] != protoICMPv6 || h[7] != ndHopLimit || payload < naLen || payload > len(h)-ip6HeaderLen {
		return ip, nil, false
	}
	body := h[ip6HeaderLen : ip6HeaderLen+payload]
	if body[0] != ndAdvertisement {
		return ip, nil, false
	}
	msg, err := ndp.ParseMessage(body)
	if err != nil {
		return ip, nil, false
	}
	na, isNA := msg.(*ndp.NeighborAdvertisement)
	if !isNA {
		return ip, nil, false
	}
	mac = append(net.HardwareAddr(nil), b[6:12]...)
	for _, o := range na.Options {
		if l, isMAC := o.(*ndp.LinkLayerAddress); isMAC && l.Direction == ndp.Target {
			mac = l.Addr
		}
	}
	return na.TargetAddress, mac, true
}
