package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

type readIndexReply struct {
	Index uint64 `json:"index"`
}

type positionRequest struct {
	Position string `json:"position"` // contains: the position asked about
}

type positionReply struct {
	Position string `json:"position"`
	History  string `json:"history"`
	Contains bool   `json:"contains"`
	Purged   string `json:"purged"`  // when no position was asked about: what it can send to nobody any more
	Serving  uint64 `json:"serving"` // epoch this node serves, 0 when it does not
	Barrier  uint64 `json:"barrier"` // newest epoch whose barrier its data held before Position was read
}

// register lists every call a node answers.
func (n *Node) register() {
	n.server.HandleOpen("adopt", typed(n.onAdopt))
	n.server.Handle("ping", typed(n.onPing))
	n.server.Handle("lease", typed(func(ctx context.Context, _ string, in leaseRequest) (leaseReply, error) {
		if n.raft() == nil {
			return leaseReply{}, errNotMember
		}
		return n.grantor.grant(ctx, in), nil
	}))
	n.server.Handle("relay_lease", typed(func(ctx context.Context, _ string, in leaseRequest) (leaseReply, error) {
		var out leaseReply
		err := n.leaseFromLeader(ctx, in, &out)
		return out, err
	}))
	n.server.Handle("read_index", typed(func(ctx context.Context, _ string, _ struct{}) (readIndexReply, error) {
		r := n.raft()
		if r == nil {
			return readIndexReply{}, errNotMember
		}
		round, err := r.Barrier(ctx) // who asks waits to hear that it is committed, too
		return readIndexReply{round.Index}, err
	}))
	n.server.Handle("order", typed(func(ctx context.Context, _ string, in fsm.Order) (orderReply, error) { return n.obey(ctx, in) }))
	n.server.Handle("position", typed(func(ctx context.Context, _ string, in positionRequest) (positionReply, error) {
		return n.position(ctx, in)
	}))
	n.server.Handle("sight", typed(func(ctx context.Context, _ string, in sightRequest) (sightReply, error) {
		if n.cfg.Prober == nil {
			return sightReply{}, errors.New("a witness has no position")
		}
		return n.sight(ctx, in)
	}))
	n.server.Handle("bootstrap", typed(func(ctx context.Context, _ string, in fsm.Bootstrap) (struct{}, error) {
		return struct{}{}, n.propose(ctx, fsm.Command{At: time.Now(), Bootstrap: &in})
	}))
	n.server.Handle("sessions", typed(n.onSessions))
	n.server.Handle("clients", typed(n.onClients))
	n.server.Handle("hand_over", typed(n.onHandOver))
	n.registerRebuild()
}

var errNotMember = errors.New("this node belongs to no cluster yet")

// typed makes a handler of a function with typed input and output.
func typed[In, Out any](f func(ctx context.Context, from string, in In) (Out, error)) rpc.Handler {
	return func(ctx context.Context, from string, body json.RawMessage) (any, error) {
		var in In
		if err := rpc.Decode(body, &in); err != nil {
			return nil, rpc.ErrBadRequest.Errorf("%v", err)
		}
		return f(ctx, from, in)
	}
}

// identity is what this node says of itself in every call.
func (n *Node) identity() rpc.Self {
	s := rpc.Self{Node: string(n.cfg.Node), Instance: n.instance}
	if m := n.joined.Load(); m != nil {
		s.Cluster = m.clusterID
	}
	return s
}

// authorize refuses instances that Raft's membership does not know: a node that lost its data is another instance until it is added anew.
func (n *Node) authorize(h rpc.Handshake) error {
	r := n.raft()
	if r == nil {
		return errNotMember
	}
	id := raftnode.MakeServerID(h.From, h.FromInstance)
	if !slices.ContainsFunc(r.Servers(), func(s raftnode.Server) bool { return s.ID == id }) {
		return fmt.Errorf("instance %s of %s is not a member: a node that lost its data must be added anew", h.FromInstance, h.From)
	}
	return nil
}

func (n *Node) onPing(_ context.Context, from string, in pingRequest) (pingReply, error) {
	n.peers.received(fsm.NodeID(from), in.Obs)
	r := n.raft()
	reply := pingReply{Obs: n.observation(), Instance: n.instance, Leads: r != nil && r.IsLeader()}
	if l := n.leading.Load(); l != nil {
		reply.Refusals = l.refusals()
	}
	return reply, nil
}

// address is where a peer's calls go. Its instance is what Raft's membership says, which is known from the log before any entry is applied.
func (p *peers) address(pe *peer) rpc.Peer {
	to := rpc.Peer{ID: string(pe.member.ID), Instance: pe.member.Instance, Addr: pe.member.API}
	if r := p.n.raft(); r != nil {
		for _, s := range r.Servers() {
			if s.ID.Node() == to.ID {
				to.Instance = s.ID.Instance()
			}
		}
	}
	return to
}

func (n *Node) callNode(ctx context.Context, id fsm.NodeID, method string, in, out any) error {
	pe, ok := n.peers.known[id]
	if !ok {
		return fmt.Errorf("%s is not a peer of this node", id)
	}
	return n.client.Call(ctx, n.peers.address(pe), method, in, out)
}

// callLeader calls the leader this node knows of.
func (n *Node) callLeader(ctx context.Context, method string, in, out any) error {
	r := n.raft()
	if r == nil {
		return errNotMember
	}
	id, _ := r.Leader()
	if id == "" {
		return errors.New("no Raft leader is known")
	}
	return n.callNode(ctx, fsm.NodeID(id.Node()), method, in, out)
}

// position answers where this node's server is, and whether its history holds a position.
func (n *Node) position(ctx context.Context, in positionRequest) (positionReply, error) {
	if n.cfg.Database == nil {
		return positionReply{}, errors.New("a witness has no position")
	}
	out := positionReply{Serving: n.observation().Serving}
	var err error
	// First: the position must hold what the barrier proves.
	if out.Barrier, err = n.cfg.Database.LastEpoch(ctx); err != nil {
		return positionReply{}, err
	}
	if out.Position, err = n.cfg.Database.Written(ctx); err != nil {
		return positionReply{}, err
	}
	if out.History, err = n.cfg.Database.History(ctx); err != nil {
		return positionReply{}, err
	}
	if in.Position != "" {
		out.Contains, err = n.cfg.Database.Contains(ctx, in.Position)
	} else {
		out.Contains = true
		out.Purged, err = n.cfg.Database.Purged(ctx)
	}
	return out, err
}

// positionOf is where the primary of an epoch is, once its data holds its barrier: before that it may still lack what an older epoch acknowledged,
// after that it never does again. Which run of mysqld wrote it does not matter here: a primary restarted in place whose set is gone needs another
// member to acknowledge the barrier of its new run, and this position is what makes one.
func (n *Node) positionOf(ctx context.Context, id fsm.NodeID, epoch uint64) (string, error) {
	out, err := n.askPosition(ctx, id, "")
	if err == nil && out.Barrier != epoch {
		return "", fmt.Errorf("%s has not written the barrier of epoch %d", id, epoch)
	}
	return out.Position, err
}

func (n *Node) askPosition(ctx context.Context, id fsm.NodeID, position string) (positionReply, error) {
	if id == n.cfg.Node {
		return n.position(ctx, positionRequest{position})
	}
	var out positionReply
	err := n.callNode(ctx, id, "position", positionRequest{position}, &out)
	return out, err
}
