//go:build integration

package integration

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

func needsBackupTool(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("mariadb-backup"); err != nil {
		t.Skipf("skipping, no backup tool to test with (scripts/deps.sh): %v", err)
	}
}

// TestRebuild: a node whose data is of no use comes back by itself, on a copy.
func TestRebuild(t *testing.T) {
	needsBackupTool(t)
	g := newGroup(t, sandbox.Options{})
	g.run(t, "errant transaction on a replica", func(s *scenario) {
		victim := s.others(s.primary())[0]
		s.errs(victim)
		s.at = s.load.Now()
		s.found(victim, "errant")
		s.rebuilt(victim, "errant")
		if s.hasTable(victim, "highbase", "errant") {
			s.Errorf("%s still has what nobody else had", victim)
		}
		if log := tail(s.host(victim).Log, 2000); !strings.Contains(log, "kept in ") {
			s.Errorf("%s does not say where it kept its errant transactions", victim)
		}
	})
	g.run(t, "purged binary logs", func(s *scenario) {
		victim := s.others(s.primary())[1]
		s.fault("cut", victim)
		// Before that its connection would outlive the cut, and nothing it needs be gone.
		s.await(victim+" to have left the sync set", func(st api.Status) bool { return !slices.Contains(st.Sync.Set, victim) })
		s.writesGoOn()
		s.purge(s.primary())
		s.fault("heal", victim)
		s.rebuilt(victim, "purged")
	})
	g.run(t, "DDL in the tail of a killed primary", func(s *scenario) {
		old := s.primary()
		s.loneDDL(old)
		s.fault("kill-host", old)
		s.fault("heal", clientHost)
		s.awaitNewPrimary(old)
		s.fault("heal-all") // starts the host as well
		if s.Flavor() == gtid.MySQL {
			s.rewound(old) // its DDL is rolled back like everything else
		} else {
			s.rebuilt(old, "quarantined")
		}
		if s.hasTable(old, "highbase", "lone") {
			s.Errorf("%s still has the table that nobody acknowledged", old)
		}
	})
	g.run(t, "a host that lost its data", func(s *scenario) {
		victim := s.others(s.primary())[0]
		s.fault("break-mysqld", victim)
		s.fault("kill-mysqld", victim)
		s.byHand(victim, "rm -rf "+s.host(victim).Datadir+"/*")
		s.fault("mend-mysqld", victim)
		s.rebuilt(victim, "empty")
	})
}

// slowCopy makes a copy last long enough to be broken in its middle.
var slowCopy = map[string]string{"rebuild_rate": "2000000"}

// TestRebuildLosesItsDonor: the copy is slow, its donor's host is killed in the middle.
func TestRebuildLosesItsDonor(t *testing.T) {
	needsBackupTool(t)
	g := newGroup(t, sandbox.Options{Nodes: 4, Settings: slowCopy})
	g.run(t, "donor killed", func(s *scenario) {
		victim := s.others(s.primary())[0]
		s.errs(victim)
		donor := s.copying(victim)
		s.fault("kill-host", donor)
		s.donated(victim, donor)
		s.fault("start-host", donor)
		s.rebuilt(victim, "errant")
	})
	g.discard(t) // seven servers at once are too many for a small machine

	// With three nodes the only other replica is the one whose acknowledgement commits need: the primary is the donor, and its loss a failover, too.
	g = newGroup(t, sandbox.Options{Settings: slowCopy})
	g.run(t, "donor killed that is the primary", func(s *scenario) {
		old := s.primary()
		victim, heir := s.others(old)[0], s.others(old)[1]
		s.errs(victim)
		if donor := s.copying(victim); donor != old {
			s.Fatalf("%s is copied from %s, and was to be from the primary %s", victim, donor, old)
		}
		s.at = s.load.Now()
		s.fault("kill-host", old)
		if st := s.awaitNewPrimary(old); st.Primary != heir {
			s.Errorf("%s was promoted, and only %s has whole data", st.Primary, heir)
		}
		s.quietBefore(old, heir)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		if donor := s.donated(victim, old); donor != heir {
			s.Errorf("%s is copied from %s, and only %s is left", victim, donor, heir)
		}
		s.rebuilt(victim, "errant")
		if s.hasTable(victim, "highbase", "errant") {
			s.Errorf("%s still has what nobody else had", victim)
		}
		s.fault("start-host", old)
	})
}

// copying waits until a node has some of its copy, and tells whose it is.
func (s *scenario) copying(node string) (donor string) {
	s.Helper()
	s.await("a copy on its way", func(st api.Status) bool {
		n := nodeIn(st, node)
		if n.Rebuild == nil || n.Rebuild.Bytes == 0 {
			return false
		}
		donor = n.Rebuild.From
		return true
	})
	return donor
}

// donated waits until a node that is rebuilt has another donor, and tells which.
func (s *scenario) donated(node, before string) (donor string) {
	s.Helper()
	s.await("another donor", func(st api.Status) bool {
		n := nodeIn(st, node)
		if n.Rebuild == nil || n.Rebuild.From == before {
			return false
		}
		donor = n.Rebuild.From
		return true
	})
	return donor
}

// TestRebuildOverABrokenLink: the receiver is cut off in the middle of its copy for longer than a chunk may take. Afterwards it goes on from where it was.
func TestRebuildOverABrokenLink(t *testing.T) {
	needsBackupTool(t)
	if server() == "mysql" {
		t.Skip("skipping on mysql: a CLONE whose link breaks is the server's own matter")
	}
	g := newGroup(t, sandbox.Options{Settings: map[string]string{"rebuild_rate": "1000000"}})
	g.run(t, "receiver cut off and healed", func(s *scenario) {
		victim := s.others(s.primary())[0]
		s.errs(victim)
		var before api.Rebuild
		s.await("a copy on its way", func(st api.Status) bool {
			n := nodeIn(st, victim)
			if n.Rebuild != nil {
				before = *n.Rebuild
			}
			return before.Phase == "receiving" && before.Bytes > before.Size/10
		})
		s.fault("cut", victim)
		s.awaitLog(victim, "the link to the donor of a copy is broken")
		s.fault("heal", victim)
		lowest := before.Bytes // the rest may come at once: its donor has read on
		s.await(victim+" to follow on its copy", func(st api.Status) bool {
			n := nodeIn(st, victim)
			if n.Rebuild != nil && n.Rebuild.Phase == "receiving" {
				lowest = min(lowest, n.Rebuild.Bytes)
			}
			return n.Rebuild == nil && n.Role == api.RoleReplica
		})
		if lowest < before.Bytes {
			s.Errorf("%d bytes had come when the link broke, and then %d: it began anew", before.Bytes, lowest)
		}
		log := tail(s.host(victim).Log, 5000)
		if n := strings.Count(log, "receiving a copy"); n != 1 {
			s.Errorf("%s began to take in a copy %d times, want one", victim, n)
		}
		s.Logf("cut off with %d of %d bytes from %s", before.Bytes, before.Size, before.From)
	})
}

// awaitLog waits for words in the log of a host's hbd.
func (s *scenario) awaitLog(host, words string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, fmt.Sprintf("%q in the log of %s", words, host), func(context.Context) (bool, string) {
		return strings.Contains(tail(s.host(host).Log, 5000), words), ""
	})
	if err != nil {
		s.Fatal(err)
	}
}

// foundWithin is how long a node may go on with what nobody else has. It compares itself every two seconds; the rest is for a crowded machine.
const foundWithin = 10 * time.Second

// found waits until a node is kept out or rebuilt for a reason, and demands that this was soon.
func (s *scenario) found(node, cause string) {
	s.Helper()
	st := s.await(node+" to be found", func(st api.Status) bool {
		n := nodeIn(st, node)
		return n.Role == api.RoleQuarantined || n.Rebuild != nil && n.Rebuild.Cause == cause
	})
	after := s.load.Now() - s.at
	if after > foundWithin {
		s.Errorf("%s was found only after %v, at most %v was to pass: %s", node, after, foundWithin, Describe(st))
	}
	s.Logf("found after %v", after.Round(time.Millisecond))
}

// rebuilt waits until a node has been seen on its way and follows again, and for the reason that counts.
func (s *scenario) rebuilt(node, cause string) {
	s.Helper()
	s.await(node+" to be rebuilt for "+cause, func(st api.Status) bool {
		n := nodeIn(st, node)
		return n.Rebuild != nil && n.Rebuild.Cause == cause
	})
	s.await(node+" to follow on its copy", func(st api.Status) bool {
		n := nodeIn(st, node)
		return n.Rebuild == nil && n.Role == api.RoleReplica
	})
}

// rewound waits until a node whose host was killed follows again on its own data, rolled back.
func (s *scenario) rewound(node string) {
	s.Helper()
	s.await(node+" to follow", func(st api.Status) bool {
		n := nodeIn(st, node)
		if n.Rebuild != nil {
			s.Fatalf("%s is rebuilt, and was to be rewound: %s", node, n.Rebuild.Reason)
		}
		return n.Role == api.RoleReplica && n.Server == api.ServerUp && n.Health == api.HealthOK
	})
	if n := s.metric(node, "highbase_rewinds_total"); n != 1 {
		s.Errorf("%s follows after %v rewinds, want one", node, n)
	}
	if s.keptTails(node) == 0 {
		s.Errorf("%s does not say where it saved the tail that it rolled back", node)
	}
}

var keptTail = regexp.MustCompile(`tail saved before the rewind".* file=(\S+)`)

// keptTails demands that each tail which a node rolled back is still in its file, with a list for people beside it, and counts them.
func (s *scenario) keptTails(node string) int {
	s.Helper()
	log, err := os.ReadFile(s.host(node).Log)
	if err != nil {
		s.Fatal(err)
	}
	all := keptTail.FindAllSubmatch(log, -1)
	for _, found := range all {
		file := string(found[1])
		if raw, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(raw, []byte("\xfebin")) {
			s.Errorf("the tail that %s rolled back is no binary log: %d bytes, %v", node, len(raw), err)
		}
		list, err := os.ReadFile(file + ".txt")
		_, rows, _ := strings.Cut(string(list), "where\n")
		if err != nil || len(strings.Fields(rows)) < 6 { // transaction, kind, bytes, FILE at OFFSET
			s.Errorf("the list of what %s rolled back: %v\n%s", node, err, list)
		}
	}
	return len(all)
}

func nodeIn(st api.Status, id string) api.Node {
	for _, n := range st.Nodes {
		if n.ID == id {
			return n
		}
	}
	return api.Node{}
}

func (s *scenario) host(name string) sandbox.Host {
	s.Helper()
	for _, h := range s.Facts.Hosts {
		if h.Name == name {
			return h
		}
	}
	s.Fatalf("no host %s", name)
	return sandbox.Host{}
}

func (s *scenario) asManager(host string, statements ...string) {
	s.Helper()
	db := s.manager(host)
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(s.ctx, statement); err != nil {
			s.Fatalf("on %s: %s: %v", host, statement, err)
		}
	}
}

// errs writes on a replica what the primary does not have. On MySQL not even the manager may, for as long as super_read_only is on.
func (s *scenario) errs(replica string) {
	s.Helper()
	db := s.manager(replica)
	defer db.Close()
	statements := []string{"CREATE TABLE IF NOT EXISTS highbase.errant (id INT PRIMARY KEY)", "INSERT IGNORE INTO highbase.errant VALUES (1)"}
	if s.Flavor() == gtid.MySQL { // hbd puts that back meanwhile
		statements = append([]string{"SET GLOBAL super_read_only=OFF"}, statements...)
	}
	err := Await(s.ctx, "an errant write on "+replica, func(ctx context.Context) (bool, string) {
		for _, one := range statements {
			if _, err := db.ExecContext(ctx, one); err != nil {
				return false, err.Error()
			}
		}
		return true, ""
	})
	if err != nil {
		s.Fatal(err)
	}
}

// purge removes the binary logs that a server has now. One that a replica still reads stays, and is tried again. MySQL's manager may not purge, but
// may let the files grow old.
func (s *scenario) purge(host string) {
	s.Helper()
	db := s.manager(host)
	defer db.Close()
	if s.Flavor() == gtid.MySQL {
		s.asManager(host, "SET GLOBAL binlog_expire_logs_seconds=1")
	}
	old, err := s.binlogs(s.ctx, db)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := db.ExecContext(s.ctx, "FLUSH BINARY LOGS"); err != nil {
		s.Fatal(err)
	}
	flushed := time.Now()
	err = Await(s.ctx, "the binary logs to be purged", func(ctx context.Context) (bool, string) {
		files, err := s.binlogs(ctx, db)
		if err != nil || !slices.Contains(files, old[len(old)-1]) {
			return err == nil, fmt.Sprint(err)
		}
		purge := fmt.Sprintf("PURGE BINARY LOGS TO '%s'", files[len(files)-1])
		if s.Flavor() == gtid.MySQL {
			if time.Since(flushed) < 1100*time.Millisecond {
				return false, fmt.Sprint(files, " are too young")
			}
			purge, flushed = "FLUSH BINARY LOGS", time.Now()
		}
		_, err = db.ExecContext(ctx, purge)
		return false, fmt.Sprint(files, err)
	})
	if err != nil {
		s.Fatal(err)
	}
	if s.Flavor() == gtid.MySQL {
		s.asManager(host, "SET GLOBAL binlog_expire_logs_seconds=DEFAULT")
	}
}

func (s *scenario) binlogs(ctx context.Context, db *sql.DB) (files []string, err error) {
	rows, err := db.QueryContext(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		files = append(files, values[0].String)
	}
	return files, rows.Err()
}

// loneDDL makes the primary log a statement that nobody acknowledges: its replicas are cut off first, and before them the
// clients, because behind a row that waits the statement would not be logged. Soon after, its lease ends and it is killed.
func (s *scenario) loneDDL(primary string) {
	s.Helper()
	db := s.manager(primary)
	s.Cleanup(func() { db.Close() })
	// Both connections are there beforehand: a login may hang behind what waits.
	watch, err := db.Conn(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	defer watch.Close()
	conn, err := db.Conn(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.fault("cut", clientHost)
	s.fault("partition", primary+"/"+strings.Join(s.others(primary), ","))
	ctx, cancel := context.WithCancel(s.ctx)
	s.Cleanup(cancel)
	go func() { _, _ = conn.ExecContext(ctx, "CREATE TABLE highbase.lone (id INT PRIMARY KEY)") }() // it never returns
	// In the binary log, not only on its way there: what is not in it recovery takes back by itself.
	err = Await(s.ctx, "the statement to wait for its acknowledgement", func(ctx context.Context) (bool, string) {
		rows, err := watch.QueryContext(ctx, "SHOW FULL PROCESSLIST")
		if err != nil {
			return false, err.Error()
		}
		defer rows.Close()
		saw := ""
		for rows.Next() {
			columns, err := rows.Columns()
			if err != nil {
				return false, err.Error()
			}
			values := make([]sql.NullString, len(columns))
			into := make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				return false, err.Error()
			}
			if strings.HasPrefix(values[7].String, "CREATE TABLE highbase.lone") {
				saw = values[6].String
			}
		}
		if err := rows.Err(); err != nil {
			return false, err.Error()
		}
		if s.Flavor() == gtid.MySQL { // it shows the stage before; with the clients cut off whoever waits is this statement
			var waiting int
			err := watch.QueryRowContext(ctx, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME='Rpl_semi_sync_source_wait_sessions'").Scan(&waiting)
			return saw != "" && waiting > 0, fmt.Sprintf("%s, %d wait, %v", saw, waiting, err)
		}
		return strings.Contains(saw, "semi-sync ACK"), saw
	})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scenario) hasTable(host, schema, name string) bool {
	s.Helper()
	var n int
	db := s.manager(host)
	defer db.Close()
	err := db.QueryRowContext(s.ctx, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?", schema, name).Scan(&n)
	if err != nil {
		s.Logf("asking %s for %s.%s: %v", host, schema, name, err)
	}
	return n > 0
}
