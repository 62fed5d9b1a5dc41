//go:build integration

package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// degradeSoon keeps scenarios short: the order of things is what they are about.
const degradeSoon = 3 * time.Second

// TestSyncSet: replicas go away for longer than they are waited for.
func TestSyncSet(t *testing.T) {
	g := newGroup(t, sandbox.Options{DegradeAfter: degradeSoon})

	g.run(t, "a replica without a server leaves the set and the other takes over", func(s *scenario) {
		old, gone := s.primary(), s.others(s.primary())[0]
		heir := s.others(old, gone)[0]
		s.stopServer(gone)
		s.await(gone+" to have left the set", func(st api.Status) bool {
			return slices.Equal(st.Sync.Set, []string{heir}) && st.Sync.Acks == 1 && st.Sync.Change == nil && st.Epoch == s.before.Epoch
		})
		s.writesGoOn()
		s.fault("kill-host", old)
		if st := s.awaitNewPrimary(old); st.Primary != heir {
			s.Errorf("%s was promoted, and only %s was in the set", st.Primary, heir)
		}
		if i := s.awaitIncident(api.KindTakeover, api.KindFailover); i.Lossy {
			s.Errorf("nobody accepted a loss: %s", Tell(i))
		}
		st := s.await("the degraded state to be told", func(st api.Status) bool { return st.Degraded })
		if st.DegradedSince.IsZero() || st.DegradedWhy == "" || st.DisksSurvived != 0 {
			s.Errorf("degraded since %v because %q, survives %d disks", st.DegradedSince, st.DegradedWhy, st.DisksSurvived)
		}
		s.fault("mend-mysqld", gone)
		s.fault("start-host", old)
	})

	g.run(t, "a replica that acknowledges from an address of no member is kept out", keepsStrangersOut)

	g.run(t, "without replicas it degrades, and then nobody takes over", func(s *scenario) {
		old := s.primary()
		s.degrade()
		s.rises(old, "highbase_sync_degraded", 0, 1) // it may have applied that later than whoever told it
		s.writesGoOn()
		s.fault("kill-host", old)
		s.servesNoMore(old)
		left := s.others(old)
		for _, host := range left {
			s.fault("mend-mysqld", host)
		}
		s.await("the refusal to be told", func(st api.Status) bool {
			return st.Epoch == s.before.Epoch && slices.ContainsFunc(st.Why, func(w string) bool { return strings.HasPrefix(w, "failover.degraded ") }) && len(st.Next) > 0
		})
		s.refusedBy(s.ctl("failover"), "failover.degraded")
		s.staysQuiet(left[0])
		s.riskIsNamed(old)
		s.fault("start-host", old)
		s.heals()
		s.sameOrExplained()
	})

	g.run(t, "an old primary is not promoted while it lacks acknowledged writes", func(s *scenario) {
		first := s.primary()
		s.fault("kill-host", first)
		st := s.awaitNewPrimary(first)
		second := st.Primary
		third := s.others(first, second)[0]
		s.await("the set without "+first, func(st api.Status) bool {
			return st.Primary == second && st.Phase == api.PhaseSteady && slices.Equal(st.Sync.Set, []string{third}) && st.Sync.Acks == 1
		})
		s.writesGoOn()
		s.stopServer(third)
		s.fault("kill-host", second)
		s.fault("start-host", first)
		s.before.Epoch, s.before.Primary = st.Epoch, second
		s.await("the refusal to be told", func(st api.Status) bool {
			return slices.ContainsFunc(st.Why, func(w string) bool { return strings.HasPrefix(w, "failover.count ") })
		})
		s.refusedBy(s.ctl("failover", "--to", first), "failover.count", "candidate.silent")
		s.staysQuiet(first)
		s.cannotWrite(first)
		s.fault("mend-mysqld", third)
		s.fault("start-host", second)
		s.heals()
	})
}

// TestMinReplicas: with min_replicas 1 writes wait instead.
func TestMinReplicas(t *testing.T) {
	g := newGroup(t, sandbox.Options{DegradeAfter: degradeSoon, MinReplicas: 1})
	g.run(t, "writes wait for a replica and go on with it", func(s *scenario) {
		gone := s.others(s.primary())
		for _, host := range gone {
			s.stopServer(host)
		}
		st := s.await("the reason to be told", func(st api.Status) bool {
			return slices.ContainsFunc(st.Why, func(w string) bool { return strings.HasPrefix(w, "sync.min-replicas ") })
		})
		if st.Sync.MinReplicas != 1 || len(st.Next) == 0 {
			s.Errorf("min_replicas %d, next %q", st.Sync.MinReplicas, st.Next)
		}
		s.writesWait(2 * degradeSoon)
		s.fault("mend-mysqld", gone[0])
		s.writesGoOn()
		if st := s.await("an answer", steady); st.Degraded || st.Epoch != s.before.Epoch {
			s.Errorf("degraded %t, epoch %d became %d", st.Degraded, s.before.Epoch, st.Epoch)
		}
		s.fault("mend-mysqld", gone[1])
	})
}

// TestWitness: two database hosts and a voter.
func TestWitness(t *testing.T) {
	g := newGroup(t, sandbox.Options{Nodes: 2, Witnesses: 1, DegradeAfter: degradeSoon})
	g.run(t, "the survivor serves degraded until the other is back", func(s *scenario) {
		old := s.primary()
		heir := s.others(old)[0]
		s.fault("kill-host", old)
		if st := s.awaitNewPrimary(old); st.Primary != heir {
			s.Errorf("%s was promoted", st.Primary)
		}
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		st := s.await("the degraded state to be told", func(st api.Status) bool { return st.Degraded })
		if st.DegradedWhy == "" || st.FailuresTolerated != 0 {
			s.Errorf("degraded because %q, tolerates %d failures", st.DegradedWhy, st.FailuresTolerated)
		}
		s.fault("start-host", old)
		s.await(old+" to be taken in and waited for", func(st api.Status) bool {
			return st.Primary == heir && !st.Degraded && st.Sync.Acks == 1 && slices.Equal(st.Sync.Set, []string{old}) && st.FailuresTolerated == 1
		})
	})
	g.run(t, "a lost replica is given up, and taken back", func(s *scenario) {
		gone := s.others(s.primary())[0]
		s.fault("kill-host", gone)
		s.await("the degraded state", func(st api.Status) bool { return st.Degraded && st.Epoch == s.before.Epoch })
		s.writesGoOn()
		s.fault("start-host", gone)
	})
}

// stopServer kills a replica's server for good: hbd cannot start it again.
func (s *scenario) stopServer(host string) {
	s.Helper()
	s.fault("break-mysqld", host)
	s.fault("kill-mysqld", host)
}

// degrade takes every replica's server away and waits until writes go on without them, and why is told.
func (s *scenario) degrade() {
	s.Helper()
	for _, host := range s.others(s.primary()) {
		s.stopServer(host)
	}
	st := s.await("the degraded state", func(st api.Status) bool { return st.Degraded && st.Epoch == s.before.Epoch })
	if st.Sync.Acks != 0 || st.DisksSurvived != 0 || st.FailuresTolerated != 0 || st.DegradedSince.IsZero() || !strings.Contains(st.DegradedWhy, "could acknowledge") {
		s.Errorf("degraded since %v because %q, %d acks, survives %d disks and %d failures", st.DegradedSince, st.DegradedWhy, st.Sync.Acks, st.DisksSurvived, st.FailuresTolerated)
	}
}

// writesWait demands that no client is told of success while the sampler looks for so long.
func (s *scenario) writesWait(d time.Duration) {
	s.Helper()
	from := s.load.Now()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "a time without success", func(context.Context) (bool, string) {
		if n := s.load.AckedSince(from); n > 0 {
			s.Fatalf("%d writes succeeded that no replica acknowledged", n)
		}
		return s.load.Now()-from > d, "nothing was acknowledged"
	})
	if err != nil {
		s.Fatal(err)
	}
}

// refusedBy demands a refusal by one of some rules.
func (s *scenario) refusedBy(answer Ctl, rules ...string) {
	s.Helper()
	if answer.Exit != exitRefused || answer.Result.Outcome != api.OutcomeRefused || !contains(rules, answer.Result.Rule) {
		s.Errorf("was to be refused by %v: exit %d, %+v, %s", rules, answer.Exit, answer.Result, answer.Stderr)
	}
	s.Logf("refused by %s: %s", answer.Result.Rule, answer.Result.Message)
}

// riskIsNamed asks what a loss would cost: since when, and that each replica lacks something.
func (s *scenario) riskIsNamed(old string) api.Risk {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var risk api.Risk
	err := Await(ctx, "the risk to be named", func(context.Context) (bool, string) {
		r := s.ctl("failover", "--accept-data-loss", "--plan").Result.Risk
		if r == nil {
			return false, "no risk in the answer"
		}
		risk = *r
		for _, n := range r.Nodes {
			if n.Error != "" || n.Missing == nil {
				return false, fmt.Sprintf("%+v", *r)
			}
		}
		return len(r.Nodes) > 0, "no nodes"
	})
	if err != nil {
		s.Fatal(err)
	}
	if risk.Primary != old || risk.DegradedSince.IsZero() || risk.DegradedWhy == "" || risk.Position == "" {
		s.Errorf("the risk lacks something: %+v", risk)
	}
	for _, n := range risk.Nodes {
		if *n.Missing == 0 {
			s.Errorf("%s was away while others wrote, and is said to lack nothing: %+v", n.ID, risk)
		}
		s.Logf("%s lacks at least %d of %s", n.ID, *n.Missing, risk.Position)
	}
	return risk
}
