//go:build integration

package integration

import (
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestService: the database service or the daemon beside it fails, the host lives.
func TestService(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	g.load = Load{Connect: patientConnect}

	g.run(t, "mysqld killed is restarted in place", func(s *scenario) {
		watch, stop := s.watchAddress(s.primary())
		defer stop()
		s.fault("kill-mysqld", s.primary())
		s.awaitIncident(api.KindRestart)
		s.writesGoOn()
		if !s.holdsAddress(s.primary()) {
			s.Errorf("%s was restarted in place and lost the virtual address", s.primary())
		}
		if gone := watch.deleted(s.Facts.VIP); len(gone) > 0 {
			s.Errorf("the virtual address was to stay, but %q", gone)
		}
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
		i := s.awaitIncident(api.KindFailover)
		if i.From != old || !strings.Contains(i.Cause, "budget") {
			s.Errorf("was to be a failover from %s because the budget is used up: %s", old, Tell(i))
		}
		s.restartTriedBefore(i)
		if err := s.servers[old].PingContext(s.ctx); err == nil {
			s.Errorf("the old service on %s was to be down for certain, and answers", old)
		}
		s.fault("mend-mysqld", old)
	})

	g.run(t, "mysqld frozen is found by deadline", func(s *scenario) {
		old := s.primary()
		frozen := s.serverPID(old)
		s.fault("pause-mysqld", old)
		s.awaitIncident(api.KindRestart, api.KindFailover, api.KindTakeover)
		s.writesGoOn()
		// Had the frozen server not been ended, it would now wake up as a second writer.
		if err := s.Fault(s.ctx, "resume-mysqld", old); err != nil {
			s.Logf("the frozen server is gone, as it should be: %v", err)
		}
		if now := s.serverPID(old); now == frozen {
			s.Errorf("process %d on %s was frozen, has been restarted or failed over, and lives", now, old)
		}
		if st := s.await("phase steady", steady); st.Primary != old {
			s.cannotWrite(old)
		}
	})

	g.run(t, "hbd killed on the primary is no failover", func(s *scenario) {
		before, err := s.daemonPID(s.ctx, s.primary())
		if err != nil || before == 0 {
			s.Fatalf("looking for hbd on %s: process %d, %v", s.primary(), before, err)
		}
		s.fault("kill-hbd", s.primary())
		s.otherDaemon(s.primary(), before)
		s.writesGoOn()
		s.await("hbd to be back with its lease", func(st api.Status) bool {
			for _, n := range st.Nodes {
				if n.ID == s.primary() {
					return n.Health == api.HealthOK && n.LeaseMS > 0
				}
			}
			return false
		})
		// Its own answer, from its own host: the new run, not the old one's last word.
		if st, err := s.toldBy(s.ctx, s.primary()); err != nil || st.ToldBy != s.primary() || st.Primary != s.primary() {
			s.Errorf("the new run of hbd does not say that it is the primary: %v, %s", err, Describe(st))
		}
		s.writesGoOn()
		s.noErrors(s.at)
		s.nothingHappened()
	})

	g.run(t, "hbd stopped on the primary hands over first", func(s *scenario) {
		old := s.primary()
		s.fault("stop-hbd", old)
		s.awaitNewPrimary(old)
		if i := s.awaitIncident(api.KindHandover); i.From != old {
			s.Errorf("the incident is about %s, not %s", i.From, old)
		}
		if s.holdsAddress(old) {
			s.Errorf("%s stopped and still has the virtual address", old)
		}
		s.somebodyAnswered()
		s.fault("start-hbd", old)
	})
}

// somebodyAnswered demands that clients were answered at every moment of a planned change, if only with resets.
func (s *scenario) somebodyAnswered() {
	s.Helper()
	if n := s.load.Silences(); n > 0 {
		s.Errorf("%d connects met nobody at the address", n)
	}
}

// steady: nothing is under way.
func steady(st api.Status) bool { return st.Phase == api.PhaseSteady && st.Operation == nil }

// restartTriedBefore demands that the service was to be restarted in place, in vain, before
// the failover.
func (s *scenario) restartTriedBefore(failover api.Incident) {
	s.Helper()
	incidents, err := s.Incidents(s.ctx, s.last)
	if err != nil {
		s.Fatal(err)
	}
	for _, i := range incidents {
		if i.Kind == api.KindRestart && i.ID < failover.ID && i.From == failover.From && i.Outcome != api.OutcomeDone {
			return
		}
	}
	s.Errorf("no vain restart of %s comes before %s", failover.From, Tell(failover))
}

// serverPID is the process of a host's server now, 0 when there is none.
func (s *scenario) serverPID(host string) int {
	s.Helper()
	now, err := s.Status(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	for _, h := range now.Hosts {
		if h.Name == host {
			return h.PIDs.Mysqld
		}
	}
	s.Fatalf("no host %s", host)
	return 0
}
