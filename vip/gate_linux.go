package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// kernelGate is the gate in nftables.
type kernelGate struct {
	name  string
	addrs []Address
	port  uint16
	guard time.Duration
	log   *slog.Logger

	mu         sync.Mutex
	sock       *nlSocket // nil once released; it owns the tables
	rules      ruleset
	hasEgress  bool
	tableFlags uint32
	deadline   time.Duration // of the lease last written
	ticket     uint32        // key of the last guard element: each is used once
	block      []netip.Addr  // as the kernel should have them, put back by a reinstall
	covered    bool          // and so for the server's own port
	seen       glances       // what was read last
	peers      []netip.Addr  // who passes a covered port

	// Test hooks: held runs between reading the clock and the transaction; unguarded leaves the guard out.
	held      func()
	unguarded bool
}

// newKernelGate adopts the gate of an earlier process if it is intact and installs it closed otherwise.
// An error that errors.Is ErrNoKernelGate means that this host cannot have one.
func newKernelGate(cfg Config, ports []uint16, log *slog.Logger) (*kernelGate, error) {
	sock, err := dialNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKernelGate, err)
	}
	g := &kernelGate{
		name: tableName(cfg.Instance), addrs: cfg.Addresses, port: ports[0], guard: cfg.Guard, peers: cfg.Peers,
		log: log, sock: sock, ticket: uint32(Now()),
	}
	if err := g.setUp(cfg.unowned, cfg.forgetful, ports); err != nil {
		return nil, errors.Join(err, sock.close())
	}
	return g, nil
}

func tableName(instance string) string {
	if instance == "" {
		return "highbase"
	}
	return "highbase_" + instance
}

// setUp tries the strongest form first: owned and with egress; then without the one the kernel lacks.
func (g *kernelGate) setUp(unowned, forgetful bool, ports []uint16) error {
	present, err := g.tablesPresent()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoKernelGate, err)
	}
	if err := refuseOwned(present); err != nil {
		return err
	}
	if len(present) > 0 && !forgetful {
		// Whatever becomes of an earlier table, adopted or replaced: who was cut off stays cut off.
		if err := g.recall(); err != nil {
			return fmt.Errorf("reading what an earlier run blocked: %w", err)
		}
	}
	var last error
	for _, egress := range []bool{true, false} {
		for _, flags := range []uint32{tableOwner | tablePersist, 0} {
			if flags != 0 && unowned {
				continue
			}
			rs, err := buildRuleset(g.name, g.addrs, ports, egress)
			if err != nil {
				return err
			}
			g.rules, g.hasEgress, g.tableFlags = rs, egress, flags
			adopted, err := g.adopt()
			if err == nil && !adopted {
				err = g.install()
			}
			if err == nil {
				g.log.Info("gate is in the kernel", "table", g.name, "adopted", adopted, "egress", egress, "owned", flags != 0,
					"blocked", g.block, "port_gated", g.covered)
				return nil
			}
			if !unsupported(err) {
				return err
			}
			last = err
		}
	}
	return fmt.Errorf("%w: %w", ErrNoKernelGate, last)
}

// unsupported tells whether the kernel refused because it lacks a feature or the right to use it.
func unsupported(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EPERM, unix.ENOENT, unix.EINVAL, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (g *kernelGate) kernel() bool { return true }
func (g *kernelGate) egress() bool { return g.hasEgress }
func (g *kernelGate) owned() bool  { return g.tableFlags&tableOwner != 0 }

// open writes the lease whether or not one is alive.
func (g *kernelGate) open(deadline time.Duration) error {
	return g.write(deadline, func(timeout time.Duration) []nlMessage {
		return append(g.flushMessages(), g.addMessages(timeout)...)
	})
}

// renew prolongs a living lease. Deleting an expired element fails, and the transaction with it: this is
// the comparison of a compare-and-extend.
//
// The kernel's timers stand still while the machine is suspended. A lease that ended in that time is seen
// here, by a clock that does not.
func (g *kernelGate) renew(deadline time.Duration) error {
	g.mu.Lock()
	overdue := g.deadline != 0 && Now() > g.deadline
	g.mu.Unlock()
	if overdue {
		return errors.Join(ErrExpired, g.shut())
	}
	return g.write(deadline, func(timeout time.Duration) []nlMessage {
		return append(g.deleteMessages(), g.addMessages(timeout)...)
	})
}

// write runs one guarded transaction. The order is the point: the guard's clock starts before this
// process reads its own, so the transaction commits at most one guard time after that reading, or never.
func (g *kernelGate) write(deadline time.Duration, msgs func(timeout time.Duration) []nlMessage) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return ErrStopped
	}
	guard, err := g.placeGuard()
	if err != nil {
		return err
	}
	timeout, err := timeoutFor(deadline, Now(), g.guard)
	if err != nil {
		return err
	}
	if g.held != nil {
		g.held()
	}
	var batch []nlMessage
	if !g.unguarded {
		batch = append(batch, nftMessage(unix.NFT_MSG_DELSETELEM, 0, familyINet, elementList(g.name, setGuard, []element{{key: guard}})))
	}
	began := Now()
	err = g.changeLease(append(batch, msgs(timeout)...))
	var refusal *nlError
	switch {
	case errors.As(err, &refusal) && refusal.errno == unix.ENOENT && refusal.index == 0:
		return fmt.Errorf("%w: held up for longer than the guard of %s", ErrLate, g.guard)
	case errors.As(err, &refusal) && refusal.errno == unix.ENOENT:
		return ErrExpired
	case err != nil:
		return fmt.Errorf("writing the lease: %w", err)
	}
	// The kernel compares the guard at the start of the transaction and times the new element a little
	// later. Being descheduled there is all that is left, and it is seen here.
	if Now()+timeout > deadline && !g.unguarded {
		if err := g.changeLease(g.flushMessages()); err != nil {
			return fmt.Errorf("%w, and closing again failed: %w", ErrLate, err)
		}
		return fmt.Errorf("%w: the kernel took longer than the margin", ErrLate)
	}
	g.deadline = deadline
	g.seen.lease = glance[time.Duration]{timeout, began} // each element got all of it later than that; less by the jiffies that remaining allows for
	return nil
}

// placeGuard adds a single-use element and returns its key.
func (g *kernelGate) placeGuard() ([]byte, error) {
	g.ticket++
	key := binary.NativeEndian.AppendUint32(nil, g.ticket)
	err := g.changeLease([]nlMessage{nftMessage(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, familyINet,
		elementList(g.name, setGuard, []element{{key: key, timeout: g.guard}}))})
	if errMissing(err) {
		return nil, ErrGateLost
	}
	if err != nil {
		return nil, fmt.Errorf("placing the guard: %w", err)
	}
	return key, nil
}

// leaseSet is one of the sets that together hold the lease.
type leaseSet struct {
	family byte
	name   string
	keys   [][]byte
}

// leaseSets lists the sets that are not empty while the gate is open.
func (g *kernelGate) leaseSets() []leaseSet {
	var v4, v6 [][]byte
	for _, a := range g.addrs {
		if a.IP.Is4() {
			v4 = append(v4, a.IP.AsSlice())
		} else {
			v6 = append(v6, a.IP.AsSlice())
		}
	}
	out := []leaseSet{{familyINet, setOpenPort, [][]byte{binary.BigEndian.AppendUint16(nil, g.port)}}}
	for _, t := range g.rules.tables {
		if len(v4) > 0 {
			out = append(out, leaseSet{t.family, setOpen4, v4})
		}
		if len(v6) > 0 && t.family != familyARP {
			out = append(out, leaseSet{t.family, setOpen6, v6})
		}
	}
	return out
}

func (g *kernelGate) elementMessages(msg, flags uint16, timeout time.Duration) []nlMessage {
	var out []nlMessage
	for _, s := range g.leaseSets() {
		var elems []element
		for _, k := range s.keys {
			elems = append(elems, element{key: k, timeout: timeout})
		}
		out = append(out, nftMessage(msg, flags, s.family, elementList(g.name, s.name, elems)))
	}
	return out
}

func (g *kernelGate) addMessages(timeout time.Duration) []nlMessage {
	return g.elementMessages(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, timeout)
}

func (g *kernelGate) deleteMessages() []nlMessage {
	return g.elementMessages(unix.NFT_MSG_DELSETELEM, 0, 0)
}

// flushMessages empties the lease sets, whatever is in them.
func (g *kernelGate) flushMessages() []nlMessage {
	var out []nlMessage
	for _, s := range g.leaseSets() {
		out = append(out, flushMessage(s.family, g.name, s.name))
	}
	return out
}

func flushMessage(family byte, table, set string) nlMessage {
	return nftMessage(unix.NFT_MSG_DELSETELEM, 0, family, elementList(table, set, nil))
}

// shut closes the gate now. It needs no guard: closing is never too late.
func (g *kernelGate) shut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return ErrStopped
	}
	err := g.changeLease(g.flushMessages())
	if errMissing(err) {
		return ErrGateLost
	}
	if err != nil {
		return fmt.Errorf("closing the gate: %w", err)
	}
	return nil
}

// dumpTries is how often an interrupted listing of one small set is repeated.
const dumpTries = 8

// readRemaining asks the kernel. The caller holds mu.
func (g *kernelGate) readRemaining() (time.Duration, error) {
	least := time.Duration(-1)
	for _, s := range g.leaseSets() {
		var elems []liveElement
		var err error
		// Somebody else's change of the tables interrupts a dump: its result may lack what is there.
		for range dumpTries {
			if elems, err = listElements(g.sock, s.family, g.name, s.name); !errors.Is(err, errDumpInterrupted) {
				break
			}
		}
		if errMissing(err) {
			return 0, ErrGateLost
		}
		if err != nil {
			return 0, fmt.Errorf("reading the lease: %w", err)
		}
		for _, k := range s.keys {
			i := slices.IndexFunc(elems, func(e liveElement) bool { return slices.Equal(e.key, k) })
			if i < 0 {
				return 0, nil
			}
			if least < 0 || elems[i].left < least {
				least = elems[i].left
			}
		}
	}
	return max(least, 0), nil
}
