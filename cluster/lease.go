package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// holder is this node's lease. It renews while the log says that this node is primary, and extends the kernel's gate with each renewal. It
// never opens the gate: that is an action of its own, after the barrier.
type holder struct {
	n      *Node
	kicked chan struct{}
	mu     sync.Mutex
	epoch  uint64
	until  fsm.Instant
	era    uint64 // rises when the lease is dropped
}

type leaseRequest struct {
	Node  fsm.NodeID `json:"node"`
	Epoch uint64     `json:"epoch"`
}

type leaseReply struct {
	Granted time.Duration `json:"granted"`
	Refusal string        `json:"refusal"`
}

func newHolder(n *Node) *holder { return &holder{n: n, kicked: make(chan struct{}, 1)} }

func (h *holder) kick() { wake(h.kicked) }

// valid is the lease in hand: its epoch, and whether it is still running.
func (h *holder) valid() (epoch uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch, h.until > now()
}

func (h *holder) left(epoch uint64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch != epoch {
		return 0
	}
	return max(0, h.until-now())
}

// deadline is until when the gate may be open, 0 without a valid lease of that epoch.
func (h *holder) deadline(epoch uint64) fsm.Instant {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch != epoch || h.until <= now() {
		return 0
	}
	return h.until
}

// drop gives the lease up: an answer to a request sent before it does not count either.
func (h *holder) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = 0
	h.era++
}

func (h *holder) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.kicked:
		case <-timer.C:
		}
		set := h.n.settings()
		if h.wanted() {
			h.renew(ctx, set)
		}
		timer.Reset(h.n.cfg.UntilBeat(set.Renew))
	}
}

// wanted: the log names this node, and it has not let go.
func (h *holder) wanted() bool {
	st := h.n.store.State()
	p := h.n.promises.get()
	released := st.Op != nil && st.Op.Kind.Planned() && st.Op.ID == p.ReleasedOp && st.Op.From == h.n.cfg.Node
	return fsm.LeaseRefusal(st, h.n.cfg.Node, st.Epoch) == "" && !released && p.Quarantine == "" && p.HighestEpoch <= st.Epoch && !h.n.stopping.Load()
}

func (h *holder) renew(ctx context.Context, set fsm.Settings) {
	epoch := h.n.store.State().Epoch
	h.mu.Lock()
	era := h.era
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, set.RenewLimit)
	defer cancel()
	sent := now()
	granted, err := h.ask(ctx, epoch, set)
	if err != nil {
		h.n.stats.renewal(0, false)
		h.n.log.Debug("lease not renewed", "epoch", epoch, "error", err.Error())
		return
	}
	had := h.left(epoch)
	h.n.stats.renewal(now()-sent, true)
	h.mu.Lock()
	if h.era != era {
		h.mu.Unlock()
		return
	}
	if until := fsm.HolderDeadline(sent, granted); h.epoch != epoch || until > h.until {
		h.epoch, h.until = epoch, until
	}
	until := h.until
	h.mu.Unlock()
	if had <= 0 {
		h.n.log.Info("lease obtained", "epoch", epoch, "length", granted)
		wake(h.n.wake)
	}
	h.extend(until)
}

// extend renews the gate if it is open. One that has closed is opened again by the local loop, if it may be.
func (h *holder) extend(until fsm.Instant) {
	if !h.n.gateOpen() {
		return
	}
	if err := h.n.cfg.Addresser.Renew(until); err != nil {
		h.n.log.Warn("gate not renewed", "error", err.Error())
		wake(h.n.wake)
	}
}

// ask goes to the leader; when that does not answer soon, through any other member that still reaches it.
func (h *holder) ask(ctx context.Context, epoch uint64, set fsm.Settings) (time.Duration, error) {
	req := leaseRequest{Node: h.n.cfg.Node, Epoch: epoch}
	type result struct {
		reply leaseReply
		err   error
	}
	results := make(chan result, len(h.n.cfg.Peers)+1)
	pending := 1
	go func() {
		var out leaseReply
		err := h.n.leaseFromLeader(ctx, req, &out)
		results <- result{out, err}
	}()
	relay := time.NewTimer(set.RenewLimit / 3)
	defer relay.Stop()
	relayed := false
	startRelay := func() {
		if relayed {
			return
		}
		relayed = true
		for _, pe := range h.n.peers.known {
			pending++
			go func() {
				var out leaseReply
				err := h.n.client.Ping(ctx, h.n.peers.address(pe), "relay_lease", req, &out)
				results <- result{out, err}
			}()
		}
	}
	var errs []error
	for pending > 0 {
		select {
		case r := <-results:
			pending--
			if r.err == nil && r.reply.Refusal == "" {
				return r.reply.Granted, nil
			}
			if r.err == nil {
				r.err = errors.New("refused: " + r.reply.Refusal)
			}
			errs = append(errs, r.err)
			startRelay()
		case <-relay.C:
			startRelay()
		case <-ctx.Done():
			return 0, fmt.Errorf("asking for the lease of epoch %d: %w", epoch, errors.Join(append(errs, ctx.Err())...))
		}
	}
	return 0, fmt.Errorf("asking for the lease of epoch %d: %w", epoch, errors.Join(errs...))
}

// leaseFromLeader asks the leader this node knows, which may be itself.
func (n *Node) leaseFromLeader(ctx context.Context, req leaseRequest, out *leaseReply) error {
	if r := n.raft(); r != nil && r.IsLeader() {
		*out = n.grantor.grant(ctx, req)
		return nil
	}
	return n.callLeader(ctx, "lease", req, out)
}
