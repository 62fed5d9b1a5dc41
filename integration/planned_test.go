//go:build integration

package integration

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestPlanned: what clients are in the middle of is seen before a planned change.
func TestPlanned(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "a long transaction refuses", func(s *scenario) {
		b := s.busy("BEGIN", "INSERT INTO "+table+"_planned (id) VALUES (1)")
		defer b.end()
		s.refusedFor("primary.long-transaction", b)
		s.nothingHappened()
	})

	g.run(t, "a long query refuses, and a plan says so and changes nothing", func(s *scenario) {
		b := s.busy("SELECT SLEEP(600)")
		defer b.end()
		s.refusedFor("primary.long-transaction", b)
		answer := s.ctl("promote", s.others(s.primary())[0], "--plan")
		if answer.Exit != exitDone || answer.Result.Plan == nil || answer.Result.Plan.Token == "" {
			s.Fatalf("hbctl promote --plan: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		named := false
		for _, gate := range answer.Result.Plan.Gates {
			named = named || gate.Rule == "primary.long-transaction" && !gate.OK && strings.Contains(gate.Why, "SELECT SLEEP")
		}
		if !named {
			s.Errorf("the plan names no long query: %+v", answer.Result.Plan.Gates)
		}
		s.nothingHappened()
	})

	g.run(t, "DDL refuses", func(s *scenario) {
		b := s.busy("BEGIN", "INSERT INTO "+table+"_planned (id) VALUES (2)")
		defer b.end()
		ddl := s.busyWith("ALTER TABLE " + table + "_planned ADD COLUMN other INT")
		defer ddl.end()
		s.eventuallyRefused("primary.ddl", "--wait", "1s")
		s.servesOn()
	})

	g.run(t, "waited for", func(s *scenario) {
		b := s.busy("BEGIN", "INSERT INTO "+table+"_planned (id) VALUES (3)")
		to := s.others(s.primary())[0]
		done := make(chan Ctl, 1)
		go func() { done <- s.ctl("promote", to, "--wait", "60s") }()
		s.await("an operation that waits", func(st api.Status) bool { return st.Operation != nil && st.Operation.Step == "prepared" })
		if _, err := b.conn.ExecContext(s.ctx, "COMMIT"); err != nil {
			s.Errorf("the transaction that was waited for: %v", err)
		}
		if answer := <-done; answer.Exit != exitDone {
			s.Errorf("hbctl promote --wait: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		b.end()
		s.awaitIncident(api.KindSwitchover)
		s.rowThere(to, 3, true)
	})

	g.run(t, "killed", func(s *scenario) {
		b := s.busy("BEGIN", "INSERT INTO "+table+"_planned (id) VALUES (4)")
		to := s.others(s.primary())[0]
		if answer := s.ctl("promote", to, "--kill"); answer.Exit != exitDone {
			s.Errorf("hbctl promote --kill: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		if _, err := b.conn.ExecContext(s.ctx, "COMMIT"); err == nil {
			s.Error("a killed client heard success")
		}
		b.end()
		s.awaitIncident(api.KindSwitchover)
		s.rowThere(to, 4, false)
	})

	g.run(t, "table locks that nobody sees are rolled back from, or killed", func(s *scenario) {
		b := s.busy("LOCK TABLES " + table + "_planned WRITE")
		defer b.end()
		old := s.primary()
		answer := s.ctl("promote", s.others(old)[0])
		s.notDone(answer)
		s.writesGoOn()
		if st := s.await("phase steady", steady); st.Primary != old {
			s.Errorf("the primary is %s, not %s", st.Primary, old)
		}
	})
}

// client is one at the primary's own address, in the middle of something.
type client struct {
	s    *scenario
	conn *sql.Conn
	host string
	id   uint64
	stop context.CancelFunc
	done chan struct{} // closed when its last statement has returned
}

// busy has a client run statements on the primary, and returns once they have run for longer than a switchover puts up with.
func (s *scenario) busy(statements ...string) *client {
	s.Helper()
	if _, err := s.servers[s.primary()].ExecContext(s.ctx, "CREATE TABLE IF NOT EXISTS "+table+"_planned (id INT PRIMARY KEY)"); err != nil {
		s.Fatal(err)
	}
	b := s.busyWith(statements...)
	if strings.HasPrefix(statements[0], "LOCK") {
		<-b.done
		return b
	}
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	for {
		answer := s.ctl("promote", s.others(s.primary())[0], "--plan")
		if answer.Result.Plan != nil {
			for _, gate := range answer.Result.Plan.Gates {
				if gate.Rule == "primary.long-transaction" && !gate.OK && gate.Value != "unknown" {
					return b
				}
			}
		}
		select {
		case <-timer.C:
			s.Fatalf("never seen to be in the middle of something: %+v", answer.Result.Plan)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *scenario) busyWith(statements ...string) *client {
	s.Helper()
	conn, err := s.servers[s.primary()].Conn(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.ctx)
	b := &client{s: s, conn: conn, host: s.primary(), stop: stop, done: make(chan struct{})}
	if err := conn.QueryRowContext(s.ctx, "SELECT CONNECTION_ID()").Scan(&b.id); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(b.done)
		for _, statement := range statements {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				s.Logf("%s: %v", statement, err)
				return
			}
		}
	}()
	return b
}

// end takes the client away.
func (b *client) end() {
	// Ended in the server too, which would go on with a statement although nobody waits for it. It may be gone already.
	if _, err := b.s.servers[b.host].ExecContext(b.s.ctx, fmt.Sprintf("KILL %d", b.id)); err != nil {
		b.s.Logf("ending a client on %s: %v", b.host, err)
	}
	b.stop()
	<-b.done
	if err := b.conn.Raw(func(any) error { return sql.ErrConnDone }); err != nil {
		b.s.Logf("a client ends: %v", err)
	}
	b.conn.Close()
}

// refusedFor demands that a promotion is refused by a rule that names the client.
func (s *scenario) refusedFor(rule string, _ *client) {
	s.Helper()
	answer := s.ctl("promote", s.others(s.primary())[0])
	if r := answer.Result; answer.Exit != exitRefused || r.Outcome != api.OutcomeRefused || r.Rule != rule || !strings.Contains(r.Message, "connection ") {
		s.Errorf("exit %d, %+v, %s", answer.Exit, r, answer.Stderr)
	}
}

// eventuallyRefused demands that a promotion ends without a change, for a reason that names the rule.
func (s *scenario) eventuallyRefused(rule string, args ...string) {
	s.Helper()
	answer := s.ctl(append([]string{"promote", s.others(s.primary())[0]}, args...)...)
	s.notDone(answer)
	if !strings.Contains(answer.Result.Rule+answer.Result.Message, "primary.") {
		s.Errorf("neither %s nor its like is named: %+v", rule, answer.Result)
	}
}

// servesOn demands that the old primary still is one.
func (s *scenario) servesOn() {
	s.Helper()
	if st := s.await("phase steady", steady); st.Primary != s.primary() {
		s.Errorf("the primary is %s, not %s", st.Primary, s.primary())
	}
	s.writesGoOn()
}

// rowThere looks for a row of the clients above.
func (s *scenario) rowThere(host string, id int, want bool) {
	s.Helper()
	var n int
	if err := s.servers[host].QueryRowContext(s.ctx, "SELECT COUNT(*) FROM "+table+"_planned WHERE id=?", id).Scan(&n); err != nil {
		s.Fatal(err)
	}
	if (n == 1) != want {
		s.Errorf("row %d is there: %t", id, n == 1)
	}
}
