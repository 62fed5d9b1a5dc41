package cluster

import (
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/highbase/highbase/fsm"
)

// store holds the applied state. Only Raft's apply goroutine writes it; everybody else reads a value.
type store struct {
	log   *slog.Logger
	fatal func(reason string)

	mu       sync.RWMutex
	state    fsm.State
	watchers []chan struct{}
}

// Apply runs a committed command. The result is nil, or the refusal.
func (s *store) Apply(index, _ uint64, data []byte) any {
	c, err := fsm.DecodeCommand(data)
	if err != nil {
		s.fatal("log entry cannot be applied: " + err.Error())
		return err
	}
	s.mu.Lock()
	next, err := fsm.Apply(s.state, index, c)
	if err == nil {
		s.state = next
	}
	s.mu.Unlock()
	if errors.Is(err, fsm.ErrUnknownCommand) {
		s.fatal("log entry cannot be applied: " + err.Error())
		return err
	}
	if err != nil {
		s.log.Info("command refused", "command", c.Name(), "index", index, "why", err.Error())
		return err
	}
	s.log.Info("applied", "command", c.Name(), "index", index, "epoch", next.Epoch, "primary", next.Primary, "phase", next.Phase)
	s.notify()
	return nil
}

// Snapshot encodes the whole state.
func (s *store) Snapshot() ([]byte, error) { return fsm.EncodeState(s.State()) }

// Restore replaces the whole state.
func (s *store) Restore(data []byte) error {
	st, err := fsm.DecodeState(data)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.state = st
	s.mu.Unlock()
	s.notify()
	return nil
}

// State is the newest applied state. It is shared: nobody changes it.
func (s *store) State() fsm.State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state
}

// watch gives a channel that receives (capacity one) after each change.
func (s *store) watch() <-chan struct{} {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	s.watchers = append(s.watchers, ch)
	s.mu.Unlock()
	return ch
}

// unwatch ends a watch.
func (s *store) unwatch(ch <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = slices.DeleteFunc(s.watchers, func(w chan struct{}) bool { return w == ch })
}

func (s *store) notify() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, ch := range s.watchers {
		wake(ch)
	}
}

// wake signals a capacity-one channel without ever waiting.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
