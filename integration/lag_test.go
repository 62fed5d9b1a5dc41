//go:build integration

package integration

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// lagTime is how long a replica has applied nothing when the primary is lost; HIGHBASE_LAG overrides it (a Go duration).
const lagTime = 10 * time.Second

// TestLag: replicas have received what was acknowledged and not applied it when the primary's host dies.
func TestLag(t *testing.T) {
	lag := lagTime
	if v := os.Getenv("HIGHBASE_LAG"); v != "" {
		var err error
		if lag, err = time.ParseDuration(v); err != nil {
			t.Fatalf("HIGHBASE_LAG: %v", err)
		}
	}
	// A candidate that is held for longer than the lag is given up for another.
	g := newGroup(t, sandbox.Options{Settings: map[string]string{"promote_timeout": "5s"}})

	g.run(t, "nobody serves before it has applied everything", func(s *scenario) {
		old := s.primary()
		var releases []func()
		for _, host := range s.others(old) {
			releases = append(releases, s.holdBack(host))
		}
		s.writesFor(lag)
		s.at = s.load.Now()
		s.fault("kill-host", old)
		s.await("a candidate that drains", func(st api.Status) bool { return st.Epoch > s.before.Epoch && st.Phase == api.PhasePromoting })
		s.unserved(20)
		released := s.load.Now()
		for _, release := range releases {
			release()
		}
		st := s.awaitNewPrimary(old)
		first, ok := FirstServing(append(s.sampler.Samples(), s.load.Samples()...), st.Primary, s.at)
		if !ok || first < released {
			s.Errorf("%s was seen serving at %v (%t); until %v it could not apply what it had received", st.Primary, first-s.at, ok, released-s.at)
		}
		s.Logf("released %v after the kill, %s first served at %v", released-s.at, st.Primary, first-s.at)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("start-host", old)
	})

	g.run(t, "another than the one that does not get on", func(s *scenario) {
		old, held := s.primary(), s.next()
		release := s.holdBack(held)
		defer release()
		s.writesFor(lag)
		s.at = s.load.Now()
		s.fault("kill-host", old)
		s.await("another primary than the one held back", func(st api.Status) bool {
			return st.Epoch > s.before.Epoch && st.Primary != "" && st.Primary != held && (st.Phase == api.PhaseSteady || st.Phase == api.PhaseSettling)
		})
		s.changed = true
		s.writesGoOn()
		release()
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("start-host", old)
	})

	g.run(t, "a replica that forgets what it had acknowledged", forgetsWhatItAcknowledged)
}

// forgetsWhatItAcknowledged: the only member of the set acknowledges without applying, and its host loses power: of its relay log, which nobody flushes,
// the end is gone. What that had acknowledged only the old primary's host has then, and that is down.
func forgetsWhatItAcknowledged(s *scenario) {
	old := s.primary()
	kept := s.others(old)[0]
	forgets := s.others(old, kept)[0]
	s.fault("oneway", old, kept)
	s.await(kept+" to have left the set", func(st api.Status) bool {
		return slices.Equal(st.Sync.Set, []string{forgets}) && st.Sync.Acks == 1 && st.Sync.Change == nil && st.Epoch == s.before.Epoch
	})
	_ = s.holdBack(forgets) // ends with its server
	s.writesFor(2 * time.Second)
	s.at = s.load.Now()
	file, applied := s.appliedTo(forgets)
	s.stopServer(forgets) // and it is not started again while it could receive everything anew
	s.fault("kill-host", old)
	s.byHand(forgets, fmt.Sprintf("cd %s && test $(ls *relay*.[0-9]* | tail -1) = %s && truncate -s %s %s", s.host(forgets).Datadir, file, applied, file))
	s.fault("mend-mysqld", forgets)
	st := s.await("the reason why there is no successor", func(st api.Status) bool {
		if st.Epoch != s.before.Epoch {
			s.Fatalf("the epoch was ended although nobody is left who holds everything: %s", Describe(st))
		}
		return slices.ContainsFunc(st.Why, func(why string) bool {
			return strings.HasPrefix(why, "failover.count ") && strings.Contains(why, forgets+" has not caught up")
		})
	})
	s.Logf("%s", Describe(st))
	s.refusedBy(s.ctl("failover"), "failover.count")
	s.staysQuiet(forgets)
	s.staysQuiet(kept)
	s.lacks(kept)
	s.lacks(forgets)
	s.fault("heal-all") // boots the old primary's host as well
	s.heals()
	s.sameOrExplained()
}

// appliedTo is up to where a replica has applied its relay log.
func (s *scenario) appliedTo(host string) (file, position string) {
	s.Helper()
	statement := "SHOW REPLICA STATUS"
	if s.Flavor() == gtid.MariaDB {
		statement = "SHOW SLAVE STATUS"
	}
	db := s.manager(host)
	defer db.Close()
	rows, err := db.QueryContext(s.ctx, statement)
	if err != nil {
		s.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || !rows.Next() {
		s.Fatalf("%s replicates from nobody: %v, %v", host, err, rows.Err())
	}
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		s.Fatal(err)
	}
	return values[slices.Index(columns, "Relay_Log_File")].String, values[slices.Index(columns, "Relay_Log_Pos")].String
}

// lacks demands that a host has not applied some of what clients were told is written: without that nothing is at stake.
func (s *scenario) lacks(host string) {
	s.Helper()
	present, err := s.rowsOn(s.ctx, host, s.load.run)
	if err != nil {
		s.Fatal(err)
	}
	lost := len(s.load.Lost(present))
	if lost == 0 {
		s.Errorf("%s has every acknowledged row: the scenario proves nothing", host)
	}
	s.Logf("%s lacks %d acknowledged rows", host, lost)
}

// writesFor lets clients write for d, and demands that they can.
func (s *scenario) writesFor(d time.Duration) {
	s.Helper()
	for end := s.load.Now() + d; s.load.Now() < end; {
		s.writesGoOn()
	}
}

// next is the replica that would be promoted if it is as good as the others.
func (s *scenario) next() string {
	s.Helper()
	for _, n := range s.before.Nodes {
		if n.Note == "next" {
			return n.ID
		}
	}
	return s.others(s.primary())[0]
}

// unserved demands that no client is served over n looks at every living host.
func (s *scenario) unserved(n int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	from := s.load.Now()
	err := Await(ctx, "looks at every host", func(context.Context) (bool, string) {
		looks := map[string]int{}
		for _, look := range s.sampler.Samples() {
			if look.From < from {
				continue
			}
			looks[look.Host]++
			if look.Serving {
				s.Fatalf("%s serves", look.Host)
			}
		}
		for _, host := range s.others(s.primary()) {
			if looks[host] < n {
				return false, fmt.Sprint(looks)
			}
		}
		return true, ""
	})
	if err != nil {
		s.Fatal(err)
	}
	if acks := s.load.AckedSince(from); acks > 0 {
		s.Errorf("%d writes were acknowledged while nobody was to serve", acks)
	}
}
