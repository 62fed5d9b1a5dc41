package cluster

import (
	"context"
	"errors"
	"sync"
)

// errPreempted ends an action because a newer order or state came.
var errPreempted = errors.New("overtaken by a newer order")

// executor lets one thing at a time change this node. A newer order cancels an action in hand, never another order, and takes its place.
type executor struct {
	turn sync.Mutex // held by whoever changes the node

	mu       sync.Mutex
	none     *sync.Cond              // no order is expected any more; made by expect
	cancel   context.CancelCauseFunc // of the action in hand, nil for an order
	expected int                     // orders that have come and have not had their turn yet
}

// expect lets no action begin before an order that has come had its turn; whoever calls it calls had then, or when there is none. What an order
// promises is seen before its turn, and the action that this calls for is the order's own part, done with less patience.
func (e *executor) expect() (had func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.none == nil {
		e.none = sync.NewCond(&e.mu)
	}
	e.expected++
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.expected--
		e.none.Broadcast()
	})
}

// action runs f when its turn comes and no order is expected, under a context that preempt can cancel.
func (e *executor) action(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for {
		e.turn.Lock()
		if e.begin(cancel) {
			break
		}
		e.turn.Unlock()
		e.awaitOrders()
	}
	defer e.turn.Unlock()
	defer e.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return f(ctx)
}

// order runs f when its turn comes.
func (e *executor) order(ctx context.Context, f func(context.Context) error) error {
	e.turn.Lock()
	defer e.turn.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return f(ctx)
}

// begin takes an action in hand, unless an order is expected.
func (e *executor) begin(cancel context.CancelCauseFunc) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.expected > 0 {
		return false
	}
	e.cancel = cancel
	return true
}

// awaitOrders returns when no order is expected. Each has its turn soon, or gives up: they are calls with a limit.
func (e *executor) awaitOrders() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.expected > 0 {
		e.none.Wait()
	}
}

func (e *executor) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancel = nil
}

// preempt cancels the action in hand, if any.
func (e *executor) preempt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel(errPreempted)
	}
}
