package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/fsm"
)

// Config is all a Node needs to know.
type Config struct {
	Cluster string     // human name
	Node    fsm.NodeID // this node's id
	DataDir string
	Peers   []fsm.Member // every member, this node too; Instance is not known yet
	VIPs    []string     // addresses, for status
	Server  string       // "mariadb" or "mysql"

	Settings   fsm.Settings // proposed at bootstrap; from then on the log's are in force
	RaftTiming raftnode.Timing
	BindAPI    string // host:port of the API and the node RPC
	BindRaft   string
	BindGossip string // host:port
	GossipPort int

	// Reach asks another host's mysqld for a sign of life, a refusal being one. Every voter can: what it does not reach is evidence, a witness's, too.
	Reach func(ctx context.Context, address string, port uint16) error

	Prober    Prober    // nil on a witness
	Database  Database  // nil on a witness
	Service   Service   // nil on a witness
	Addresser Addresser // nil on a witness
	Clients   Clients   // nil on a witness; clients of a lost primary then wait for their own time limits
	Fencer    Fencer    // may be nil
	Rebuilder Rebuilder // may be nil: this host can neither be rebuilt nor be copied from

	// OnAttention is told over and over whether more goes on than service. It may be nil, and must not wait.
	OnAttention func(on bool)

	HandoverTimeout time.Duration // how long a shutting down primary waits for its successor
	Logger          *slog.Logger
	// OnStuck is called when this process can no longer do its part and should exit; its supervisor starts it again.
	OnStuck func(reason string)
}

func (c Config) self() fsm.Member {
	for _, m := range c.Peers {
		if m.ID == c.Node {
			return m
		}
	}
	return fsm.Member{}
}
