package raftnode

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// TransferTo hands leadership to a voter and returns once this node no longer leads. While it runs every
// proposal is refused. The library gives up after an election timeout; the context, which needs a
// deadline, bounds the wait in case it does not (issue 696), and then the watchdog notices that nothing
// can be proposed.
//
// ErrNotLeader, ErrUnreachable and ErrNoDeadline: nothing was tried. ErrTransferFailed: leadership may
// have stayed or may still move; look again.
func (n *Node) TransferTo(ctx context.Context, id ServerID) error {
	if _, ok := ctx.Deadline(); !ok {
		return ErrNoDeadline
	}
	if !n.IsLeader() {
		return ErrNotLeader
	}
	target, err := n.transferTarget(id)
	if err != nil {
		return err
	}
	f := n.raft.LeadershipTransferToServer(raft.ServerID(target.ID), raft.ServerAddress(target.Address))
	if err := wait(ctx, f); err != nil {
		return fmt.Errorf("%w: to %s: %w", ErrTransferFailed, id, err)
	}
	return nil
}

// transferTarget checks that the target could take over. A silent one would keep the library waiting
// with every proposal refused.
func (n *Node) transferTarget(id ServerID) (Server, error) {
	if id == n.id {
		return Server{}, fmt.Errorf("%w: %s is this node", ErrTransferFailed, id)
	}
	for _, m := range n.Servers() {
		if m.ID != id {
			continue
		}
		if !m.Voter {
			return Server{}, fmt.Errorf("%w: %s is no voter", ErrTransferFailed, id)
		}
		if !n.transport.answering(id) {
			return Server{}, fmt.Errorf("%w: %s", ErrUnreachable, id)
		}
		return m, nil
	}
	return Server{}, fmt.Errorf("%w: %s is no member", ErrTransferFailed, id)
}
