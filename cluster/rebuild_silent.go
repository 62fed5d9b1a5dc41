package cluster

import (
	"context"
	"sync"

	"github.com/highbase/highbase/fsm"
)

// silence says that this node's mysqld acknowledges nothing, again and again for as long as it lives: whenever the log has another index since which
// the node is outside the sync set (a planned change begins that anew), what was said before is worth nothing. It lives while a copy is fetched by
// mysqld itself, inside one action: nothing else changes this mysqld meanwhile, and what turns it on again comes after its end.
type silence struct {
	n      *Node
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	ended  chan struct{} // nil until it has begun
}

func (n *Node) newSilence(ctx context.Context) *silence {
	s := &silence{n: n}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// begin says it the first time before it returns.
func (s *silence) begin() {
	s.once.Do(func() {
		changed := s.n.store.watch()
		sure := s.n.isSilent(s.ctx)
		s.ended = make(chan struct{})
		go func() {
			defer close(s.ended)
			defer s.n.store.unwatch(changed)
			s.keep(changed, sure)
		}()
	})
}

// keep says it again after each change, and looks again when a look said nothing.
func (s *silence) keep(changed <-chan struct{}, sure bool) {
	for s.ctx.Err() == nil {
		again, cancel := s.ctx, context.CancelFunc(func() {})
		if !sure {
			again, cancel = context.WithTimeout(s.ctx, s.n.settings().Ping)
		}
		select {
		case <-again.Done():
		case <-changed:
		}
		cancel()
		sure = s.n.isSilent(s.ctx)
	}
}

// end returns when nothing is said any more.
func (s *silence) end() {
	s.cancel()
	if s.ended != nil {
		<-s.ended
	}
}

// isSilent remembers, and tells the primary, that this node's mysqld acknowledges nothing since the index at which it was first outside the sync set.
// It is said only when it is true after that index: the index is read first, from the applied state, and mysqld is looked at after that. False means
// that this cannot be said of an index of which it has not been said yet.
func (n *Node) isSilent(ctx context.Context) bool {
	since := n.store.State().OutsideSince(n.cfg.Node)
	if off, _, _ := n.sync.read(); since == 0 || off == since {
		return true
	}
	if !acknowledgesNothing(n.cfg.Prober.Look(ctx)) {
		return false
	}
	n.sync.setOff(since)
	n.peers.kickAll()
	n.log.Info("acknowledges nothing while its data is replaced", "since", since)
	return true
}

// acknowledgesNothing: a server that is down does not, nor will it when it starts: nobody but hbd starts it, and with its receiver stopped.
func acknowledgesNothing(sv fsm.ServerStatus) bool {
	switch sv.State {
	case fsm.ServerDown:
		return true
	case fsm.ServerUp:
		return !sv.IORunning && !sv.ReplicaSync && !sv.ReplicaSyncSet
	case fsm.ServerUnknown, fsm.ServerHung:
	}
	return false
}
