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

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of the action in hand, nil for an order
}

// action runs f when its turn comes, under a context that preempt can cancel.
func (e *executor) action(ctx context.Context, f func(context.Context) error) error {
	e.turn.Lock()
	defer e.turn.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.set(cancel)
	defer e.set(nil)
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

func (e *executor) set(cancel context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancel = cancel
}

// preempt cancels the action in hand, if any.
func (e *executor) preempt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel(errPreempted)
	}
}
