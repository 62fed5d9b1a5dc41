//go:build integration

package integration

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/sandbox"
)

// TestHarness is the control of the whole harness: on hosts without hbd it moves the
// address by hand, rightly and wrongly, and demands that each wrong is seen.
func TestHarness(t *testing.T) {
	g := newGroup(t, sandbox.Options{Bare: true, Nodes: 2})
	s := &scenario{T: t, Cluster: g.ensure(t)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.ctx = ctx
	s.byHand("db1", "ip addr add "+s.Facts.VIP+"/32 dev eth0")
	s.readOnly("db1", "0")

	s.startClients()
	s.seesAnHonestPrimary()
	s.seesAClaim()
	s.seesTwoWriters()
	s.seesStaleReads()
	s.stopClients()
	s.seesALostRow()
	s.seesAWrite()
}

func (s *scenario) startClients() {
	s.Helper()
	var err error
	if s.load, err = s.StartWorkload(s.ctx, Load{}); err != nil {
		s.Fatal(err)
	}
	s.sampler = s.StartSampler(s.ctx, s.load.Ledger, 0)
	s.Cleanup(s.stopClients)
}

func (s *scenario) byHand(host, script string) {
	s.Helper()
	exit, out, err := s.Command(s.ctx, host, "sh", "-c", script)
	if err != nil || exit != 0 {
		s.Fatalf("on %s: %s: exit %d, %v: %s", host, script, exit, err, out)
	}
}

func (s *scenario) readOnly(host, value string) {
	s.Helper()
	dsn, err := s.ManagerDSN(host)
	if err != nil {
		s.Fatal(err)
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		s.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(s.ctx, "SET GLOBAL read_only = "+value); err != nil {
		s.Fatal(err)
	}
}

func (s *scenario) seesAnHonestPrimary() {
	s.Helper()
	s.writesGoOn()
	s.lookTwice("db2")
	if err := checkObserved(s.DataHosts(), s.load, s.sampler); err != nil {
		s.Errorf("an honest primary is blamed: %v", err)
	}
	samples := s.sampler.Samples()
	if _, ok := LastServing(samples, "db1"); !ok {
		s.Error("the sampler does not see db1 serving")
	}
	if _, ok := LastServing(samples, "db2"); ok {
		s.Error("the sampler sees db2 serving, which does not have the address")
	}
}

// lookTwice waits until the sampler has looked at a host often enough.
func (s *scenario) lookTwice(host string) {
	s.Helper()
	from := len(s.sampler.Samples())
	err := Await(s.ctx, "looks at "+host, func(context.Context) (bool, string) {
		n := Looks(s.sampler.Samples()[from:])[host]
		return n >= 10, "too few"
	})
	if err != nil {
		s.Fatal(err)
	}
}

// seesAClaim: without hbd nobody defends the address, so the client must believe it.
func (s *scenario) seesAClaim() {
	s.Helper()
	s.claim("db2")
	exit, out, err := s.Command(s.ctx, clientHost, "ip", "neigh", "show", s.Facts.VIP)
	if err != nil || exit != 0 || !strings.Contains(out, foreignMAC.String()) {
		s.Errorf("the claim did not reach the client: exit %d, %v: %s", exit, err, out)
	}
	s.byHand(clientHost, "ip neigh flush to "+s.Facts.VIP)
	s.writesGoOn()
}

// seesTwoWriters gives the address to a second writable server while the clients
// still write to the first.
func (s *scenario) seesTwoWriters() {
	s.Helper()
	s.readOnly("db2", "0")
	s.byHand("db2", "ip addr add "+s.Facts.VIP+"/32 dev eth0")
	s.lookTwice("db2")
	s.lookTwice("db1")
	err := checkObserved(s.DataHosts(), s.load, s.sampler)
	if err == nil || !strings.Contains(err.Error(), "both served") {
		s.Errorf("two writers on the address are not seen: %v", err)
	}
}

// seesStaleReads leads the clients to a server that lacks what was acknowledged.
func (s *scenario) seesStaleReads() {
	s.Helper()
	if _, err := s.servers["db2"].ExecContext(s.ctx, createTable); err != nil {
		s.Fatal(err)
	}
	s.byHand("db1", "ip addr del "+s.Facts.VIP+"/32 dev eth0")
	s.byHand(clientHost, "ip neigh flush to "+s.Facts.VIP)
	err := Await(s.ctx, "a stale read to be seen", func(context.Context) (bool, string) {
		return len(s.load.Violations()) > 0, "no violation"
	})
	if err != nil {
		s.Error(err)
	}
	gap, ok := s.load.Gap(0, s.load.Now())
	s.Logf("the longest silence was %v (%t), %+v", gap.Round(time.Millisecond), ok, s.load.Counts())
}

// seesALostRow takes an acknowledged row away.
func (s *scenario) seesALostRow() {
	s.Helper()
	present, err := s.rowsOn(s.ctx, "db1", s.load.run)
	if err != nil {
		s.Fatal(err)
	}
	for k := range present {
		if _, err := s.servers["db1"].ExecContext(s.ctx, "DELETE FROM "+table+" WHERE run = ? AND writer = ? AND seq = ?", s.load.run, k.Writer, k.Seq); err != nil {
			s.Fatal(err)
		}
		before := len(s.load.Lost(present))
		after, err := s.rowsOn(s.ctx, "db1", s.load.run)
		if err != nil {
			s.Fatal(err)
		}
		if n := len(s.load.Lost(after)); n != before+1 {
			s.Errorf("one acknowledged row was deleted, %d are missed more", n-before)
		}
		break
	}
	if err := s.checkTablesEqual(s.ctx); err == nil {
		s.Error("two tables with different rows are called equal")
	}
}

// seesAWrite: the write past the network tells a read-only server from a writable one.
func (s *scenario) seesAWrite() {
	s.Helper()
	if err := s.tryWrite("db2"); err != nil {
		s.Errorf("db2 is writable: %v", err)
	}
	s.readOnly("db2", "1")
	s.cannotWrite("db2")
}
