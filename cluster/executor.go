package cluster

import (
	"context"
	"errors"
	"sync"
)

// errPreempted ends an action because a newer order or state came.
var errPreempted = errors.New("overtaken by a newer order")

// executor lets one thing at a time change this node. Whoever has a newer right cancels what is in hand and takes its place.
type executor struct {
	turn sync.Mutex // held by whoever changes the node

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of what is in hand
}

// run waits for its turn and runs f under a context that preempt can cancel.
func (e *executor) run(ctx context.Context, f func(context.Context) error) error {
	e.turn.Lock()
	defer e.turn.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.mu.Lock()
	e.cancel = cancel
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.cancel = nil
		e.mu.Unlock()
	}()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return f(ctx)
}

// preempt cancels what is in hand, if anything.
func (e *executor) preempt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel(errPreempted)
	}
}
