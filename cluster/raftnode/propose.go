package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// maxCommandBytes keeps entries far below the size at which one message delays heartbeats.
const maxCommandBytes = 256 << 10

// Apply commits data and returns what the FSM's Apply returned for it, with the index of the entry. The
// context needs a deadline.
//
// On error the outcome is one of two: ErrNotLeader, ErrNotProposed, ErrNoDeadline and ErrClosed mean
// that it certainly did not and will not happen; ErrUnknownOutcome means that it may have, or still may.
func (n *Node) Apply(ctx context.Context, data []byte) (result any, index uint64, err error) {
	if len(data) > maxCommandBytes {
		return nil, 0, fmt.Errorf("%w: command of %d bytes, at most %d", ErrNotProposed, len(data), maxCommandBytes)
	}
	f, err := n.propose(ctx, append([]byte{entryCommand}, data...))
	if err != nil {
		return nil, 0, err
	}
	n.transport.committed(f.Index())
	return f.Response(), f.Index(), nil
}

// Barrier waits until everything committed before the call is applied here, and proves that this node
// led after the call began: it is a quorum round. Followers are told at once, as of a command: what an
// earlier leader has stored is committed by it.
func (n *Node) Barrier(ctx context.Context) (Round, error) {
	round, err := n.VerifyQuorumRound(ctx)
	if err == nil {
		n.transport.committed(round.Index)
	}
	return round, err
}

// proposeNoop is one round: an entry of our own, committed and applied.
func (n *Node) proposeNoop(ctx context.Context) (Round, error) {
	f, err := n.propose(ctx, []byte{entryNoop})
	if err != nil {
		return Round{}, err
	}
	res, ok := f.Response().(noopResult)
	if !ok {
		return Round{}, fmt.Errorf("%w: no-op answered %T", ErrUnknownOutcome, f.Response())
	}
	return Round{Index: res.index, Term: res.term}, nil
}

// propose hands an entry to Raft and waits for its fate until the context's deadline.
func (n *Node) propose(ctx context.Context, entry []byte) (raft.ApplyFuture, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, ErrNoDeadline
	}
	if n.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if !n.IsLeader() {
		return nil, ErrNotLeader
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotProposed, err)
	}
	left := time.Until(deadline)
	if left <= 0 {
		return nil, fmt.Errorf("%w: %w", ErrNotProposed, context.DeadlineExceeded)
	}
	n.proposing.Add(1)
	defer n.proposing.Add(-1)
	f := n.raft.Apply(entry, left)
	err := wait(ctx, f)
	n.doubt.Store(err != nil && !errors.Is(err, raft.ErrNotLeader))
	if err != nil {
		return nil, outcome(err)
	}
	return f, nil
}

// wait returns the future's error, or the context's if that comes first. The goroutine ends when Raft
// answers, which it does for every future it took unless its main loop hangs; then the process is to exit.
func wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// outcome sorts the library's errors by what they prove about the entry.
func outcome(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		// The main loop never took it from the channel.
		return fmt.Errorf("%w: raft is busy", ErrNotProposed)
	default:
		// Leadership lost, shut down, restored over, or we stopped waiting: it may be in somebody's log.
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
}
