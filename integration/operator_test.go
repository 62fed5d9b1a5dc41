//go:build integration

package integration

import (
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// Exit codes of hbctl, as its manual fixes them.
const (
	exitDone    = 0
	exitRefused = 1
)

// TestOperator: people ask for a change of the primary.
func TestOperator(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	g.load = Load{Connect: patientConnect}

	g.run(t, "promote", func(s *scenario) {
		to := s.others(s.primary())[0]
		answer := s.ctl("promote", to)
		if answer.Exit != exitDone || answer.Result.Outcome != api.OutcomeDone {
			s.Errorf("hbctl promote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		if i := s.awaitIncident(api.KindSwitchover); i.From != s.primary() || i.To != to {
			s.Errorf("the history tells of a switchover from %s to %s", i.From, i.To)
		}
		if st := s.await("phase steady", steady); st.Primary != to {
			s.Errorf("the primary is %s, not %s", st.Primary, to)
		}
		s.somebodyAnswered()
	})

	g.run(t, "demote", func(s *scenario) {
		answer := s.ctl("demote")
		if answer.Exit != exitDone || answer.Result.Outcome != api.OutcomeDone {
			s.Errorf("hbctl demote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		if st := s.await("phase steady", steady); st.Primary == s.primary() {
			s.Errorf("the primary still is %s", st.Primary)
		}
		s.somebodyAnswered()
	})

	g.run(t, "promote with a plan changes nothing", func(s *scenario) {
		answer := s.ctl("promote", s.others(s.primary())[0], "--plan")
		if answer.Exit != exitDone || answer.Result.Plan == nil {
			s.Errorf("hbctl promote --plan: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		s.nothingHappened()
	})

	g.run(t, "promote a candidate that cannot catch up", func(s *scenario) {
		to := s.others(s.primary())[0]
		unlock := s.holdBack(to)
		defer unlock()
		answer := s.ctl("promote", to)
		s.notDone(answer)
		s.writesGoOn()
		if st := s.await("phase steady", steady); st.Primary != s.primary() {
			s.Errorf("the primary is %s, and was to stay %s", st.Primary, s.primary())
		}
	})

	g.run(t, "promote a dead node", func(s *scenario) {
		dead := s.others(s.primary())[0]
		s.fault("kill-host", dead)
		answer := s.ctl("promote", dead)
		s.notDone(answer)
		s.writesGoOn()
		if st := s.await("phase steady", steady); st.Primary != s.primary() {
			s.Errorf("the primary is %s, and was to stay %s", st.Primary, s.primary())
		}
		s.fault("start-host", dead)
	})

	g.run(t, "pause forbids a switchover", func(s *scenario) {
		if answer := s.ctl("pause", "--why", "test"); answer.Exit != exitDone {
			s.Fatalf("hbctl pause: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		s.await("a paused cluster", func(st api.Status) bool { return st.Paused })
		s.notDone(s.ctl("promote", s.others(s.primary())[0]))
		s.nothingHappened()
		if answer := s.ctl("resume"); answer.Exit != exitDone {
			s.Errorf("hbctl resume: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
	})
}

func (s *scenario) ctl(args ...string) Ctl {
	s.Helper()
	answer, err := s.Hbctl(s.ctx, args...)
	if err != nil {
		s.Fatal(err)
	}
	return answer
}

// notDone demands a refusal or a roll-back that says why.
func (s *scenario) notDone(answer Ctl) {
	s.Helper()
	r := answer.Result
	if answer.Exit != exitRefused || r.Outcome != api.OutcomeRefused && r.Outcome != api.OutcomeFailed {
		s.Errorf("was to be refused or rolled back: exit %d, %+v, %s", answer.Exit, r, answer.Stderr)
		return
	}
	if r.Rule == "" || r.Message == "" {
		s.Errorf("%s without a rule or a reason: %+v", r.Outcome, r)
	}
	s.Logf("%s by %s: %s (%s, wanted %s)", r.Outcome, r.Rule, r.Message, r.Value, r.Threshold)
}

// holdBack keeps a replica from applying: a reader's lock on the workload's table,
// which the replication thread waits behind. It returns the end of it.
func (s *scenario) holdBack(host string) (release func()) {
	s.Helper()
	conn, err := s.servers[host].Conn(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := conn.ExecContext(s.ctx, "LOCK TABLES "+table+" READ"); err != nil {
		s.Fatal(err)
	}
	return func() {
		// The lock ends with the session, however the session ends.
		_, err := conn.ExecContext(s.ctx, "UNLOCK TABLES")
		if err != nil {
			s.Logf("the lock on %s had ended before: %v", host, err)
		}
		if err := conn.Close(); err != nil {
			s.Logf("closing the session on %s: %v", host, err)
		}
	}
}
