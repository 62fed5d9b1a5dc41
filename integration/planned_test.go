//go:build integration

package integration

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestPlanned: what clients are in the middle of is seen before a planned change.
func TestPlanned(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "a long transaction refuses", func(s *scenario) {
		b := s.busy("BEGIN", "INSERT INTO "+table+"_planned (id) VALUES (1)")
		defer b.end()
		s.refusedFor("primary.long-transaction")
		s.nothingHappened()
	})

	g.run(t, "a long query refuses, and a plan says so and changes nothing", func(s *scenario) {
		b := s.busy("SELECT SLEEP(600)")
		defer b.end()
		s.refusedFor("primary.long-transaction")
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

	g.run(t, "table locks that nobody sees are rolled back from", func(s *scenario) {
		b := s.busy("LOCK TABLES " + table + "_planned WRITE")
		defer b.end()
		s.notDone(s.ctl("promote", s.others(s.primary())[0]))
		s.servesOn()
	})

	g.run(t, "table locks are killed", func(s *scenario) {
		b := s.busy("LOCK TABLES " + table + "_planned WRITE")
		to := s.others(s.primary())[0]
		if answer := s.ctl("promote", to, "--kill"); answer.Exit != exitDone || answer.Result.Outcome != api.OutcomeDone {
			s.Errorf("hbctl promote --kill: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		if _, err := b.conn.ExecContext(s.ctx, "UNLOCK TABLES"); err == nil {
			s.Error("a killed client heard success")
		}
		b.end()
		if i := s.awaitIncident(api.KindSwitchover); i.To != to {
			s.Errorf("the history tells of a switchover to %s, not to %s", i.To, to)
		}
		s.changed = true
	})
}

// TestPlannedDDL: a change of definitions refuses by itself. No age is too great here, so that nothing else can be the reason.
func TestPlannedDDL(t *testing.T) {
	g := newGroup(t, sandbox.Options{Settings: map[string]string{"max_transaction": "1h"}})
	g.run(t, "DDL refuses", func(s *scenario) {
		// It takes long by itself: nobody holds a transaction that it would have to wait for.
		b := s.busyWith("CREATE TABLE " + table + "_ddl AS SELECT SLEEP(600) AS slept")
		defer b.end()
		s.planned(func(p api.Plan) bool {
			return gateOf(p, "primary.ddl", false) && gateOf(p, "primary.long-transaction", true)
		})
		s.refusedFor("primary.ddl")
		answer := s.ctl("promote", s.others(s.primary())[0], "--wait", "1s")
		s.notDone(answer)
		if r := answer.Result; r.Rule != "primary.ddl" && !strings.Contains(r.Message, "primary.ddl ") {
			s.Errorf("waiting for it ended for another reason: %+v", r)
		}
		s.servesOn()
	})
}

// planned asks for a plan until it is as it should be.
func (s *scenario) planned(ok func(api.Plan) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "the plan of a promotion", func(context.Context) (bool, string) {
		answer := s.ctl("promote", s.others(s.primary())[0], "--plan")
		return answer.Result.Plan != nil && ok(*answer.Result.Plan), fmt.Sprintf("%+v, %s", answer.Result.Plan, answer.Stderr)
	})
	if err != nil {
		s.Fatal(err)
	}
}

// gateOf tells whether a gate of the clients is known to be open or shut.
func gateOf(p api.Plan, rule string, open bool) bool {
	return slices.ContainsFunc(p.Gates, func(g api.Verdict) bool { return g.Rule == rule && g.OK == open && g.Value != "unknown" })
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
	s.planned(func(p api.Plan) bool { return gateOf(p, "primary.long-transaction", false) })
	return b
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
func (s *scenario) refusedFor(rule string) {
	s.Helper()
	answer := s.ctl("promote", s.others(s.primary())[0])
	if r := answer.Result; answer.Exit != exitRefused || r.Outcome != api.OutcomeRefused || r.Rule != rule || !strings.Contains(r.Message, "connection ") {
		s.Errorf("exit %d, %+v, %s", answer.Exit, r, answer.Stderr)
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
