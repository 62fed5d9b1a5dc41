package raftnode

import (
	"context"
	"sync"
	"time"
)

// Round is a proof of leadership: the no-op at Index was committed in Term, this node's own, after
// whoever was given the Round had asked; and everything before Index is applied here.
type Round struct {
	Index, Term uint64
}

// VerifyQuorumRound returns after a quorum round that began after the call. It proves that this node led
// at a moment after the call: a later leader's term had not reached a quorum when the no-op was stored.
// The context needs a deadline. Errors as for Apply, of which none needs telling apart here: on any of
// them the caller knows nothing.
//
// The library's VerifyLeader is no such round: it counts answers to heartbeats that were sent before the
// call, and a lease extended on their strength may overlap with one granted by the successor.
func (n *Node) VerifyQuorumRound(ctx context.Context) (Round, error) {
	if err := n.mayAsk(ctx); err != nil {
		return Round{}, err
	}
	return n.rounds.wait(ctx)
}

func (n *Node) mayAsk(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		return ErrNoDeadline
	}
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	if !n.IsLeader() {
		return ErrNotLeader
	}
	return nil
}

// rounds batches callers: one round is in flight, and everybody who arrives meanwhile shares the next
// one, which begins when it ends. A caller is never served by a round that began before it came.
type rounds struct {
	propose func(context.Context) (Round, error)
	// limit bounds one round. Callers have deadlines of their own; this one only keeps a round that Raft
	// never answers from blocking the next.
	limit time.Duration

	mu       sync.Mutex
	inFlight *batch
	next     *batch
	done     uint64
}

// batch is the callers of one round. Its results are readable once done is closed.
type batch struct {
	done   chan struct{}
	result Round
	err    error
}

func newRounds(limit time.Duration, propose func(context.Context) (Round, error)) *rounds {
	return &rounds{propose: propose, limit: limit}
}

// wait joins the next round and waits for it.
func (r *rounds) wait(ctx context.Context) (Round, error) {
	b := r.join()
	select {
	case <-b.done:
		return b.result, b.err
	case <-ctx.Done():
		return Round{}, context.Cause(ctx)
	}
}

// join returns the next round, starting it if none is in flight.
func (r *rounds) join() *batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &batch{done: make(chan struct{})}
	}
	b := r.next
	if r.inFlight == nil {
		r.start()
	}
	return b
}

// start makes the next round the one in flight. It is called with mu held and next set.
func (r *rounds) start() {
	b := r.next
	r.inFlight, r.next = b, nil
	go r.run(b)
}

// run performs one round and starts the next if anybody waits for it.
func (r *rounds) run(b *batch) {
	ctx, cancel := context.WithTimeout(context.Background(), r.limit)
	b.result, b.err = r.propose(ctx)
	cancel()
	close(b.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.err == nil {
		r.done++
	}
	r.inFlight = nil
	if r.next != nil {
		r.start()
	}
}

// succeeded counts the rounds that were completed.
func (r *rounds) succeeded() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// idle reports whether no round is in flight.
func (r *rounds) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inFlight == nil
}
