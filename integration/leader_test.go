//go:build integration

package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// Delays between the begin of an operation and the end of its leader: from "just
// begun" to "nearly over". Which step each met is printed.
var (
	switchoverDelays = []time.Duration{0, 4 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}
	failoverDelays   = []time.Duration{0, 15 * time.Millisecond, 50 * time.Millisecond, 120 * time.Millisecond}
)

// TestLeader: the Raft leader is killed at the steps of an operation. The next one
// finishes it or takes it back, and there is exactly one primary.
func TestLeader(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	for _, delay := range switchoverDelays {
		g.run(t, fmt.Sprintf("killed %v into a switchover", delay), func(s *scenario) {
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				// The answer may be any: the node that was asked may be the one that dies.
				answer, err := s.Hbctl(s.ctx, "promote", s.others(s.primary())[0])
				s.Logf("hbctl promote: exit %d, %s %s %s, %v", answer.Exit, answer.Result.Outcome, answer.Result.Rule, answer.Result.Message, err)
			}()
			s.killLeader(delay)
			<-asked
			s.oneEnd()
		})
	}
	for _, delay := range failoverDelays {
		g.run(t, fmt.Sprintf("killed %v into a failover", delay), func(s *scenario) {
			old := s.primary()
			s.leaderAwayFrom(old)
			s.fault("kill-host", old)
			s.killLeader(delay)
			s.awaitNewPrimary(old)
			s.fault("start-host", old)
			s.oneEnd()
		})
	}
}

// leaderAwayFrom waits until the Raft leader sits elsewhere: killing the primary's
// host would otherwise kill the leader first, which is another test.
func (s *scenario) leaderAwayFrom(host string) {
	s.Helper()
	s.await("the leader to sit elsewhere than on "+host, func(st api.Status) bool {
		return st.Leader != "" && st.Leader != host
	})
}

// killLeader waits for an operation to begin, then for delay, and kills the leader's
// daemon; its supervisor starts it again. An operation that was over before it was
// seen is a step too: the leader is killed just after.
func (s *scenario) killLeader(delay time.Duration) {
	s.Helper()
	begun := s.await("an operation to begin", func(st api.Status) bool {
		return st.Operation != nil || st.Phase != api.PhaseSteady || st.Epoch > s.before.Epoch
	})
	pause(s.ctx, delay)
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	step := begun.Phase
	leader := begun.Leader
	if now, err := s.ClusterStatus(ctx); err == nil && now.Leader != "" {
		step, leader = now.Phase, now.Leader
	}
	if leader == "" {
		leader = s.before.Leader
	}
	s.fault("kill-hbd", leader)
	s.Logf("killed the leader on %s in phase %s", leader, step)
}

// oneEnd demands that the operation came to an end, whichever, and that at most one
// change of the primary came of it.
func (s *scenario) oneEnd() {
	s.Helper()
	s.heals()
	incidents, err := s.Incidents(s.ctx, s.last)
	if err != nil {
		s.Fatal(err)
	}
	changes := 0
	for _, i := range incidents {
		if i.Outcome == api.OutcomeDone && i.Kind != api.KindRestart {
			changes++
		}
	}
	if changes > 1 {
		s.Errorf("one operation was begun, %d changes of the primary came of it", changes)
	}
}
