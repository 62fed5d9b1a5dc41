package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// maxNudges bounds the nudges that wait in the server at one time. One that waits keeps a connection for as long as nobody acknowledges: too many
// would leave none for the replica that comes to do so.
const maxNudges = 6

// nudges are the rows written while commits wait: the acknowledgement of any makes up for one that was lost. They are begun by actions and outlive
// them; whoever takes the role away ends them first, because the manager's account writes on a read-only server too.
type nudges struct {
	mu      sync.Mutex
	waiting int         // under way
	last    fsm.Instant // when the newest began
	severed fsm.Instant // when all replicas were last made to connect anew
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed when none is under way any more
}

// nudge writes a row in the background, and leaves it there until it is acknowledged. The first comes at once, each further one only after twice
// the time: an acknowledgement of any of them releases all.
func (n *Node) nudge() {
	g := &n.nudges
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting >= fruitless && now()-g.severed > severPause {
		g.severed = now()
		n.wg.Go(n.severReplicas)
	}
	if g.waiting >= maxNudges || (g.waiting > 0 && now()-g.last < time.Second<<g.waiting) {
		return
	}
	if g.waiting == 0 {
		g.ctx, g.cancel = context.WithTimeout(n.ctx, time.Hour)
		g.done = make(chan struct{})
	}
	g.waiting++
	g.last = now()
	ctx := g.ctx
	n.wg.Go(func() {
		if err := n.cfg.Database.Nudge(ctx); err != nil {
			n.log.Debug("nudge not acknowledged", "error", err.Error())
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.waiting--; g.waiting == 0 {
			g.cancel()
			close(g.done)
		}
	})
}

// When so many nudges wait, an acknowledgement that was lost is not what is wrong: the server does not hear the replicas that are connected, as a
// MariaDB whose thread for acknowledgements waits for one that is gone (docs/SERVERS.md, hangs).
const (
	fruitless  = 3
	severPause = 10 * time.Second
)

// severReplicas destroys the sockets of replication from here: the server notices, and the replicas connect anew. It acknowledges nothing and lets
// nobody in who may not.
func (n *Node) severReplicas() {
	st := n.store.State()
	if st.Primary != n.cfg.Node {
		return
	}
	for _, id := range st.DataNodes() {
		if id == n.cfg.Node {
			continue
		}
		addr, err := n.sourceAddr(id)
		if err != nil {
			continue
		}
		cut, err := n.cfg.Addresser.SeverPeer(addr)
		n.log.Warn("commits wait although replicas are connected and nudges were written: they connect anew", "node", id, "sockets", cut, "error", errText(err))
	}
}

// endNudges makes sure that no nudge is sent from here on: one may still be waiting for its connection. What waits in the server goes on waiting
// there. It is called under the executor lock, under which alone a nudge begins.
func (n *Node) endNudges(ctx context.Context) error {
	g := &n.nudges
	g.mu.Lock()
	if g.waiting == 0 {
		g.mu.Unlock()
		return nil
	}
	g.cancel()
	done := g.done
	g.mu.Unlock()
	return hasEnded(ctx, done, "the nudges")
}

// hasEnded waits until something under way has ended.
func hasEnded(ctx context.Context, done <-chan struct{}, what string) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to end: %w", what, context.Cause(ctx))
	}
}
