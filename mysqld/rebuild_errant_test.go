package mysqld

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func (n *node) errant(known string) Errant {
	n.t.Helper()
	index, err := FindBinlogIndex(n.dataDir())
	n.must(err)
	e, err := FindErrant(n.kind.dialect, index, known)
	n.must(err)
	return e
}

// TestErrantTransactionsAreListed: written on a replica, between others of the
// primary's and over two files, while the server runs.
func TestErrantTransactionsAreListed(t *testing.T) { onMariaDB(t, testErrantTransactionsAreListed) }

func testErrantTransactionsAreListed(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, false)
	primary, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	primary.must(primary.insert(ctx, 3))
	sameRows(t, primary, replica)
	history, err := primary.History(ctx)
	primary.must(err)
	if e := replica.errant(history); len(e.Groups) != 0 {
		t.Fatalf("a good replica is errant: %v", e.GTIDs())
	}
	replica.sql("SET GLOBAL gtid_strict_mode=0", "INSERT INTO app.t (id, v) VALUES (1000, 'here only')", "FLUSH BINARY LOGS", "CREATE TABLE app.own (id INT)")
	primary.must(primary.insert(ctx, 3))
	replica.eventually("applying on", func() bool { return replica.count() == 7 })
	replica.sql("INSERT INTO app.own VALUES (1)")
	if history, err = primary.History(ctx); err != nil {
		t.Fatal(err)
	}
	e := replica.errant(history)
	if len(e.Groups) != 3 || e.Groups[0].Kind != GroupRows || e.Groups[1].Kind != GroupDDL {
		t.Fatalf("errant are %v", e.GTIDs())
	}
	dir := filepath.Join(replica.dir, "kept")
	path, err := e.Save(dir)
	replica.must(err)
	again, err := e.Save(dir)
	if err != nil || again != path {
		t.Fatalf("saved again as %s: %v", again, err)
	}
	text, err := exec.Command("mariadb-binlog", "--verbose", path).CombinedOutput()
	if err != nil || !strings.Contains(string(text), "'here only'") || !strings.Contains(string(text), "CREATE TABLE app.own") {
		t.Fatalf("the saved transactions cannot be read: %v\n%s", err, text)
	}
	list, err := os.ReadFile(path + ".txt")
	if err != nil || !strings.Contains(string(list), e.Groups[2].GTID) {
		t.Fatalf("the list: %v\n%s", err, list)
	}
}
