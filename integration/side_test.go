//go:build integration

package integration

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestSideDoor: clients that do not come through the address.
func TestSideDoor(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "link cut with writers on the old primary's own address", func(s *scenario) {
		old := s.primary()
		s.besides(old)
		s.at = s.load.Now()
		s.fault("cut", old)
		st := s.awaitNewPrimary(old)
		s.quietBefore(old, st.Primary)
		s.cannotWrite(old)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("heal", old)
	})

	g.run(t, "mysqld killed with writers on its own address", func(s *scenario) {
		s.besides(s.primary())
		s.fault("kill-mysqld", s.primary())
		s.awaitIncident(api.KindRestart)
		s.writesGoOn()
	})

	g.run(t, "a replica's host that vanished and returns hangs no login", func(s *scenario) {
		gone := s.others(s.primary())[0]
		stop := s.logins()
		s.fault("kill-host", gone)
		s.writesFor(3 * time.Second)
		s.fault("start-host", gone)
		s.heals()
		s.writesGoOn()
		stop()
		s.noErrors(s.at)
		s.nothingHappened()
	})
}

// besides starts clients on a host itself that write to its server by the host's own address, until the scenario's end.
func (s *scenario) besides(host string) {
	s.Helper()
	h, _ := s.Host(host)
	w, err := s.StartWorkload(s.ctx, Load{Writers: 2, From: host, At: net.JoinHostPort(h.Address, strconv.Itoa(h.MySQLPort))})
	if err != nil {
		s.Fatal(err)
	}
	s.beside = append(s.beside, w)
	err = Await(s.ctx, "writes on the own address of "+host, func(context.Context) (bool, string) {
		n := w.Counts()
		return n.Acked >= 20, "too few"
	})
	if err != nil {
		s.Fatal(err)
	}
}

// logins connects to the address anew all the while; the result ends that, and demands that none failed: one that hangs does.
func (s *scenario) logins() (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	n, longest := 0, time.Duration(0)
	running.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, 10*time.Millisecond) {
			from := s.load.Now()
			conn, err := connect(ctx, s.viaAddress(clientHost, 2*time.Second, 5*time.Second))
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.Errorf("a login that began %v after the fault failed after %v: %v", from-s.at, s.load.Now()-from, err)
				return
			}
			conn.Close()
			n++
			longest = max(longest, s.load.Now()-from)
		}
	})
	s.Cleanup(func() { cancel(); running.Wait() })
	return func() {
		s.Helper()
		cancel()
		running.Wait()
		if n < 20 {
			s.Errorf("only %d logins: nothing is proven", n)
		}
		s.Logf("%d logins, the longest took %v", n, longest.Round(time.Millisecond))
	}
}
