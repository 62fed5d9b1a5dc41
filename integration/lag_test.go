//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
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

	g.run(t, "a replica that forgets what it had acknowledged", func(s *scenario) {
		old := s.primary()
		kept := s.others(old)[0]
		forgets := s.others(old, kept)[0]
		releaseKept := s.holdBack(kept)
		defer releaseKept()
		_ = s.holdBack(forgets) // ends with its server
		s.writesFor(2 * time.Second)
		s.at = s.load.Now()
		s.fault("kill-mysqld", forgets)
		s.fault("kill-host", old)
		// Whether anybody can be promoted depends on what had come back by then; nobody may be for whom it is not certain.
		st := s.await("a successor, or the reason why there is none", func(st api.Status) bool {
			return st.Epoch > s.before.Epoch && st.Primary != old || st.Verdict == api.StandingNoPrimary && len(st.Why) > 0 && st.Operation == nil
		})
		s.Logf("%s", Describe(st))
		releaseKept()
		s.fault("start-host", old)
		s.heals()
		s.sameOrExplained()
	})
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
