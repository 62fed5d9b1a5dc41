package raftnode

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// gated is a quorum round that ends when the test says so.
type gated struct {
	mu      sync.Mutex
	begun   int
	release chan error
}

func (g *gated) propose(ctx context.Context) (Round, error) {
	g.mu.Lock()
	g.begun++
	n := g.begun
	g.mu.Unlock()
	select {
	case err := <-g.release:
		return Round{Index: uint64(n), Term: 1}, err
	case <-ctx.Done():
		return Round{}, ctx.Err()
	}
}

func (g *gated) rounds() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.begun
}

// TestCallerIsNotServedByARoundThatBeganBefore is the batch rule. A lease renewed on the strength of an
// older round could outlive what a successor believes it granted.
func TestCallerIsNotServedByARoundThatBeganBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{release: make(chan error)}
		r := newRounds(time.Minute, g.propose)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		got := make(chan uint64, 4)
		call := func() {
			go func() {
				res, err := r.wait(ctx)
				if err != nil {
					t.Error(err)
				}
				got <- res.Index
			}()
			synctest.Wait()
		}
		call()
		call()
		call()
		call()
		if n := g.rounds(); n != 1 {
			t.Fatalf("%d rounds in flight", n)
		}
		g.release <- nil
		synctest.Wait()
		if len(got) != 1 || <-got != 1 {
			t.Fatal("round 1 served somebody who came after it began")
		}
		if n := g.rounds(); n != 2 {
			t.Fatalf("%d rounds begun after the first ended", n)
		}
		g.release <- nil
		synctest.Wait()
		for range 3 {
			if n := <-got; n != 2 {
				t.Fatalf("a later caller was served by round %d", n)
			}
		}
		if g.rounds() != 2 || r.succeeded() != 2 || !r.idle() {
			t.Fatalf("%d begun, %d done, idle %v: the three later callers share one round", g.rounds(), r.succeeded(), r.idle())
		}
	})
}

// TestEarlyAnswerWouldBeCaught is the positive control of the test above: with the rule broken on
// purpose, so that late callers join the round in flight, it is seen.
func TestEarlyAnswerWouldBeCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{release: make(chan error)}
		r := newRounds(time.Minute, g.propose)
		first := r.join()
		r.mu.Lock()
		r.next = r.inFlight // the bug
		r.mu.Unlock()
		late := r.join()
		synctest.Wait()
		if late != first || g.rounds() != 1 {
			t.Fatal("breaking the rule had no effect, so the test of it proves nothing")
		}
		r.mu.Lock()
		r.next = nil
		r.mu.Unlock()
		g.release <- nil
		<-first.done
	})
}

func TestRoundNeverAnsweredDoesNotBlockTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{release: make(chan error)}
		r := newRounds(time.Second, g.propose)
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err := r.wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("caller's own deadline: %v", err)
		}
		long, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := r.wait(long)
			done <- err
		}()
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // virtual: past the first round's limit, within the second's
		synctest.Wait()
		g.release <- nil
		if err := <-done; err != nil {
			t.Fatalf("second round: %v", err)
		}
	})
}

// TestIsolatedLeaderProvesNothing cuts the leader off. It believes that it leads for a while, and no
// round of its own may say so; the others go on without it and it follows when it is back.
func TestIsolatedLeaderProvesNothing(t *testing.T) {
	// A leader lease as long as the election would have to be lets the old leader believe for long.
	w, ms := group(t, 3, func(c *Config) { c.Timing.LeaderLease = c.Timing.Heartbeat })
	old := leader(t, ms)
	proof, err := old.VerifyQuorumRound(within(t, 5*time.Second))
	if err != nil {
		t.Fatalf("positive control: %v", err)
	}
	w.setCut(old.cfg.Node, true)
	for old.IsLeader() {
		r, err := old.VerifyQuorumRound(within(t, 50*time.Millisecond))
		if err == nil {
			t.Fatalf("isolated leader completed round %+v", r)
		}
	}
	_, _, err = old.Apply(within(t, time.Second), []byte("lost"))
	if !errors.Is(err, ErrNotLeader) {
		t.Fatalf("apply on a deposed leader: %v", err)
	}
	rest := others(ms, old)
	apply(t, rest, "kept")
	next, err := leader(t, rest).VerifyQuorumRound(within(t, 5*time.Second))
	if err != nil || next.Term <= proof.Term || next.Index <= proof.Index {
		t.Fatalf("successor's round %+v (%v) after %+v", next, err, proof)
	}
	w.setCut(old.cfg.Node, false)
	holds(t, ms, "kept")
}

func TestOutcomeOfAnEntryCutOffInFlightIsUnknown(t *testing.T) {
	w, ms := group(t, 3, nil)
	old := leader(t, ms)
	w.setCut(old.cfg.Node, true)
	if _, _, err := old.Apply(within(t, 5*time.Second), []byte("x")); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("apply without a quorum: %v, want ErrUnknownOutcome", err)
	}
	w.setCut(old.cfg.Node, false)
	apply(t, ms, "y")
	for _, err := range []error{raft.ErrEnqueueTimeout, raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress} {
		if got := outcome(err); errors.Is(got, ErrUnknownOutcome) {
			t.Errorf("%v proves that nothing happened, got %v", err, got)
		}
	}
	for _, err := range []error{raft.ErrLeadershipLost, raft.ErrRaftShutdown, raft.ErrAbortedByRestore, context.DeadlineExceeded} {
		if got := outcome(err); !errors.Is(got, ErrUnknownOutcome) || !errors.Is(got, err) {
			t.Errorf("%v proves nothing, got %v", err, got)
		}
	}
}
