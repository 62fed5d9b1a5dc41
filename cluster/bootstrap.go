package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

type adoptRequest struct {
	ClusterID string `json:"cluster_id"`
	Cluster   string `json:"cluster"` // human name: both sides' files must agree
	Commit    bool   `json:"commit"`  // false: only say who you are and whether you could
}

type adoptReply struct {
	Instance string `json:"instance"`
}

// onAdopt makes this node part of a cluster that is being bootstrapped. It happens once in a node's life.
func (n *Node) onAdopt(_ context.Context, from string, in adoptRequest) (adoptReply, error) {
	if in.Cluster != n.cfg.Cluster {
		return adoptReply{}, fmt.Errorf("this node's file says cluster %q, %s says %q", n.cfg.Cluster, from, in.Cluster)
	}
	if m := n.joined.Load(); m != nil && m.clusterID != in.ClusterID {
		return adoptReply{}, fmt.Errorf("%w: %s", identity.ErrOtherCluster, m.clusterID)
	}
	if n.store.State().Bootstrapped() {
		return adoptReply{}, errors.New("this node's cluster is bootstrapped already")
	}
	if !in.Commit {
		return adoptReply{Instance: n.instance}, nil
	}
	if err := n.join(in.ClusterID); err != nil {
		return adoptReply{}, err
	}
	return adoptReply{Instance: n.instance}, nil
}

// Bootstrap makes the cluster, once and only when asked: it names the first primary, gives the cluster its id, and needs every peer of the file
// to agree. If it fails half-way it may be run again on the same node.
func (n *Node) Bootstrap(ctx context.Context, req api.BootstrapRequest) (api.Result, error) {
	primary := fsm.NodeID(req.Primary)
	if primary == "" {
		primary = n.cfg.Node
	}
	if n.store.State().Bootstrapped() {
		return refused("cluster.bootstrapped", "", "the cluster is bootstrapped already: epoch %d, primary %s", n.store.State().Epoch, n.store.State().Primary), nil
	}
	var named bool
	for _, m := range n.cfg.Peers {
		named = named || (m.ID == primary && m.Role == fsm.RoleData)
	}
	if !named {
		return refused("bootstrap.primary", primary, "%q is not a data node among the peers of this node's file", primary), nil
	}
	id, err := identity.ClusterID(n.cfg.DataDir)
	if err != nil {
		return api.Result{}, err
	}
	if id == "" {
		id = identity.NewID()
	}
	members, refusal, err := n.gatherMembers(ctx, id)
	if err != nil || refusal != nil {
		return deref(refusal), err
	}
	var servers []raftnode.Server
	for _, m := range members {
		servers = append(servers, raftnode.Server{ID: raftnode.MakeServerID(string(m.ID), m.Instance), Address: m.Raft, Voter: true})
	}
	if err := n.raft().Bootstrap(servers); err != nil && !errors.Is(err, raftnode.ErrAlreadyBootstrapped) {
		return api.Result{}, err
	}
	return n.commitBootstrap(ctx, fsm.Bootstrap{ClusterID: id, Cluster: n.cfg.Cluster, Server: n.cfg.Server, Members: members, Settings: n.cfg.Settings, Primary: primary, Actor: req.Actor})
}

// gatherMembers asks every peer twice: first whether it could, then to do it. Nobody is changed unless all could. This node keeps the id before
// anybody else gets it: run again after a failure half-way, it must offer the same.
func (n *Node) gatherMembers(ctx context.Context, id string) ([]fsm.Member, *api.Result, error) {
	var members []fsm.Member
	for _, commit := range []bool{false, true} {
		members = nil
		if commit {
			if err := n.join(id); err != nil {
				return nil, nil, err
			}
		}
		for _, m := range n.cfg.Peers {
			m.Instance = n.instance
			if m.ID != n.cfg.Node {
				var out adoptReply
				c, cancel := context.WithTimeout(ctx, 3*time.Second)
				err := n.client.Call(c, rpc.Peer{ID: string(m.ID), Addr: m.API}, "adopt", adoptRequest{ClusterID: id, Cluster: n.cfg.Cluster, Commit: commit}, &out)
				cancel()
				if err != nil {
					r := refused("bootstrap.peer", m.ID, "%s does not take part: %v. Every peer must run hbd and belong to no cluster", m.ID, err)
					return nil, &r, nil
				}
				m.Instance = out.Instance
			}
			members = append(members, m)
		}
	}
	return members, nil, nil
}

// commitBootstrap waits until somebody leads, and commits the first command here or there.
func (n *Node) commitBootstrap(ctx context.Context, b fsm.Bootstrap) (api.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		st := n.store.State()
		if st.Bootstrapped() {
			return api.Result{Outcome: api.OutcomeUnknown, Operation: firstOperation(st), Message: fmt.Sprintf("cluster %s is bootstrapped, %s is becoming primary", b.ClusterID, b.Primary)}, nil
		}
		err := n.propose(ctx, fsm.Command{At: time.Now(), Bootstrap: &b})
		if err != nil && errors.Is(err, raftnode.ErrNotLeader) {
			// This node bootstrapped Raft with everybody's vote, so another may have been elected. It takes the command as well.
			err = n.callLeader(ctx, "bootstrap", b, &struct{}{})
		}
		if err == nil || n.store.State().Bootstrapped() {
			continue
		}
		select {
		case <-ctx.Done():
			return api.Result{}, fmt.Errorf("bootstrapping: %w (last: %w)", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// firstOperation is the operation that makes the first primary serve.
func firstOperation(st fsm.State) uint64 {
	if st.Op != nil {
		return st.Op.ID
	}
	if len(st.Incidents) > 0 {
		return st.Incidents[0].ID
	}
	return 0
}

func refused(rule string, node fsm.NodeID, format string, args ...any) api.Result {
	return api.Result{Outcome: api.OutcomeRefused, Rule: rule, Node: string(node), Message: fmt.Sprintf(format, args...)}
}
