package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// links changes addresses over one rtnetlink socket of the namespace it was made in.
type links struct {
	h *netlink.Handle

	mu      sync.Mutex
	changes uint64         // of links and addresses that this process made or was told of
	cut     map[int]bool   // interfaces by index that were heard to be without a link since wasCut
	downs   map[int]uint32 // how often each has lost its carrier
	seen    map[string]glance[linkState]
}

// linkState is what the manager needs to know of an interface.
type linkState struct {
	index     int
	mac       net.HardwareAddr
	up        bool // administratively up and with a carrier
	addresses []netip.Prefix
}

func newLinks() (*links, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink socket: %w", err)
	}
	return &links{h: h, cut: map[int]bool{}, downs: map[int]uint32{}, seen: map[string]glance[linkState]{}}, nil
}

func (l *links) close() { l.h.Close() }

// find reads index, MAC and state of an interface.
func (l *links) find(name string) (linkState, error) {
	link, err := l.h.LinkByName(name)
	if err != nil {
		return linkState{}, fmt.Errorf("finding interface %s: %w", name, err)
	}
	a := link.Attrs()
	return linkState{index: a.Index, mac: a.HardwareAddr, up: a.Flags&net.FlagUp != 0 && !noLink(a.OperState)}, nil
}

// noLink: a veth or a dummy may report its state as unknown, so only "down" kinds count as down.
func noLink(s netlink.LinkOperState) bool {
	return s == netlink.OperDown || s == netlink.OperLowerLayerDown || s == netlink.OperNotPresent
}

// read is find with the addresses of the interface.
func (l *links) read(name string) (linkState, error) {
	st, err := l.find(name)
	if err != nil {
		return st, err
	}
	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name, Index: st.index}}
	list, err := l.h.AddrList(dummy, netlink.FAMILY_ALL)
	if err != nil {
		return st, fmt.Errorf("listing addresses of %s: %w", name, err)
	}
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		st.addresses = append(st.addresses, netip.PrefixFrom(ip.Unmap(), ones))
	}
	return st, nil
}

// glance is read, or what it told a moment ago if no change was made or noticed since: for those who only report.
func (l *links) glance(name string) (linkState, error) {
	l.mu.Lock()
	now, changes, kept := Now(), l.changes, l.seen[name]
	l.mu.Unlock()
	if kept.fresh(now) {
		return kept.value, nil
	}
	st, err := l.read(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.changes == changes {
		l.seen[name] = glance[linkState]{st, now}
	}
	return st, err
}

// forget makes the next glance read.
func (l *links) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes++
	clear(l.seen)
}

// hear takes a notice of rtnetlink(7): of an interruption that is over it can be all there is to learn. Notices of short
// ones are merged, or lost; the count of lost carriers (IFLA_CARRIER_DOWN_COUNT, since Linux 4.16) tells of those.
// What it is told may come twice, late, or without the count: only a count that rises means something.
func (l *links) hear(typ uint16, data []byte) error {
	if len(data) < unix.SizeofIfInfomsg || data[0] != unix.AF_UNSPEC { // of a bridge's ports there are others, with the same index
		return nil
	}
	index := int(binary.NativeEndian.Uint32(data[4:]))
	if typ != unix.RTM_NEWLINK {
		if typ == unix.RTM_DELLINK {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.downs, index)
		}
		return nil
	}
	down, counted, count := binary.NativeEndian.Uint32(data[8:])&unix.IFF_UP == 0, false, uint32(0)
	err := eachAttr(data[unix.SizeofIfInfomsg:], func(attr uint16, value []byte) error {
		switch {
		case attr == unix.IFLA_OPERSTATE && len(value) == 1:
			down = down || noLink(netlink.LinkOperState(value[0]))
		case attr == unix.IFLA_CARRIER_DOWN_COUNT && len(value) == 4:
			counted, count = true, binary.NativeEndian.Uint32(value)
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	before, known := l.downs[index]
	more := counted && known && int32(count-before) > 0
	if down || more {
		l.cut[index] = true
	}
	if more || counted && !known {
		l.downs[index] = count
	}
	return err
}

// count reads what notices would have told: at first, and again in case some were lost.
func (l *links) count() (err error) {
	s, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	err = s.dump(nlMessage{typ: unix.RTM_GETLINK, data: make([]byte, unix.SizeofIfInfomsg)}, l.hear)
	if errors.Is(err, errDumpInterrupted) {
		return nil // by a change, which has its own notice; what was left out is counted next time
	}
	return err
}

// wasCut takes what was heard: the interfaces that were without a link since it was asked last.
func (l *links) wasCut() map[int]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	cut := l.cut
	l.cut = map[int]bool{}
	return cut
}

// has tells whether the interface carries ip, with whatever prefix.
func (s linkState) has(ip netip.Addr) bool {
	return slices.ContainsFunc(s.addresses, func(p netip.Prefix) bool { return p.Addr() == ip })
}

// foreign returns the prefix under which somebody else configured ip, if so: it is left alone, since
// removing a wider prefix can take other addresses with it.
func (s linkState) foreign(ip netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(s.addresses, func(p netip.Prefix) bool { return p.Addr() == ip && p.Bits() != ip.BitLen() })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return s.addresses[i], true
}

// put adds ip as a host address for lifetime, or prolongs it if it is there. The kernel removes the
// address when the lifetime (whole seconds) has passed: a second barrier behind the gate.
func (l *links) put(index int, ip netip.Addr, lifetime time.Duration) error {
	a := hostAddr(ip)
	a.ValidLft = int((lifetime + time.Second - 1) / time.Second)
	// Preferred for no time: the host never picks it as the source of its own connections.
	a.PreferedLft = 0
	if ip.Is6() {
		// Duplicate address detection would keep it silent for a second; Conflict has looked already.
		a.Flags = unix.IFA_F_NODAD
	} else {
		a.Scope = unix.RT_SCOPE_UNIVERSE
	}
	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	defer l.forget()
	if err := l.h.AddrReplace(dummy, a); err != nil {
		return fmt.Errorf("adding %s: %w", ip, err)
	}
	return nil
}

// remove deletes exactly ip as a host address; that it is absent is success.
func (l *links) remove(index int, ip netip.Addr) error {
	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	defer l.forget()
	err := l.h.AddrDel(dummy, hostAddr(ip))
	if err == nil || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return fmt.Errorf("removing %s: %w", ip, err)
}

func hostAddr(ip netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}}
}
