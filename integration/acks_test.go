//go:build integration

package integration

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// TestAcks: acknowledgements do not arrive, so commits wait, and then something else happens.
func TestAcks(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	// Nothing of what waits is anywhere else: whoever heard success for it would have lost it.
	g.run(t, "hbd stopped politely over waiting commits", func(s *scenario) {
		old := s.primary()
		s.dropLog(old)
		s.commitsWait(old)
		s.fault("stop-hbd", old)
		s.awaitNewPrimary(old)
		s.hear(old)
		s.fault("start-hbd", old)
	})

	g.run(t, "mysqld stopped politely behind hbd's back over waiting commits", (*scenario).stopMysqldOverWaiters)

	// One writer with all the patience: no other write would make up for the lost acknowledgement of its row.
	g.load = Load{Writers: 1, Answer: time.Minute}
	g.run(t, "a lost acknowledgement is made up for", func(s *scenario) {
		before := s.nudged(s.primary())
		s.dropAcks(s.primary())
		s.commitsWait(s.primary())
		s.receivedAll(s.primary())
		s.cutDumps(s.primary())
		s.hear(s.primary())
		s.writesGoOn()
		s.noErrors(s.at)
		if now := s.nudged(s.primary()); now == before {
			s.Errorf("the write went on without a nudge (newest %q): its acknowledgement was not lost", now)
		}
		s.nothingHappened()
	})
}

// TestAcksFailover is the same where a server that is down is failed over, and nothing is left for a start that fails because the server still ends.
func TestAcksFailover(t *testing.T) {
	g := newGroup(t, sandbox.Options{OnServiceDown: "failover", Settings: map[string]string{"restart_attempts": "1"}})
	g.run(t, "mysqld stopped politely behind hbd's back over waiting commits", (*scenario).stopMysqldOverWaiters)
}

// stopMysqldOverWaiters: MySQL tells them success when it is stopped so, and it must not become untrue. What they wrote is nowhere else.
func (s *scenario) stopMysqldOverWaiters() {
	s.Helper()
	old := s.primary()
	s.dropLog(old)
	s.commitsWait(old)
	if err := syscall.Kill(s.serverPID(old), syscall.SIGTERM); err != nil {
		s.Fatalf("stopping mysqld of %s: %v", old, err)
	}
	s.awaitIncident(api.KindRestart)
	s.hear(old)
	s.writesGoOn()
}

// dumps are the addresses of the connections over which the primary sends its log, as HOST:PORT.
func (s *scenario) dumps(primary string) []string {
	s.Helper()
	from := "performance_schema.processlist"
	if s.Flavor() == gtid.MariaDB {
		from = "information_schema.processlist"
	}
	db := s.manager(primary)
	defer db.Close()
	rows, err := db.QueryContext(s.ctx, "SELECT HOST FROM "+from+" WHERE COMMAND LIKE 'Binlog Dump%'")
	if err != nil {
		s.Fatalf("asking %s for its dump connections: %v", primary, err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var host string
		if err := rows.Scan(&host); err != nil {
			s.Fatal(err)
		}
		list = append(list, host)
	}
	if err := rows.Err(); err != nil {
		s.Fatalf("asking %s for its dump connections: %v", primary, err)
	}
	return list
}

const ackTable = "inet test_acks"

// direction is one of a connection over which a log is sent, seen from the primary: where its packets pass, and which they are by the other end's host and port.
type direction struct{ hook, packets string }

var (
	fromReplica = direction{"input", "ip saddr %s tcp sport %s"}
	toReplica   = direction{"output", "ip daddr %s tcp dport %s"}
)

// dropAcks keeps what the replicas say on their present connections from the primary; what it says arrives. A new connection works.
func (s *scenario) dropAcks(primary string) {
	s.Helper()
	s.dropDumps(primary, fromReplica)
}

// dropLog keeps what the primary says on its replicas' present connections from them. A new connection works.
func (s *scenario) dropLog(primary string) {
	s.Helper()
	s.dropDumps(primary, toReplica)
}

// dropDumps drops one direction of all the connections over which the primary sends its log.
func (s *scenario) dropDumps(primary string, d direction) {
	s.Helper()
	s.Cleanup(func() { // a scenario that failed half-way; the table may be gone
		_, _, _ = s.Command(context.Background(), primary, "nft", "delete table "+ackTable)
	})
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "replicas that stay connected", func(context.Context) (bool, string) {
		dumps := s.dumps(primary)
		if len(dumps) == 0 {
			return false, primary + " sends its log to nobody"
		}
		s.drop(primary, dumps, d)
		if now := s.dumps(primary); !sameSet(now, dumps) { // one has just connected anew: it would be heard
			s.hear(primary)
			return false, fmt.Sprintf("first %v, then %v", dumps, now)
		}
		return true, ""
	})
	if err != nil {
		s.Fatal(err)
	}
}

// sameSet compares without regard to order.
func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// drop drops one direction of these connections.
func (s *scenario) drop(primary string, dumps []string, d direction) {
	s.Helper()
	script := fmt.Sprintf("nft 'add table %s; add chain %s deaf { type filter hook %s priority -300; }", ackTable, ackTable, d.hook)
	for _, one := range dumps {
		host, port, err := net.SplitHostPort(one)
		if err != nil {
			s.Fatal(err)
		}
		script += fmt.Sprintf("; add rule %s deaf "+d.packets+" drop", ackTable, host, port)
	}
	s.byHand(primary, script+"'")
}

// hear ends what dropAcks or dropLog began.
func (s *scenario) hear(primary string) {
	s.Helper()
	s.byHand(primary, "nft 'delete table "+ackTable+"'")
}

// commitsWait waits until no client has been told of a commit for a while and the server says that some wait.
func (s *scenario) commitsWait(primary string) {
	s.Helper()
	name := "Rpl_semi_sync_source_wait_sessions"
	if s.Flavor() == gtid.MariaDB {
		name = "Rpl_semi_sync_master_wait_sessions"
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "commits to wait on "+primary, func(ctx context.Context) (bool, string) {
		var n, value string
		if err := s.servers[primary].QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&n, &value); err != nil {
			return false, err.Error()
		}
		waiting, err := strconv.Atoi(value)
		acks := s.load.AckedSince(s.load.Now() - 200*time.Millisecond)
		return err == nil && waiting > 0 && acks == 0, fmt.Sprintf("%s wait, %d acknowledged lately", value, acks)
	})
	if err != nil {
		s.Fatal(err)
	}
}

// receivedAll waits until every replica has applied or received what the primary has logged.
func (s *scenario) receivedAll(primary string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := s.Cluster.awaitCaughtUp(ctx, primary); err != nil {
		s.Fatal(err)
	}
}

// cutDumps destroys the connections of the replicas at the primary: they connect again, and what they had said on the old ones never arrives.
func (s *scenario) cutDumps(primary string) {
	s.Helper()
	for _, d := range s.dumps(primary) {
		host, port, err := net.SplitHostPort(d)
		if err != nil {
			s.Fatal(err)
		}
		s.byHand(primary, fmt.Sprintf("ss -K dst %s dport = :%s", host, port))
	}
}

// nudged is when hbd wrote its newest nudge on a server.
func (s *scenario) nudged(host string) string {
	s.Helper()
	db := s.manager(host)
	defer db.Close()
	var at string
	if err := db.QueryRowContext(s.ctx, "SELECT COALESCE(MAX(at), '') FROM highbase.nudge").Scan(&at); err != nil {
		s.Fatal(err)
	}
	return at
}
