package raftnode

import "errors"

var (
	// ErrNotLeader is returned by a proposal that was refused because this node does not lead, or is
	// giving leadership away. The proposal has not happened and will not.
	ErrNotLeader = errors.New("this node is not the raft leader")
	// ErrNotProposed is returned by a proposal that never reached the log: it was invalid, or Raft did
	// not take it before the deadline. It has not happened and will not.
	ErrNotProposed = errors.New("not proposed")
	// ErrUnknownOutcome is returned when an entry was handed to Raft and its fate was not learnt:
	// leadership was lost or the deadline passed. It may be committed, now or later. Read the state
	// behind a round of a leader before acting on either guess.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrAlreadyBootstrapped is returned by Bootstrap when the store holds any state.
	ErrAlreadyBootstrapped = errors.New("raft state exists already")
	// ErrNoDeadline is returned when a context without a deadline is given: every step that can wait on
	// other nodes has one.
	ErrNoDeadline = errors.New("context has no deadline")
	// ErrUnreachable is returned by TransferTo when the target does not answer heartbeats: a transfer to
	// a silent peer blocks every proposal and leads nowhere.
	ErrUnreachable = errors.New("peer does not answer heartbeats")
	// ErrTransferFailed is returned when leadership did not move in time. This node may still lead.
	ErrTransferFailed = errors.New("leadership transfer failed")
	// ErrStoreWiped is returned by Open when the store does not carry the instance that was sealed for
	// it: the database was deleted or replaced while the instance file stayed.
	ErrStoreWiped = errors.New("raft store does not belong to this instance")
	// ErrStoreIncomplete is returned by Open when the log starts after entries that no snapshot holds.
	ErrStoreIncomplete = errors.New("raft log has lost its beginning")
	// ErrClosed is returned after Close has begun.
	ErrClosed = errors.New("raft node is closed")
)
