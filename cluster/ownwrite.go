package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// ownWrite is the one write of hbd's own, besides nudges, that may be under way: about scheduled events. The manager's account writes on a read-only
// server too, and the server goes on with what it was sent: so whoever takes the role away first waits until the write has ended, or is sure that
// it will not be sent.
type ownWrite struct {
	mu     sync.Mutex
	done   chan struct{} // closed when it has ended; nil: none is under way
	cancel context.CancelFunc
	sent   bool
	ended  bool // nothing of it may be sent any more
}

// ownWriteLimit ends the waiting for one that nobody acknowledges. The server goes on with it then, and read_only waits for it like for any commit.
const ownWriteLimit = time.Hour

// tenure is a primary's time in one epoch and one run of its mysqld.
type tenure struct {
	epoch uint64
	run   string
}

// tenure is this node's present one, if it has any.
func (n *Node) tenure() tenure {
	return tenure{n.store.State().Epoch, n.cfg.Prober.Server().Started}
}

// mayWriteOwn tells why this node may not write anything of its own now: it does so only while it serves and no operation is in hand. So a switchover
// finds none that has just begun, and a new primary has opened before.
func (n *Node) mayWriteOwn(t tenure) error {
	st, p, sv := n.store.State(), n.promises.get(), n.cfg.Prober.Server()
	serves := n.fresh.Load() && st.Primary == n.cfg.Node && st.Op == nil && n.holder.deadline(t.epoch) > 0 && sv.State == fsm.ServerUp && !sv.ReadOnly &&
		!sv.HasReplication && n.barrierOf(p, sv.Started) == t.epoch && n.gateOpen()
	if !serves || n.stopping.Load() || n.leaving.Load() || n.tenure() != t || p.outdated(st.Epoch, st.Index) {
		return errOvertaken
	}
	if sv.CommitsWait {
		return errors.New("commits wait for their acknowledgement")
	}
	return nil
}

// writeOwn carries out one write and returns when it has ended, however long its acknowledgement takes: it is for who waits for nothing else. It begins
// in a turn of its own, like a nudge, so that none can begin while an order or action changes this node.
func (n *Node) writeOwn(ctx context.Context, t tenure, write func(ctx context.Context, may func() error) error) error {
	g := &n.ownWrite
	result := make(chan error, 1)
	err := n.exec.action(ctx, func(context.Context) error {
		if err := n.mayWriteOwn(t); err != nil {
			return err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.done != nil {
			return errors.New("another write of hbd's own is under way")
		}
		c, cancel := context.WithTimeout(n.ctx, ownWriteLimit)
		g.done, g.cancel, g.sent, g.ended = make(chan struct{}), cancel, false, false
		n.wg.Go(func() { result <- g.run(write(c, func() error { return g.may(n.mayWriteOwn(t)) })) })
		return nil
	})
	if err != nil {
		return err
	}
	return <-result
}

// may is asked right before something is sent.
func (g *ownWrite) may(right error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return errOvertaken
	}
	g.sent = g.sent || right == nil
	return right
}

// run notes the end.
func (g *ownWrite) run(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended && err != nil {
		err = errOvertaken
	}
	g.cancel()
	close(g.done)
	g.done = nil
	return err
}

// endOwnWrites makes sure that nothing of hbd's own is sent from here on, and that what was has ended: but for nudges, which wait in the server for
// whom nothing else can commit either. It is called under the executor lock, under which alone they begin.
func (n *Node) endOwnWrites(ctx context.Context) error {
	if err := n.endNudges(ctx); err != nil {
		return err
	}
	g := &n.ownWrite
	g.mu.Lock()
	if g.done == nil {
		g.mu.Unlock()
		return nil
	}
	g.ended = true
	if !g.sent {
		g.cancel()
	}
	done := g.done
	g.mu.Unlock()
	return hasEnded(ctx, done, "a write of hbd's own")
}
