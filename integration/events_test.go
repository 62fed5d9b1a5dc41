//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// runs is where the scheduled events write, who and on which server.
const runs = table + "_events"

// TestEvents: the scheduled events that were enabled run on the new primary and on nobody else, and those that were disabled nowhere.
func TestEvents(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "promote", func(s *scenario) {
		defer s.schedule()()
		old, to := s.primary(), s.others(s.primary())[0]
		s.runsOn(old)
		if answer := s.ctl("promote", to); answer.Exit != exitDone {
			s.Fatalf("hbctl promote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		s.awaitIncident(api.KindSwitchover)
		s.runsOn(to)
		s.runsNowhereElse(to)
	})

	g.run(t, "host killed", func(s *scenario) {
		defer s.schedule()()
		old := s.primary()
		s.runsOn(old)
		s.fault("kill-host", old)
		to := s.awaitNewPrimary(old).Primary
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.runsOn(to)
		s.fault("start-host", old)
		s.await(old+" to follow on its own data", func(st api.Status) bool {
			n := nodeIn(st, old)
			if n.Rebuild != nil {
				s.Fatalf("%s is rebuilt: %s", old, n.Rebuild.Reason)
			}
			return n.Role == api.RoleReplica && n.Server == api.ServerUp && n.Health == api.HealthOK
		})
		s.heals()
		s.runsNowhereElse(to)
	})
}

// schedule makes two events on the primary, one enabled and one not, and waits until it is noted which; the result takes them away.
func (s *scenario) schedule() (end func()) {
	s.Helper()
	drop := []string{"DROP EVENT IF EXISTS ticking", "DROP EVENT IF EXISTS resting"}
	insert := " DO INSERT INTO " + runs + " (event, server) VALUES ('%s', @@global.server_id)"
	s.onApp(s.primary(), append(drop, "DROP TABLE IF EXISTS "+runs,
		"CREATE TABLE "+runs+" (id BIGINT AUTO_INCREMENT PRIMARY KEY, event VARCHAR(16) NOT NULL, server INT UNSIGNED NOT NULL)",
		"CREATE EVENT ticking ON SCHEDULE EVERY 1 SECOND"+fmt.Sprintf(insert, "ticking"),
		"CREATE EVENT resting ON SCHEDULE EVERY 1 SECOND DISABLE"+fmt.Sprintf(insert, "resting"))...)
	db := s.manager(s.primary())
	defer db.Close()
	s.until("it to be noted which event is enabled", func(ctx context.Context) (bool, string) {
		var names string
		err := db.QueryRowContext(ctx, "SELECT COALESCE(GROUP_CONCAT(in_schema, '.', name), '') FROM highbase.event").Scan(&names)
		return err == nil && names == "app.ticking", fmt.Sprint(names, err)
	})
	return func() {
		if !s.Failed() {
			s.onApp(s.await("an answer", steady).Primary, drop...)
		}
	}
}

func (s *scenario) onApp(host string, statements ...string) {
	s.Helper()
	for _, statement := range statements {
		if _, err := s.servers[host].ExecContext(s.ctx, statement); err != nil {
			s.Fatalf("on %s: %s: %v", host, statement, err)
		}
	}
}

func (s *scenario) until(what string, cond func(context.Context) (bool, string)) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := Await(ctx, what, cond); err != nil {
		s.Fatal(err)
	}
}

// runsOn waits until the enabled event has run some times on a host, as that host's own rows tell.
func (s *scenario) runsOn(host string) {
	s.Helper()
	s.until("the event to run on "+host, func(ctx context.Context) (bool, string) {
		n := 0
		err := s.servers[host].QueryRowContext(ctx, "SELECT COUNT(*) FROM "+runs+" WHERE event='ticking' AND server=@@global.server_id").Scan(&n)
		return err == nil && n >= 3, fmt.Sprintf("%d runs, %v", n, err)
	})
}

// runsNowhereElse demands of every other host that it has no event enabled, of the rows that nobody else has written since the first of the primary,
// that the disabled event never ran, and that nobody had to be rebuilt.
func (s *scenario) runsNowhereElse(primary string) {
	s.Helper()
	query := "SELECT COUNT(*) FROM mysql.event WHERE status='ENABLED'"
	if s.Flavor() == gtid.MySQL {
		query = "SELECT COUNT(*) FROM information_schema.EVENTS WHERE STATUS='ENABLED'"
	}
	for _, host := range s.DataHosts() {
		want := 0
		if host == primary {
			want = 1
		}
		db := s.manager(host)
		defer db.Close()
		s.until("the events of "+host, func(ctx context.Context) (bool, string) {
			n := 0
			err := db.QueryRowContext(ctx, query).Scan(&n)
			return err == nil && n == want, fmt.Sprintf("%d enabled, want %d, %v", n, want, err)
		})
		if log := tail(s.host(host).Log, 5000); strings.Contains(log, "msg=quarantined") {
			s.Errorf("the data of %s was of no use", host)
		}
	}
	s.runsOn(primary)
	wrong, rested := 0, 0
	db := s.servers[primary]
	first := "(SELECT MIN(id) FROM " + runs + " WHERE server=@@global.server_id)"
	if err := db.QueryRowContext(s.ctx, "SELECT COUNT(*) FROM "+runs+" WHERE server<>@@global.server_id AND id>"+first).Scan(&wrong); err != nil || wrong > 0 {
		s.Errorf("%d runs elsewhere since %s is primary, %v", wrong, primary, err)
	}
	if err := db.QueryRowContext(s.ctx, "SELECT COUNT(*) FROM "+runs+" WHERE event<>'ticking'").Scan(&rested); err != nil || rested > 0 {
		s.Errorf("the disabled event ran %d times, %v", rested, err)
	}
}
