package vip

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the sets. The open sets hold the lease: one element per address and one for the server's port,
// all with the same timeout, renewed in one transaction.
const (
	setOpen4    = "open4"      // IPv4 addresses whose gate is open
	setOpen6    = "open6"      // IPv6 addresses whose gate is open
	setOpenPort = "open_port"  // the server's port while the lease lives: the lease even without addresses
	setCovered  = "covered"    // the server's port while the gate covers the host's own addresses
	setMember4  = "members4"   // hosts that pass a covered port
	setMember6  = "members6"   //
	setBlocked4 = "blocked4"   // hosts cut off from the server's ports
	setBlocked6 = "blocked6"   //
	setGuard    = "guard"      // single-use elements that bound how late a write may reach the kernel
	chainIn     = "in"         // input hook
	chainOut    = "out"        // output hook
	chainIn6    = "in6"        // the same for IPv6
	chainOut6   = "out6"       //
	chainARP    = "arp_out"    // ARP output hook
	chainEgress = "egress"     // prefix of the egress chains, one per interface
	reg         = uint32(1)    // the register every expression uses: 16 bytes
	protoARP    = uint16(2054) // EtherTypes
	protoIPv6   = uint16(34525)
)

// Chains without a hook: what becomes of packets that are in question. Nearly all are not, and each rule that those pass costs every commit.
const (
	chainBlockedIn  = "blocked_in"  // from a host cut off
	chainBlockedOut = "blocked_out" // to one
	chainClosedTo   = "closed_to"   // to an address whose gate is closed
	chainClosedFrom = "closed_from" // from one
	chainCoveredIn  = "covered_in"  // to a covered port without a lease
	chainCoveredOut = "covered_out" // from one
)

// ruleset is everything the gate installs. It is built from the configuration alone, so two processes
// with the same configuration agree on its fingerprint.
type ruleset struct {
	tables []table
	hash   string // over all of it: a table with another hash is not ours to adopt
}

type table struct {
	family byte
	name   string
	sets   []set
	chains []chain
}

type set struct {
	name    string
	keyType uint32 // as the nft tool numbers types, so that it lists them readably
	keyLen  uint32
	timeout bool
}

type chain struct {
	name     string
	isBase   bool // has a hook; others are only jumped to
	hook     uint32
	priority int32
	device   string // netdev family only
	rules    [][]expr.Any
}

// Key types of the nft tool.
const (
	typeIPv4, typeIPv6, typeService, typeMark = 7, 8, 13, 19
)

var (
	familyINet   = byte(unix.NFPROTO_INET)
	familyARP    = byte(unix.NFPROTO_ARP)
	familyNetdev = byte(unix.NFPROTO_NETDEV)
)

// buildRuleset describes the gate. Ports are the database ports that a block covers, the server's own
// first. Without egress support the netdev table is left out.
func buildRuleset(name string, addrs []Address, ports []uint16, egress bool) (ruleset, error) {
	rs := ruleset{tables: []table{inetTable(name, addrs, ports), arpTable(name, addrs)}}
	if egress && len(addrs) > 0 {
		rs.tables = append(rs.tables, netdevTable(name, addrs))
	}
	h := sha256.New()
	for _, t := range rs.tables {
		fmt.Fprintf(h, "%d %s %+v\n", t.family, t.name, t.sets)
		for _, c := range t.chains {
			fmt.Fprintf(h, "%s %t %d %d %s\n", c.name, c.isBase, c.hook, c.priority, c.device)
			for _, r := range c.rules {
				b, err := marshalRule(t.family, r)
				if err != nil {
					return ruleset{}, err
				}
				h.Write(b)
			}
		}
	}
	rs.hash = hex.EncodeToString(h.Sum(nil)[:8])
	return rs, nil
}

// marshalRule encodes the expressions of one rule as a list of attributes.
func marshalRule(family byte, exprs []expr.Any) (attrs, error) {
	var list attrs
	for _, e := range exprs {
		b, err := expr.Marshal(family, e)
		if err != nil {
			return nil, fmt.Errorf("encoding nftables expression %T: %w", e, err)
		}
		list = list.nest(unix.NFTA_LIST_ELEM, b)
	}
	return list, nil
}

func inetTable(name string, addrs []Address, ports []uint16) table {
	t := table{family: familyINet, name: name, sets: []set{
		{setOpen4, typeIPv4, 4, true}, {setOpen6, typeIPv6, 16, true}, {setOpenPort, typeService, 2, true},
		{setCovered, typeService, 2, false}, {setMember4, typeIPv4, 4, false}, {setMember6, typeIPv6, 16, false},
		{setBlocked4, typeIPv4, 4, false}, {setBlocked6, typeIPv6, 16, false}, {setGuard, typeMark, 4, true},
	}}
	// Before connection tracking and address translation: what they do with a packet must not matter.
	const raw = -300
	// Every packet of the host passes these. Those of IPv6 are sent aside by one rule, and no other asks for the version again.
	in4, out4 := passed(ipv4, addrs)
	in6, out6 := passed(ipv6, addrs)
	t.chains = append(questionedChains(ports), chain{name: chainIn6, rules: in6}, chain{name: chainOut6, rules: out6},
		chain{name: chainIn, isBase: true, hook: unix.NF_INET_LOCAL_IN, priority: raw,
			rules: append([][]expr.Any{join(ipv6.match(), goTo(chainIn6))}, in4...)},
		chain{name: chainOut, isBase: true, hook: unix.NF_INET_LOCAL_OUT, priority: raw,
			rules: append([][]expr.Any{join(ipv6.match(), goTo(chainOut6))}, out4...)})
	return t
}

// passed are the rules that every packet of an IP version passes, in and out.
func passed(fam ipFamily, addrs []Address) (in, out [][]expr.Any) {
	in = append(in, join(fam.inSet(fam.src, fam.blocked, false), jump(chainBlockedIn)))
	out = append(out, join(fam.inSet(fam.dst, fam.blocked, false), jump(chainBlockedOut)))
	for _, a := range addrs {
		if familyOf(a.IP).proto != fam.proto {
			continue
		}
		to := join(equal(fam.dst, a.IP.AsSlice()), fam.inSet(fam.dst, fam.open, true), jump(chainClosedTo))
		from := join(equal(fam.src, a.IP.AsSlice()), fam.inSet(fam.src, fam.open, true), jump(chainClosedFrom))
		in = append(in, to)
		// A client on this host: its own packets would otherwise be dropped below, as they come from
		// the address too. Only a host that has the address sends to it over the loopback.
		out = append(out, join(outputLoopback(), to), from)
	}
	// Not only TCP has ports there: the chain asks.
	in = append(in, join(portDst.load(), lookup(setCovered, false), lookup(setOpenPort, true), jump(chainCoveredIn)))
	// What was asked for in time must not be answered late: a commit may end after the lease.
	out = append(out, join(portSrc.load(), lookup(setCovered, false), lookup(setOpenPort, true), jump(chainCoveredOut)))
	return in, out
}

// questionedChains judge packets of blocked hosts, closed addresses and covered ports. Whatever they let pass goes on to the next rule.
func questionedChains(ports []uint16) []chain {
	// A reset only ends connections: it passes everywhere, first, or the gate's own resets would be
	// stopped by its other chain.
	reset := join(tcpReset(), verdict(expr.VerdictAccept))
	drop := verdict(expr.VerdictDrop)
	blockedIn, blockedOut := [][]expr.Any{reset}, [][]expr.Any{reset}
	for _, p := range ports {
		blockedIn = append(blockedIn, join(tcpPort(portDst, p), reject()), join(tcpPort(portSrc, p), reject()))
		// What this host asks of a blocked one is refused at once. What it answers is dropped: a reset would end
		// the socket on this side alone, and nobody tell the other until its own timeout; SeverPeer tells it.
		blockedOut = append(blockedOut, join(tcpPort(portDst, p), reject()), join(tcpPort(portSrc, p), drop))
	}
	coveredIn, coveredOut := [][]expr.Any{reset}, [][]expr.Any{reset}
	for _, fam := range []ipFamily{ipv4, ipv6} {
		coveredIn = append(coveredIn, join(fam.match(), tcp(), fam.inSet(fam.src, fam.member, true), reject()))
		coveredOut = append(coveredOut, join(fam.match(), tcp(), fam.inSet(fam.dst, fam.member, true), reject()))
	}
	return []chain{
		{name: chainBlockedIn, rules: blockedIn},
		{name: chainBlockedOut, rules: blockedOut},
		{name: chainClosedTo, rules: [][]expr.Any{reset, join(tcp(), reject()), drop}},
		{name: chainClosedFrom, rules: [][]expr.Any{reset, drop}},
		{name: chainCoveredIn, rules: coveredIn},
		{name: chainCoveredOut, rules: coveredOut},
	}
}

// arpTable stops every ARP packet of the kernel's that has a closed address as its sender: a request
// moves the neighbours' entries just as an answer does.
func arpTable(name string, addrs []Address) table {
	const hookARPOut = 1
	t := table{family: familyARP, name: name, sets: []set{{setOpen4, typeIPv4, 4, true}}}
	var rules [][]expr.Any
	for _, a := range addrs {
		if a.IP.Is4() {
			rules = append(rules, join(equal(arpSender, a.IP.AsSlice()), lookup(setOpen4, true), verdict(expr.VerdictDrop)))
		}
	}
	t.chains = []chain{{name: chainARP, isBase: true, hook: hookARPOut, rules: rules}}
	return t
}

// netdevTable stops the same at the interface, where frames from packet sockets pass too, and the
// neighbour discovery of IPv6.
func netdevTable(name string, addrs []Address) table {
	t := table{family: familyNetdev, name: name, sets: []set{{setOpen4, typeIPv4, 4, true}, {setOpen6, typeIPv6, 16, true}}}
	byDevice := map[string]int{}
	for _, a := range addrs {
		i, ok := byDevice[a.Interface]
		if !ok {
			i = len(t.chains)
			byDevice[a.Interface] = i
			t.chains = append(t.chains, chain{
				name: fmt.Sprintf("%s%d", chainEgress, i), isBase: true, hook: unix.NF_NETDEV_EGRESS, device: a.Interface,
			})
		}
		t.chains[i].rules = append(t.chains[i].rules, egressRules(a.IP)...)
	}
	return t
}

func egressRules(ip netip.Addr) [][]expr.Any {
	b, drop := ip.AsSlice(), verdict(expr.VerdictDrop)
	if ip.Is4() {
		return [][]expr.Any{join(etherType(protoARP), equal(arpSender, b), lookup(setOpen4, true), drop)}
	}
	closed := lookup(setOpen6, true)
	nd := func(typ byte) []expr.Any {
		return join(etherType(protoIPv6), equal(ip6NextHeader, []byte{unix.IPPROTO_ICMPV6}), equal(ndType, []byte{typ}))
	}
	return [][]expr.Any{
		join(nd(ndSolicitation), equal(ipv6.src, b), closed, drop),
		join(nd(ndAdvertisement), equal(ipv6.src, b), closed, drop),
		join(nd(ndAdvertisement), equal(ndTarget, b), closed, drop),
	}
}

// ipFamily holds what differs between the two IP versions.
type ipFamily struct {
	proto                 byte
	src, dst              field
	open, blocked, member string
}

var (
	ipv4 = ipFamily{unix.NFPROTO_IPV4, field{expr.PayloadBaseNetworkHeader, 12, 4}, field{expr.PayloadBaseNetworkHeader, 16, 4}, setOpen4, setBlocked4, setMember4}
	ipv6 = ipFamily{unix.NFPROTO_IPV6, field{expr.PayloadBaseNetworkHeader, 8, 16}, field{expr.PayloadBaseNetworkHeader, 24, 16}, setOpen6, setBlocked6, setMember6}
)

func familyOf(ip netip.Addr) ipFamily {
	if ip.Is4() {
		return ipv4
	}
	return ipv6
}

func (f ipFamily) match() []expr.Any { return meta(expr.MetaKeyNFPROTO, []byte{f.proto}) }

func (f ipFamily) inSet(fd field, name string, invert bool) []expr.Any {
	return join(fd.load(), lookup(name, invert))
}

// field is a place in a packet.
type field struct {
	base        expr.PayloadBase
	offset, len uint32
}

var (
	arpSender     = field{expr.PayloadBaseNetworkHeader, 14, 4} // after types, lengths, operation and sender MAC
	ip6NextHeader = field{expr.PayloadBaseNetworkHeader, 6, 1}
	ndType        = field{expr.PayloadBaseNetworkHeader, 40, 1} // neighbour discovery has no extension headers
	ndTarget      = field{expr.PayloadBaseNetworkHeader, 48, 16}
	portSrc       = field{expr.PayloadBaseTransportHeader, 0, 2}
	portDst       = field{expr.PayloadBaseTransportHeader, 2, 2}
	tcpFlags      = field{expr.PayloadBaseTransportHeader, 13, 1}
)

func (f field) load() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: f.base, Offset: f.offset, Len: f.len}}
}

func equal(f field, want []byte) []expr.Any {
	return join(f.load(), []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: want}})
}

func meta(key expr.MetaKey, want []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: want}}
}

func etherType(p uint16) []expr.Any {
	return meta(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, p))
}

func outputLoopback() []expr.Any {
	const arphrdLoopback = 772
	return meta(expr.MetaKeyOIFTYPE, binary.NativeEndian.AppendUint16(nil, arphrdLoopback))
}

func tcp() []expr.Any { return meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}) }

func tcpPort(f field, port uint16) []expr.Any {
	return join(tcp(), equal(f, binary.BigEndian.AppendUint16(nil, port)))
}

// tcpReset matches packets with the RST flag set.
func tcpReset() []expr.Any {
	return join(tcp(), tcpFlags.load(), []expr.Any{
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{0x04}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{0}},
	})
}

func lookup(set string, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: set, Invert: invert}}
}

func reject() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// goTo is a jump that does not come back: what the chain lets pass meets the hook's policy.
func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
