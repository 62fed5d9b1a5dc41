package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

type sessionsReply struct {
	Sessions []fsm.Session `json:"sessions"`
}

// onSessions says what this host's clients are in the middle of.
func (n *Node) onSessions(ctx context.Context, _ string, _ struct{}) (sessionsReply, error) {
	if n.cfg.Database == nil {
		return sessionsReply{}, errors.New("a witness has no clients")
	}
	found, err := n.cfg.Database.Sessions(ctx)
	return sessionsReply{found}, err
}

// askSessions asks a node, this one too, and gives what a gate can be judged by.
func (n *Node) askSessions(ctx context.Context, id fsm.NodeID) *fsm.Busy {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var out sessionsReply
	var err error
	if id == n.cfg.Node {
		out, err = n.onSessions(ctx, string(id), struct{}{})
	} else {
		err = n.callNode(ctx, id, "sessions", struct{}{}, &out)
	}
	return &fsm.Busy{At: now(), Sessions: out.Sessions, Error: errText(err)}
}

// askBusyEvery is how often the primary is asked while an operation waits for its clients. The servers say nothing new sooner.
const askBusyEvery = 150 * time.Millisecond

// askBusy asks the old primary about its clients: while the running operation has yet to begin the pause, and when the release takes long.
func (l *leading) askBusy(ctx context.Context, st fsm.State) {
	if st.Op == nil || !st.Op.Kind.Planned() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch st.Op.Step {
	case fsm.StepPrepared, fsm.StepChained:
		if st.Op.Busy != fsm.BusyRefuse {
			return
		}
	case fsm.StepReleasing:
		if l.release != nil || now()-l.since < st.Settings.ReleaseTimeout/3 {
			return
		}
	default:
		return
	}
	if l.askingBusy || l.busy != nil && now()-l.busy.At < askBusyEvery {
		return
	}
	l.askingBusy = true
	op, from := st.Op.ID, st.Op.From
	go func() {
		busy := l.n.askSessions(ctx, from)
		l.mu.Lock()
		l.askingBusy = false
		if l.step.op == op {
			l.busy = busy
		}
		l.mu.Unlock()
		wake(l.wake)
	}()
}

// breakOffEvery is how often clients are broken off again while read_only does not return: some may have come in between.
const breakOffEvery = 20 * time.Millisecond

// closeToWrites makes this node read-only for a release. A writing statement or the locks of LOCK TABLES hold read_only up for as long as they
// last. Then it keeps its turn until the log has gone on, at most for a while: the node serves again after the roll-back, and an action that came
// in between would fence itself and kill mysqld, as is right only when no roll-back comes.
func (n *Node) closeToWrites(ctx context.Context, o fsm.Order) error {
	limited, cancel := context.WithTimeout(ctx, n.settings().ReleaseTimeout)
	defer cancel()
	changed := n.store.watch()
	defer n.store.unwatch(changed)
	done := make(chan error, 1)
	go func() {
		// What hbd itself is writing is waited for as clients' statements are.
		err := n.endOwnWrites(limited)
		if err == nil {
			err = n.cfg.Database.SetReadOnly(limited)
		}
		done <- err
	}()
	once := make(chan struct{})
	if o.Kill {
		n.wg.Go(func() { n.breakOffUntil(limited, once) })
	} else {
		close(once)
	}
	for {
		select {
		case err := <-done:
			if err == nil {
				select {
				case <-once:
				default: // some are left
					n.cutClients(ctx)
				}
				return nil
			}
			n.awaitPassed(o, changed)
			return fmt.Errorf("read_only: %w", err)
		case <-changed:
			if err := n.passed(o); err != nil {
				cancel()
				return errors.Join(err, <-done)
			}
		}
	}
}

// cutting is the killing of clients that goes on in the background.
type cutting struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{} // of the newest, which ends those before it
}

const (
	cutPatience = 300 * time.Millisecond // is waited for
	cutLimit    = 10 * time.Second       // goes on
)

// cutClients ends the clients of a server that is read-only. They cannot write any more, so one that takes long to kill is not waited for; it is
// killed all the same, for its locks would hold up the applier.
func (n *Node) cutClients(ctx context.Context) {
	c, cancel := context.WithTimeout(n.ctx, cutLimit)
	done := make(chan struct{})
	n.cutting.mu.Lock()
	before := n.cutting.done
	if n.cutting.cancel != nil {
		n.cutting.cancel()
	}
	n.cutting.cancel, n.cutting.done = cancel, done
	n.cutting.mu.Unlock()
	n.wg.Go(func() {
		defer cancel()
		defer close(done)
		if before != nil {
			<-before
		}
		if _, err := n.cfg.Database.KillClients(c); err != nil && !errors.Is(c.Err(), context.Canceled) {
			n.log.Warn("clients not cut", "error", err.Error())
		}
	})
	patience := time.NewTimer(cutPatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-patience.C:
	}
}

// stopCutting is due before the server may become writable: who commits then must not be killed.
func (n *Node) stopCutting(ctx context.Context) error {
	n.cutting.mu.Lock()
	cancel, done := n.cutting.cancel, n.cutting.done
	n.cutting.mu.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("clients are still being killed: %w", context.Cause(ctx))
	}
}

// awaitPassed returns when the applied state has left an order behind, or after half a release.
func (n *Node) awaitPassed(o fsm.Order, changed <-chan struct{}) {
	timer := time.NewTimer(n.settings().ReleaseTimeout / 2)
	defer timer.Stop()
	for n.passed(o) == nil {
		select {
		case <-n.ctx.Done():
			return
		case <-timer.C:
			return
		case <-changed:
		}
	}
}

// breakOffUntil ends the clients that are not committing, again and again until ctx ends; once is closed after the first round. The gate is closed
// already. It runs beside the release and not in it: read_only need not wait for a client that takes long to kill.
func (n *Node) breakOffUntil(ctx context.Context, once chan struct{}) {
	tick := time.NewTicker(breakOffEvery)
	defer tick.Stop()
	for round := 0; ctx.Err() == nil; round++ {
		killed, err := n.cfg.Database.BreakOff(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			n.log.Warn("clients not broken off", "killed", killed, "error", err.Error())
		case killed > 0:
			n.log.Info("broke off clients for a switchover", "killed", killed)
		}
		if round == 0 {
			close(once)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
