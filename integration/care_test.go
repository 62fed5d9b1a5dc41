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
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// damage is something done to a server behind hbd's back.
type damage struct {
	name string
	do   []string
	rule []string // one of these is to name it
}

// careWords are the statements of the two servers.
type careWords struct {
	replica, source, change, reset, showReplica string
	host, port, password                        string // options of CHANGE
	syncPrefix, replicaSync                     string // of the semi-sync variables
	noReplica                                   string
}

func wordsOf(f gtid.Flavor) careWords {
	if f == gtid.MariaDB {
		return careWords{"SLAVE", "MASTER", "CHANGE MASTER TO ", "RESET SLAVE ALL", "SHOW SLAVE STATUS", "MASTER_HOST", "MASTER_PORT", "MASTER_PASSWORD",
			"rpl_semi_sync_master_", "rpl_semi_sync_slave_enabled", "wait_no_slave"}
	}
	return careWords{"REPLICA", "SOURCE", "CHANGE REPLICATION SOURCE TO ", "RESET REPLICA ALL", "SHOW REPLICA STATUS", "SOURCE_HOST", "SOURCE_PORT", "SOURCE_PASSWORD",
		"rpl_semi_sync_source_", "rpl_semi_sync_replica_enabled", "wait_no_replica"}
}

// ofReplica is what can be done to a replica; another is a replica's address, dead is nobody's.
func (w careWords) ofReplica(another, dead string) []damage {
	stop, start := "STOP "+w.replica, "START "+w.replica
	to := func(address string) string {
		return fmt.Sprintf("%s%s='%s', %s=3306", w.change, w.host, address, w.port)
	}
	// Whoever looks between two of the statements sees threads that are stopped, or one of them.
	or := func(rules ...string) []string {
		return append(rules, "care.stopped", "care.receiver-stopped", "care.applier-stopped")
	}
	return []damage{
		{"both threads stopped", []string{stop}, or()},
		{"receiver stopped", []string{stop + " IO_THREAD"}, []string{"care.receiver-stopped"}},
		{"applier stopped", []string{stop + " SQL_THREAD"}, []string{"care.applier-stopped"}},
		{"another source, stopped", []string{stop, to(another)}, or("care.source")},
		{"another source, started", []string{stop, to(another), start}, or("care.source")},
		{"a dead source", []string{stop, to(dead), start}, or("care.source")},
		{"source forgotten", []string{stop, w.reset}, or("care.no-source")},
		{"wrong password", []string{stop, w.change + w.password + "='wrong'", start}, or("care.login")},
		{"writable", []string{"SET GLOBAL read_only=0"}, []string{"server.no-right"}},
		{"acknowledgements off", []string{"SET GLOBAL " + w.replicaSync + "=0"}, []string{"replica.acks"}},
		{"acknowledgements off and reconnected", []string{"SET GLOBAL " + w.replicaSync + "=0", stop + " IO_THREAD", start + " IO_THREAD"}, or("replica.acks")},
		{"acknowledgements of its own", []string{"SET GLOBAL " + w.syncPrefix + "enabled=1"}, []string{"care.source-sync"}},
	}
}

// ofAnyServer weakens what every server needs, ofSource what only a primary has.
func (w careWords) ofAnyServer() []damage {
	return []damage{
		{"binary log not synced", []string{"SET GLOBAL sync_binlog=0"}, []string{"care.settings"}},
		{"redo log not synced", []string{"SET GLOBAL innodb_flush_log_at_trx_commit=2"}, []string{"care.settings"}},
	}
}

func (w careWords) ofSource() []damage {
	return append(w.ofAnyServer(),
		damage{"commits wait 10 s only", []string{"SET GLOBAL " + w.syncPrefix + "timeout=10000"}, []string{"care.settings"}},
		damage{"commits do not wait for the last replica", []string{"SET GLOBAL " + w.syncPrefix + w.noReplica + "=0"}, []string{"care.settings"}})
}

// TestCare: whatever is done to a server behind hbd's back is found, named, and put right, under load and with nothing lost.
func TestCare(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	g.run(t, "a replica is put right", func(s *scenario) {
		w := wordsOf(s.Flavor())
		replica := s.others(s.primary())[0]
		another, _ := s.Host(s.others(s.primary(), replica)[0])
		for _, d := range append(w.ofReplica(another.Address, "10.255.255.1"), w.ofAnyServer()...) {
			s.damageAndSee(w, replica, d)
		}
	})
	g.run(t, "a weakened primary is put right", func(s *scenario) {
		w := wordsOf(s.Flavor())
		for _, d := range w.ofSource() {
			s.damageAndSee(w, s.primary(), d)
		}
		s.noErrors(s.at)
		s.nothingHappened()
	})
}

// TestCareInVain: what hbd cannot mend is told with its reason and tried at growing pauses, and heals once somebody has mended it.
func TestCareInVain(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	g.run(t, "a row in the way", func(s *scenario) {
		replica := s.others(s.primary())[0]
		rules := []string{"care.applier-error"}
		s.byManager(s.primary(), "CREATE TABLE highbase.conflict (id INT PRIMARY KEY)")
		s.awaitTable(replica)
		before := s.repairs(replica, rules)
		s.unlogged(replica, "INSERT INTO highbase.conflict VALUES (1)")
		s.byManager(s.primary(), "INSERT INTO highbase.conflict VALUES (1)")
		s.await("the reason to be told", func(st api.Status) bool {
			why := strings.Join(st.Why, "\n")
			return strings.Contains(why, replica) && strings.Contains(why, "1062") && strings.Contains(why, "in vain") &&
				strings.Contains(strings.Join(st.Next, "\n"), "docs/runbooks/replication-broken.md")
		})
		s.rises(replica, `highbase_repairs_total{rule="care.applier-error"}`, before, 5)
		s.unlogged(replica, "DELETE FROM highbase.conflict")
		s.await(replica+" to be well again", func(st api.Status) bool { return st.Verdict == api.StandingHealthy })
		// A repair every 100 ms would have been many more.
		if n, most := s.repairs(replica, rules)-before, 14.0; n > most {
			s.Errorf("%v attempts, want at most %v", n, most)
		}
		s.byManager(s.primary(), "DROP TABLE highbase.conflict")
		s.nothingHappened()
	})
}

// byManager runs a statement as the manager.
func (s *scenario) byManager(host string, statements ...string) {
	s.Helper()
	db := s.manager(host)
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(s.ctx, statement); err != nil {
			s.Fatalf("on %s: %s: %v", host, statement, err)
		}
	}
}

// awaitTable waits until a replica has the table of conflicts.
func (s *scenario) awaitTable(host string) {
	s.Helper()
	db := s.manager(host)
	defer db.Close()
	err := Await(s.ctx, "the table on "+host, func(ctx context.Context) (bool, string) {
		_, err := db.ExecContext(ctx, "SELECT 1 FROM highbase.conflict")
		return err == nil, fmt.Sprint(err)
	})
	if err != nil {
		s.Fatal(err)
	}
}

// unlogged changes a replica alone, as nobody should. MySQL's super_read_only is put back by hbd meanwhile, so it is tried again.
func (s *scenario) unlogged(host, statement string) {
	s.Helper()
	db := s.manager(host)
	defer db.Close()
	conn, err := db.Conn(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	all := []string{"SET SESSION sql_log_bin=0", statement}
	if s.Flavor() == gtid.MySQL {
		all = []string{"SET SESSION sql_log_bin=0", "SET GLOBAL super_read_only=0", statement}
	}
	err = Await(s.ctx, statement, func(ctx context.Context) (bool, string) {
		for _, one := range all {
			if _, err := conn.ExecContext(ctx, one); err != nil {
				return false, err.Error()
			}
		}
		return true, ""
	})
	if err != nil {
		s.Fatal(err)
	}
}

// damageAndSee does one damage and waits until the server itself says that all is well, and the rule has been counted.
func (s *scenario) damageAndSee(w careWords, host string, d damage) {
	s.Helper()
	// Acknowledging as the sync set says is everyday work, which is not counted.
	counted := !slices.Contains(d.rule, "replica.acks")
	before := 0.0
	if counted {
		before = s.repairs(host, d.rule)
	}
	db := s.manager(host)
	defer db.Close()
	conn, err := db.Conn(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	from := s.load.Now()
	for _, statement := range d.do {
		if _, err := conn.ExecContext(s.ctx, statement); err != nil {
			s.Fatalf("%s: %s: %v", d.name, statement, err)
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err = Await(ctx, host+" to be put right after: "+d.name, func(ctx context.Context) (bool, string) {
		wrong := s.wrongAt(ctx, w, conn, host)
		if wrong == "" && counted && s.repairs(host, d.rule) <= before {
			wrong = fmt.Sprintf("not counted under %v", d.rule)
		}
		return wrong == "", wrong
	})
	if err != nil {
		s.Fatal(err)
	}
	s.Logf("%s: put right after %v", d.name, s.load.Now()-from)
}

// repairs adds up the counters of the rules.
func (s *scenario) repairs(host string, rules []string) (sum float64) {
	s.Helper()
	for _, rule := range rules {
		sum += s.metric(host, fmt.Sprintf("highbase_repairs_total{rule=%q}", rule))
	}
	return sum
}

// manager connects as the account that may do all this.
func (s *scenario) manager(host string) *sql.DB {
	s.Helper()
	dsn, err := s.ManagerDSN(host)
	if err != nil {
		s.Fatal(err)
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		s.Fatal(err)
	}
	return db
}

// wrongAt says what is not as it must be, in the server's own words; "" when all is well.
func (s *scenario) wrongAt(ctx context.Context, w careWords, conn *sql.Conn, host string) string {
	variables := map[string]string{"sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1"}
	if host == s.primary() {
		variables[w.syncPrefix+"timeout"], variables[w.syncPrefix+w.noReplica], variables[w.syncPrefix+"enabled"] = "4294967295", "ON", "ON"
	} else {
		variables["read_only"], variables[w.replicaSync], variables[w.syncPrefix+"enabled"] = "ON", "ON", "OFF"
		if wrong := s.wrongChannel(ctx, w, conn); wrong != "" {
			return wrong
		}
	}
	for name, want := range variables {
		var n, is string
		if err := conn.QueryRowContext(ctx, "SHOW GLOBAL VARIABLES LIKE '"+name+"'").Scan(&n, &is); err != nil {
			return err.Error()
		}
		if is != want {
			return fmt.Sprintf("%s is %s", name, is)
		}
	}
	return ""
}

// wrongChannel looks at the replica's threads, source and acknowledgements.
func (s *scenario) wrongChannel(ctx context.Context, w careWords, conn *sql.Conn) string {
	primary, _ := s.Host(s.primary())
	st, err := oneRow(ctx, conn, w.showReplica)
	if err != nil {
		return err.Error()
	}
	title := func(word string) string { return word[:1] + strings.ToLower(word[1:]) }
	for column, want := range map[string]string{title(w.source) + "_Host": primary.Address, title(w.replica) + "_IO_Running": "Yes", title(w.replica) + "_SQL_Running": "Yes"} {
		if st[column] != want {
			return fmt.Sprintf("%s is %q", column, st[column])
		}
	}
	var name, active string
	counter := strings.Replace(w.replicaSync, "_enabled", "_status", 1)
	if err := conn.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE '"+counter+"'").Scan(&name, &active); err != nil {
		return err.Error()
	}
	if !isOn(active) {
		return "does not acknowledge"
	}
	return ""
}

// oneRow reads one row by column name; no row is an empty one.
func oneRow(ctx context.Context, conn *sql.Conn, query string) (map[string]string, error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || !rows.Next() {
		return nil, err
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i, c := range columns {
		out[c] = values[i].String
	}
	return out, rows.Err()
}
