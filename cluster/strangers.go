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
	// strangerLook is how often a primary looks for strangers.
	strangerLook = time.Second
	// strangerPause is how long one is kept out before it is looked at again, doubled each time up to maxStrangerPause: it cannot be seen while it is
	// out whether it still acknowledges, and one that does is heard for up to strangerLook each time.
	strangerPause    = 10 * time.Second
	maxStrangerPause = 10 * time.Minute
	// strangerAsk bounds the question: where the server resolves names, it needs the name service.
	strangerAsk = 500 * time.Millisecond
)

// errNotAsked: nothing is known of who acknowledges.
var errNotAsked = errors.New("asking who acknowledges")

// strangers are the hosts outside the cluster that acknowledged what this server committed. The servers count acknowledgements and not who sends
// them, so that a write which only a stranger holds would be reported to its client as safe, and be lost with this host.
type strangers struct {
	mu    sync.Mutex
	known map[netip.Addr]stranger
}

type stranger struct {
	out   bool
	until fsm.Instant // kept out until
	times int         // how often, lately
}

// watchStrangers keeps them out for as long as this node is primary, and lets them in again when it no longer is.
func (n *Node) watchStrangers(ctx context.Context) {
	tick := time.NewTicker(strangerLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := n.lookForStrangers(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("it is not known whether anybody outside the cluster acknowledges", "error", err.Error())
		}
	}
}

func (n *Node) lookForStrangers(ctx context.Context) error {
	st, sv := n.store.State(), n.cfg.Prober.Server()
	primary := st.Primary == n.cfg.Node
	if err := n.releaseStrangers(primary); err != nil {
		return err
	}
	if !primary || sv.State != fsm.ServerUp || sv.HasReplication || !sv.SourceSync {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shortAction)
	defer cancel()
	return n.keepStrangersOut(ctx)
}

// keepStrangersOut makes sure, by a look taken now, that nobody outside the cluster acknowledges: whoever does is blocked at the kernel, as a member
// that leaves the sync set is, and its dump threads are ended. After success none of them is heard here.
func (n *Node) keepStrangersOut(ctx context.Context) error {
	all, counted, err := n.memberAddrs()
	if err != nil {
		return err
	}
	c, cancel := context.WithTimeout(ctx, strangerAsk)
	found, err := n.cfg.Database.Strangers(c, all, counted)
	cancel()
	if err != nil {
		return fmt.Errorf("%w: %w", errNotAsked, err)
	}
	var errs []error
	for _, addr := range found {
		errs = append(errs, n.keepOut(ctx, addr))
	}
	return errors.Join(errs...)
}

func (n *Node) keepOut(ctx context.Context, addr netip.Addr) error {
	pause := n.strangers.keep(addr, now())
	n.log.Error("a replica that is none of the cluster's acknowledges commits: it is kept out", "host", addr, "for", pause, "mend", strangerMend)
	if err := n.cfg.Addresser.Block(addr); err != nil {
		return fmt.Errorf("blocking the stranger at %s: %w", addr, err)
	}
	if _, err := n.cfg.Addresser.SeverPeer(addr); err != nil {
		return fmt.Errorf("cutting the stranger at %s: %w", addr, err)
	}
	if err := n.cfg.Database.CutReplica(ctx, addr.String()); err != nil {
		return fmt.Errorf("ending what is left of the stranger at %s: %w", addr, err)
	}
	return nil
}

// memberAddrs are the addresses of the other data nodes, and of those whose acknowledgement counts.
func (n *Node) memberAddrs() (all, counted []netip.Addr, err error) {
	st := n.store.State()
	for _, m := range n.cfg.Peers {
		if m.ID == n.cfg.Node || m.Role == fsm.RoleWitness {
			continue
		}
		addr, err := netip.ParseAddr(m.Address)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, addr)
		if st.MayAcknowledge(m.ID) {
			counted = append(counted, addr)
		}
	}
	return all, counted, nil
}

// releaseStrangers lets in whose time is over, and everybody where this node is not primary. A block that an earlier run of hbd left gets its time anew.
func (n *Node) releaseStrangers(primary bool) error {
	blocked, err := n.cfg.Addresser.Blocked()
	if err != nil {
		return fmt.Errorf("reading the blocked hosts: %w", err)
	}
	var errs []error
	for _, addr := range blocked {
		if n.isPeer(addr) {
			continue
		}
		if !primary || n.strangers.over(addr, now()) {
			errs = append(errs, n.cfg.Addresser.Unblock(addr))
			n.strangers.letIn(addr, now())
		}
	}
	return errors.Join(errs...)
}

func (n *Node) isPeer(addr netip.Addr) bool {
	return slices.ContainsFunc(n.cfg.Peers, func(m fsm.Member) bool {
		a, err := netip.ParseAddr(m.Address)
		return err == nil && a.Unmap() == addr.Unmap()
	})
}

// keep notes that somebody is kept out from now, and for how long.
func (s *strangers) keep(addr netip.Addr, at fsm.Instant) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[netip.Addr]stranger{}
	}
	e := s.known[addr]
	if at > e.until+maxStrangerPause {
		e.times = 0 // another occasion
	}
	pause := min(strangerPause<<e.times, maxStrangerPause)
	s.known[addr] = stranger{out: true, times: min(e.times+1, 10), until: at + pause}
	return pause
}

// over tells whether somebody has been kept out for long enough; one not known yet begins its time.
func (s *strangers) over(addr netip.Addr, at fsm.Instant) bool {
	s.mu.Lock()
	e := s.known[addr]
	s.mu.Unlock()
	if !e.out {
		s.keep(addr, at)
	}
	return e.out && at >= e.until
}

// letIn remembers how often it was kept out, for a while.
func (s *strangers) letIn(addr netip.Addr, at fsm.Instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, e := range s.known {
		if a == addr {
			e.out = false
			s.known[a] = e
		}
		if !e.out && at > e.until+maxStrangerPause {
			delete(s.known, a)
		}
	}
}

const strangerMend = "switch its semi-sync off (rpl_semi_sync_slave_enabled, rpl_semi_sync_replica_enabled) and restart its replication"

// problems names in words who is kept out.
func (s *strangers) problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for addr, e := range s.known {
		if !e.out {
			continue
		}
		out = append(out, fmt.Sprintf("a replica at %s is none of the cluster's and acknowledged commits: it is kept out; %s", addr, strangerMend))
	}
	slices.Sort(out)
	return out
}
