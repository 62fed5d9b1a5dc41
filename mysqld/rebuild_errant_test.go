package mysqld

import (
	"path/filepath"
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
func TestErrantTransactionsAreListed(t *testing.T) { eachServer(t, testErrantTransactionsAreListed) }

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
	letIn := "SET GLOBAL gtid_strict_mode=0" // a sequence number of its own would be refused
	if k.dialect == "mysql" {
		letIn = "SET GLOBAL super_read_only=OFF"
	}
	replica.sql(letIn, "INSERT INTO app.t (id, v) VALUES (1000, 'here only')", "FLUSH BINARY LOGS", "CREATE TABLE app.own (id INT)")
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
	k.readable(t, path, "'here only'", "CREATE TABLE app.own")
	listed(t, path, e.Groups)
}
