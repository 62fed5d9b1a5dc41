package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// clients frees those who wait for an answer from a primary that vanished. While a node serves it tells the others who is connected; each keeps that
// in memory, and whoever takes the address over provokes those connections into finding out that they are dead. Nothing is decided by it: a list that is
// old or lost costs a client its own time limit, and one that is wrong costs a packet that nobody minds.
type clients struct {
	n *Node

	mu     sync.Mutex
	lists  map[fsm.NodeID]clientList // by the node that served them
	stats  ClientStats
	newest clientsRequest // what this node shares itself; Sequence 0 before the first
	count  int            // connections in newest
	looked looked
}

// ClientStats is what this node knows and did about connections of clients.
type ClientStats struct {
	Shared   int    // connections of this node that it shares as the primary, 0 when it is not
	Unshared int    // those beyond the bound, which nobody would free
	Known    int    // connections of other nodes in the lists kept here
	Tickled  uint64 // connections provoked after taking over
}

// clientsRequest carries all connections of the sender; it replaces what the sender sent before.
type clientsRequest struct {
	Epoch    uint64 `json:"epoch"` // in which the sender serves
	Run      string `json:"run"`   // of its hbd
	Sequence uint64 `json:"sequence"`
	List     []byte `json:"list"` // as packClients makes it
}

// clientList is what one node sent last.
type clientList struct {
	clientsRequest
	count int
	at    fsm.Instant
}

// oldListsFor is how long a list is kept after one of a newer epoch has come: a second takeover may follow before the first has freed everybody.
const oldListsFor = time.Minute

func newClients(n *Node) *clients { return &clients{n: n, lists: map[fsm.NodeID]clientList{}} }

// onClients stores what a primary says. One that is behind what is kept is dropped without an error: it was merely late.
func (n *Node) onClients(_ context.Context, from string, in clientsRequest) (struct{}, error) {
	return struct{}{}, n.clients.keep(fsm.NodeID(from), in)
}

func (c *clients) keep(from fsm.NodeID, in clientsRequest) error {
	list, err := unpackClients(in.List)
	if err != nil {
		return rpc.ErrBadRequest.Errorf("%v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, found := c.lists[from]
	if found && (in.Epoch < old.Epoch || in.Epoch == old.Epoch && in.Run == old.Run && in.Sequence < old.Sequence) {
		return nil
	}
	c.lists[from] = clientList{clientsRequest: in, count: len(list), at: now()}
	for id, l := range c.lists {
		if l.Epoch < in.Epoch && now()-l.at > oldListsFor {
			delete(c.lists, id)
		}
	}
	return nil
}

// take hands out, once, the connections of all epochs before one.
func (c *clients) take(before uint64) ([]Connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Connection
	for id, l := range c.lists {
		if l.Epoch >= before {
			continue
		}
		delete(c.lists, id)
		list, err := unpackClients(l.List)
		if err != nil {
			return out, fmt.Errorf("connections of %s: %w", id, err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// tickleLimit is far above what it takes; the attempts end by themselves.
const tickleLimit = 10 * time.Second

// afterReleased is how long the clients of a planned change are left alone first: the old primary has reset their connections itself, and what looks for
// those that are left takes processor time from the very clients that come back.
const afterReleased = 200 * time.Millisecond

// tickle provokes the clients of the earlier primaries, after this one has opened the service in an epoch. It returns at once.
func (n *Node) tickle(epoch uint64, planned bool) {
	if n.cfg.Clients == nil {
		return
	}
	of, err := n.clients.take(epoch)
	if err != nil {
		n.log.Error("reading the kept connections of clients", "error", err.Error())
	}
	if len(of) == 0 {
		return
	}
	n.wg.Go(func() {
		if planned {
			wait(n.ctx, afterReleased)
		}
		ctx, cancel := context.WithTimeout(n.ctx, tickleLimit)
		defer cancel()
		count, err := n.cfg.Clients.Tickle(ctx, of)
		n.clients.tickled(count)
		n.log.Info("provoked the clients of the old primary", "epoch", epoch, "connections", len(of), "provoked", count, "error", errText(err))
	})
}

func (c *clients) tickled(count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Tickled += uint64(count)
}

// read is for the metrics.
func (c *clients) read() ClientStats {
	_, serving := c.reign()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.stats
	for _, l := range c.lists {
		out.Known += l.count
	}
	if serving {
		out.Shared = c.count
	} else {
		out.Unshared = 0
	}
	return out
}
