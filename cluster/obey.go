package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// obey carries out an order of the leader. Every order only takes away: so it may be ahead of this node's log. It is accepted, durably, before
// anything else happens; one older than what was accepted, or than what this node has applied, is refused and disturbs nothing.
func (n *Node) obey(ctx context.Context, o fsm.Order) (orderReply, error) {
	if o.Node != n.cfg.Node || n.cfg.Database == nil {
		return orderReply{}, fmt.Errorf("order %s is for %s", o.Kind, o.Node)
	}
	var reply orderReply
	if o.Kind == fsm.OrderAwait {
		err := n.cfg.Database.Drain(ctx, o.Position)
		if err == nil {
			n.wg.Go(func() { n.endReceiving(o) })
		}
		return reply, err
	}
	had := n.exec.expect()
	defer had()
	if err := n.acceptOrder(o); err != nil {
		return reply, err
	}
	err := n.exec.order(ctx, func(ctx context.Context) error {
		had()
		if err := n.passed(o); err != nil {
			return err
		}
		var err error
		switch o.Kind {
		case fsm.OrderFreeze:
			if reply.Answer, err = n.freeze(ctx, o); err == nil {
				reply.Unapplied = reply.Answer.Unapplied
			}
		case fsm.OrderFence:
			reply.Evidence, err = n.fence(ctx, o)
		case fsm.OrderRelease:
			reply.Answer, err = n.release(ctx, o)
		default:
			err = fmt.Errorf("order %q is not known to this version", o.Kind)
		}
		return err
	})
	if o.Kind == fsm.OrderRelease && err == nil {
		// It is looked at after it was changed, as always; neither the answer nor the clients wait for that.
		n.wg.Go(func() {
			wait(n.ctx, n.holdsStill(n.store.State()))
			n.cfg.Prober.Look(n.ctx)
			wake(n.wake)
		})
	} else {
		wake(n.wake)
	}
	n.log.Info("order", "order", o.Kind, "epoch", o.Epoch, "index", o.Index, "error", errText(err))
	return reply, err
}

// acceptOrder makes the promise that the order asks for. A freeze promises to follow no source of an epoch below its own again; a release, never to
// serve the epoch again unless the log takes the operation back. That is on disk while clients are still served, and before anything is answered.
func (n *Node) acceptOrder(o fsm.Order) error {
	if err := n.passed(o); err != nil {
		return err
	}
	if o.Kind == fsm.OrderRelease {
		if p := n.promises.get(); p.Held != o.Epoch {
			return fmt.Errorf("this node does not hold epoch %d", o.Epoch)
		}
	}
	newer, err := n.promises.accept(o, func(p *Promises) {
		switch o.Kind {
		case fsm.OrderFreeze:
			p.Frozen = max(p.Frozen, o.Epoch)
		case fsm.OrderRelease:
			p.ReleasedOp = o.OpID
		default:
		}
	})
	if err != nil {
		return err
	}
	if newer {
		n.exec.preempt()
	}
	return nil
}

// passed refuses an order that the applied state has already left behind.
func (n *Node) passed(o fsm.Order) error {
	st := n.store.State()
	if breakEpoch || st.Epoch < o.Epoch || (st.Epoch == o.Epoch && st.Index < o.Index) {
		return nil
	}
	if st.Epoch == o.Epoch && st.Op != nil && st.Op.ID == o.OpID && st.Op.Index <= o.Index {
		return nil
	}
	return fmt.Errorf("order %s of epoch %d index %d has been overtaken: applied are epoch %d, index %d", o.Kind, o.Epoch, o.Index, st.Epoch, st.Index)
}

// freeze stops receiving, and only after that reads what was received. The promise was made by acceptOrder.
func (n *Node) freeze(ctx context.Context, o fsm.Order) (*fsm.Answer, error) {
	p := n.promises.get()
	if p.Quarantine != "" {
		return nil, errors.New("quarantined: " + p.Quarantine)
	}
	ans := &fsm.Answer{Node: n.cfg.Node, Epoch: o.Epoch, Held: p.own()}
	if p.Held > p.Followed {
		// It was primary: it must not serve.
		n.holder.drop()
		n.closeGate("frozen for a new epoch")
	}
	if ans.Held > 0 {
		// Its data is its own: its mysqld need not even run to say so.
		return ans, nil
	}
	var sever func() error
	var err error
	if o.From != n.cfg.Node { // a node that was named primary and never took that up has itself for the old one: it receives from nobody
		source, err := n.sourceAddr(o.From)
		if err != nil {
			return nil, err
		}
		// First the local block: a STOP over a dead link takes seconds otherwise, and nothing of the old primary may arrive after the answer.
		if err := n.cfg.Addresser.Block(source); err != nil {
			return nil, fmt.Errorf("blocking replication traffic from %s: %w", o.From, err)
		}
		sever = n.severFrom(source)
	}
	if ans.Received, err = n.cfg.Database.Freeze(ctx, sever); err != nil {
		return nil, fmt.Errorf("stopping to receive: %w", err)
	}
	if o.Drained {
		if err := n.cfg.Database.Drain(ctx, ans.Received); err != nil {
			return nil, fmt.Errorf("applying what was received: %w", err)
		}
		if ans.LastEpoch, err = n.cfg.Database.LastEpoch(ctx); err != nil {
			return nil, err
		}
	}
	sv := n.cfg.Prober.Look(ctx)
	if sv.State != fsm.ServerUp {
		return nil, fmt.Errorf("mysqld is %s: %s", sv.State, sv.Fault)
	}
	// Only of whom it has followed in the epoch that ends, and so been compared with: what it had of an earlier time may be of a branch that was cut.
	if o.From != n.cfg.Node && p.Followed+1 == o.Epoch && n.isAt(o.From, sv.SourceHost, sv.SourcePort) {
		ans.Source = sv.SourceID
	}
	ans.Incarnation, ans.Whole = n.incarnation(sv, n.promises.get())
	if behind, err := fsm.Unapplied(n.store.State().Server, sv.Executed, ans.Received); err == nil { // a preference only
		ans.Unapplied = behind
	}
	if p.Turned > p.Held && ans.Whole <= p.Held && p.TurnedAt == ans.Received && p.TurnedRun == sv.Started {
		// It was stopped in the middle of turning round and has received nothing since: its data is still its own.
		ans.Held = p.Held
	}
	return ans, nil
}

// isAt tells whether a member's mysqld has an address.
func (n *Node) isAt(id fsm.NodeID, host string, port uint16) bool {
	m, ok := n.store.State().Member(id)
	return ok && m.Address == host && m.MySQLPort == port
}

// severFrom destroys the sockets of replication traffic with a host.
func (n *Node) severFrom(host netip.Addr) func() error {
	return func() error {
		_, err := n.cfg.Addresser.SeverPeer(host)
		return err
	}
}

// severSource destroys what is left of the connection to the old primary of the running operation; nil when there is none.
func (n *Node) severSource(st fsm.State) func() error {
	if st.Op == nil {
		return nil
	}
	addr, err := n.sourceAddr(st.Op.From)
	if err != nil {
		return nil
	}
	return n.severFrom(addr)
}

func (n *Node) sourceAddr(id fsm.NodeID) (netip.Addr, error) {
	for _, m := range n.cfg.Peers {
		if m.ID == id {
			return netip.ParseAddr(m.Address)
		}
	}
	return netip.Addr{}, fmt.Errorf("%s is not a peer of this node", id)
}

// fence makes certain that this node takes no write and answers no client: what was acknowledged is elsewhere, what was not must not be.
func (n *Node) fence(ctx context.Context, o fsm.Order) (*fsm.Evidence, error) {
	n.holder.drop()
	n.closeGate("fenced by the leader")
	if left, err := n.cfg.Addresser.Remaining(); err != nil || left > 0 {
		return nil, errors.Join(fmt.Errorf("the gate is not closed, %v left", left), err)
	}
	detail, err := n.makeReadOnly(ctx, true)
	if err != nil {
		return nil, err
	}
	return &fsm.Evidence{Kind: fsm.EvidenceAgent, Node: n.cfg.Node, Detail: "gate closed, clients cut, " + detail}, nil
}

// readOnlyLimit is how long read_only may take before a waiting commit must be the reason.
const readOnlyLimit = 300 * time.Millisecond

// makeReadOnly ends with a mysqld that takes no write. read_only returns only when no commit waits: if it does not return, mysqld is killed,
// never stopped politely, because a polite stop tells waiting clients that they succeeded. With certain set, a mysqld that is down or hangs is
// killed too, so that nothing of it comes back.
func (n *Node) makeReadOnly(ctx context.Context, certain bool) (string, error) {
	sv := n.cfg.Prober.Server()
	switch {
	case sv.State == fsm.ServerUp && sv.CommitsWait:
		// read_only would only hang behind them, and the server stay writable meanwhile.
		n.log.Info("commits wait for their acknowledgement: killing mysqld")
	case sv.State == fsm.ServerUp:
		c, cancel := context.WithTimeout(ctx, n.readOnlyLimit)
		err := n.endOwnWrites(c)
		if err == nil {
			err = n.cfg.Database.SetReadOnly(c)
		}
		cancel()
		if err == nil {
			n.cutClients(ctx)
			return "mysqld is read-only and no commit waits", nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("read_only: %w", err)
		}
		n.log.Info("read_only did not return: a commit waits or mysqld hangs; killing it", "error", err.Error())
	case !certain && sv.State != fsm.ServerHung:
		return "mysqld is not running", nil
	}
	if err := n.cfg.Service.Kill(ctx); err != nil {
		return "", fmt.Errorf("killing mysqld: %w", err)
	}
	n.cfg.Prober.Look(ctx)
	return "mysqld is killed", nil
}

// closeGate takes the clients away: the kernel answers them with resets from here.
func (n *Node) closeGate(why string) {
	if n.shutGate() {
		n.resetClients(why)
	}
}

func (n *Node) shutGate() bool {
	if err := n.cfg.Addresser.Close(); err != nil {
		n.log.Error("gate not closed; it closes by itself when the lease ends", "error", err.Error())
		return false
	}
	n.cfg.Addresser.Insist(false)
	n.stats.gateClosed()
	return true
}

// resetClients destroys the sockets of clients whose packets the gate stops already, so that both ends know at once.
func (n *Node) resetClients(why string) {
	if cut, err := n.cfg.Addresser.Sever(); err != nil {
		n.log.Warn("client sockets not destroyed; the gate resets them", "error", err.Error())
	} else {
		n.log.Info("gate closed", "why", why, "clients_cut", cut)
	}
}

// release is the voluntary fence of a switchover. Its answer is what promote carries: since the order was accepted only the log gives this node its
// role back.
func (n *Node) release(ctx context.Context, o fsm.Order) (*fsm.Answer, error) {
	n.holder.drop()
	if n.shutGate() {
		// Their packets are stopped, and they have nowhere to go before this node has answered: it need not wait for that.
		n.wg.Go(func() {
			if !n.gateOpen() {
				n.resetClients("released for a switchover")
			}
		})
	}
	run := n.cfg.Prober.Server().Started
	if err := n.closeToWrites(ctx, o); err != nil {
		return nil, err
	}
	// It must be known before this node is judged again: it would be made read-only once more, with less patience.
	if !n.cfg.Prober.BecameReadOnly(run) {
		n.cfg.Prober.Look(ctx)
	}
	// From here only the candidate may acknowledge: what the others receive later would be nobody's.
	if err := n.revokeOthers(o.To); err != nil {
		return nil, err
	}
	pos, err := n.cfg.Database.Written(ctx)
	if err != nil {
		return nil, err
	}
	return &fsm.Answer{Node: n.cfg.Node, Epoch: o.Epoch, Received: pos}, nil
}

// revokeOthers ends replication from here to everybody but the candidate. Who is blocked already sends nothing that arrives.
func (n *Node) revokeOthers(candidate fsm.NodeID) error {
	blocked, err := n.blockedNodes()
	if err != nil {
		return fmt.Errorf("reading the blocked hosts: %w", err)
	}
	for _, m := range n.cfg.Peers {
		if m.ID == n.cfg.Node || m.ID == candidate || m.Role == fsm.RoleWitness || slices.Contains(blocked, m.ID) {
			continue
		}
		addr, err := netip.ParseAddr(m.Address)
		if err != nil {
			return err
		}
		if err := n.cfg.Addresser.Block(addr); err != nil {
			return fmt.Errorf("blocking replication traffic to %s: %w", m.ID, err)
		}
		if _, err := n.cfg.Addresser.SeverPeer(addr); err != nil {
			return fmt.Errorf("cutting replication to %s: %w", m.ID, err)
		}
	}
	return nil
}

// unblockAll lets replication traffic pass again. What is left of the connections it was cut from is dead, and one side of each does not know.
func (n *Node) unblockAll() error {
	blocked, err := n.cfg.Addresser.Blocked()
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range blocked {
		errs = append(errs, n.severFrom(a)(), n.cfg.Addresser.Unblock(a))
	}
	return errors.Join(errs...)
}
