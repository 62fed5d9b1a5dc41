package cluster

import (
	"context"
	"time"

	"github.com/highbase/highbase/fsm"
)

const (
	// asideLimit is how long whom a pause does not need keeps still. A switchover is over long before; if the barrier waits after all, everybody is needed.
	asideLimit = 200 * time.Millisecond
	// asideAfter is how much longer: the clients come back first.
	asideAfter = 50 * time.Millisecond
	// asideLook is how often it is looked whether the new primary serves. It tells everybody itself.
	asideLook = 2 * time.Millisecond
)

// aside is until when this node stands aside in which operation. It belongs to who has the executor's turn.
type aside struct {
	op    uint64
	until fsm.Instant
}

// standAside returns when the new primary of a planned change has served for a moment, or asideLimit after the first call in that change. Clients wait
// until it serves: whoever turns round meanwhile asks the candidate for its position and has binary logs sent, just when it has to end its own replication and write its barrier.
func (n *Node) standAside(ctx context.Context, a fsm.Action, st fsm.State) error {
	if !n.spare(st) {
		return nil
	}
	if n.aside.op != st.Op.ID {
		n.aside.op, n.aside.until = st.Op.ID, now()+n.asideLimit
	}
	c, cancel := context.WithTimeout(ctx, max(0, n.aside.until-now()))
	defer cancel()
	for c.Err() == nil {
		obs, _, ok := n.peers.observed(st.Primary)
		if n.mayStill(a) != nil {
			break
		}
		if ok && obs.Serving == a.Epoch {
			wait(c, asideAfter)
			break
		}
		wait(c, asideLook)
	}
	return n.mayStill(a)
}

// spare tells that a promoted candidate's barrier needs nothing new of this node: enough others replicate from the candidate since before the pause,
// or this node is one of them and acknowledges already.
func (n *Node) spare(st fsm.State) bool {
	op := st.Op
	if op == nil || op.Step != fsm.StepPromoted || !op.Kind.Planned() || !op.Chained || st.Primary == n.cfg.Node {
		return false
	}
	if op.From != n.cfg.Node {
		m, ok := st.Member(st.Primary)
		sv := n.cfg.Prober.Server()
		return ok && st.MayAcknowledge(n.cfg.Node) && sv.SourceHost == m.Address && sv.SourcePort == m.MySQLPort &&
			sv.IORunning && !sv.IOConnecting && sv.SQLRunning && sv.ReplicaSync
	}
	others := 0
	for _, m := range st.Sync.Members {
		if m.Node != n.cfg.Node {
			others++
		}
	}
	return others >= st.Sync.Acks
}
