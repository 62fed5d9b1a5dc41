//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// TestFiveNodes: five database hosts. MySQL waits for two acknowledgements and any two hosts may be lost at once; MariaDB's semi-sync knows one, so
// that beside the primary only one outside its set of two may.
func TestFiveNodes(t *testing.T) {
	needsBackupTool(t)
	g := newGroup(t, sandbox.Options{Nodes: 5})

	g.run(t, "the primary and one more at once, then a planned change", func(s *scenario) {
		s.fullSet()
		old := s.primary()
		gone := s.spare()
		fewer := s.watchCopies()
		s.needsCopies(old)
		s.at = s.load.Now()
		s.killTogether(old, gone)
		st := s.awaitNewPrimary(old)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		if st.Primary == gone {
			s.Errorf("%s was promoted, and its host is dead", gone)
		}
		s.quietBefore(old, st.Primary)
		s.await("three hosts to say that none of them may be lost, and no disk less than before", func(now api.Status) bool {
			return now.Phase == api.PhaseSteady && now.FailuresTolerated == 0 && now.DisksSurvived == s.copies() && !now.Degraded
		})
		s.needsCopies(st.Primary)
		s.fault("start-host", gone)
		s.fault("start-host", old)
		s.before = s.fullSet()

		to := s.before.Sync.Set[0]
		if answer := s.ctl("promote", to); answer.Exit != exitDone || answer.Result.Outcome != api.OutcomeDone {
			s.Errorf("hbctl promote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		if st := s.fullSet(); st.Primary != to {
			s.Errorf("the primary is %s, not %s", st.Primary, to)
		}
		if i := s.awaitIncident(api.KindSwitchover); i.From != s.primary() || i.To != to {
			s.Errorf("the history tells of a switchover from %s to %s", i.From, i.To)
		}
		fewer()
	})

	if server() == "mysql" {
		return
	}
	g.run(t, "the primary and a member of the set at once promotes nobody", func(s *scenario) {
		old, gone := s.primary(), s.fullSet().Sync.Set[0]
		s.refusedBy(s.ctl("promote", s.spare()), "candidate.reserve")
		s.killTogether(old, gone)
		s.servesNoMore(old)
		s.await("the refusal to be told", func(st api.Status) bool {
			return st.Epoch == s.before.Epoch && slices.ContainsFunc(st.Why, func(w string) bool { return strings.HasPrefix(w, "failover.count ") })
		})
		s.staysQuiet(s.others(old, gone)[0])
		s.fault("start-host", gone)
		s.fault("start-host", old)
		s.heals()
		s.sameOrExplained()
	})
}

// copies is W with five database hosts: of how many nodes the disks may be lost.
func (s *scenario) copies() int {
	if s.Flavor() == gtid.MySQL {
		return 2
	}
	return 1
}

// fullSet waits until every node is back in its place, as many acknowledge as are allowed to, and the status says what that is worth.
func (s *scenario) fullSet() api.Status {
	s.Helper()
	s.heals()
	w := s.copies()
	return s.await("a full set of five nodes", func(st api.Status) bool {
		return steady(st) && len(st.Sync.Set) == 2*w && st.Sync.Acks == w && st.Sync.Change == nil && !st.Degraded &&
			st.DisksSurvived == w && st.FailuresTolerated == w && st.Verdict == api.StandingHealthy
	})
}

// spare is a replica whose loss together with the primary's is survived.
func (s *scenario) spare() string {
	s.Helper()
	want := api.SyncReserve
	if s.Flavor() == gtid.MySQL {
		want = api.SyncAck
	}
	i := slices.IndexFunc(s.before.Nodes, func(n api.Node) bool { return n.ID != s.primary() && n.Sync == want })
	if i < 0 {
		s.Fatalf("no replica is %q: %s", want, Describe(s.before))
	}
	return s.before.Nodes[i].ID
}

// killTogether takes the power of several hosts away at the same moment.
func (s *scenario) killTogether(hosts ...string) {
	s.Helper()
	errs := make([]error, len(hosts))
	var running sync.WaitGroup
	for i, host := range hosts {
		running.Go(func() { errs[i] = s.Fault(s.ctx, "kill-host", host) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
}

// watchCopies asks all the while how many copies of a commit are waited for; the result ends that, and demands that it never were fewer than W.
func (s *scenario) watchCopies() (end func()) {
	s.Helper()
	w := s.copies()
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	answers := 0
	running.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, pollInterval) {
			st, err := s.ClusterStatus(ctx)
			if err != nil {
				continue // nobody answered in this moment
			}
			if answers++; st.Sync.Acks < w || st.Degraded {
				s.Errorf("%d acknowledgements were enough, degraded %t, and %d are to be: %s", st.Sync.Acks, st.Degraded, w, Describe(st))
				return
			}
		}
	})
	s.Cleanup(func() { cancel(); running.Wait() })
	return func() {
		s.Helper()
		cancel()
		running.Wait()
		if answers < 50 {
			s.Errorf("only %d answers: nothing is proven", answers)
		}
	}
}

// needsCopies demands that clients are told of success as long as W members are heard, and not when one of these is not.
func (s *scenario) needsCopies(primary string) {
	s.Helper()
	st := s.await("a set", func(st api.Status) bool { return st.Primary == primary && len(st.Sync.Set) >= s.copies() })
	set := st.Sync.Set
	s.Cleanup(func() { // a scenario that failed half-way; the table may be gone
		_, _, _ = s.Command(context.Background(), primary, "nft", "delete table "+ackTable)
	})
	spare := len(set) - s.copies()
	s.mute(primary, set[:spare])
	s.writesGoOn()
	s.mute(primary, set[:spare+1])
	s.commitsWait(primary)
	s.writesWait(time.Second)
	s.hear(primary)
	s.writesGoOn()
}

// mute keeps what these replicas say from the primary, as dropAcks does for all.
func (s *scenario) mute(primary string, replicas []string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, fmt.Sprintf("connections of %v to %s", replicas, primary), func(context.Context) (bool, string) {
		dumps := s.dumps(primary)
		theirs := slices.DeleteFunc(slices.Clone(dumps), func(d string) bool {
			from, err := netip.ParseAddrPort(d)
			return err != nil || !slices.ContainsFunc(replicas, func(host string) bool { return s.addressOf(host) == from.Addr() })
		})
		if len(theirs) != len(replicas) {
			return false, fmt.Sprint(dumps)
		}
		s.drop(primary, theirs, fromReplica)
		return sameSet(dumps, s.dumps(primary)), "one has just connected anew: it would be heard"
	})
	if err != nil {
		s.Fatal(err)
	}
}
