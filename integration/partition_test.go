//go:build integration

package integration

import (
	"context"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestPartition: links that work in one direction or for some. While a quorum sees the
// primary well there is no failover, and never a second one because of the first.
func TestPartition(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "the primary cannot reach one replica", func(s *scenario) {
		deaf := s.others(s.primary(), s.before.Leader)[0]
		s.fault("oneway", s.primary(), deaf)
		s.noFailoverFor(8 * time.Second)
		s.fault("heal-all")
	})

	g.run(t, "one replica cannot reach the primary", func(s *scenario) {
		mute := s.others(s.primary(), s.before.Leader)[0]
		s.fault("oneway", mute, s.primary())
		s.noFailoverFor(8 * time.Second)
		s.fault("heal-all")
	})

	g.run(t, "the leader and the primary do not reach each other", func(s *scenario) {
		s.leaderAwayFrom(s.primary())
		st := s.await("a leader", func(st api.Status) bool { return st.Leader != "" && st.Leader != s.primary() })
		s.fault("oneway", st.Leader, s.primary())
		s.fault("oneway", s.primary(), st.Leader)
		s.noFailoverFor(8 * time.Second)
		s.fault("heal-all")
	})

	g.run(t, "the primary alone on its side", func(s *scenario) {
		old := s.primary()
		rest := s.others(old)
		inside := s.watchLocal(old)
		// The client stays with the majority; a client beside the old primary may only meet resets.
		s.fault("partition", old+"/"+rest[0]+","+rest[1]+","+clientHost)
		st := s.awaitNewPrimary(old)
		s.quietBefore(old, st.Primary)
		s.cannotWrite(old)
		s.stayedReadOnly(inside, old, st.Primary)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("heal-all")
		s.heals()
		if now := s.await("an answer", steady); now.Epoch != st.Epoch {
			s.Errorf("flapping: epoch %d became %d after the partition healed", st.Epoch, now.Epoch)
		}
	})
}

// noFailoverFor watches for d, several times what detection takes: that nothing
// happens cannot be awaited. Clients must write all the while.
func (s *scenario) noFailoverFor(d time.Duration) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, d+patience)
	defer cancel()
	end := s.load.Now() + d
	for s.load.Now() < end {
		s.writesGoOn()
		st, err := s.AwaitStatus(ctx, "an answer", func(st api.Status) bool { return st.Leader != "" })
		if err != nil {
			s.Fatal(err)
		}
		if st.Epoch != s.before.Epoch {
			s.Fatalf("a failover although a quorum sees the primary: %s", Describe(st))
		}
	}
	s.nothingHappened()
}
