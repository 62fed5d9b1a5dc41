package probe

import (
	"sync"
	"time"
)

// task runs a piece of work that may hang, in a goroutine of its own, at most one at a time. Nobody ever waits for it.
type task[T any] struct {
	mu      sync.Mutex
	begun   time.Time // of the newest
	running bool
	last    finished[T]
}

// finished is a result with when it was asked for.
type finished[T any] struct {
	begun time.Time
	value T
}

// start runs f unless one runs already. done, if not nil, is called after it.
func (t *task[T]) start(now time.Time, f func() T, done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running {
		return
	}
	t.running, t.begun = true, now
	go func() {
		v := f()
		t.mu.Lock()
		t.running, t.last = false, finished[T]{now, v}
		t.mu.Unlock()
		if done != nil {
			done()
		}
	}()
}

// read gives the newest result, when the newest was begun, and for how long one has been running, 0 if none is.
func (t *task[T]) read(now time.Time) (last finished[T], begun time.Time, running time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running {
		running = max(now.Sub(t.begun), 1)
	}
	return t.last, t.begun, running
}
