package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bridgeName is the switch, in the runner's network namespace. Its ports are named after the hosts.
const bridgeName = "switch"

// hostLink is the one interface of every host.
const hostLink = "eth0"

// makeSwitch creates the bridge in the calling process's network namespace.
func makeSwitch() error {
	noSnoop := false // snooping would drop IPv6 neighbour discovery until a querier shows up, and there is none
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &noSnoop}
	br.Name = bridgeName
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("creating the switch: %w", err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("switching the switch on: %w", err)
	}
	return nil
}

// plugIn gives the host whose init has this pid its eth0, connected to a port of the switch.
func plugIn(h planHost, init int) error {
	mac, err := net.ParseMAC(h.MAC)
	if err != nil {
		return fmt.Errorf("parsing the MAC of %s: %w", h.Name, err)
	}
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("finding the switch: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = h.Name
	attrs.MasterIndex = br.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: hostLink, PeerHardwareAddr: mac, PeerNamespace: netlink.NsPid(init)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("connecting %s to the switch: %w", h.Name, err)
	}
	return setPort(h.Name, true)
}

// unplug removes the host's link; both ends vanish at once.
func unplug(host string) error {
	port, err := netlink.LinkByName(host)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the port of %s: %w", host, err)
	}
	if err := netlink.LinkDel(port); err != nil {
		return fmt.Errorf("unplugging %s: %w", host, err)
	}
	return nil
}

// setPort switches the host's port on or off. Off means that the host's eth0 has no carrier.
func setPort(host string, up bool) error {
	port, err := netlink.LinkByName(host)
	if err != nil {
		return fmt.Errorf("finding the port of %s: %w", host, err)
	}
	set := netlink.LinkSetDown
	if up {
		set = netlink.LinkSetUp
	}
	if err := set(port); err != nil {
		return fmt.Errorf("switching the port of %s: %w", host, err)
	}
	return nil
}

// configureHost brings up lo and eth0 of the calling process's network namespace.
func configureHost(h planHost) error {
	// A duplicate address is never looked for: an address must be usable the moment it is added.
	for _, setting := range []struct{ file, value string }{
		{"ipv6/conf/all/disable_ipv6", "0"}, {"ipv6/conf/default/disable_ipv6", "0"},
		{"ipv6/conf/all/accept_dad", "0"}, {"ipv6/conf/default/accept_dad", "0"}, {"ipv6/conf/" + hostLink + "/accept_dad", "0"},
		{"ipv6/conf/" + hostLink + "/accept_ra", "0"},
	} {
		err := os.WriteFile("/proc/sys/net/"+setting.file, []byte(setting.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 has none of them
			return fmt.Errorf("setting %s: %w", setting.file, err)
		}
	}
	for _, name := range []string{"lo", hostLink} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bringing up %s: %w", name, err)
		}
	}
	for _, a := range []struct {
		ip   string
		ones int
	}{{h.Address, 24}, {h.Address6, 64}} {
		if err := addAddress(a.ip, a.ones); err != nil {
			return err
		}
	}
	return nil
}

func addAddress(text string, ones int) error {
	ip := net.ParseIP(text)
	bits, flags := 32, 0
	if ip.To4() == nil {
		bits, flags = 128, unix.IFA_F_NODAD
	}
	link, err := netlink.LinkByName(hostLink)
	if err != nil {
		return fmt.Errorf("finding %s: %w", hostLink, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(ones, bits)}, Flags: flags}
	err = netlink.AddrAdd(link, addr)
	if bits == 128 && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EACCES)) {
		return nil // a kernel without IPv6: everything but an IPv6 VIP works
	}
	if err != nil {
		return fmt.Errorf("adding the address %s: %w", text, err)
	}
	return nil
}

// dropAddresses removes the given addresses, whatever their prefix length, from eth0 of the host whose init has this
// pid. It returns how many were there.
func dropAddresses(init int, ips []string) (int, error) {
	ns, err := netns.GetFromPid(init)
	if err != nil {
		return 0, fmt.Errorf("opening the host's network: %w", err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return 0, fmt.Errorf("entering the host's network: %w", err)
	}
	defer handle.Close()
	link, err := handle.LinkByName(hostLink)
	if err != nil {
		return 0, fmt.Errorf("finding %s: %w", hostLink, err)
	}
	addrs, err := handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("listing the host's addresses: %w", err)
	}
	dropped := 0
	for _, a := range addrs {
		if !contains(ips, a.IP.String()) {
			continue
		}
		if err := handle.AddrDel(link, &a); err != nil {
			return dropped, fmt.Errorf("removing %s: %w", a.IP, err)
		}
		dropped++
	}
	return dropped, nil
}
