package mysqld

import (
	"context"
	"testing"
	"time"
)

// watching is a Watch at work: its calls, and when it sleeps.
type watching struct {
	n     *node
	calls chan time.Time
	armed chan struct{}
}

// deaths runs Watch until the test ends.
func deaths(n *node) watching {
	ctx, cancel := context.WithCancel(context.Background())
	w := watching{n: n, calls: make(chan time.Time, 16), armed: make(chan struct{}, 64)}
	n.onArmed = func() { w.armed <- struct{}{} }
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Watch(ctx, func() { w.calls <- time.Now() })
	}()
	n.t.Cleanup(func() { cancel(); <-done })
	w.awaitArmed()
	return w
}

// awaitArmed returns when the watch has gone to sleep once more.
func (w watching) awaitArmed() {
	w.n.t.Helper()
	select {
	case <-w.armed:
	case <-testContext(w.n.t).Done():
		w.n.t.Fatal("the watch was not armed")
	}
}

func TestWatchSeesADeathAtOnce(t *testing.T) { eachServer(t, testWatchSeesADeathAtOnce) }

func testWatchSeesADeathAtOnce(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	n.start(StartOptions{})
	w := deaths(n)
	for range 2 {
		killed := time.Now()
		n.signal(9)
		select {
		case at := <-w.calls:
			t.Logf("seen after %v", at.Sub(killed))
		case <-testContext(t).Done():
			t.Fatal("the death was not seen")
		}
		if n.Classify(n.Alive(testContext(t))) != FaultDown {
			t.Fatal("the server is not down")
		}
		n.must(n.service.Kill(testContext(t)))
		n.start(StartOptions{})
		w.awaitArmed()
	}
	if len(w.calls) != 0 {
		t.Fatal("a death was seen twice")
	}
}

// killUser ends every connection of an account; MySQL has no one word for it.
func (n *node) killUser(user string) {
	n.t.Helper()
	found, err := rows(testContext(n.t), n.boss, "SHOW PROCESSLIST")
	n.must(err)
	for _, r := range found {
		if r["User"] == user {
			n.must(execArgs(testContext(n.t), n.boss, "KILL ?", r.number("Id")))
		}
	}
}

func TestWatchToleratesAKilledConnection(t *testing.T) {
	eachServer(t, testWatchToleratesAKilledConnection)
}

func testWatchToleratesAKilledConnection(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	n.start(StartOptions{})
	w := deaths(n)
	// Ends every connection of ours, the watch among them.
	n.killUser(managerUser)
	w.awaitArmed()
	n.must(n.Alive(testContext(t)))
	if len(w.calls) != 0 {
		t.Fatal("a killed connection was taken for a death")
	}
	n.signal(9)
	select {
	case <-w.calls:
	case <-testContext(t).Done():
		t.Fatal("the death was not seen")
	}
}
