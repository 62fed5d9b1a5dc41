//go:build integration

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/highbase/highbase/cluster/api"
)

// keepsStrangersOut lets a replica go on by another address of its host, so that the primary's server counts the acknowledgements of somebody whom
// the cluster does not know.
func keepsStrangersOut(s *scenario) {
	primary := s.primary()
	moved := s.others(primary)[0]
	known := s.addressOf(primary)
	other := known.As4()
	other[3] = 250
	stranger := netip.AddrFrom4(other)
	s.byHand(moved, fmt.Sprintf("ip addr add %s/24 dev eth0 && ip route add %s/32 dev eth0 src %s", stranger, known, stranger))
	s.cutDumps(primary)
	st := s.await("the stranger to be told", func(st api.Status) bool {
		return slices.ContainsFunc(st.Why, func(w string) bool { return strings.Contains(w, stranger.String()) })
	})
	if st.Epoch != s.before.Epoch {
		s.Errorf("epoch %d became %d", s.before.Epoch, st.Epoch)
	}
	s.await(moved+" to have left the set", func(st api.Status) bool {
		return st.Sync.Change == nil && len(st.Sync.Set) == 1 && !slices.Contains(st.Sync.Set, moved)
	})
	s.writesGoOn()
	err := Await(s.ctx, "nobody to be heard from "+stranger.String(), func(context.Context) (bool, string) {
		dumps := s.dumps(primary)
		return !slices.ContainsFunc(dumps, func(d string) bool { return strings.HasPrefix(d, stranger.String()+":") }), fmt.Sprint(dumps)
	})
	if err != nil {
		s.Error(err)
	}
	s.byHand(moved, fmt.Sprintf("ip route del %s/32 dev eth0 src %s && ip addr del %s/24 dev eth0", known, stranger, stranger))
	s.heals()
	s.nothingHappened()
}

func (s *scenario) addressOf(host string) netip.Addr {
	s.Helper()
	h, found := s.Host(host)
	a, err := netip.ParseAddr(h.Address)
	if !found || err != nil {
		s.Fatalf("%s has no address: %v", host, err)
	}
	return a
}
