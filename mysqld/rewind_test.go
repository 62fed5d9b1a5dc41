package mysqld

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deadPrimary gives a killed primary with unacknowledged transactions, made by
// statements, and the node promoted instead.
func deadPrimary(t *testing.T, statements ...string) (old, promoted *node, base string) {
	nodes := cluster(t, 2, true)
	old, promoted = nodes[0], nodes[1]
	ctx := testContext(t)
	old.must(old.insert(ctx, 3))
	base, err := promoted.Freeze(ctx, nil)
	promoted.must(err)
	promoted.must(promoted.Drain(ctx, base))
	writers, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, s := range statements {
		before := old.status().Executed
		go func() { _, _ = old.boss.ExecContext(writers, s) }() // nobody acknowledges it
		old.eventually("logging transaction "+string(rune('1'+i)), func() bool { return old.status().Executed != before })
	}
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
	tail, err := ReadTail("mariadb", index, known)
	n.must(err)
	return tail
}

func TestRewind(t *testing.T) {
	t.Parallel()
	// One: semi-sync lets later groups of the binary log wait behind it.
	old, promoted, base := deadPrimary(t, "INSERT INTO app.t (v) VALUES ('lost'), ('lost too')")
	ctx := testContext(t)
	tail := old.tail(base)
	if len(tail.Groups) != 1 || tail.Groups[0].Kind != GroupRows || !tail.InLastFile {
		t.Fatalf("tail %+v", tail)
	}
	old.must(tail.Rewindable())
	if err := tail.Cut(); !errors.Is(err, ErrNotRewindable) {
		t.Fatalf("cutting MariaDB's binary log by hand: %v", err)
	}
	saved := filepath.Join(old.dir, "tail")
	old.must(tail.Save(saved))
	if err := tail.Save(saved); !errors.Is(err, os.ErrExist) {
		t.Fatalf("saving over a saved tail: %v", err)
	}
	text, err := exec.Command("mariadb-binlog", "--verbose", saved).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "'lost too'") {
		t.Fatalf("the saved tail cannot be read: %v\n%s", err, text)
	}

	old.start(StartOptions{Rewind: true})
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
func TestPlainStartRuinsATail(t *testing.T) {
	t.Parallel()
	old, promoted, base := deadPrimary(t, "INSERT INTO app.t (v) VALUES ('lost')")
	old.start(StartOptions{})
	if st := old.status(); st.Executed == base || old.count() != 4 {
		t.Fatalf("the tail was rolled back by a plain start: %s, %d rows", st.Executed, old.count())
	}
	_, err := old.Follow(testContext(t), promoted.source())
	old.must(err)
	old.eventually("being refused", func() bool { return old.status().IOErrno != 0 })
	if old.status().IOErrno != 1236 {
		t.Fatalf("refused with %d", old.status().IOErrno)
	}
}

func TestTailsThatMustNotBeRewound(t *testing.T) {
	t.Parallel()
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
			n := newNode(t, 1)
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
			if err := tail.Rewindable(); !errors.Is(err, ErrNotRewindable) {
				t.Fatalf("rewindable: %v", err)
			}
		})
	}
}

func TestTailKinds(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, "--log-bin-compress=ON", "--log-bin-compress-min-len=10")
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
	if n.tail(tail.Groups[2].GTID).Empty() != true {
		t.Fatal("a tail beyond the last transaction")
	}
}
