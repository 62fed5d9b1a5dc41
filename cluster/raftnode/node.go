package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Node is one member of the Raft group. All methods may be called from any goroutine.
type Node struct {
	cfg       Config
	id        ServerID
	log       *slog.Logger
	raft      *raft.Raft
	adapter   *adapter
	store     *store
	stream    *stream
	transport *transport
	rounds    *rounds      // through the log
	asks      *rounds      // of questions
	proposing atomic.Int64 // entries that callers wait for
	doubt     atomic.Bool  // the last one that was waited for is not known to be committed, though this node led
	leaders   *leadership

	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	stuckOnce sync.Once
	closeOnce sync.Once
	closeErr  error
}

// closeTimeout bounds the wait for Raft's goroutines at Close. With a hung disk they never end, and the
// process is about to exit anyway.
const closeTimeout = 5 * time.Second

// maxPooled is how many idle connections per peer are kept: one each for heartbeats, entries, hints, votes and questions.
const maxPooled = 5

// Open starts the member kept in cfg.Dir. A member that was never bootstrapped nor added waits to hear
// from a leader and does nothing else. ErrStoreWiped and ErrStoreIncomplete tell of a damaged store.
func Open(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	logger := newBridge(cfg.Log)
	st, err := openStore(cfg.Dir, logger)
	if err != nil {
		return nil, err
	}
	id := MakeServerID(cfg.Node, st.instance)
	str, err := listen(cfg, id)
	if err != nil {
		return nil, errors.Join(err, st.bolt.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{cfg: cfg, id: id, log: cfg.Log, store: st, stream: str, ctx: ctx, cancel: cancel}
	n.transport = newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: str, MaxPool: maxPooled, Timeout: cfg.Timing.rpcTimeout(), Logger: logger,
		// Pipelining only helps throughput, and its failure handling is the library's least tested path.
		MaxRPCsInFlight: 1,
	}))
	n.rounds = newRounds(cfg.Watchdog.Stall, n.proposeNoop)
	n.asks = newRounds(cfg.Watchdog.Stall, n.askQuorum)
	n.leaders = newLeadership()
	if err := n.start(logger); err != nil {
		cancel()
		return nil, errors.Join(err, n.transport.Close(), st.bolt.Close())
	}
	return n, nil
}

// start brings up the library and then our own goroutines, all of which Close ends.
func (n *Node) start(logger *bridge) error {
	// A small buffer: the library blocks on this channel, so it is drained by a goroutine that waits for nothing.
	notify := make(chan bool, 8)
	fsm := &adapter{fsm: n.cfg.FSM, stuck: n.stuck}
	r, err := raft.NewRaft(n.cfg.raftConfig(n.id, logger, notify), fsm, n.cfg.wrapLogs(n.store.bolt), n.store.bolt, n.store.snaps, n.transport)
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	n.raft, n.adapter = r, fsm
	n.wg.Go(func() { n.drain(notify) })
	n.wg.Go(func() { n.leaders.dispatch(n.ctx) })
	n.wg.Go(n.watch)
	return nil
}

// Close leaves the group without a word to anybody and releases the store. A leader should call
// TransferTo first. It returns within a few seconds even when the disk hangs, then with an error.
func (n *Node) Close() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Node) close() error {
	n.cancel()
	n.transport.release()
	down := n.raft.Shutdown()
	// Cutting the connections ends exchanges in flight, which Raft's own shutdown would wait for.
	err := n.stream.Close()
	done := make(chan error, 1)
	go func() {
		err := down.Error()
		n.wg.Wait()
		done <- err
	}()
	select {
	case shutdownErr := <-done:
		return errors.Join(err, shutdownErr, n.store.bolt.Close())
	case <-time.After(closeTimeout):
		// Closing the store under a write that hangs would block here as well.
		return errors.Join(err, fmt.Errorf("raft did not stop within %s; its store stays open", closeTimeout))
	}
}

// stuck reports, once, that this node cannot go on.
func (n *Node) stuck(reason string) {
	n.stuckOnce.Do(func() {
		n.log.Error("raft is stuck", "reason", reason)
		// Not on the caller's goroutine, which may be Raft's own: whoever is told may want to call Close.
		go n.cfg.OnStuck(reason)
	})
}

// ID returns this member's server id.
func (n *Node) ID() ServerID { return n.id }

// Address returns the address peers dial.
func (n *Node) Address() string { return n.stream.advertise }

// Leader returns the leader this node knows of, or "" and "" when it knows none.
func (n *Node) Leader() (id ServerID, address string) {
	addr, sid := n.raft.LeaderWithID()
	return ServerID(sid), string(addr)
}

// IsLeader reports whether this node believes that it leads. A leader that was paused believes so for a
// moment after it wakes: only VerifyQuorumRound and VerifyLeadership prove it.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Term returns the term this node is in.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Stats is what one node knows of its own Raft.
type Stats struct {
	// State is "Follower", "Candidate", "Leader" or "Shutdown".
	State string
	Term  uint64
	// LastIndex is the newest entry in the log, Committed the newest known to be on a quorum, Applied
	// the newest the FSM has seen.
	LastIndex, Committed, Applied uint64
	// SinceLeader is how long ago this node last heard from a leader: 0 on the leader itself, negative
	// when it never did.
	SinceLeader time.Duration
	// Silent holds, on a leader, the members whose latest heartbeat was not answered.
	Silent []ServerID
	// Rounds counts the quorum rounds through the log that this node completed as leader.
	Rounds uint64
}

// Stats reads the counters; nothing in it is a promise.
func (n *Node) Stats() Stats {
	s := Stats{
		State: n.raft.State().String(), Term: n.raft.CurrentTerm(),
		LastIndex: n.raft.LastIndex(), Committed: n.raft.CommitIndex(), Applied: n.adapter.applied.Load(),
		SinceLeader: -1, Rounds: n.rounds.succeeded(),
	}
	if last := n.raft.LastContact(); !last.IsZero() {
		s.SinceLeader = time.Since(last)
	}
	if !n.IsLeader() {
		return s
	}
	s.SinceLeader = 0
	for _, m := range n.Servers() {
		if m.ID != n.id && !n.transport.answering(m.ID) {
			s.Silent = append(s.Silent, m.ID)
		}
	}
	return s
}
