package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

const (
	// strangerLook is how often a primary looks for strangers. Where the list is long a look takes at most a hundredth of the time, but one is taken
	// every strangerMost at least.
	strangerLook  = time.Second
	strangerShare = 100
	strangerMost  = 5 * time.Second
	// strangerAsk bounds the question, strangerCut what is done about each that is found.
	strangerAsk = 500 * time.Millisecond
	strangerCut = time.Second
	// strangerPause is how long one is kept out before it is looked at again, doubled each time up to maxStrangerPause: it cannot be seen while it is
	// out whether it still acknowledges, and one that does is heard for up to two looks each time.
	strangerPause    = 10 * time.Second
	maxStrangerPause = 10 * time.Minute
)

// errNotAsked: nothing is known of who acknowledges.
var errNotAsked = errors.New("looking for who acknowledges")

// strangers are the hosts outside the cluster that acknowledge what this server commits. The servers count acknowledgements and not who sends them,
// so that a write which only a stranger holds would be reported to its client as safe, and be lost with this host. They do not tell who acknowledges
// either (MariaDB only how many do). The kernel does: over the connection of a replica nothing arrives after its request but acknowledgements.
type strangers struct {
	look chan struct{} // holds one: one look at a time

	mu    sync.Mutex
	heard map[dump]uint64 // bytes that had arrived at the last look
	known map[netip.Addr]stranger
}

// dump is one replica's connection.
type dump struct {
	thread uint64
	from   netip.AddrPort
}

type stranger struct {
	out   bool        // blocked
	until fsm.Instant // kept out until
	times int         // how often, lately
	seen  fsm.Instant // it acknowledged
	trial int         // looks that must yet succeed since it was let in, before it counts as not heard
	why   string      // why it is not blocked, "" when it is or need not be
}

// watchStrangers keeps them out for as long as this node is primary.
func (n *Node) watchStrangers(ctx context.Context) {
	timer := time.NewTimer(strangerLook)
	defer timer.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin := now()
		err := n.lookForStrangers(ctx)
		if said := errText(err); said != last && ctx.Err() == nil {
			last = said
			if err != nil {
				n.log.Warn("strangers", "error", said)
			}
		}
		timer.Reset(min(max(n.cfg.UntilBeat(strangerLook), strangerShare*(now()-begin)), strangerMost))
	}
}

// lookForStrangers is one turn: look, keep out, let in whose time is over. Nobody is let in unless a look succeeds, and one let in a short while ago
// is kept out again while none does.
func (n *Node) lookForStrangers(ctx context.Context) error {
	blocked, err := n.blockedStrangers()
	if err != nil {
		return err
	}
	sv := n.cfg.Prober.Server()
	if counts := n.store.State().Primary == n.cfg.Node && !sv.HasReplication; !counts {
		// A server that may still be writable, or that is not seen, goes on counting.
		if n.fresh.Load() && sv.State == fsm.ServerUp && sv.HasReplication {
			return n.letIn(blocked)
		}
		return nil
	}
	if sv.State != fsm.ServerUp {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shortAction)
	defer cancel()
	err = n.keepStrangersOut(ctx)
	if errors.Is(err, errNotAsked) {
		return errors.Join(err, n.blockAgain())
	}
	due := slices.DeleteFunc(blocked, func(a netip.Addr) bool { return !n.strangers.due(a, now()) })
	return errors.Join(err, n.letIn(due))
}

// keepStrangersOut makes sure, by a look taken now, that nobody outside the cluster who was heard to acknowledge is connected.
func (n *Node) keepStrangersOut(ctx context.Context) error {
	select {
	case n.strangers.look <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: another look is under way: %w", errNotAsked, context.Cause(ctx))
	}
	defer func() { <-n.strangers.look }()
	found, err := n.heardStrangers(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotAsked, err)
	}
	var errs []error
	for _, d := range found {
		errs = append(errs, n.keepOut(ctx, d))
	}
	return errors.Join(errs...)
}

// heardStrangers are the replicas outside the cluster over whose connection something has arrived since the last look.
func (n *Node) heardStrangers(ctx context.Context) (found []dump, err error) {
	ctx, cancel := context.WithTimeout(ctx, strangerAsk)
	defer cancel()
	replicas, err := n.cfg.Database.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	// Listing connections walks a table of the kernel's for a millisecond, in which a takeover would wait.
	replicas = slices.DeleteFunc(replicas, func(r Replica) bool {
		addr, err := netip.ParseAddr(r.Host)
		return err == nil && n.isMember(addr.Unmap())
	})
	var conns []Inbound
	if len(replicas) > 0 {
		if conns, err = n.cfg.Addresser.Inbound(); err != nil {
			return nil, err
		}
	}
	heard := map[dump]uint64{}
	s := &n.strangers
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range replicas {
		c, ok := connectionOf(r, conns)
		if !ok || n.isMember(c.Remote.Addr()) {
			continue
		}
		d := dump{r.ID, c.Remote}
		heard[d] = c.Received
		if before, known := s.heard[d]; known && c.Received > before {
			found = append(found, d)
		}
	}
	s.heard = heard
	s.looked()
	return found, nil
}

// connectionOf finds a replica's connection by the client's port, and by its address where the server shows one: where it shows a name, that is not
// asked about. Two that differ in nothing else are left alone.
func connectionOf(r Replica, conns []Inbound) (found Inbound, ok bool) {
	addr, err := netip.ParseAddr(r.Host)
	for _, c := range conns {
		if r.Port == 0 || c.Remote.Port() != r.Port || err == nil && c.Remote.Addr() != addr.Unmap() {
			continue
		}
		if ok {
			return Inbound{}, false
		}
		found, ok = c, true
	}
	return found, ok
}

// keepOut blocks a stranger at the kernel, as a member that leaves the sync set is, and ends its dump thread.
func (n *Node) keepOut(ctx context.Context, d dump) error {
	ctx, cancel := context.WithTimeout(ctx, strangerCut)
	defer cancel()
	addr := d.from.Addr()
	err := n.blockStranger(addr)
	pause := n.strangers.heardFrom(addr, now(), err)
	n.log.Error("a replica that is none of the cluster's acknowledges commits", "host", addr, "kept_out_for", pause, "error", errText(err), "mend", strangerMend)
	if cut := n.cfg.Database.CutThread(ctx, d.thread); cut != nil {
		return errors.Join(err, fmt.Errorf("ending what is left of the stranger at %s: %w", addr, cut))
	}
	if errors.Is(err, errCannotBlock) {
		return nil // nothing more can be done, and it is told
	}
	return err
}

// errCannotBlock: this host's kernel cannot keep it out.
var errCannotBlock = errors.New("it cannot be blocked")

func (n *Node) blockStranger(addr netip.Addr) error {
	switch {
	case addr.IsLoopback() || n.isOwn(addr):
		return fmt.Errorf("%w: it is on this host", errCannotBlock)
	case !n.cfg.Addresser.KernelGate():
		return fmt.Errorf("%w: this host has no kernel gate", errCannotBlock)
	}
	if err := n.cfg.Addresser.Block(addr); err != nil {
		return fmt.Errorf("blocking the stranger at %s: %w", addr, err)
	}
	if _, err := n.cfg.Addresser.SeverPeer(addr); err != nil {
		return fmt.Errorf("cutting the stranger at %s: %w", addr, err)
	}
	return nil
}

func (n *Node) isOwn(addr netip.Addr) bool {
	if slices.ContainsFunc(n.cfg.Addresser.Addresses(), func(a Address) bool { return a.IP == addr }) {
		return true
	}
	own, err := netip.ParseAddr(n.self.Address)
	return err == nil && own.Unmap() == addr
}

// isMember: the sync set decides about the other data nodes.
func (n *Node) isMember(addr netip.Addr) bool {
	return slices.ContainsFunc(n.cfg.Peers, func(m fsm.Member) bool {
		a, err := netip.ParseAddr(m.Address)
		return err == nil && a.Unmap() == addr && m.ID != n.cfg.Node && m.Role != fsm.RoleWitness
	})
}

// blockedStrangers are the blocked hosts that are no members, as the kernel has them. Where that cannot be told nobody was blocked.
func (n *Node) blockedStrangers() ([]netip.Addr, error) {
	if !n.cfg.Addresser.KernelGate() {
		return nil, nil
	}
	blocked, err := n.cfg.Addresser.Blocked()
	if err != nil {
		return nil, fmt.Errorf("reading the blocked hosts: %w", err)
	}
	blocked = slices.DeleteFunc(slices.Clone(blocked), n.isMember)
	n.strangers.are(blocked, now())
	return blocked, nil
}

func (n *Node) letIn(addrs []netip.Addr) error {
	var errs []error
	for _, a := range addrs {
		errs = append(errs, n.cfg.Addresser.Unblock(a))
		n.strangers.wasLetIn(a)
	}
	return errors.Join(errs...)
}

// blockAgain keeps those out that were let in a short while ago to be looked at.
func (n *Node) blockAgain() error {
	var errs []error
	for _, a := range n.strangers.onTrial() {
		errs = append(errs, n.blockStranger(a))
	}
	return errors.Join(errs...)
}
