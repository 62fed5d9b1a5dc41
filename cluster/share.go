package cluster

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

const (
	// shareEvery is how often the serving node looks at its clients: a connection is known to the others that much later.
	shareEvery = 200 * time.Millisecond
	// shareCost bounds what the looks cost: the pause after one is this many times what it took, about 3 % of a core with very many clients, ...
	shareCost = 30
	// shareSlowest ... but never longer than this: on a busy machine a look takes longer than it costs.
	shareSlowest = time.Second
	// shareAnyway is how long those who left may stay in the list: nobody is harmed by a tickle for a connection that has ended.
	shareAnyway = 2 * time.Second
	// shareLimit bounds one call.
	shareLimit = time.Second
	// shareRetry is how soon a peer that did not take the newest list is tried again, and one that was restarted is noticed.
	shareRetry = time.Second
	// shareAgain sends an unchanged list once more, against whatever was forgotten.
	shareAgain = 10 * time.Second
)

// share tells the peers who is connected, while this node serves, until ctx ends.
func (c *clients) share(ctx context.Context) {
	var wg sync.WaitGroup
	var kicks []chan struct{}
	for _, pe := range c.n.peers.known {
		if pe.member.Role == fsm.RoleWitness {
			continue // it never takes the address
		}
		kick := make(chan struct{}, 1)
		kicks = append(kicks, kick)
		wg.Go(func() { c.feed(ctx, pe, kick) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			return
		case <-timer.C:
		}
		begin := now()
		if c.look() {
			for _, kick := range kicks {
				wake(kick)
			}
		}
		timer.Reset(min(max(c.n.cfg.UntilBeat(shareEvery), shareCost*(now()-begin)), shareSlowest))
	}
}

// reign is the epoch in which this node serves under a lease.
func (c *clients) reign() (epoch uint64, ok bool) {
	st := c.n.store.State()
	epoch, ok = c.n.holder.valid()
	return epoch, ok && st.Primary == c.n.cfg.Node && st.Epoch == epoch
}

// look takes a new list and tells whether it is another one. What ends with the lease, at the gate's closing, must not make the others forget.
func (c *clients) look() bool {
	epoch, ok := c.reign()
	if !ok {
		return false
	}
	accepted, err := c.n.cfg.Clients.Accepted()
	if err != nil {
		c.n.stats.note(c.n.log, "counting the connections of clients", err)
	}
	before := looked{epoch: epoch, accepted: accepted, at: now()}
	if err == nil && c.nobodyCame(before) {
		return false
	}
	list, err := c.n.cfg.Clients.Connections()
	if err != nil {
		c.n.stats.note(c.n.log, "listing the connections of clients", err)
		return false
	}
	packed := packClients(list[:min(len(list), maxClients)])
	if len(list) > maxClients {
		c.n.stats.note(c.n.log, "sharing the connections of clients", fmt.Errorf("there are more than %d: the rest would not be freed after a takeover", maxClients))
	}
	if after, still := c.reign(); !still || after != epoch {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked = before
	c.stats.Unshared = max(len(list)-maxClients, 0)
	if c.newest.Sequence > 0 && c.newest.Epoch == epoch && bytes.Equal(c.newest.List, packed) {
		return false
	}
	c.newest = clientsRequest{Epoch: epoch, Run: run, Sequence: c.newest.Sequence + 1, List: packed}
	c.count = min(len(list), maxClients)
	return true
}

// looked is when the last list was made.
type looked struct {
	epoch, accepted uint64
	at              fsm.Instant
}

// nobodyCame tells that the last list still has every client in it. The kernel makes a list by walking through all its sockets, of all namespaces,
// and that table is large on a large machine: where connections are kept open it need not, several times a second.
func (c *clients) nobodyCame(t looked) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looked.epoch == t.epoch && c.looked.accepted == t.accepted && t.at-c.looked.at < shareAnyway
}

// fed is what a peer has.
type fed struct {
	run      string // of its hbd
	sequence uint64
	at       fsm.Instant
}

// feed keeps one peer up to date: at once when there is something new, and again when it did not take it or may have forgotten it.
func (c *clients) feed(ctx context.Context, pe *peer, kick <-chan struct{}) {
	tick := time.NewTicker(shareRetry)
	defer tick.Stop()
	var has fed
	for {
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-tick.C:
		}
		if err := c.send(ctx, pe, &has); err != nil {
			c.n.log.Debug("the connections of clients were not taken", "node", pe.member.ID, "error", err.Error())
		}
	}
}

func (c *clients) send(ctx context.Context, pe *peer, has *fed) error {
	epoch, ok := c.reign()
	c.mu.Lock()
	newest := c.newest
	c.mu.Unlock()
	if up, _ := c.n.peers.reachable(pe.member.ID); !ok || !up || newest.Sequence == 0 || newest.Epoch != epoch {
		return nil
	}
	obs, _, _ := c.n.peers.observed(pe.member.ID)
	if has.run == obs.Run && has.sequence == newest.Sequence && now()-has.at < shareAgain {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shareLimit)
	defer cancel()
	if err := c.n.callNode(ctx, pe.member.ID, "clients", newest, nil); err != nil {
		return err
	}
	*has = fed{run: obs.Run, sequence: newest.Sequence, at: now()}
	return nil
}
