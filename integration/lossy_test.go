//go:build integration

package integration

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// exitUnknown is hbctl's exit code for an operation that goes on.
const exitUnknown = 4

// TestAcceptDataLoss goes all the way: degraded, the host lost, a loss accepted, the old primary kept out. The cluster does not heal by itself from
// that, so this is no scenario that finishes like the others.
func TestAcceptDataLoss(t *testing.T) {
	g := newGroup(t, sandbox.Options{DegradeAfter: degradeSoon})
	s := &scenario{T: t, Cluster: g.ensure(t)}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	t.Cleanup(func() {
		s.stopClients()
		if t.Failed() {
			s.Tell(t)
		}
	})
	s.begin()
	old := s.primary()
	s.degrade()
	s.writesGoOn()
	if answer := s.ctl("failover", "--accept-data-loss"); answer.Result.Rule != "failover.primary-serves" && answer.Result.Rule != "failover.acknowledger" {
		s.Errorf("a primary that serves was given up: exit %d, %+v", answer.Exit, answer.Result)
	}
	s.fault("kill-host", old)
	for _, host := range s.others(old) {
		s.fault("mend-mysqld", host)
	}
	s.servesNoMore(old)
	s.riskIsNamed(old)

	s.Log("without evidence it waits, and says for what")
	waits := s.ctl("--timeout", "6s", "failover", "--accept-data-loss")
	if waits.Exit != exitUnknown || waits.Result.Rule != "failover.lossy-evidence" || !strings.Contains(waits.Result.Message, "--fenced "+old) {
		s.Errorf("exit %d, %+v, %s", waits.Exit, waits.Result, waits.Stderr)
	}
	if st := s.await("an answer", func(st api.Status) bool { return st.Leader != "" }); st.Primary != "" {
		s.Errorf("%s was promoted although only a lease ran out", st.Primary)
	}
	done := s.ctl("failover", "--accept-data-loss", "--fenced", old)
	if done.Exit != exitDone || done.Result.Outcome != api.OutcomeDone {
		s.Fatalf("exit %d, %+v, %s", done.Exit, done.Result, done.Stderr)
	}
	st := s.awaitNewPrimary(old)
	if st.LossyEpoch != st.Epoch {
		s.Errorf("epoch %d, and the newest lossy one is said to be %d", st.Epoch, st.LossyEpoch)
	}
	if i := s.awaitIncident(api.KindFailover); !i.Lossy || !strings.Contains(i.Cause, "may be lost") ||
		!slices.ContainsFunc(i.Timeline, func(e api.Event) bool { return strings.Contains(e.Text, "fence evidence (human)") }) {
		s.Errorf("the history does not tell of the loss: %s", Tell(i))
	}
	s.writesGoOn()

	s.Log("the old primary keeps what it has, and stays out")
	s.fault("start-host", old)
	s.await(old+" to be quarantined", func(st api.Status) bool {
		return strings.Contains(strings.Join(st.Next, "\n"), "docs/runbooks/quarantined.md") && slices.ContainsFunc(st.Nodes, func(n api.Node) bool {
			return n.ID == old && n.Role == api.RoleQuarantined && strings.Contains(n.Note, "accepting a loss") && !n.Writable
		})
	})
	s.stopClients()
	s.lostOnlyWhatWasAtRisk(st.Primary)
}

// lostOnlyWhatWasAtRisk demands on the new primary every row that was acknowledged before the replicas went away.
func (s *scenario) lostOnlyWhatWasAtRisk(primary string) {
	s.Helper()
	present, err := s.rowsOn(s.ctx, primary, s.load.run)
	if err != nil {
		s.Fatal(err)
	}
	lost := s.load.Lost(present)
	if len(lost) == 0 {
		s.Error("nothing was lost: the test proves nothing")
	}
	for _, k := range lost {
		if a := s.load.attempt(k); a.Done < s.at {
			s.Errorf("row %v is lost, and was acknowledged at %v, before the fault at %v", k, a.Done, s.at)
		}
	}
	s.Logf("%d rows acknowledged while degraded are lost, as accepted", len(lost))
}
