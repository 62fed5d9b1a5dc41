package mysqld

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// deadPrimary gives a killed primary with an unacknowledged transaction, and the
// node promoted instead. One: semi-sync lets later groups of the binary log wait
// behind it.
func deadPrimary(t *testing.T, k *kind, statement string) (old, promoted *node, base string) {
	nodes := cluster(t, k, 2, true)
	old, promoted = nodes[0], nodes[1]
	ctx := testContext(t)
	old.must(old.insert(ctx, 3))
	base, err := promoted.Freeze(ctx, nil)
	promoted.must(err)
	promoted.must(promoted.Drain(ctx, base))
	writers, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, _ = old.boss.ExecContext(writers, statement) }() // nobody acknowledges it
	old.eventually("logging the transaction", func() bool { return old.status().WaitSessions > 0 })
	old.must(old.service.Kill(ctx))
	promoted.must(promoted.StopReplication(ctx))
	promoted.lead(false)
	promoted.must(promoted.insert(ctx, 2))
	return old, promoted, base
}

func (n *node) tail(known string) Tail {
	n.t.Helper()
	index, err := FindBinlogIndex(n.dataDir())
	n.must(err)
	tail, err := ReadTail(n.kind.dialect, index, known)
	n.must(err)
	return tail
}

// binlogReader is the server's own tool that prints binary logs.
func (k *kind) binlogReader(t *testing.T) string {
	t.Helper()
	name := "mariadb-binlog"
	if k.dialect == "mysql" {
		name = "mysqlbinlog"
	}
	path, err := k.program(name)
	if err != nil {
		path, err = exec.LookPath(name) // an unpacked MariaDB comes without it
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (n *node) saved(tail Tail, dir string) string {
	n.t.Helper()
	path, err := tail.Save(dir, slog.New(slog.NewTextHandler(testWriter{n.t}, nil)))
	n.must(err)
	return path
}

// readable demands that the server's own tool finds these words in a saved file.
func (k *kind) readable(t *testing.T, saved string, words ...string) {
	t.Helper()
	text, err := exec.Command(k.binlogReader(t), "--verbose", saved).CombinedOutput()
	for _, word := range words {
		if err != nil || !strings.Contains(string(text), word) {
			t.Fatalf("the saved transactions cannot be read, or lack %s: %v\n%s", word, err, text)
		}
	}
}

// listed demands a line for each transaction in the list beside a saved file.
func listed(t *testing.T, saved string, groups []Group) {
	t.Helper()
	raw, err := os.ReadFile(saved + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(raw), "\n")
	for _, g := range groups {
		if !slices.ContainsFunc(lines, func(line string) bool {
			words := strings.Fields(line)
			return len(words) > 3 && words[0] == g.GTID && words[1] == string(g.Kind) && words[2] == strconv.FormatInt(g.End-g.Offset, 10)
		}) {
			t.Errorf("%s is not listed:\n%s", g.GTID, raw)
		}
	}
}

// rewind starts the server so that the tail is gone, as each server wants it.
func (n *node) rewind(tail Tail) {
	n.t.Helper()
	err := tail.Cut()
	switch {
	case n.kind.dialect == "mysql":
		n.must(err)
	case !errors.Is(err, ErrNotRewindable):
		n.t.Fatalf("cutting MariaDB's binary log by hand: %v", err)
	}
	n.start(StartOptions{Rewind: true})
}

func TestRewind(t *testing.T) { eachServer(t, testRewind) }

func testRewind(t *testing.T, k *kind) {
	old, promoted, base := deadPrimary(t, k, "INSERT INTO app.t (v) VALUES ('lost'), ('lost too')")
	ctx := testContext(t)
	tail := old.tail(base)
	if len(tail.Groups) != 1 || tail.Groups[0].Kind != GroupRows || !tail.InLastFile {
		t.Fatalf("tail %+v", tail)
	}
	old.must(tail.Rewindable())
	dir := filepath.Join(old.dir, "kept")
	saved := old.saved(tail, dir)
	if again := old.saved(tail, dir); again != saved { // a rewind that is tried again
		t.Fatalf("saved again as %s, before as %s", again, saved)
	}
	k.readable(t, saved, "'lost too'")
	listed(t, saved, tail.Groups)

	old.rewind(tail)
	if got := old.status().Executed; got != base {
		t.Fatalf("after the rewind %s, want %s", got, base)
	}
	old.must(old.FinishRewind(ctx))
	old.follow(promoted, false)
	sameRows(t, promoted, old)
	if !old.tail(promoted.status().Executed).Empty() {
		t.Fatal("something foreign is left")
	}
}

// TestPlainStartRuinsATail is the control: started as it is, the node commits
// what nobody acknowledged.
func TestPlainStartRuinsATail(t *testing.T) { eachServer(t, testPlainStartRuinsATail) }

func testPlainStartRuinsATail(t *testing.T, k *kind) {
	old, promoted, base := deadPrimary(t, k, "INSERT INTO app.t (v) VALUES ('lost')")
	old.start(StartOptions{})
	if st := old.status(); st.Executed == base || old.count() != 4 {
		t.Fatalf("the tail was rolled back by a plain start: %s, %d rows", st.Executed, old.count())
	}
	_, err := old.Follow(testContext(t), promoted.source())
	old.must(err)
	if k.dialect == "mysql" { // it follows as if nothing were wrong; only the sets tell
		old.eventually("following", func() bool { return old.status().IORunning == ThreadYes })
		if holds, err := promoted.Contains(testContext(t), old.status().Executed); err != nil || holds {
			t.Fatalf("the tail does not show in gtid_executed: %v", err)
		}
		return
	}
	old.eventually("being refused", func() bool { return old.status().IOErrno != 0 })
	if old.status().IOErrno != 1236 {
		t.Fatalf("refused with %d", old.status().IOErrno)
	}
}

func TestTailsThatMustNotBeRewound(t *testing.T) { eachServer(t, testTailsThatMustNotBeRewound) }

func testTailsThatMustNotBeRewound(t *testing.T, k *kind) {
	for name, c := range map[string]struct {
		statement string
		kind      GroupKind
	}{
		"ddl":    {"ALTER TABLE app.t ADD COLUMN w INT", GroupDDL},
		"ctas":   {"CREATE TABLE app.c AS SELECT * FROM app.t", GroupDDL},
		"myisam": {"INSERT INTO app.old VALUES (1)", GroupOther},
		"grant":  {"CREATE USER x", GroupDDL},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, k, 1)
			n.start(StartOptions{})
			n.lead(false)
			n.must(n.insert(testContext(t), 2))
			base := n.status().Executed
			n.sql(c.statement)
			n.must(n.insert(testContext(t), 1))
			n.must(n.service.Kill(testContext(t)))
			tail := n.tail(base)
			if len(tail.Groups) != 2 || tail.Groups[0].Kind != c.kind || tail.Groups[1].Kind != GroupRows {
				t.Fatalf("tail %+v", tail.Groups)
			}
			// MySQL rolls InnoDB's DDL back.
			rewindable := k.dialect == "mysql" && c.kind == GroupDDL
			if err := tail.Rewindable(); errors.Is(err, ErrNotRewindable) == rewindable || (err == nil) != rewindable {
				t.Fatalf("rewindable: %v", err)
			}
		})
	}
}

// TestTailOfAStoppedServerIsKept: it is committed, and on MySQL clients have heard success for it.
func TestTailOfAStoppedServerIsKept(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := newNode(t, k, 1)
		for _, stopped := range []bool{true, false} {
			ctx := testContext(t)
			n.start(StartOptions{})
			n.lead(false)
			n.must(n.insert(ctx, 1))
			base := n.status().Executed
			n.must(n.insert(ctx, 1))
			if stopped {
				n.must(n.service.Stop(ctx))
			} else {
				n.must(n.service.Kill(ctx))
			}
			if tail := n.tail(base); tail.Empty() || tail.Stopped != stopped || (tail.Rewindable() != nil) != stopped {
				t.Errorf("stopped in good order %t: %+v, %v", stopped, tail, tail.Rewindable())
			}
		}
	})
}

func TestTailKinds(t *testing.T) { eachServer(t, testTailKinds) }

func testTailKinds(t *testing.T, k *kind) {
	var compression []string
	if k.dialect == "mariadb" {
		compression = []string{"--log-bin-compress=ON", "--log-bin-compress-min-len=10"}
	}
	n := newNode(t, k, 1, compression...)
	n.start(StartOptions{})
	n.lead(false)
	base := n.status().Executed
	n.sql("INSERT INTO app.t (v) VALUES (REPEAT('x', 80000))", "FLUSH BINARY LOGS")
	middle := n.status().Executed
	conn, err := n.boss.Conn(testContext(t))
	n.must(err)
	defer conn.Close()
	for _, s := range []string{"XA START 'a'", "INSERT INTO app.t (v) VALUES ('x')", "XA END 'a'", "XA PREPARE 'a'", "XA COMMIT 'a'",
		"BEGIN", "INSERT INTO app.t (v) VALUES ('y')", "SAVEPOINT s", "UPDATE app.t SET v='z'", "ROLLBACK TO s", "COMMIT"} {
		_, err := conn.ExecContext(testContext(t), s)
		n.must(err)
	}
	all := n.status().Executed
	n.must(n.service.Kill(testContext(t)))
	tail := n.tail(base)
	var kinds []GroupKind
	for _, g := range tail.Groups {
		kinds = append(kinds, g.Kind)
		if !g.Complete {
			t.Errorf("%s is not complete", g.GTID)
		}
	}
	if len(kinds) != 4 || kinds[0] != GroupRows || kinds[1] != GroupXA || kinds[2] != GroupXA || kinds[3] != GroupRows {
		t.Fatalf("kinds %q", kinds)
	}
	if tail.InLastFile {
		t.Fatal("the tail reaches over two files")
	}
	if tail = n.tail(middle); !tail.InLastFile || len(tail.Groups) != 3 {
		t.Fatalf("tail %+v", tail)
	}
	if !n.tail(all).Empty() {
		t.Fatal("a tail beyond the last transaction")
	}
}
