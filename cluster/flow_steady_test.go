package cluster

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// long makes a lease longer than anything that this process does to itself.
func long(s *fsm.Settings) { s.Lease, s.PromoteTimeout = 15*time.Second, 60*time.Second }

// TestRestartedHbdGoesOnServing: an upgrade of hbd costs no client anything.
func TestRestartedHbdGoesOnServing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, long)
	c.w.clients(t)
	c.bootstrap()
	await(t, "leadership leaves the primary's host", func() bool { return c.leader().id != "db1" })
	c.wrote()
	db1 := c.node("db1")
	closed, opened, writable := db1.host.count("Close"), db1.host.count("Open"), db1.host.mode
	db1.crash()
	c.wrote()
	// Its first requests for a lease are lost: the new hbd knows that the state it has applied is recent long before it may act on it.
	var asked atomic.Int32
	for _, m := range c.nodes[1:] {
		m.drop(func(method, from string) bool {
			return from == "db1" && (method == "lease" || method == "relay_lease") && asked.Add(1) <= 12
		})
	}
	db1.start()
	await(t, "the new hbd serves", func() bool { return db1.observation().Serving == 1 })
	c.wrote()
	if n := db1.host.count("Close") - closed; n != 0 {
		t.Errorf("the gate was closed %d times", n)
	}
	if n := db1.host.count("Open") - opened; n != 0 {
		t.Errorf("the gate had to be opened %d times", n)
	}
	if n := db1.host.count("SetReadOnly"); n != 0 || writable != modeWritable {
		t.Errorf("made read-only %d times, was %s", n, writable)
	}
	c.healthy("db1")
	if st := db1.store.State(); st.Epoch != 1 {
		t.Errorf("epoch %d", st.Epoch)
	}
}

// TestLeaseIsRelayed: the primary and the leader do not reach each other, a third member reaches both. Nothing happens.
func TestLeaseIsRelayed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, long)
	c.w.clients(t)
	c.bootstrap()
	await(t, "leadership leaves the primary's host", func() bool { return c.leader().id != "db1" })
	leader := c.leader()
	third := c.node(map[fsm.NodeID]fsm.NodeID{"db2": "db3", "db3": "db2"}[leader.id])
	var relayed atomic.Int32
	leader.drop(func(method, from string) bool { return method == "lease" && from == "db1" })
	third.drop(func(method, from string) bool {
		if method == "relay_lease" && from == "db1" {
			relayed.Add(1)
		}
		return false
	})
	await(t, "leases are relayed", func() bool { return relayed.Load() >= 10 })
	db1 := c.node("db1")
	if epoch, ok := db1.holder.valid(); !ok || epoch != 1 {
		t.Errorf("lease of epoch %d, valid %t", epoch, ok)
	}
	c.wrote()
	if st := db1.store.State(); st.Epoch != 1 || db1.host.count("Open") != 1 {
		t.Errorf("epoch %d, gate opened %d times", st.Epoch, db1.host.count("Open"))
	}
}
