package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/highbase/highbase/fsm"
)

// syncState is what this run of hbd knows of its own part in the sync set. It is in memory only: a restarted hbd proves it anew.
type syncState struct {
	mu         sync.Mutex
	off        uint64 // index at which this node left the set, since which its semi-sync was seen off
	prepared   uint64 // index of the change that this node has prepared as primary
	preparedAt string // where it was after that
}

func (s *syncState) read() (off, prepared uint64, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.off, s.prepared, s.preparedAt
}

func (s *syncState) setOff(since uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = since
}

func (s *syncState) setPrepared(index uint64, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepared, s.preparedAt = index, at
}

// confirmed lists the outsiders whose own hbd has said that their semi-sync is off since they are outside. What one said stays true until it is taken
// into the set again: nothing but that makes it switch semi-sync on, and then it leaves at a later index.
func (n *Node) confirmed(st fsm.State) []fsm.NodeID {
	var out []fsm.NodeID
	for _, o := range st.Outside {
		if obs, _, ok := n.peers.observed(o.Node); ok && obs.SyncOff >= o.Since {
			out = append(out, o.Node)
		}
	}
	return out
}

// blockedNodes are the other data nodes whose replication traffic this host's kernel resets.
func (n *Node) blockedNodes() ([]fsm.NodeID, error) {
	addrs, err := n.cfg.Addresser.Blocked()
	if err != nil {
		return nil, err
	}
	var out []fsm.NodeID
	for _, m := range n.cfg.Peers {
		if m.ID == n.cfg.Node || m.Role == fsm.RoleWitness {
			continue // whoever is blocked there is a stranger
		}
		if a, err := netip.ParseAddr(m.Address); err == nil && slices.Contains(addrs, a) {
			out = append(out, m.ID)
		}
	}
	return out, nil
}

// executeSync carries out what the sync set asks for.
func (n *Node) executeSync(ctx context.Context, a fsm.Action) error {
	switch a.Kind {
	case fsm.ActBlock:
		return n.setBlocks(ctx)
	case fsm.ActPrepare:
		return n.prepare(ctx)
	case fsm.ActAsync:
		return n.async(ctx)
	case fsm.ActSyncOff:
		return n.switchSyncOff(ctx)
	case fsm.ActCoverPort:
		return n.cfg.Addresser.GatePort(true)
	case fsm.ActUncover:
		if st := n.store.State(); st.Primary == n.cfg.Node && st.CoverPort() {
			return errOvertaken
		}
		return n.cfg.Addresser.GatePort(false)
	default:
		return fmt.Errorf("action %q does not concern the sync set", a.Kind)
	}
}

// setBlocks keeps exactly those from replicating whose acknowledgement must not count, by the state as it is applied now. First it lets in who
// counts: taking away waits for a server's thread to end, and nobody who counts needs to wait for that.
func (n *Node) setBlocks(ctx context.Context) error {
	st := n.store.State()
	if st.Primary != n.cfg.Node {
		return errOvertaken
	}
	want := fsm.WantBlocked(st, n.confirmed(st))
	have, err := n.blockedNodes()
	if err != nil {
		return fmt.Errorf("reading the blocked hosts: %w", err)
	}
	var errs []error
	for _, id := range have {
		if slices.Contains(want, id) {
			continue
		}
		addr, err := n.sourceAddr(id)
		if err == nil {
			err = n.cfg.Addresser.Unblock(addr)
		}
		errs = append(errs, err)
	}
	for _, id := range want {
		if !slices.Contains(have, id) {
			errs = append(errs, n.cutOff(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// cutOff ends a node's replication from here and keeps it from coming back. After success nothing that it acknowledges is heard here.
func (n *Node) cutOff(ctx context.Context, id fsm.NodeID) error {
	addr, err := n.sourceAddr(id)
	if err != nil {
		return err
	}
	if err := n.cfg.Addresser.Block(addr); err != nil {
		return fmt.Errorf("blocking replication traffic to %s: %w", id, err)
	}
	if _, err := n.cfg.Addresser.SeverPeer(addr); err != nil {
		return fmt.Errorf("cutting replication to %s: %w", id, err)
	}
	if err := n.cfg.Database.CutReplica(ctx, addr.String()); err != nil {
		return fmt.Errorf("ending what is left of replication to %s: %w", id, err)
	}
	return nil
}

// prepare makes sure, by looks taken now, that everything the intended change of the sync set needs is in force, and only then reads where this
// server is: whatever is acknowledged later was acknowledged under the change, whatever was before is in that position.
func (n *Node) prepare(ctx context.Context) error {
	st := n.store.State()
	c := st.Change
	if c == nil || st.Primary != n.cfg.Node {
		return errOvertaken
	}
	if c.Kind == fsm.ChangeShrink {
		if err := n.cutOff(ctx, c.Node); err != nil {
			return err
		}
	}
	blocked, err := n.blockedNodes()
	if err != nil {
		return fmt.Errorf("reading the blocked hosts: %w", err)
	}
	for _, id := range fsm.WantBlocked(st, n.confirmed(st)) {
		if !slices.Contains(blocked, id) {
			return fmt.Errorf("%s is not blocked", id)
		}
	}
	if c.Kind == fsm.ChangeAcks && c.Acks == 0 && !n.cfg.Addresser.PortGated() {
		return errors.New("the gate does not cover this host's own port")
	}
	if sv := n.cfg.Prober.Look(ctx); sv.State != fsm.ServerUp || sv.HasReplication || st.SourceAcks() > 0 && (!sv.SourceSync || sv.Acks < st.SourceAcks()) {
		return fmt.Errorf("mysqld is %s and waits for %d acknowledgements, %d are to be waited for", sv.State, sv.Acks, st.SourceAcks())
	}
	if err := n.onlyMembersAcknowledge(ctx, *c); err != nil {
		return err
	}
	at, err := n.cfg.Database.Written(ctx)
	if err != nil {
		return err
	}
	n.sync.setPrepared(c.Index, at)
	n.peers.kickAll()
	n.wakeLeading()
	n.log.Info("change of the sync set prepared", "kind", c.Kind, "node", c.Node, "acks", c.Acks, "index", c.Index, "position", at)
	return nil
}

// onlyMembersAcknowledge as far as is known. With 0 to be waited for nobody's acknowledgement matters any more.
func (n *Node) onlyMembersAcknowledge(ctx context.Context, c fsm.SetChange) error {
	if c.Kind == fsm.ChangeAcks && c.Acks == 0 {
		return nil
	}
	if err := n.keepStrangersOut(ctx); err != nil && !errors.Is(err, errNotAsked) {
		return err
	}
	return nil
}

// async stops waiting for acknowledgements, if the log still says so.
func (n *Node) async(ctx context.Context) error {
	st := n.store.State()
	if st.Primary != n.cfg.Node || st.SourceAcks() > 0 || !n.cfg.Addresser.PortGated() {
		return errOvertaken
	}
	n.log.Warn("degraded: commits wait for nobody", "epoch", st.Epoch, "index", st.Index)
	return n.cfg.Database.SourceAsync(ctx)
}

// switchSyncOff ends this node's acknowledgements, and remembers since when it is sure of it.
func (n *Node) switchSyncOff(ctx context.Context) error {
	st := n.store.State()
	since := st.OutsideSince(n.cfg.Node)
	if since == 0 {
		return errOvertaken
	}
	if err := n.cfg.Database.SyncOff(ctx); err != nil {
		return fmt.Errorf("switching this replica's acknowledgements off: %w", err)
	}
	n.sync.setOff(since)
	n.peers.kickAll()
	return nil
}
