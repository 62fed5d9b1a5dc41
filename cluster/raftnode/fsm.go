package raftnode

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// The first byte of every log entry of ours says what the rest is. Changing these breaks every log.
const (
	entryCommand byte = 1
	entryNoop    byte = 2
)

// maxSnapshotBytes bounds what is read back from a snapshot or a peer. The state is a few kilobytes.
const maxSnapshotBytes = 64 << 20

// noopResult is what applying a no-op returns: the position that proves the round.
type noopResult struct {
	index, term uint64
}

// adapter is the raft.FSM around ours.
type adapter struct {
	fsm FSM
	// applied is the newest entry whose effect is in the FSM. The library's own counter runs ahead of it: it
	// is set when entries are handed over.
	applied atomic.Uint64
	// stuck is told when an entry cannot be read. Skipping it would let this node's state drift from
	// everybody else's.
	stuck func(reason string)
}

var _ raft.FSM = (*adapter)(nil)

// errUnknownEntry is the result of an entry this version cannot read.
var errUnknownEntry = errors.New("raft entry of unknown kind")

// Apply hands a committed command to the FSM and answers no-ops itself.
func (a *adapter) Apply(l *raft.Log) any {
	defer a.applied.Store(l.Index)
	if len(l.Data) == 0 {
		a.stuck(fmt.Sprintf("raft entry %d is empty", l.Index))
		return errUnknownEntry
	}
	switch l.Data[0] {
	case entryNoop:
		return noopResult{index: l.Index, term: l.Term}
	case entryCommand:
		return a.fsm.Apply(l.Index, l.Term, l.Data[1:])
	default:
		a.stuck(fmt.Sprintf("raft entry %d has kind %d, which this version does not know", l.Index, l.Data[0]))
		return errUnknownEntry
	}
}

// Snapshot takes the state between two Applies; writing it happens beside later ones.
func (a *adapter) Snapshot() (raft.FSMSnapshot, error) {
	data, err := a.fsm.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("taking snapshot: %w", err)
	}
	if len(data) > maxSnapshotBytes {
		return nil, fmt.Errorf("taking snapshot: %d bytes, at most %d can be read back", len(data), maxSnapshotBytes)
	}
	return snapshot(data), nil
}

// Restore replaces the state. The library calls it at start and when a leader sends a snapshot.
func (a *adapter) Restore(rc io.ReadCloser) error {
	data, err := io.ReadAll(io.LimitReader(rc, maxSnapshotBytes+1))
	if err := errors.Join(err, rc.Close()); err != nil {
		return fmt.Errorf("reading snapshot: %w", err)
	}
	if len(data) > maxSnapshotBytes {
		return fmt.Errorf("reading snapshot: over %d bytes", maxSnapshotBytes)
	}
	if err := a.fsm.Restore(data); err != nil {
		return fmt.Errorf("restoring snapshot: %w", err)
	}
	return nil
}

// snapshot is an encoded state on its way to disk.
type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(fmt.Errorf("writing snapshot: %w", err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	return nil
}

func (s snapshot) Release() {}
