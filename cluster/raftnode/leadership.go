package raftnode

import (
	"context"
	"sync"
)

// leadership tells subscribers of changes, in order and each from one goroutine, without ever making
// Raft wait for them.
type leadership struct {
	mu    sync.Mutex
	subs  []func(isLeader bool, term uint64)
	queue []func()
	wake  chan struct{}
	last  change
}

type change struct {
	isLeader bool
	term     uint64
}

func newLeadership() *leadership {
	return &leadership{wake: make(chan struct{}, 1)}
}

// Subscribe calls f with what is known now and again at every change of this node's leadership, one call
// at a time and in order. A call may come late and a slow subscriber delays the others, so f should do
// little. The term is that of the office taken or, for a loss, the term in which the loss was noticed.
func (n *Node) Subscribe(f func(isLeader bool, term uint64)) {
	l := n.leaders
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs = append(l.subs, f)
	now := l.last
	l.push(func() { f(now.isLeader, now.term) })
}

// drain empties the library's channel; the library stands still while it is full.
func (n *Node) drain(notify <-chan bool) {
	for {
		select {
		case isLeader := <-notify:
			if !isLeader {
				n.transport.endEra()
			}
			n.pace(isLeader)
			n.leaders.publish(change{isLeader: isLeader, term: n.raft.CurrentTerm()})
		case <-n.ctx.Done():
			// The library no longer waits for the channel once it shuts down.
			return
		}
	}
}

// pace gives a leader Timing.Pace to send heartbeats by, and a follower Timing.Heartbeat to suspect the leader by: the library has one value for both. A
// node that has just lost leadership may wait longer for its successor until this has been called.
func (n *Node) pace(isLeader bool) {
	t := n.cfg.Timing
	rc := n.raft.ReloadableConfig()
	rc.HeartbeatTimeout, rc.ElectionTimeout = t.Heartbeat, t.Election
	if isLeader {
		rc.HeartbeatTimeout, rc.ElectionTimeout = t.Pace, max(t.Pace, t.Election)
	}
	if err := n.raft.ReloadConfig(rc); err != nil {
		n.log.Warn("the pace of Raft's heartbeats stays as it is", "leader", isLeader, "error", err)
	}
}

func (l *leadership) publish(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = c
	for _, f := range l.subs {
		l.push(func() { f(c.isLeader, c.term) })
	}
}

// push is called with mu held.
func (l *leadership) push(call func()) {
	l.queue = append(l.queue, call)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// dispatch makes the calls until ctx ends.
func (l *leadership) dispatch(ctx context.Context) {
	for {
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, call := range queue {
			call()
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
	}
}
