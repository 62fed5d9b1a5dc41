//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// shortSoak is how often the primary is killed in the ordinary suite; HIGHBASE_SOAK asks for more, of both forms.
const shortSoak = 4

// soakClients are many, so that a kill meets writes at every stage of a commit. Their pauses leave the machine some air.
var soakClients = Load{Writers: 24, Pause: 15 * time.Millisecond}

// TestSoak kills the primary over and over under one workload, whoever it is, and nobody helps: what was acknowledged since the first kill is
// there after the last, every old primary came back by a rewind, none by a copy. In its short form each server has one of the two ways to die.
func TestSoak(t *testing.T) {
	kills, forms := soakSize(t)
	if forms["host"] {
		g := newGroup(t, sandbox.Options{})
		g.load, g.limit = soakClients, time.Duration(kills)*time.Minute
		g.run(t, "host killed", func(s *scenario) {
			s.soak(kills, func(old string) { s.fault("kill-host", old) }, func(old string) { s.fault("start-host", old) })
		})
	}
	if forms["mysqld"] {
		g := newGroup(t, sandbox.Options{OnServiceDown: "failover"})
		g.load, g.limit = soakClients, time.Duration(kills)*time.Minute
		g.run(t, "mysqld killed, failed over at once", func(s *scenario) {
			s.soak(kills, func(old string) { s.fault("kill-mysqld", old) }, nil)
		})
	}
}

func soakSize(t *testing.T) (kills int, forms map[string]bool) {
	t.Helper()
	v := os.Getenv("HIGHBASE_SOAK")
	if v == "" {
		return shortSoak, map[string]bool{"host": server() == "mariadb", "mysqld": server() != "mariadb"}
	}
	kills, err := strconv.Atoi(v)
	if err != nil || kills < 1 {
		t.Fatalf("HIGHBASE_SOAK=%q: want how often the primary is killed, a number above 0", v)
	}
	return kills, map[string]bool{"host": true, "mysqld": true}
}

// soak kills the primary so many times. Each time it waits for the successor, boots what was killed, and goes on when all are well again.
func (s *scenario) soak(kills int, kill, boot func(old string)) {
	s.Helper()
	copies := s.watchRebuilds()
	killed, rewinds, restarts, again := map[string]int{}, 0.0, 0, 0
	last := ""
	for n := 1; n <= kills; n++ {
		old, leader, before := s.primary(), s.before.Leader, 0.0 // a host that is killed forgets its counters
		if boot == nil {
			before = s.metric(old, "highbase_rewinds_total")
		}
		s.await("the loss of one more to be tolerated", func(st api.Status) bool { return st.FailuresTolerated >= 1 })
		s.at = s.load.Now()
		newest := s.newestIncident()
		kill(old)
		if boot == nil && s.endOf(newest).Kind == api.KindRestart {
			restarts++
		} else {
			s.awaitNewPrimary(old)
		}
		if boot != nil {
			boot(old)
		}
		back := s.load.Now()
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		st, err := s.AwaitHealthy(ctx)
		cancel()
		if err != nil {
			s.Fatalf("kill %d of %d, of %s: %v", n, kills, old, err)
		}
		gap, _ := s.load.Gap(s.at, s.load.Now())
		rewound := s.metric(old, "highbase_rewinds_total") - before
		s.Logf("kill %d, of %s (leader %s): %s is primary of epoch %d, gap %v, %v rewinds, well again after %v", n, old, leader, st.Primary, st.Epoch,
			gap.Round(time.Millisecond), rewound, (s.load.Now() - back).Round(time.Millisecond))
		if broken := s.load.Violations(); len(broken) > 0 {
			s.Fatalf("kill %d of %d, of %s: %d reads broken, first: %s", n, kills, old, len(broken), broken[0])
		}
		s.writesGoOn()
		killed[old]++
		if old == last {
			again++
		}
		last = old
		rewinds += rewound
		s.before = st
	}
	if all := copies(); len(all) > 0 {
		s.Errorf("%d rebuilds, and every old primary was to be rewound: %q", len(all), all)
	}
	if rewinds < float64(kills-restarts) {
		s.Errorf("%d kills, %d restarts in place and %v rewinds: not every old primary came back by one", kills, restarts, rewinds)
	}
	// A member that was taken in this moment is no candidate yet: the server is restarted then. That is the exception.
	spare := max(1, kills/5)
	if restarts > spare {
		s.Errorf("%d of %d servers were restarted in place: no failover could be won", restarts, kills)
	}
	// Who takes over is the next to be killed, unless the role moved on by itself in between.
	if again > restarts+spare {
		s.Errorf("killed %v, %d times the one that had been killed last, with %d restarts in place: the hosts do not take turns", killed, again, restarts)
	}
	tails := 0 // a rewind has none where nothing waited at that moment, which with so many clients is seldom
	for _, host := range s.DataHosts() {
		tails += s.keptTails(host)
	}
	if tails == 0 && kills > shortSoak {
		s.Errorf("%d kills under %d clients, and no unacknowledged tail was saved", kills, soakClients.Writers)
	}
	s.Logf("killed %v; %v rewinds of %d tails, %d restarts in place", killed, rewinds, tails, restarts)
}

func (s *scenario) newestIncident() uint64 {
	s.Helper()
	all, err := s.Incidents(s.ctx, 0)
	if err != nil {
		s.Fatal(err)
	}
	newest := uint64(0)
	for _, i := range all {
		newest = max(newest, i.ID)
	}
	return newest
}

// endOf waits for the first incident after a kill to be done.
func (s *scenario) endOf(before uint64) (found api.Incident) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "the kill to be made up for", func(ctx context.Context) (bool, string) {
		recent, err := s.Incidents(ctx, before)
		if err != nil {
			return false, err.Error()
		}
		for _, i := range recent {
			if i.Outcome == api.OutcomeDone {
				found = i
				return true, ""
			}
		}
		return false, fmt.Sprintf("%d incidents", len(recent))
	})
	if err != nil {
		s.Fatal(err)
	}
	return found
}

// watchRebuilds looks at the nodes until the result is called, which tells what rebuilds and quarantines there were. A copy takes longer than
// many looks.
func (s *scenario) watchRebuilds() (stop func() []string) {
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	var seen []string
	last := map[string]string{}
	running.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
			st, err := s.ClusterStatus(ctx)
			if err != nil {
				continue // between two primaries nobody may answer
			}
			for _, n := range st.Nodes {
				is := ""
				if n.Rebuild != nil {
					is = fmt.Sprintf("%s rebuilt from %s: %s", n.ID, n.Rebuild.From, n.Rebuild.Reason)
				} else if n.Role == api.RoleQuarantined || n.Role == api.RoleRebuilding {
					is = fmt.Sprintf("%s %s: %s", n.ID, n.Role, n.Note)
				}
				if is != "" && last[n.ID] != is {
					seen = append(seen, is)
				}
				last[n.ID] = is
			}
		}
	})
	s.Cleanup(func() { cancel(); running.Wait() })
	return func() []string {
		cancel()
		running.Wait()
		return seen
	}
}
