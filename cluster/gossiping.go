package cluster

import (
	"net"
	"strconv"

	"github.com/highbase/highbase/cluster/gossip"
	"github.com/highbase/highbase/fsm"
)

// openGossip starts memberlist. What it says is a hint: it makes this node look at once, and authorises nothing.
func (n *Node) openGossip(clusterID string) (*gossip.Gossip, error) {
	var peers []gossip.Peer
	for _, m := range n.cfg.Peers {
		if m.ID != n.cfg.Node {
			peers = append(peers, gossip.Peer{ID: string(m.ID), Addr: net.JoinHostPort(m.Address, strconv.Itoa(n.cfg.GossipPort))})
		}
	}
	timing := gossip.LANTiming()
	if n.cfg.Settings.Profile == "fast" {
		timing = gossip.FastTiming()
	}
	return gossip.Start(gossip.Config{
		Node: string(n.cfg.Node), ClusterID: clusterID, Addr: n.cfg.BindGossip, Timing: timing, Peers: peers, Log: n.log.With("part", "gossip"),
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
