package mysqld

import (
	"context"
	"database/sql"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBeginningOfAStatement(t *testing.T) {
	t.Parallel()
	for statement, want := range map[string]string{
		"":                                 "",
		"SELECT  1":                        "SELECT ?",
		"SELECT * FROM t2 WHERE a=-17.5e3": "SELECT * FROM t2 WHERE a= - ?",
		"CREATE USER u IDENTIFIED BY 'se\\'cret'": "CREATE USER u IDENTIFIED BY ?",
		`SELECT "secret" /* secret */, x`:         "SELECT ? , x",
		"SELECT 'secret that was cut":             "SELECT ?",
		"SELECT x'dead', `a b` -- secret":         "SELECT x ? , `a b`",
		"/* secret */ ALTER\nTABLE t # more":      "ALTER TABLE t",
		"SELECT 0xdeadbeef":                       "SELECT ?",
		"UPDATE t SET " + strings.Repeat("ä", 80): "UPDATE t SET " + strings.Repeat("ä", 47) + "...",
	} {
		if got := beginning(statement); got != want {
			t.Errorf("%q gives %q, want %q", statement, got, want)
		}
	}
	if !isDDL(" /* x */ alter table t") || isDDL("SELECT 'ALTER'") || isDDL("") {
		t.Error("DDL is not told from other statements")
	}
}

// holder is a client in the middle of something.
type holder struct {
	conn *sql.Conn
	id   uint64
	done chan error
}

// hold runs statements on one connection of the application; the last may not return.
func (n *node) hold(statements ...string) holder {
	n.t.Helper()
	ctx := testContext(n.t)
	conn, err := n.app.Conn(ctx)
	n.must(err)
	n.t.Cleanup(func() { conn.Close() })
	h := holder{conn: conn, done: make(chan error, 1)}
	n.must(conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&h.id))
	go func() {
		var err error
		for _, s := range statements {
			if _, err = conn.ExecContext(ctx, s); err != nil {
				break
			}
		}
		h.done <- err
	}()
	return h
}

// session finds one of them once it is as wanted.
func (n *node) session(h holder, is func(Session) bool) (found Session) {
	n.t.Helper()
	var all []Session
	defer func() {
		if found.ID == 0 {
			n.t.Logf("sessions: %+v", all)
		}
	}()
	n.eventually("seeing the session", func() bool {
		var err error
		all, err = n.Sessions(testContext(n.t))
		n.must(err)
		for _, s := range all {
			if s.ID == h.id && is(s) {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

func TestSessions(t *testing.T) { eachServer(t, testSessions) }

func testSessions(t *testing.T, k *kind) {
	n := cluster(t, k, 1, false)[0]
	ctx := testContext(t)
	n.must(n.insert(ctx, 3))
	n.eventually("a server at rest: a session shows what it did until just after its client has heard", func() bool {
		all, err := n.Sessions(ctx)
		n.must(err)
		return len(all) == 0
	})
	// The zone of a session must not make transactions hours old.
	n.sql("SET GLOBAL time_zone='+05:00'")
	open := n.hold("SET time_zone='-07:00'", "BEGIN", "INSERT INTO app.t (v) VALUES (42)")
	n.must(<-open.done)
	s := n.session(open, func(s Session) bool { return s.Transaction && s.Age >= time.Second })
	if s.User != "app" || s.DDL || s.Locks || s.Statement != "" || s.Age > time.Minute {
		t.Errorf("an open transaction: %+v", s)
	}
	ddl := n.hold("ALTER TABLE app.t ADD COLUMN z INT DEFAULT 17")
	if s := n.session(ddl, func(s Session) bool { return s.DDL }); s.Statement != "ALTER TABLE app.t ADD COLUMN z INT DEFAULT ?" {
		t.Errorf("DDL that waits for a lock: %+v", s)
	}
	query := n.hold("SELECT SLEEP(30)")
	n.session(query, func(s Session) bool { return strings.HasPrefix(s.Statement, "SELECT SLEEP") && s.Age >= time.Second })
	if k.dialect == "mysql" {
		n.sql("CREATE TABLE app.other (id INT PRIMARY KEY)")
		locks := n.hold("LOCK TABLES app.other WRITE")
		n.must(<-locks.done)
		n.session(locks, func(s Session) bool { return s.Locks })
	}

	// None of them outlives this.
	killed, err := n.BreakOff(ctx)
	if err != nil || killed < 3 {
		t.Fatalf("broke off %d: %v", killed, err)
	}
	if err := <-query.done; err == nil {
		t.Error("a killed client heard success")
	}
	// The ALTER is free once the transaction is rolled back, and may be through before its turn to be killed comes: what its client heard is true.
	heard := <-ddl.done
	columns, err := rows(ctx, n.boss, "SHOW COLUMNS FROM app.t LIKE 'z'")
	n.must(err)
	if heard == nil && len(columns) == 0 {
		t.Error("DDL that was broken off said that it succeeded")
	}
	n.eventually("nobody being left", func() bool {
		all, err := n.Sessions(ctx)
		return err == nil && len(all) == 0
	})
	if got := n.count(); got != 3 {
		t.Errorf("%d rows, wrote 3 and broke off one transaction", got)
	}
	n.must(n.SetReadOnly(ctx))
}

// TestReadOnlyBehindLocks: SetReadOnly ends once whoever holds it up is broken off. Without that it hangs: the control.
func TestReadOnlyBehindLocks(t *testing.T) { eachServer(t, testReadOnlyBehindLocks) }

func testReadOnlyBehindLocks(t *testing.T, k *kind) {
	n := cluster(t, k, 1, false)[0]
	n.must(n.insert(testContext(t), 3))
	for _, statement := range []string{"LOCK TABLES app.t WRITE", "UPDATE app.t SET v = v + SLEEP(30)"} {
		h := n.hold(statement)
		if strings.HasPrefix(statement, "LOCK") {
			n.must(<-h.done)
		} else {
			n.session(h, func(s Session) bool { return s.Statement != "" })
		}
		if err := n.SetReadOnly(short(t)); n.Classify(err) != FaultHung {
			t.Fatalf("%s: read_only: %v", statement, err)
		}
		left := n.abandoned.all()
		if len(left) != 1 {
			t.Fatalf("%s: %d statements were left behind", statement, len(left))
		}
		ctx, cancel := context.WithTimeout(testContext(t), 10*time.Second)
		done := make(chan error, 1)
		go func() { done <- n.SetReadOnly(ctx) }()
		if _, err := n.BreakOff(ctx); err != nil {
			t.Fatal(err)
		}
		n.must(<-done)
		cancel()
		n.gone(left)
		n.must(n.SetWritable(testContext(t)))
		n.must(n.insert(testContext(t), 1))
	}
}

// TestBreakOffLeavesWaiters: a commit that waits for its acknowledgement is not touched, whatever is killed around it.
func TestBreakOffLeavesWaiters(t *testing.T) { eachServer(t, testBreakOffLeavesWaiters) }

func testBreakOffLeavesWaiters(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	waiter := make(chan error, 1)
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting", func() bool { return source.status().WaitSessions > 0 })
	query := source.hold("SELECT SLEEP(30)")
	source.session(query, func(s Session) bool { return s.Statement != "" })
	if _, err := source.BreakOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-query.done; err == nil {
		t.Error("the query lived on")
	}
	select {
	case err := <-waiter:
		t.Fatalf("the waiter was touched: %v", err)
	default:
	}
	if source.status().WaitSessions == 0 {
		t.Fatal("nothing waits any more")
	}
	_, err = replica.Follow(ctx, source.source())
	replica.must(err)
	replica.connected(true)
	source.must(source.Nudge(ctx))
	source.must(<-waiter)
}

// TestWhoLogsInIsNoClient: a connection that has not said yet whose it is may be the manager's or a replica's.
func TestWhoLogsInIsNoClient(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := newNode(t, k, 1)
		n.start(StartOptions{})
		ctx := testContext(t)
		raw, err := net.Dial("tcp", n.address())
		n.must(err)
		defer raw.Close()
		if _, err := raw.Read(make([]byte, 1)); err != nil { // the greeting: the server waits for the login
			t.Fatal(err)
		}
		n.eventually("being listed", func() bool {
			all, err := rows(ctx, n.boss, "SHOW PROCESSLIST")
			return err == nil && slices.ContainsFunc(all, func(r record) bool { return r["User"] == "unauthenticated user" })
		})
		before, err := rows(ctx, n.boss, "SHOW PROCESSLIST")
		n.must(err)
		if _, err := n.BreakOff(ctx); err != nil {
			t.Fatal(err)
		}
		for _, r := range before {
			if r["User"] != "unauthenticated user" {
				continue
			}
			now, err := rows(ctx, n.boss, "SHOW PROCESSLIST")
			if err == nil && !slices.ContainsFunc(now, func(x record) bool { return x["Id"] == r["Id"] && x["Command"] != "Killed" }) {
				t.Errorf("a login was broken off: %v", r)
			}
		}
	})
}
