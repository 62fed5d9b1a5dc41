package mysqld

import (
	"context"
	"slices"
	"testing"
	"time"
)

// deaths runs Watch and gives a channel of its calls.
func deaths(n *node) <-chan time.Time {
	ctx, cancel := context.WithCancel(context.Background())
	calls := make(chan time.Time, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Watch(ctx, func() { calls <- time.Now() })
	}()
	n.t.Cleanup(func() { cancel(); <-done })
	n.eventually("arming the watch", func() bool { return watchConnections(n) > 0 })
	return calls
}

// watchConnections counts the manager's connections that run nothing beyond the
// pool's own: the watch is one more.
func watchConnections(n *node) int {
	return len(managers(n, 0)) - n.db.Stats().OpenConnections
}

// managers lists the manager's connections with a number above after.
func managers(n *node, after uint64) (ids []uint64) {
	all, err := rows(testContext(n.t), n.boss, "SHOW PROCESSLIST")
	n.must(err)
	for _, r := range all {
		if id := r.number("Id"); r["User"] == managerUser && id > after {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestWatchSeesADeathAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1)
	n.start(StartOptions{})
	calls := deaths(n)
	for range 2 {
		killed := time.Now()
		n.signal(9)
		select {
		case at := <-calls:
			t.Logf("seen after %v", at.Sub(killed))
		case <-testContext(t).Done():
			t.Fatal("the death was not seen")
		}
		if n.Classify(n.Alive(testContext(t))) != FaultDown {
			t.Fatal("the server is not down")
		}
		n.must(n.service.Kill(testContext(t)))
		n.start(StartOptions{})
		n.eventually("arming the watch again", func() bool { return watchConnections(n) > 0 })
	}
	if len(calls) != 0 {
		t.Fatal("a death was seen twice")
	}
}

func TestWatchToleratesAKilledConnection(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1)
	n.start(StartOptions{})
	calls := deaths(n)
	// Ends every connection of ours, the watch among them.
	last := slices.Max(managers(n, 0))
	n.sql("KILL USER 'highbase'@'localhost'")
	n.eventually("arming the watch again", func() bool {
		return len(managers(n, last)) > n.db.Stats().OpenConnections
	})
	n.must(n.Alive(testContext(t)))
	if len(calls) != 0 {
		t.Fatal("a killed connection was taken for a death")
	}
	n.signal(9)
	select {
	case <-calls:
	case <-testContext(t).Done():
		t.Fatal("the death was not seen")
	}
}
