package mysqld

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// onMariaDB runs a test on the installed MariaDB: the backup tool must be of the
// server's version, and MySQL needs none.
func onMariaDB(t *testing.T, test func(*testing.T, *kind)) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mariadb", "it copies by CLONE")
		if k.unpacked {
			t.Skipf("skipping on %s: there is no backup tool of its version", k.name)
		}
		needBackupTool(t)
		test(t, k)
	})
}

// needBackupTool skips where mariadb-backup is not installed.
func needBackupTool(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"mariadb-backup", "mbstream"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipping, %s is not installed (scripts/deps.sh)", tool)
		}
	}
}

// rebuild opens the node's rebuild.
func (n *node) rebuild() *Rebuild {
	n.t.Helper()
	r, err := OpenRebuild(RebuildConfig{Server: n.Server, Service: n.service, DataDir: n.dataDir()})
	n.must(err)
	return r
}

// stage is what the node's rebuild says after a crash of this program: it is read
// anew from disk.
func (n *node) stage() RebuildStage {
	n.t.Helper()
	_, stage, err := n.rebuild().Stage()
	n.must(err)
	return stage
}

// donate begins a backup of n.
func (n *node) donate() *Donation {
	n.t.Helper()
	d, err := n.Donate(testContext(n.t), n.t.TempDir(), nil)
	n.must(err)
	n.t.Cleanup(func() { n.must(d.Close()) })
	return d
}

// receive copies donor to n, up to RebuildPrepared.
func (n *node) receive(donor *node) {
	n.t.Helper()
	d := donor.donate()
	n.must(n.rebuild().Receive(testContext(n.t), Incoming{ID: "1", Size: d.Size, Stream: d, StateAt: donor.StateAt}))
}

// errantReplica gives a primary, a replica that follows, and one that holds
// transactions of its own.
func errantReplica(t *testing.T, k *kind) (primary, donor, errant *node) {
	nodes := cluster(t, k, 3, false)
	primary, donor, errant = nodes[0], nodes[1], nodes[2]
	primary.must(primary.insert(testContext(t), 50))
	sameRows(t, primary, donor)
	sameRows(t, primary, errant)
	if k.dialect == "mysql" {
		errant.sql("SET GLOBAL super_read_only=0", "SET GLOBAL read_only=1")
	}
	errant.sql("INSERT INTO app.t (v) VALUES ('errant')")
	return primary, donor, errant
}

func TestRebuild(t *testing.T) { onMariaDB(t, testRebuild) }

func testRebuild(t *testing.T, k *kind) {
	primary, donor, errant := errantReplica(t, k)
	ctx := testContext(t)
	writing, stop := context.WithCancel(ctx)
	written := make(chan error, 1)
	go func() {
		for writing.Err() == nil {
			if err := primary.insert(ctx, 1); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	errant.receive(donor)
	if errant.count() == 0 || errant.stage() != RebuildPrepared {
		t.Fatal("the old server does not go on while a copy arrives")
	}
	errant.must(errant.rebuild().Place(ctx, nil))
	errant.must(errant.rebuild().Adopt(ctx))
	state, err := errant.History(ctx)
	errant.must(err)
	errant.follow(primary, false)
	stop()
	primary.must(<-written)
	sameRows(t, primary, errant)
	if strings.Contains(state, "0-3-") {
		t.Fatalf("the history %q still knows the node's own transaction", state)
	}
	errant.must(errant.rebuild().Finish())
	if left, err := filepath.Glob(errant.dataDir() + workName + "*"); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %q %v", left, err)
	}
	if errant.stage() != RebuildNone {
		t.Fatalf("stage %q after the end", errant.stage())
	}
}

// TestRebuiltHistoryIsTheDonors: a copy must be able to tell a branch from its
// own past, so it knows every writer the donor knew.
func TestRebuiltHistoryIsTheDonors(t *testing.T) { onMariaDB(t, testRebuiltHistoryIsTheDonors) }

func testRebuiltHistoryIsTheDonors(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, false)
	first, second := nodes[0], nodes[1]
	ctx := testContext(t)
	first.must(first.insert(ctx, 10))
	sameRows(t, first, second)
	// The second takes over: two writers in one domain.
	second.must(second.StopReplication(ctx))
	second.lead(false)
	second.sql("INSERT INTO app.t (v) VALUES ('by the second')", "FLUSH BINARY LOGS", "INSERT INTO app.t (v) VALUES ('again')")
	first.sql("DROP TABLE app.t")
	first.receive(second)
	first.must(first.rebuild().Place(ctx, nil))
	first.must(first.rebuild().Adopt(ctx))
	var have, want string
	first.must(first.boss.QueryRowContext(ctx, "SELECT @@gtid_binlog_state").Scan(&have))
	second.must(second.boss.QueryRowContext(ctx, "SELECT @@gtid_binlog_state").Scan(&want))
	if have != want || !strings.Contains(have, "0-1-") {
		t.Fatalf("history %q, the donor's is %q", have, want)
	}
	first.follow(second, false)
	second.must(second.insert(ctx, 5))
	sameRows(t, second, first)
}

// TestRebuildOfAnEmptyHost: a new host has no data at all.
func TestRebuildOfAnEmptyHost(t *testing.T) { onMariaDB(t, testRebuildOfAnEmptyHost) }

func testRebuildOfAnEmptyHost(t *testing.T, k *kind) {
	nodes := cluster(t, k, 1, false)
	primary, empty := nodes[0], newNode(t, k, 2)
	ctx := testContext(t)
	primary.must(primary.insert(ctx, 10))
	if err := os.RemoveAll(empty.dataDir()); err != nil {
		t.Fatal(err)
	}
	if has, err := HasData(empty.dataDir()); err != nil || has {
		t.Fatalf("an empty host has data: %v", err)
	}
	empty.receive(primary)
	empty.must(empty.rebuild().Place(ctx, nil))
	empty.must(empty.rebuild().Adopt(ctx))
	empty.follow(primary, false)
	sameRows(t, primary, empty)
	empty.must(empty.rebuild().Finish())
}

// TestRebuildSurvivesACrashAtEachMove: Place is cut off after every number of
// moves, as by a crash, and goes on from what is on disk.
func TestRebuildSurvivesACrashAtEachMove(t *testing.T) {
	onMariaDB(t, testRebuildSurvivesACrashAtEachMove)
}

func testRebuildSurvivesACrashAtEachMove(t *testing.T, k *kind) {
	primary, donor, errant := errantReplica(t, k)
	ctx := testContext(t)
	errant.receive(donor)
	errant.must(errant.service.Kill(ctx))
	for _, cut := range []struct {
		stage RebuildStage
		from  func(*Rebuild) (from, to string)
		next  RebuildStage
	}{
		{RebuildPlacing, func(r *Rebuild) (string, string) { return r.cfg.DataDir, r.outgoing() }, RebuildEntering},
		{RebuildEntering, func(r *Rebuild) (string, string) { return r.incoming(), r.cfg.DataDir }, RebuildPlaced},
	} {
		r := errant.rebuild()
		m, err := r.mark()
		errant.must(err)
		m.Stage = cut.stage
		errant.must(r.setMark(m))
		from, to := cut.from(r)
		errant.must(os.MkdirAll(to, 0o700))
		errant.must(os.Rename(filepath.Join(from, "ibdata1"), filepath.Join(to, "ibdata1")))
		if err := r.Abandon(); !errors.Is(err, ErrStage) {
			t.Fatalf("abandoned at %s: %v", cut.stage, err)
		}
		if err := r.Receive(ctx, Incoming{ID: "2"}); !errors.Is(err, ErrStage) {
			t.Fatalf("another copy at %s: %v", cut.stage, err)
		}
		if err := r.Adopt(ctx); !errors.Is(err, ErrStage) {
			t.Fatalf("started at %s: %v", cut.stage, err)
		}
	}
	errant.must(errant.rebuild().Place(ctx, nil))
	errant.must(errant.rebuild().Place(ctx, nil)) // once more changes nothing
	errant.must(errant.rebuild().Adopt(ctx))
	errant.must(errant.rebuild().Adopt(ctx))
	errant.follow(primary, false)
	sameRows(t, primary, errant)
}

// cutStream ends in the middle, as a donor that died.
type cutStream struct {
	io.Reader
	err error
}

func (c *cutStream) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		return n, c.err
	}
	return n, err
}

func TestRebuildRefusesHalfACopy(t *testing.T) { onMariaDB(t, testRebuildRefusesHalfACopy) }

func testRebuildRefusesHalfACopy(t *testing.T, k *kind) {
	primary, donor, errant := errantReplica(t, k)
	ctx := testContext(t)
	d := donor.donate()
	gone := errors.New("the donor is gone")
	half := &cutStream{Reader: io.LimitReader(d, 4<<20), err: gone}
	if err := errant.rebuild().Receive(ctx, Incoming{ID: "1", Stream: half, StateAt: donor.StateAt}); !errors.Is(err, gone) {
		t.Fatalf("half a copy: %v", err)
	}
	if err := errant.rebuild().Place(ctx, nil); !errors.Is(err, ErrStage) {
		t.Fatalf("half a copy was placed: %v", err)
	}
	donor.must(d.Close()) // a second backup waits for the first
	// The control: half a copy whose end looks like one is refused by its content.
	short := io.LimitReader(donor.donate(), 4<<20)
	if err := errant.rebuild().Receive(ctx, Incoming{ID: "1", Stream: short, StateAt: donor.StateAt}); !errors.Is(err, ErrBackup) {
		t.Fatalf("a short copy: %v", err)
	}
	if errant.count() == 0 {
		t.Fatal("the old data is not in use any more")
	}
	errant.must(errant.rebuild().Abandon())
	if errant.stage() != RebuildNone {
		t.Fatalf("stage %q", errant.stage())
	}
	if primary.count() == 0 {
		t.Fatal("the primary lost rows")
	}
}

func TestRebuildNeedsSpace(t *testing.T) { onMariaDB(t, testRebuildNeedsSpace) }

func testRebuildNeedsSpace(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	err := n.rebuild().Receive(testContext(t), Incoming{ID: "1", Size: 1 << 60, Stream: strings.NewReader("")})
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "MiB are free") {
		t.Fatalf("a copy larger than the disk: %v", err)
	}
}

func TestDonateRefusesABrokenBackup(t *testing.T) { onMariaDB(t, testDonateRefusesABrokenBackup) }

func testDonateRefusesABrokenBackup(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	n.start(StartOptions{})
	d := n.donate()
	n.must(n.service.Kill(testContext(t)))
	if _, err := io.Copy(io.Discard, d); !errors.Is(err, ErrBackup) {
		t.Fatalf("the backup of a server that died: %v", err)
	}
}
