package cluster

import (
	"context"

	"github.com/highbase/highbase/fsm"
)

// sourceRun is one run of the mysqld of a node that is replicated from.
type sourceRun struct {
	node fsm.NodeID
	run  string
}

// reconnect makes the receiver connect at once, and remembers to which run of the source: what the server then still says of its last try is no reason to
// stop the one that has just begun.
func (n *Node) reconnect(ctx context.Context, a fsm.Action) error {
	obs, _, _ := n.peers.observed(a.Target)
	if n.hasReconnected(a.Target, obs) && !n.cfg.Prober.Server().IOStalled {
		return nil // judged before the last one ended
	}
	if err := n.cfg.Database.Reconnect(ctx); err != nil {
		return err
	}
	n.reconnected.Store(&sourceRun{a.Target, obs.Server.Started})
	return nil
}

// hasReconnected: the receiver was made to connect to the present run of its source, as far as that has told.
func (n *Node) hasReconnected(source fsm.NodeID, obs fsm.Observation) bool {
	last := n.reconnected.Load()
	return last != nil && *last == sourceRun{source, obs.Server.Started}
}
