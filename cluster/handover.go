package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

type handOverRequest struct {
	Node fsm.NodeID `json:"node"`
}

type handOverReply struct {
	To   fsm.NodeID `json:"to"`
	Why  string     `json:"why"`  // why nobody can take over, when To is empty
	Soon bool       `json:"soon"` // and somebody may in a moment
}

// onHandOver begins a hand-over for a primary that shuts down. Leader only.
func (n *Node) onHandOver(ctx context.Context, _ string, in handOverRequest) (handOverReply, error) {
	st := n.store.State()
	l := n.leading.Load()
	if l == nil {
		return handOverReply{}, errors.New("not the leader")
	}
	if st.Primary != in.Node || st.Op != nil {
		return handOverReply{}, fmt.Errorf("%s is not a primary at rest", in.Node)
	}
	v := fsm.Classify(st, l.view(st))
	to, refusals := fsm.BestCandidate(st, v, in.Node)
	if to == "" {
		why := "no other data node"
		for _, r := range refusals {
			why = r.String()
		}
		return handOverReply{Why: why, Soon: slices.ContainsFunc(refusals, fsm.PassesSoon)}, nil
	}
	err := n.propose(ctx, fsm.Command{At: time.Now(), Switchover: &fsm.Switchover{Kind: fsm.KindHandover, Epoch: st.Epoch, From: in.Node, To: to,
		Actor: string(in.Node), Busy: fsm.BusyKill, Cause: fmt.Sprintf("hbd on %s was asked to stop", in.Node)}})
	return handOverReply{To: to}, err
}

// Shutdown gives up the role in order: hand over if somebody can take it, release the address, stop. mysqld keeps running, read-only: stopping
// it is the service manager's part, after hbd. If nobody can take over, clients are cut off all the same and the reason is logged.
func (n *Node) Shutdown(ctx context.Context) error {
	n.leaving.Store(true)
	wake(n.wake)
	if n.cfg.Prober == nil || n.raft() == nil {
		return n.Close()
	}
	if n.store.State().Primary == n.cfg.Node {
		if err := n.giveAway(ctx); err != nil {
			n.log.Warn("role not handed over; stopping all the same", "why", err.Error())
		}
	}
	n.stopping.Store(true)
	if r := n.raft(); r.IsLeader() {
		n.leadElsewhere(ctx)
	}
	n.exec.preempt()
	err := n.exec.order(ctx, func(ctx context.Context) error {
		n.holder.drop()
		n.closeGate("hbd is stopping")
		if n.store.State().Primary == n.cfg.Node {
			if _, err := n.makeReadOnly(ctx, false); err != nil {
				n.log.Warn("mysqld is not read-only", "error", err.Error())
			}
		}
		return n.cfg.Addresser.SetHeld(ctx, false)
	})
	return errors.Join(err, n.Close(), n.cfg.Addresser.Destroy(ctx))
}

// leadElsewhere hands Raft leadership over, so that nobody waits for an election.
func (n *Node) leadElsewhere(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, s := range n.raft().Servers() {
		agent, _ := n.peers.reachable(fsm.NodeID(s.ID.Node()))
		if !agent {
			continue
		}
		err := n.raft().TransferTo(ctx, s.ID)
		if err == nil {
			return
		}
		n.log.Info("leadership not handed over", "to", s.ID.Node(), "error", err.Error())
	}
}

// giveAway asks the leader for a hand-over until this node is no longer primary and its successor serves.
func (n *Node) giveAway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.HandoverTimeout)
	defer cancel()
	changed := n.store.watch()
	defer n.store.unwatch(changed)
	var last error
	for until := now() + soonEnough; ; {
		st := n.store.State()
		if st.Primary != n.cfg.Node && st.Primary != "" && st.Phase == fsm.PhaseSteady {
			n.log.Info("role handed over", "to", st.Primary, "epoch", st.Epoch)
			return nil
		}
		if st.Primary == n.cfg.Node && st.Op == nil {
			reply, err := n.askHandOver(ctx)
			if err == nil && reply.To == "" && (!reply.Soon || now() > until) {
				return errors.New("nobody can take over: " + reply.Why)
			}
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("not handed over within %v", n.cfg.HandoverTimeout), last)
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (n *Node) askHandOver(ctx context.Context) (handOverReply, error) {
	if n.leading.Load() != nil {
		return n.onHandOver(ctx, string(n.cfg.Node), handOverRequest{n.cfg.Node})
	}
	var out handOverReply
	err := n.callLeader(ctx, "hand_over", handOverRequest{n.cfg.Node}, &out)
	return out, err
}
