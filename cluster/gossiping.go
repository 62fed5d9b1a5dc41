package cluster

import (
	"github.com/highbase/highbase/cluster/gossip"
	"github.com/highbase/highbase/fsm"
)

// openGossip starts memberlist. What it says is a hint: it makes this node look at once, and authorises nothing.
func (n *Node) openGossip(clusterID string) (*gossip.Gossip, error) {
	var peers []gossip.Peer
	for _, m := range n.cfg.Peers {
		if m.ID != n.cfg.Node {
			peers = append(peers, gossip.Peer{ID: string(m.ID), Host: m.Address, Port: n.cfg.GossipPort})
		}
	}
	return gossip.Open(gossip.Config{
		Node: string(n.cfg.Node), ClusterID: clusterID, Bind: n.cfg.BindGossip, Profile: n.cfg.Settings.Profile, Peers: peers, Log: n.log.With("part", "gossip"),
		OnSuspect: func(node string) { n.lookAt(fsm.NodeID(node)) },
		OnAlive:   func(node string) { n.lookAt(fsm.NodeID(node)) },
	})
}

// lookAt pings a peer at once.
func (n *Node) lookAt(id fsm.NodeID) {
	if pe, ok := n.peers.known[id]; ok {
		wake(pe.kick)
	}
}
