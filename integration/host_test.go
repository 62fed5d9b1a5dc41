//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestHost: a host is lost, or cut off, or its daemon is frozen.
func TestHost(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "host killed is taken over", func(s *scenario) {
		old := s.primary()
		s.fault("kill-host", old)
		s.awaitNewPrimary(old)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("start-host", old)
	})

	g.run(t, "link cut is taken over after the cut host went quiet", func(s *scenario) {
		old := s.primary()
		inside := s.watchLocal(old)
		s.fault("cut", old)
		st := s.awaitNewPrimary(old)
		s.quietBefore(old, st.Primary)
		s.cannotWrite(old)
		s.stayedReadOnly(inside, old, st.Primary)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("heal", old)
	})

	g.run(t, "hbd frozen over a living server is fenced by the kernel", func(s *scenario) {
		old := s.primary()
		s.fault("pause-hbd", old)
		st := s.awaitNewPrimary(old)
		s.quietBefore(old, st.Primary)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.writesGoOn()
		// Repeated, as long as the old one is frozen: beyond the
		// five of a change's burst the new holder insists.
		announced := s.metric(st.Primary, "highbase_vip_announcements_total")
		s.rises(st.Primary, "highbase_vip_announcements_total", announced, 5)
		// By then the kernel may have ended the address's own lifetime, the second barrier.
		s.Logf("%s is frozen, address still bound: %t", old, s.holdsAddress(old))

		thawed := s.load.Now()
		s.fault("resume-hbd", old)
		s.await(old+" to step down", func(st api.Status) bool {
			for _, n := range st.Nodes {
				if n.ID == old {
					return n.Role == api.RoleReplica && !n.Writable && n.Health == api.HealthOK
				}
			}
			return false
		})
		s.writesGoOn()
		s.noErrors(thawed)
		if now := s.await("an answer", steady); now.Epoch != st.Epoch {
			s.Errorf("the thawed daemon caused another change of the primary: epoch %d became %d", st.Epoch, now.Epoch)
		}
	})

	g.run(t, "two of three hosts killed promotes nobody", func(s *scenario) {
		gone := s.others(s.primary())
		for _, host := range gone {
			s.fault("kill-host", host)
		}
		s.servesNoMore(s.primary())
		s.cannotWrite(s.primary())
		s.staysQuiet(s.primary())
		s.cannotWrite(s.primary())
		for _, host := range gone {
			s.fault("start-host", host)
		}
		s.heals()
		s.sameOrExplained()
	})

	g.run(t, "the primary and one more killed promotes nobody", func(s *scenario) {
		old := s.primary()
		left := s.others(old)[0]
		gone := s.others(left)
		for _, host := range gone {
			s.fault("kill-host", host)
		}
		s.servesNoMore(old)
		s.staysQuiet(left)
		s.cannotWrite(left)
		for _, host := range gone {
			s.fault("start-host", host)
		}
		s.heals()
		s.sameOrExplained()
	})
}

// sameOrExplained demands the primary and epoch of before, or a finished incident that
// leads from that primary to the present one.
func (s *scenario) sameOrExplained() {
	s.Helper()
	st := s.await("an answer", steady)
	if st.Epoch == s.before.Epoch && st.Primary == s.before.Primary {
		return
	}
	incidents, err := s.Incidents(s.ctx, s.last)
	if err != nil {
		s.Error(err)
	}
	at := s.before.Primary
	for _, i := range incidents {
		if i.Outcome == api.OutcomeDone && i.From == at && i.Epoch > s.before.Epoch {
			at = i.To
		}
	}
	if st.Epoch <= s.before.Epoch || at != st.Primary {
		s.Errorf("%s in epoch %d became %s in epoch %d, and no incident explains it: %d incidents", s.before.Primary,
			s.before.Epoch, st.Primary, st.Epoch, len(incidents))
	}
}

func (s *scenario) heals() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := s.AwaitHealthy(ctx); err != nil {
		s.Fatal(err)
	}
}

// quietBefore demands that the old host was last seen serving before the new one was
// first, on one clock: looks from inside the hosts and the clients' own writes.
func (s *scenario) quietBefore(old, successor string) {
	s.Helper()
	samples := append(s.sampler.Samples(), s.load.Samples()...)
	last, ok := LastServing(samples, old)
	if !ok {
		s.Fatalf("%s was never seen serving: the sampler is blind", old)
	}
	first, ok := FirstServing(samples, successor, s.at)
	if !ok {
		s.Fatalf("%s was never seen serving", successor)
	}
	if last >= first {
		s.Errorf("%s was seen serving in a look sent at %v, %s had served at %v", old, last, successor, first)
	}
	s.Logf("%s last served at %v, %s first at %v after the fault", old, last-s.at, successor, first-s.at)
}

// servesNoMore waits until several looks in a row found that host does not serve.
func (s *scenario) servesNoMore(host string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, host+" to stop serving", func(context.Context) (bool, string) {
		quiet := 0
		for _, look := range s.sampler.Samples() {
			if look.Host != host || look.From < s.at {
				continue
			}
			quiet++
			if look.Serving {
				quiet = 0
			}
		}
		return quiet >= 20, "it serves"
	})
	if err != nil {
		s.Fatal(err)
	}
}

// staysQuiet watches the one host that is left over many looks, several times what a
// failover takes: no promotion means that nothing happens, and nothing cannot be awaited.
// It may not serve, and must believe in the epoch and the primary of before all the while.
func (s *scenario) staysQuiet(host string) {
	s.Helper()
	from, answers := s.load.Now(), 0
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "looks at "+host, func(ctx context.Context) (bool, string) {
		n := 0
		for _, look := range s.sampler.Samples() {
			if look.Host == host && look.From >= from {
				n++
				if look.Serving {
					s.Fatalf("%s serves without a quorum", host)
				}
			}
		}
		st, err := s.toldBy(ctx, host)
		if err != nil {
			return false, err.Error()
		}
		answers++
		if st.Epoch != s.before.Epoch || st.Primary != s.before.Primary {
			s.Fatalf("%s alone believes in another primary: %s", host, Describe(st))
		}
		return n >= 20 && answers >= 20 && s.load.Now()-from > 6*time.Second, fmt.Sprintf("%d looks, %d answers", n, answers)
	})
	if err != nil {
		s.Fatal(err)
	}
}

// holdsAddress asks a host's kernel for the virtual address.
func (s *scenario) holdsAddress(host string) bool {
	s.Helper()
	exit, out, err := s.Command(s.ctx, host, "ip", "-o", "addr", "show")
	if err != nil || exit != 0 {
		s.Fatalf("listing the addresses of %s: exit %d, %v: %s", host, exit, err, out)
	}
	return strings.Contains(out, " "+s.Facts.VIP+"/")
}
