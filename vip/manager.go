package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Address is one virtual address and the interface it lives on.
type Address struct {
	IP        netip.Addr // IPv4 or IPv6; added as a /32 or /128
	Interface string     // name of an Ethernet interface of this host
}

// Config describes the addresses of one host.
type Config struct {
	Addresses []Address
	// MySQLPort is the server's own port: Block cuts it and GatePort covers it.
	MySQLPort uint16
	// PeerPorts are other ports that Block cuts, where servers of the cluster listen elsewhere.
	PeerPorts []uint16
	// Peers are the hosts that reach the server's port while GatePort is on and the lease is over: the
	// other nodes, for replication. Clients on those hosts are not held back either.
	Peers []netip.Addr
	// Guard is how long the process may be held up between reading the clock and writing the lease:
	// 20 to 50 ms, 40 ms by default. Each write gives up this much of the lease. A shorter guard makes
	// renewals fail on a busy host.
	Guard time.Duration
	// AddressLifetime is after how long the kernel removes a held address whose manager is dead, whole
	// seconds, 3 s by default. It is a second barrier: the gate does not depend on it.
	AddressLifetime time.Duration
	Logger          *slog.Logger // slog.Default if nil
	// OnEvent is called for every Event, in order, on one goroutine. It may be nil. It must not call Stop
	// or Destroy, which wait for it.
	OnEvent func(Event)
	// Instance is a suffix of the table's name: letters, digits and underscores. Managers of one network
	// namespace must differ in it.
	Instance string

	unowned     bool // test hook: a table without the kernel's protection, as older kernels have it
	userSpace   bool // test hook: a host without nftables
	skipWatches bool // test hook: nobody looks after the gate
	forgetful   bool // test hook: a gate that is replaced forgets blocks and the gated port
}

const (
	defaultGuard    = 40 * time.Millisecond
	minGuard        = 20 * time.Millisecond
	maxGuard        = 50 * time.Millisecond
	defaultLifetime = 3 * time.Second
)

var instancePattern = regexp.MustCompile(`^[A-Za-z0-9_]{0,32}$`)

// withDefaults checks c and fills in what is missing.
func (c Config) withDefaults() (Config, error) {
	if c.Guard == 0 {
		c.Guard = defaultGuard
	}
	if c.AddressLifetime == 0 {
		c.AddressLifetime = defaultLifetime
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Guard < minGuard || c.Guard > maxGuard {
		return c, fmt.Errorf("vip: guard of %s is not within %s and %s", c.Guard, minGuard, maxGuard)
	}
	if c.AddressLifetime < time.Second {
		return c, fmt.Errorf("vip: address lifetime of %s is below 1s, the kernel's unit", c.AddressLifetime)
	}
	if c.MySQLPort == 0 {
		return c, errors.New("vip: no MySQL port")
	}
	if !instancePattern.MatchString(c.Instance) {
		return c, fmt.Errorf("vip: instance %q is not of letters, digits and underscores", c.Instance)
	}
	seen := map[netip.Addr]bool{}
	c.Addresses = slices.Clone(c.Addresses)
	for i := range c.Addresses {
		a := &c.Addresses[i]
		a.IP = a.IP.Unmap().WithZone("")
		if !a.IP.IsValid() || a.IP.IsUnspecified() || a.IP.IsMulticast() || a.IP.IsLoopback() {
			return c, fmt.Errorf("vip: %s cannot be a virtual address", a.IP)
		}
		if a.Interface == "" || seen[a.IP] {
			return c, fmt.Errorf("vip: address %s has no interface or is listed twice", a.IP)
		}
		seen[a.IP] = true
	}
	return c, nil
}

// Manager looks after the virtual addresses of one host. Its methods may be called from any goroutine.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	gate   gate
	links  *links
	ports  map[string]*framePort // by interface
	events *eventQueue

	// ops is held while addresses are changed or announced, so that no two changes interleave.
	ops sync.Mutex

	mu          sync.Mutex // guards what follows; never held while waiting for anything
	held        bool
	stopped     bool
	sched       schedule
	counters    map[netip.Addr]*Counters
	linkUp      map[string]int // index of each interface that has a link
	gateLosses  uint64
	probing     map[chan claim]bool
	lastDefence time.Duration
	owedDefence bool
	checkGate   bool // a notice about nftables arrived
	gateFailing bool // the last check or reinstallation failed

	countFailing bool // the last countLinks failed

	wakeUp    chan struct{}
	quit      chan struct{}
	running   sync.WaitGroup
	notifiers []*notifier
	accepted  accepted
}

// New makes a manager. The host is changed only by installing the gate, closed, or by adopting the intact
// gate of an earlier process with the lease that still lives in it; and by the ARP settings of the
// interfaces. Every interface must exist. On a host without nftables the manager works without
// a kernel gate: see KernelGate.
func New(cfg Config) (*Manager, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, log: cfg.Logger,
		ports: map[string]*framePort{}, counters: map[netip.Addr]*Counters{}, linkUp: map[string]int{},
		probing: map[chan claim]bool{}, wakeUp: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	m.events = newEventQueue(func(e Event) {
		if cfg.OnEvent != nil {
			cfg.OnEvent(e)
		}
	})
	if m.links, err = newLinks(); err != nil {
		return nil, err
	}
	m.accepted = openAccepted()
	if err := m.prepare(); err != nil {
		return nil, errors.Join(err, m.closeAll())
	}
	m.start()
	return m, nil
}

// prepare opens everything and starts nothing.
func (m *Manager) prepare() error {
	byIface := map[string][]netip.Addr{}
	for _, a := range m.cfg.Addresses {
		byIface[a.Interface] = append(byIface[a.Interface], a.IP)
		m.counters[a.IP] = &Counters{}
	}
	for iface, ips := range byIface {
		link, err := m.links.find(iface)
		if err != nil {
			return err
		}
		if link.up {
			m.linkUp[iface] = link.index
		}
		m.ports[iface] = newFramePort(iface, ips)
		for _, proto := range m.ports[iface].protocols() {
			if _, err := m.ports[iface].conn(proto, link.index); err != nil {
				return err
			}
		}
	}
	if err := m.openGate(); err != nil {
		return err
	}
	return m.openNotifiers()
}

// openGate makes the strongest gate this host can have.
func (m *Manager) openGate() error {
	ports := append([]uint16{m.cfg.MySQLPort}, m.cfg.PeerPorts...)
	slices.Sort(ports[1:])
	err := ErrNoKernelGate
	if !m.cfg.userSpace {
		var g *kernelGate
		if g, err = newKernelGate(m.cfg, ports, m.log); err == nil {
			m.gate = g
			return nil
		}
	}
	if !errors.Is(err, ErrNoKernelGate) {
		return err
	}
	m.log.Error("no kernel gate: a frozen process is not fenced", "err", err)
	m.gate = newTimerGate(m.expire)
	return nil
}

const (
	groupNFTables = 7 // NFNLGRP_NFTABLES
	rtmgrpLink    = 1 // RTNLGRP_LINK
	rtmgrpIPv4    = 5 // RTNLGRP_IPV4_IFADDR
	rtmgrpIPv6    = 9 // RTNLGRP_IPV6_IFADDR
)

func (m *Manager) openNotifiers() error {
	route, err := newNotifier(unix.NETLINK_ROUTE, rtmgrpLink, rtmgrpIPv4, rtmgrpIPv6)
	if err != nil {
		return err
	}
	m.notifiers = append(m.notifiers, route)
	m.countLinks()
	if !m.gate.kernel() {
		return nil
	}
	nft, err := newNotifier(unix.NETLINK_NETFILTER, groupNFTables)
	if err != nil {
		return err
	}
	m.notifiers = append(m.notifiers, nft)
	return nil
}

// KernelGate tells whether the lease ends in the kernel. If not, it ends only if this process runs:
// report it as a weaker guarantee and use a watchdog.
func (m *Manager) KernelGate() bool { return m.gate.kernel() }

// Open opens the gate until deadline at the latest. It returns ErrLate if too little time is left or the
// process was held up for longer than the guard. Addresses that are held are announced at once.
func (m *Manager) Open(deadline time.Duration) error {
	err := m.leaseWrite(m.gate.open, deadline)
	if err == nil {
		m.Announce() // what was sent before was held back; the loop puts back what vanished meanwhile
	}
	return err
}

// Renew prolongs an open gate until deadline at the latest. It returns ErrExpired, and opens nothing, if
// the lease had ended already; ErrLate as Open does.
func (m *Manager) Renew(deadline time.Duration) error { return m.leaseWrite(m.gate.renew, deadline) }

func (m *Manager) leaseWrite(write func(time.Duration) error, deadline time.Duration) error {
	return m.noteLoss(write(deadline))
}

// Close closes the gate now.
func (m *Manager) Close() error {
	return m.noteLoss(m.gate.shut())
}

// Remaining is how long the gate still stays open by itself, 0 when it is closed.
func (m *Manager) Remaining() (time.Duration, error) { return m.gate.remaining() }

// State is how things are, as of a moment ago at most.
func (m *Manager) State() State {
	st := State{KernelGate: m.gate.kernel(), EgressGate: m.gate.egress(), Protected: m.gate.owned()}
	var errs []error
	var err error
	if st.Remaining, err = m.gate.remaining(); err != nil {
		errs = append(errs, err)
	}
	if st.Blocked, err = m.Blocked(); err != nil && !errors.Is(err, ErrNoKernelGate) {
		errs = append(errs, err)
	}
	for _, a := range m.cfg.Addresses {
		as := AddressState{Address: a}
		if link, err := m.links.glance(a.Interface); err != nil {
			errs = append(errs, err)
		} else {
			as.Present, as.LinkUp = link.has(a.IP), link.up
		}
		st.Addresses = append(st.Addresses, as)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st.Held, st.GateLosses = m.held, m.gateLosses
	for i := range st.Addresses {
		st.Addresses[i].Counters = *m.counters[st.Addresses[i].IP]
	}
	st.Err = errors.Join(errs...)
	return st
}

// Stop ends the manager's goroutines and leaves gate and addresses as they are, so that a restart does
// not stop the service: the kernel ends both by their own timeouts.
func (m *Manager) Stop() error {
	if !m.markStopped() {
		return nil
	}
	m.leaveBehind()
	return m.closeAll()
}

// Destroy is Stop after which nothing of the manager is left on the host: addresses removed, connections
// severed, the gate's tables gone. It is for a clean end, after the role was given up. If an address could
// not be removed the closed gate stays: without it the address would be served. It stays too, closed,
// while hosts are blocked or the port is gated: who was cut off must not come back between two starts.
func (m *Manager) Destroy(ctx context.Context) error {
	err := errors.Join(m.Close(), m.SetHeld(ctx, false))
	if !m.markStopped() {
		return ErrStopped
	}
	if err == nil {
		err = m.gate.destroy()
	}
	return errors.Join(err, m.closeAll())
}

func (m *Manager) markStopped() bool {
	m.ops.Lock()
	defer m.ops.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.stopped
	m.stopped = true
	return !was
}

// closeAll ends goroutines and closes sockets, those of a manager that never started as well.
func (m *Manager) closeAll() error {
	close(m.quit)
	var errs []error
	for _, n := range m.notifiers {
		errs = append(errs, n.close())
	}
	for _, p := range m.ports {
		errs = append(errs, p.close())
	}
	m.running.Wait()
	if m.gate != nil {
		errs = append(errs, m.gate.release())
	}
	m.links.close()
	return errors.Join(append(errs, m.accepted.close())...)
}

func (m *Manager) emit(e Event) { m.events.add(e) }

func (m *Manager) isHeld() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held && !m.stopped
}
