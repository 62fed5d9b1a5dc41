package mysqld

import (
	"context"
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
	var c int
	err := n.boss.QueryRowContext(testContext(n.t), "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER=?", managerUser).Scan(&c)
	n.must(err)
	return c - n.db.Stats().OpenConnections
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
	var last uint64
	n.must(n.boss.QueryRowContext(testContext(t), "SELECT MAX(ID) FROM information_schema.PROCESSLIST").Scan(&last))
	n.sql("KILL USER 'highbase'@'localhost'")
	n.eventually("arming the watch again", func() bool {
		var newer int
		n.must(n.boss.QueryRowContext(testContext(t), "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER=? AND ID>?", managerUser, last).Scan(&newer))
		return newer > n.db.Stats().OpenConnections
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
