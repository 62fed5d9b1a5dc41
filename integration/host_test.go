//go:build integration

package integration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

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
		s.fault("cut", old)
		st := s.awaitNewPrimary(old)
		s.quietBefore(old, st.Primary)
		s.cannotWrite(old)
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
		for _, host := range gone {
			s.fault("start-host", host)
		}
		s.heals()
		if st := s.await("an answer", steady); st.Epoch < s.before.Epoch {
			s.Errorf("the epoch fell from %d to %d", s.before.Epoch, st.Epoch)
		}
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
		for _, host := range gone {
			s.fault("start-host", host)
		}
		s.heals()
	})
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

// staysQuiet watches a host over many looks, several times what a failover takes:
// no promotion means that nothing happens, and nothing cannot be awaited.
func (s *scenario) staysQuiet(host string) {
	s.Helper()
	from := s.load.Now()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "looks at "+host, func(context.Context) (bool, string) {
		n := 0
		for _, look := range s.sampler.Samples() {
			if look.Host == host && look.From >= from {
				n++
				if look.Serving {
					s.Fatalf("%s serves without a quorum", host)
				}
			}
		}
		return n >= 20 && s.load.Now()-from > 6*time.Second, "too few looks"
	})
	if err != nil {
		s.Fatal(err)
	}
}

// cannotWrite demands that a host without a lease acknowledges nothing: refused, not
// answered, or no server at all.
func (s *scenario) cannotWrite(host string) {
	s.Helper()
	err := s.tryWrite(host)
	var answer *mysql.MySQLError
	switch {
	case err == nil:
		s.Errorf("%s acknowledged a write without a lease", host)
	case errors.As(err, &answer) && answer.Number != errReadOnly && !maybeCommitted[answer.Number]:
		s.Errorf("the attempt to write on %s proves nothing: %v", host, err)
	default:
		s.Logf("a write on %s: %v", host, err)
	}
}

// errReadOnly is the server's answer to a write while it is read-only.
const errReadOnly = 1290

// tryWrite writes on a host's own server, past every network. The row belongs to no
// ledger, and to a run of its own.
func (s *scenario) tryWrite(host string) error {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	_, err := s.servers[host].ExecContext(ctx, "INSERT INTO "+table+" VALUES (?, 0, 0, 0)", time.Now().UnixNano())
	return err
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
