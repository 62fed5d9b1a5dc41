package mysqld

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestAcknowledgementsAreCounted: MySQL waits for as many as it is told to.
func TestAcknowledgementsAreCounted(t *testing.T) { eachServer(t, testAcknowledgementsAreCounted) }

func testAcknowledgementsAreCounted(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	if k.dialect == "mariadb" {
		if err := source.EnableSourceSemiSync(ctx, 2); !errors.Is(err, ErrAcks) {
			t.Fatalf("two acknowledgements on MariaDB: %v", err)
		}
		return
	}
	source.must(source.EnableSourceSemiSync(ctx, 2))
	source.must(source.insert(ctx, 1))
	if st := source.status(); st.Acks != 2 {
		t.Fatalf("a commit waits for %d", st.Acks)
	}
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	waiter := make(chan error, 1)
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting", func() bool { return source.status().WaitSessions > 0 })
	executed := source.status().Executed
	nodes[2].eventually("receiving", func() bool { return nodes[2].count() == 2 })
	if st := source.status(); st.WaitSessions == 0 || st.Executed != executed || source.count() != 1 {
		t.Fatalf("one acknowledgement of two released the commit: %+v", st)
	}
	// What a replica has applied and the source still waits with is no errant transaction.
	applied := nodes[2].status().Executed
	if held, err := source.Contains(ctx, applied); err != nil || !held {
		t.Fatalf("the source, which waits with it, says that it never had %s (executed %s): %v", applied, executed, err)
	}
	// Fewer are asked for: what waits is counted anew, at the latest with the next.
	source.must(source.EnableSourceSemiSync(ctx, 1))
	source.must(source.Nudge(ctx))
	source.must(<-waiter)
}

// TestRewindOfDDL: InnoDB's definitions are rolled back with the tail on MySQL.
func TestRewindOfDDL(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "its own recovery refuses a tail with definitions")
		for name, statement := range map[string]string{
			"alter":    "ALTER TABLE app.t ADD COLUMN w INT",
			"ctas":     "CREATE TABLE app.c AS SELECT * FROM app.t",
			"truncate": "TRUNCATE TABLE app.t",
			"drop":     "DROP TABLE app.t",
			"account":  "CREATE USER x",
		} {
			t.Run(name, func(t *testing.T) { testRewindOfDDL(t, k, statement) })
		}
	})
}

func testRewindOfDDL(t *testing.T, k *kind, statement string) {
	old, promoted, base := deadPrimary(t, k, statement)
	tail := old.tail(base)
	if len(tail.Groups) != 1 || tail.Groups[0].Kind != GroupDDL {
		t.Fatalf("tail %+v", tail)
	}
	old.must(tail.Rewindable())
	old.rewind(tail)
	if got := old.status().Executed; got != base {
		t.Fatalf("after the rewind %s, want %s", got, base)
	}
	old.must(old.FinishRewind(testContext(t)))
	old.follow(promoted, false)
	sameRows(t, promoted, old)
	for _, query := range []string{"SHOW CREATE TABLE app.t", "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY TABLE_NAME) AS names FROM information_schema.TABLES WHERE TABLE_SCHEMA='app'",
		"SELECT GROUP_CONCAT(User ORDER BY User) AS names FROM mysql.user"} {
		here, err := row(testContext(t), old.boss, query)
		old.must(err)
		there, err := row(testContext(t), promoted.boss, query)
		promoted.must(err)
		for column, value := range here {
			if value != there[column] {
				t.Errorf("%s: %q and %q", query, value, there[column])
			}
		}
	}
}

// TestStatusBehindAnAccountStatement: while one waits for its acknowledgement,
// MySQL lets nobody in and answers no SHOW VARIABLES. Status answers all the same.
func TestStatusBehindAnAccountStatement(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := newNode(t, k, 1)
		n.start(StartOptions{})
		n.lead(true)
		ctx := testContext(t)
		n.eventually("opening control connections", func() bool { return n.Alive(ctx) == nil && n.db.Stats().OpenConnections >= controlConnections })
		go func() { _, _ = n.boss.ExecContext(ctx, "CREATE USER x") }() // no replica is there
		n.eventually("waiting", func() bool { return n.status().WaitSessions > 0 })
		if st := n.status(); !st.SourceSemiSyncActive || st.WaitPoint != "AFTER_SYNC" || len(st.Problems) > 0 {
			t.Fatalf("%+v", st)
		}
		n.must(n.Alive(ctx))
		if _, err := n.Replicas(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStaleSocketLock: a killed MySQL leaves its process number beside its socket,
// and somebody else may have the number by now.
func TestStaleSocketLock(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no such file")
		n := newNode(t, k, 1)
		lock := n.socket + ".lock"
		n.must(os.WriteFile(lock, []byte("1\n"), 0o600)) // init's, which lives
		out, err := exec.Command(n.command()[0], n.command("--pid-file=" + filepath.Join(n.dir, "pid"))[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Another process with pid 1") {
			t.Fatalf("this server does not mind, so nothing is to be done: %v\n%s", err, out)
		}
		n.start(StartOptions{})
		if text, err := os.ReadFile(lock); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(n.pid()) {
			t.Fatalf("the lock is %q: %v", text, err)
		}
		n.must(clearSocketLock(testContext(t), n.socket))
		if _, err := os.Stat(lock); err != nil {
			t.Fatalf("the lock of a running server was removed: %v", err)
		}
	})
}
