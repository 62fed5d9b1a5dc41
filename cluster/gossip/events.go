package gossip

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// events turns what memberlist reports, which it does while holding its locks, into calls of OnSuspect
// and OnAlive from a goroutine of their own.
type events struct {
	self               string
	onSuspect, onAlive func(node string)
	known              func(node string) bool

	mu       sync.Mutex
	suspects map[string]bool
	queue    []func()
	wake     chan struct{}
}

var (
	_ memberlist.EventDelegate = (*events)(nil)
	_ memberlist.AliveDelegate = (*events)(nil)
	_ memberlist.PingDelegate  = (*events)(nil)
)

func newEvents(self string, onSuspect, onAlive func(string), known func(string) bool) *events {
	return &events{self: self, onSuspect: onSuspect, onAlive: onAlive, known: known,
		suspects: make(map[string]bool), wake: make(chan struct{}, 1)}
}

// NotifyJoin is called when a peer is new or back from the dead.
func (e *events) NotifyJoin(n *memberlist.Node) { e.alive(n.Name, true) }

// NotifyLeave is called when a peer is taken for dead, or has said that it leaves.
func (e *events) NotifyLeave(n *memberlist.Node) { e.suspected(n.Name) }

// NotifyUpdate is called when a peer's metadata changes, of which there is none.
func (e *events) NotifyUpdate(*memberlist.Node) {}

// NotifyAlive refuses names that are no members, whoever spreads them.
func (e *events) NotifyAlive(n *memberlist.Node) error {
	if !e.known(n.Name) {
		return fmt.Errorf("%s is no member", n.Name)
	}
	return nil
}

// AckPayload adds nothing to answers.
func (e *events) AckPayload() []byte { return nil }

// NotifyPingComplete is called when a peer answered a probe. memberlist does not say when a suspicion is
// withdrawn; this is how it shows.
func (e *events) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	e.alive(n.Name, false)
}

// suspected is also called with the names in memberlist's log lines; see logger.
func (e *events) suspected(node string) {
	if node == e.self || !e.known(node) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.suspects[node] = true
	e.push(func() { e.onSuspect(node) })
}

func (e *events) alive(node string, joined bool) {
	if node == e.self || !e.known(node) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !joined && !e.suspects[node] {
		return
	}
	delete(e.suspects, node)
	e.push(func() { e.onAlive(node) })
}

// push is called with mu held.
func (e *events) push(call func()) {
	e.queue = append(e.queue, call)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// dispatch makes the calls, in order, until ctx ends.
func (e *events) dispatch(ctx context.Context) {
	for {
		select {
		case <-e.wake:
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		queue := e.queue
		e.queue = nil
		e.mu.Unlock()
		for _, call := range queue {
			call()
		}
	}
}
