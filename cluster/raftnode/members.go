package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Bootstrap makes this node's store the beginning of a new group of the given voters, of which it must
// be one. It is done on one node, once; a store with any state refuses with ErrAlreadyBootstrapped.
func (n *Node) Bootstrap(servers []Server) error {
	var c raft.Configuration
	self := false
	for _, s := range servers {
		if err := checkServer(s); err != nil {
			return fmt.Errorf("bootstrapping raft: %w", err)
		}
		self = self || s.ID == n.id && s.Voter
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address), Suffrage: suffrage(s.Voter)})
	}
	if !self {
		return fmt.Errorf("bootstrapping raft: %s is not among the voters", n.id)
	}
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	err := n.raft.BootstrapCluster(c).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrAlreadyBootstrapped
	}
	if err != nil {
		return fmt.Errorf("bootstrapping raft: %w", err)
	}
	return nil
}

// Servers returns the newest membership this node knows, committed or not; empty before it knows any.
func (n *Node) Servers() []Server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var out []Server
	for _, s := range f.Configuration().Servers {
		out = append(out, Server{ID: ServerID(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// AddServer adds a member or changes one: its address, or from non-voter to voter. A new instance of a
// node can only be added once the old one was removed, because two members cannot share an address.
// Errors as for Apply; doing it again is harmless.
func (n *Node) AddServer(ctx context.Context, s Server) error {
	if err := checkServer(s); err != nil {
		return fmt.Errorf("%w: %w", ErrNotProposed, err)
	}
	add := n.raft.AddNonvoter
	if s.Voter {
		add = n.raft.AddVoter
	}
	return n.changeMembers(ctx, func(index uint64, timeout time.Duration) raft.IndexFuture {
		return add(raft.ServerID(s.ID), raft.ServerAddress(s.Address), index, timeout)
	})
}

// RemoveServer removes a member. A leader that removes itself steps down once that is committed. Errors
// as for Apply; removing one that is no member is harmless.
func (n *Node) RemoveServer(ctx context.Context, id ServerID) error {
	return n.changeMembers(ctx, func(index uint64, timeout time.Duration) raft.IndexFuture {
		return n.raft.RemoveServer(raft.ServerID(id), index, timeout)
	})
}

// changeMembers makes one change on top of the newest membership, so that two changes decided upon the
// same view cannot both happen. The library takes a change only once the one before is committed and an
// entry of its own term is, and refuses it for good reasons only before it reaches the log.
func (n *Node) changeMembers(ctx context.Context, change func(index uint64, timeout time.Duration) raft.IndexFuture) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ErrNoDeadline
	}
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	if !n.IsLeader() {
		return ErrNotLeader
	}
	left := time.Until(deadline)
	if left <= 0 || ctx.Err() != nil {
		return fmt.Errorf("%w: no time left", ErrNotProposed)
	}
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotProposed, err)
	}
	err := wait(ctx, change(f.Index(), left))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return outcome(err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), ctx.Err() != nil, !n.IsLeader():
		// A leader whose disk refuses the entry steps down, and may find it in its log after a restart.
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	default:
		// Refused by the rules: another change came first, or no voter would be left.
		return fmt.Errorf("%w: %w", ErrNotProposed, err)
	}
}

func checkServer(s Server) error {
	if err := errors.Join(checkName("node id", s.ID.Node()), checkName("instance", s.ID.Instance())); err != nil {
		return err
	}
	if s.Address == "" {
		return fmt.Errorf("server %s has no address", s.ID)
	}
	return nil
}

func suffrage(voter bool) raft.ServerSuffrage {
	if voter {
		return raft.Voter
	}
	return raft.Nonvoter
}
