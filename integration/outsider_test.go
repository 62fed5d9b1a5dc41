//go:build integration

package integration

import (
	"context"
	"fmt"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// TestSyncSetOutsider: a source sends to every replica at once, so one outside the sync set may have executed what no member has even received, and
// nobody has acknowledged. When the source dies just then, the candidate takes that over, and no copy is needed.
func TestSyncSetOutsider(t *testing.T) {
	g := newGroup(t, sandbox.Options{Nodes: 4})
	g.run(t, "it holds more than every member", func(s *scenario) {
		old := s.primary()
		var members, outside []string
		for _, n := range s.before.Nodes {
			switch n.Sync {
			case api.SyncAck:
				members = append(members, n.ID)
			case api.SyncReserve:
				outside = append(outside, n.ID)
			}
		}
		if len(members) != 2 || len(outside) != 1 {
			s.Fatalf("members %v, outside %v", members, outside)
		}
		for _, m := range members {
			s.fault("oneway", old, m)
		}
		s.holdsMore(outside[0], members)
		s.fault("kill-host", old)
		held, err := s.position(s.ctx, outside[0])
		if err != nil {
			s.Fatal(err)
		}
		st := s.awaitNewPrimary(old)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		if has, err := s.position(s.ctx, st.Primary); err != nil || !has.Contains(held) {
			s.Errorf("%s is primary at %s and lacks some of %s, which %s holds: %v", st.Primary, has, held, outside[0], err)
		}
		s.fault("heal-all")
		s.healsWithoutCopies()
	})
}

// holdsMore waits until a replica has executed what none of the others has.
func (s *scenario) holdsMore(host string, than []string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, host+" to hold more than "+fmt.Sprint(than), func(ctx context.Context) (bool, string) {
		has, err := s.position(ctx, host)
		if err != nil {
			return false, err.Error()
		}
		for _, o := range than {
			other, err := s.position(ctx, o)
			if err != nil || gtid.Compare(has, other) != gtid.After {
				return false, fmt.Sprintf("%s at %s, %s at %s, %v", host, has, o, other, err)
			}
		}
		return true, ""
	})
	if err != nil {
		s.Fatal(err)
	}
}

// healsWithoutCopies waits until everybody is back, and fails if anybody is rebuilt on the way.
func (s *scenario) healsWithoutCopies() {
	s.Helper()
	s.await("every node to follow", func(st api.Status) bool {
		well := 0
		for _, n := range st.Nodes {
			if n.Rebuild != nil {
				s.Fatalf("%s is rebuilt: %s", n.ID, n.Rebuild.Reason)
			}
			if nodeWell(st, n) {
				well++
			}
		}
		return well == len(s.DataHosts())
	})
}
