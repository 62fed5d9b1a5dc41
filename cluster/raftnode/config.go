package raftnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// FSM is the replicated state. Raft calls it from one goroutine at a time; it must not call back into
// the Node and must not block, because every commit waits for it.
type FSM interface {
	// Apply runs a committed command and returns its result, which Node.Apply hands to the proposer.
	// It must be deterministic: same entries, same state, on every node. data must not be kept.
	Apply(index uint64, term uint64, data []byte) any
	// Snapshot returns the whole state, encoded. It is called between two Applies.
	Snapshot() ([]byte, error)
	// Restore replaces the whole state with what Snapshot returned, on this node or another.
	Restore(data []byte) error
}

// Timing holds Raft's clocks. They decide how soon a lost leader is replaced, and nothing about safety:
// no lease of the cluster is built on them.
type Timing struct {
	// Heartbeat is how long a follower hears nothing before it suspects the leader. Lower finds a dead
	// leader sooner; a stall of the leader that lasts as long costs an election.
	Heartbeat time.Duration
	// Pace is what a leader works with in place of Heartbeat: it sends its heartbeats a tenth to a fifth of that apart. Each wakes
	// both processes; the library's own rate leaves a follower five to ten of them in Heartbeat. Default Heartbeat.
	Pace time.Duration
	// Election is how long a candidate waits before it tries again; at least Heartbeat.
	Election time.Duration
	// LeaderLease is how long a leader without a quorum goes on before it steps down; at most Heartbeat.
	LeaderLease time.Duration
	// CommitTimeout is how soon followers learn of a commit when nothing else is being replicated, at the
	// price of an empty message per peer and interval. It may be long, because Apply and Barrier hint to
	// followers right after each commit.
	CommitTimeout time.Duration
}

// FastTiming replaces a lost leader in 0.28 s, nine times of ten within 0.44 s, and in 0.5 s at most of 120
// (BenchmarkElection, two cores). Four times more to do than the cores can, and a disk under fsync storms,
// cause no election where hbd may raise its priority.
func FastTiming() Timing {
	return Timing{Heartbeat: 100 * time.Millisecond, Election: 100 * time.Millisecond,
		LeaderLease: 100 * time.Millisecond, CommitTimeout: 500 * time.Millisecond}
}

// LANTiming replaces a lost leader in 0.6 s, nine times of ten within 0.84 s, and in 0.92 s at most of 120. It must stay below what is left of the
// primary's lease: losing the leader's host would close the gate of a healthy primary otherwise. It takes
// up to four times Heartbeat, because both followers have to miss the leader before one is voted for.
func LANTiming() Timing {
	return Timing{Heartbeat: 200 * time.Millisecond, Pace: 400 * time.Millisecond, Election: 200 * time.Millisecond,
		LeaderLease: 180 * time.Millisecond, CommitTimeout: 500 * time.Millisecond}
}

// Watchdog configures the leader's watch over its own commits.
type Watchdog struct {
	// Interval is the time between two looks. Where something is being proposed, and Rest has not passed,
	// a no-op is committed at each to see whether anything can be. Default 750 ms.
	Interval time.Duration
	// Rest is how long after a successful round a leader that proposes nothing goes without one: each costs
	// an fsync on every node, and a disk that hangs meanwhile is found that much later. Default 1.5 s.
	Rest time.Duration
	// Stall is how long no round that was asked for may succeed before the leader gives up leadership; as
	// long again until it reports itself stuck: after Rest + Interval + 2 x Stall at most. It must exceed
	// the worst fsync the disk is forgiven. Default 3 s.
	Stall time.Duration
}

// Config is all a Node needs to know.
type Config struct {
	// Dir holds the log, the snapshots and the instance id. Wiping it makes a new instance.
	Dir string
	// ClusterID and Node name this member; both are part of every handshake.
	ClusterID string
	Node      string
	// Bind is the TCP address to listen on, "ip:port". Advertise is the one peers dial; default Bind.
	Bind      string
	Advertise string

	Timing          Timing
	PreVoteDisabled bool
	Watchdog        Watchdog

	FSM FSM
	Log *slog.Logger
	// OnStuck is called at most once, from a goroutine of its own, when this node can no longer do its
	// part: it leads and cannot commit nor step down, or met an entry it cannot read. The process should
	// exit; nothing in here recovers from it.
	OnStuck func(reason string)
	// Authorize may refuse a dialling peer of the right cluster that names this very instance. nil
	// accepts all of those: a node that was away must accept a leader it has never heard of, because
	// only that leader can tell it that the membership changed.
	Authorize func(from Identity) error
	// ServerTLS and ClientTLS wrap connections before the handshake; nil means plain TCP. Both or none.
	ServerTLS, ClientTLS *tls.Config

	// Seams for tests: a network that can be cut, a disk that can hang, a handshake that checks nothing.
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	wrapLogs func(raft.LogStore) raft.LogStore

	trustAnyone bool
}

// withDefaults fills what may be left out and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	if c.Watchdog.Interval == 0 {
		c.Watchdog.Interval = 750 * time.Millisecond
	}
	if c.Watchdog.Rest == 0 {
		c.Watchdog.Rest = 1500 * time.Millisecond
	}
	if c.Timing.Pace == 0 {
		c.Timing.Pace = c.Timing.Heartbeat
	}
	if c.Watchdog.Stall == 0 {
		c.Watchdog.Stall = 3 * time.Second
	}
	if c.dial == nil {
		c.dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	if c.wrapLogs == nil {
		c.wrapLogs = func(s raft.LogStore) raft.LogStore { return s }
	}
	if c.OnStuck == nil {
		return c, errors.New("raft configuration: OnStuck is required")
	}
	if c.FSM == nil || c.Log == nil {
		return c, errors.New("raft configuration: FSM and Log are required")
	}
	if c.Dir == "" || c.Bind == "" {
		return c, errors.New("raft configuration: Dir and Bind are required")
	}
	if (c.ServerTLS == nil) != (c.ClientTLS == nil) {
		return c, errors.New("raft configuration: ServerTLS and ClientTLS go together")
	}
	if err := errors.Join(checkName("cluster id", c.ClusterID), checkName("node id", c.Node)); err != nil {
		return c, fmt.Errorf("raft configuration: %w", err)
	}
	return c, c.checkTimes()
}

// checkTimes checks the relations between the durations and shows both values.
func (c Config) checkTimes() error {
	t := c.Timing
	switch {
	case t.LeaderLease <= 0 || t.CommitTimeout <= 0:
		return fmt.Errorf("raft timing: leader lease %s and commit timeout %s must be positive", t.LeaderLease, t.CommitTimeout)
	case t.LeaderLease > t.Heartbeat:
		return fmt.Errorf("raft timing: leader lease %s exceeds heartbeat %s", t.LeaderLease, t.Heartbeat)
	case t.Pace < t.Heartbeat || t.Pace > 3*t.Heartbeat:
		// Beyond that a follower would hear less than two heartbeats, when they are late, before it suspects the leader.
		return fmt.Errorf("raft timing: pace %s must be one to three times heartbeat %s", t.Pace, t.Heartbeat)
	case t.Heartbeat > t.Election:
		return fmt.Errorf("raft timing: heartbeat %s exceeds election %s", t.Heartbeat, t.Election)
	case c.Watchdog.Stall < 2*c.Watchdog.Interval:
		return fmt.Errorf("raft watchdog: stall %s is under two intervals of %s", c.Watchdog.Stall, c.Watchdog.Interval)
	case c.Watchdog.Stall <= t.LeaderLease:
		// A leader cut off from its peers steps down by itself after the lease; that is no stuck leader.
		return fmt.Errorf("raft watchdog: stall %s must exceed leader lease %s", c.Watchdog.Stall, t.LeaderLease)
	}
	return nil
}

// rpcTimeout bounds one exchange between two nodes. Too short, and a follower's slow fsync looks like a
// lost link; too long, and a connection cut without a reset delays the first heartbeat after the cut.
func (t Timing) rpcTimeout() time.Duration {
	return max(4*t.Heartbeat, time.Second)
}

// raftConfig translates to the library's settings. Snapshots are small (the whole state is a few
// kilobytes) and no-ops many, so the log is compacted often and little is kept behind.
func (c Config) raftConfig(id ServerID, logger *bridge, notify chan<- bool) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(id)
	rc.HeartbeatTimeout = c.Timing.Heartbeat
	rc.ElectionTimeout = c.Timing.Election
	rc.LeaderLeaseTimeout = c.Timing.LeaderLease
	rc.CommitTimeout = c.Timing.CommitTimeout
	rc.PreVoteDisabled = c.PreVoteDisabled
	rc.SnapshotThreshold = 4096
	rc.SnapshotInterval = 30 * time.Second
	rc.TrailingLogs = 1024
	// A removed node stays up as a follower of nobody: hbd decides when to exit.
	rc.ShutdownOnRemove = false
	rc.NotifyCh = notify
	rc.Logger = logger
	rc.NoLegacyTelemetry = true
	return rc
}
