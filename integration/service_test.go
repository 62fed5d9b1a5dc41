//go:build integration

package integration

import (
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestService: the database service or the daemon beside it fails, the host lives.
func TestService(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "mysqld killed is restarted in place", func(s *scenario) {
		s.fault("kill-mysqld", s.primary())
		s.awaitIncident(api.KindRestart)
		s.writesGoOn()
		st := s.await("phase steady", steady)
		if st.Epoch != s.before.Epoch || st.Primary != s.primary() {
			s.Errorf("the primary was %s in epoch %d, now %s in epoch %d", s.primary(), s.before.Epoch, st.Primary, st.Epoch)
		}
	})

	g.run(t, "mysqld killed and cannot start is failed over", func(s *scenario) {
		old := s.primary()
		s.fault("break-mysqld", old)
		s.fault("kill-mysqld", old)
		s.awaitNewPrimary(old)
		if i := s.awaitIncident(api.KindFailover, api.KindTakeover); i.From != old {
			s.Errorf("the incident is about %s, not %s", i.From, old)
		}
		if err := s.servers[old].PingContext(s.ctx); err == nil {
			s.Errorf("the old service on %s was to be down for certain, and answers", old)
		}
		s.fault("mend-mysqld", old)
	})

	g.run(t, "mysqld frozen is found by deadline", func(s *scenario) {
		old := s.primary()
		s.fault("pause-mysqld", old)
		s.awaitIncident(api.KindRestart, api.KindFailover, api.KindTakeover)
		s.writesGoOn()
		// Had the frozen server not been ended, it would now wake up as a second writer.
		if err := s.Fault(s.ctx, "resume-mysqld", old); err != nil {
			s.Logf("the frozen server is gone, as it should be: %v", err)
		}
	})

	g.run(t, "hbd killed on the primary is no failover", func(s *scenario) {
		s.fault("kill-hbd", s.primary())
		s.writesGoOn()
		s.await("hbd to be back with its lease", func(st api.Status) bool {
			for _, n := range st.Nodes {
				if n.ID == s.primary() {
					return n.Health == api.HealthOK && n.LeaseMS > 0
				}
			}
			return false
		})
		s.writesGoOn()
		s.noErrors(s.at)
		s.nothingHappened()
	})

	g.run(t, "hbd stopped on the primary hands over first", func(s *scenario) {
		old := s.primary()
		s.fault("stop-hbd", old)
		s.awaitNewPrimary(old)
		if i := s.awaitIncident(api.KindHandover, api.KindSwitchover); i.From != old {
			s.Errorf("the incident is about %s, not %s", i.From, old)
		}
		if s.holdsAddress(old) {
			s.Errorf("%s stopped and still has the virtual address", old)
		}
		s.fault("start-hbd", old)
	})
}

// steady: nothing is under way.
func steady(st api.Status) bool { return st.Phase == api.PhaseSteady && st.Operation == nil }
