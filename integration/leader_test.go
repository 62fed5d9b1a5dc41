//go:build integration

package integration

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// leaderSteps are the steps at which the leader is killed, each until it was met once.
// brief marks steps that last about as long as one look at the leader (a millisecond or
// two): they are tried, and it is said when they were missed.
var leaderSteps = []struct {
	kind, step string
	brief      bool
}{
	{api.KindSwitchover, "prepared", true},
	{api.KindSwitchover, "releasing", false},
	{api.KindSwitchover, "promoted", false},
	{api.KindFailover, "begun", false},
	{api.KindFailover, "fenced", true},
	{api.KindFailover, "promoted", false},
}

// Tries to meet a step: a step that must be met and was not in so many is a failure.
const (
	stepTries  = 12
	briefTries = 3
)

// TestLeader: the Raft leader is killed at each step of a switchover and of a failover.
// The next one finishes it or takes it back, and there is exactly one primary.
func TestLeader(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	met := map[string]int{} // also by tries that were meant for another step
	for _, c := range leaderSteps {
		want, tries := c.kind+" "+c.step, stepTries
		if c.brief {
			tries = briefTries
		}
		for try := 1; try <= tries && met[want] == 0; try++ {
			g.run(t, fmt.Sprintf("%s %s try %d", c.kind, c.step, try), func(s *scenario) {
				during := s.killLeaderIn(c.kind, c.step)
				s.Logf("wanted %q, the leader last said %q before it was killed", c.step, during)
				met[c.kind+" "+during]++
			})
			if t.Failed() {
				return // more of the same would say no more
			}
		}
		switch {
		case met[want] > 0:
		case c.brief:
			t.Logf("%s is too short to be hit: not met in %d tries", want, tries)
		default:
			t.Errorf("the leader was never killed in %s, in %d tries: nothing is proven about it", want, tries)
		}
	}
	t.Logf("steps met: %v", met)
}

// killLeaderIn begins the operation, kills its leader at a step, and waits for the end.
func (s *scenario) killLeaderIn(kind, step string) (met string) {
	s.Helper()
	old := s.primary()
	s.leaderAwayFrom(old)
	if kind == api.KindFailover {
		lost := make(chan error, 1)
		go func() { lost <- s.Fault(s.ctx, "kill-host", old) }()
		met = s.killLeader(step)
		if err := <-lost; err != nil {
			s.Fatalf("kill-host %s: %v", old, err)
		}
		s.awaitNewPrimary(old)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("start-host", old)
		s.oneEnd()
		return met
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		// The answer may be any: the node that was asked may be the one that dies.
		answer, err := s.Hbctl(s.ctx, "promote", s.others(old)[0])
		s.Logf("hbctl promote: exit %d, %s %s %s, %v", answer.Exit, answer.Result.Outcome, answer.Result.Rule, answer.Result.Message, err)
	}()
	met = s.killLeader(step)
	<-asked
	s.oneEnd()
	return met
}

// leaderAwayFrom waits until the Raft leader sits elsewhere: killing the primary's
// host would otherwise kill the leader first, which is another test.
func (s *scenario) leaderAwayFrom(host string) {
	s.Helper()
	s.await("the leader to sit elsewhere than on "+host, func(st api.Status) bool {
		return st.Leader != "" && st.Leader != host
	})
}

// killLeader follows the operation by what the leader itself says, as fast as it answers,
// and kills its daemon in the given step; its supervisor starts it again. The result is
// the last step the leader spoke of before it died; "" is none: the operation was over, or
// another node had come to lead it.
func (s *scenario) killLeader(step string) (met string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	leader := s.await("a leader", func(st api.Status) bool { return st.Leader != "" }).Leader
	pid, client := s.daemonOf(ctx, leader)
	defer client.Close()
	for seen := false; met == ""; {
		if ctx.Err() != nil {
			s.Fatalf("no step %q and no end of the operation was seen", step)
		}
		st, err := client.Status(ctx)
		if err != nil {
			pause(ctx, time.Millisecond)
			continue
		}
		seen = seen || st.Operation != nil
		over := st.Operation == nil && (seen || st.Epoch > s.before.Epoch)
		if over {
			break
		}
		if st.Operation != nil && st.Operation.Step == step && st.Leader == leader {
			met = step
		}
	}
	// Not by way of the sandbox: that takes longer than a step.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.Fatalf("killing hbd of %s: %v", leader, err)
	}
	for {
		st, err := client.Status(ctx)
		if err != nil {
			s.otherDaemon(leader, pid)
			return met
		}
		met = ""
		if st.Operation != nil && st.Leader == leader {
			met = st.Operation.Step
		}
	}
}

// otherDaemon waits until a node runs an hbd that is not the one of before, or the kill
// would prove nothing.
func (s *scenario) otherDaemon(node string, before int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "another hbd on "+node, func(ctx context.Context) (bool, string) {
		pid, err := s.daemonPID(ctx, node)
		if err != nil {
			return false, err.Error()
		}
		return pid != 0 && pid != before, fmt.Sprintf("process %d", pid)
	})
	if err != nil {
		s.Fatal(err)
	}
}

// daemonPID is the process of a node's hbd now, 0 when there is none.
func (s *scenario) daemonPID(ctx context.Context, node string) (int, error) {
	now, err := s.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, h := range now.Hosts {
		if h.Name == node {
			return h.PIDs.HBD, nil
		}
	}
	return 0, fmt.Errorf("no host %s", node)
}

// daemonOf finds a node's process and a client of its own.
func (s *scenario) daemonOf(ctx context.Context, node string) (pid int, client *api.Client) {
	s.Helper()
	h, ok := s.Host(node)
	pid, err := s.daemonPID(ctx, node)
	if err != nil || !ok || pid == 0 {
		s.Fatalf("looking for hbd on %s: process %d, %v", node, pid, err)
	}
	client, err = api.NewClient([]string{h.API}, api.ClientOptions{ReadTimeout: 300 * time.Millisecond, DialContext: s.dialer(node)})
	if err != nil {
		s.Fatal(err)
	}
	return pid, client
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
