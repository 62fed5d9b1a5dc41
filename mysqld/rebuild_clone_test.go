package mysqld

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cloneFrom is a copy of a MySQL donor: nothing comes through the stream.
func cloneFrom(donor *node) Incoming {
	return Incoming{ID: "1", Stream: strings.NewReader(""), Host: "127.0.0.1", Port: donor.port}
}

// TestRebuildByClone: a replica with transactions of its own clones another
// replica, and follows the primary.
func TestRebuildByClone(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no CLONE")
		primary, donor, errant := errantReplica(t, k)
		ctx := testContext(t)
		before := errant.status().ServerUUID
		errant.must(errant.SetReadOnly(ctx))
		errant.must(errant.rebuild().Receive(ctx, cloneFrom(donor)))
		if errant.stage() != RebuildPrepared || errant.count() != 51 {
			t.Fatalf("stage %q, %d rows", errant.stage(), errant.count())
		}
		told := 0
		errant.must(errant.rebuild().Place(ctx, func() {
			told++
			if st := errant.status(); st.IORunning != ThreadNo || st.ReplicaSemiSyncEnabled || st.ReplicaSemiSyncActive {
				t.Errorf("said to be silent: %+v", st)
			}
		}))
		if told == 0 {
			t.Error("nobody was told that it acknowledges nothing any more")
		}
		// As after a crash of this program before it could note the end: the clone
		// that was made is found, and no second one begun.
		r := errant.rebuild()
		m, err := r.mark()
		errant.must(err)
		m.Stage = RebuildPlacing
		errant.must(r.setMark(m))
		primary.must(primary.insert(ctx, 5))
		errant.must(r.Place(ctx, nil))
		errant.must(errant.rebuild().Adopt(ctx))
		if n := errant.count(); n != 50 {
			t.Fatalf("%d rows: another clone was made", n)
		}
		if st := errant.status(); st.HasReplication || st.ServerUUID != before {
			t.Fatalf("after the clone: %+v", st)
		}
		errant.follow(primary, false)
		sameRows(t, primary, errant)
		errant.must(errant.rebuild().Finish())
	})
}

// TestCloneIntoAnEmptyHost: it is given a new server's data first, whatever failed starts have left there, and however often that is cut off.
func TestCloneIntoAnEmptyHost(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no CLONE")
		primary := cluster(t, k, 1, false)[0]
		primary.must(primary.insert(testContext(t), 10))
		for id, crashes := range []bool{false, true} {
			cloneIntoAnEmptyHost(t, primary, newNode(t, k, id+2), crashes)
		}
	})
}

func cloneIntoAnEmptyHost(t *testing.T, primary, empty *node, crashes bool) {
	ctx := testContext(t)
	empty.must(os.RemoveAll(empty.dataDir()))
	empty.must(os.Mkdir(empty.dataDir(), 0o700))
	for _, name := range []string{"binlog.index", "ib_logfile0", "server-key.pem"} {
		empty.must(os.WriteFile(filepath.Join(empty.dataDir(), name), []byte("left"), 0o600))
	}
	empty.must(empty.rebuild().Receive(ctx, cloneFrom(primary)))
	r := empty.rebuild()
	if crashes { // at each of its moves
		m, err := r.mark()
		empty.must(err)
		empty.must(r.initialize(ctx))
		empty.must(os.Mkdir(r.outgoing(), 0o700))
		empty.must(os.Rename(filepath.Join(empty.dataDir(), "binlog.index"), filepath.Join(r.outgoing(), "binlog.index")))
		m.Stage = RebuildEntering
		empty.must(r.setMark(m))
		if err := r.Abandon(); !errors.Is(err, ErrStage) {
			t.Errorf("abandoned in the middle of moving: %v", err)
		}
		empty.must(os.Rename(filepath.Join(empty.dataDir(), "ib_logfile0"), filepath.Join(r.outgoing(), "ib_logfile0")))
		m.Cleared = true
		empty.must(r.setMark(m))
		empty.must(os.Rename(filepath.Join(r.incoming(), "undo_001"), filepath.Join(empty.dataDir(), "undo_001")))
	}
	empty.must(empty.rebuild().Place(ctx, nil))
	empty.must(empty.rebuild().Place(ctx, nil)) // once more changes nothing
	empty.must(empty.rebuild().Adopt(ctx))
	empty.follow(primary, false)
	sameRows(t, primary, empty)
	if left, err := os.ReadFile(filepath.Join(empty.dataDir(), "server-key.pem")); err != nil || string(left) != "left" {
		t.Errorf("the host's own file: %q, %v", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(r.work, "accounts*")); err != nil || len(left) != 0 {
		t.Errorf("the manager's password is left in %v, %v", left, err)
	}
	empty.must(empty.rebuild().Finish())
}

func TestRateOfAClone(t *testing.T) {
	t.Parallel()
	for rate, want := range map[int64]int64{0: 0, -1: 0, 1: 1, 1<<20 - 1: 1, 1 << 20: 1, 5<<20 + 1: 5} {
		if got := mibPerSecond(rate); got != want {
			t.Errorf("%d bytes per second are %d MiB, want %d", rate, got, want)
		}
	}
}

// TestCloneThatIsRefused leaves the data as it is, and says why.
func TestCloneThatIsRefused(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no CLONE")
		primary, donor, errant := errantReplica(t, k)
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		donor.must(donor.service.Kill(ctx))
		errant.must(errant.rebuild().Receive(ctx, cloneFrom(donor)))
		if err := errant.rebuild().Place(ctx, nil); !errors.Is(err, ErrBackup) {
			t.Fatalf("cloned from nobody: %v", err)
		}
		if errant.count() != 51 {
			t.Fatalf("%d rows", errant.count())
		}
		// Another donor is named.
		errant.must(errant.rebuild().Redirect("127.0.0.1", primary.port))
		errant.must(errant.rebuild().Place(ctx, nil))
		errant.must(errant.rebuild().Adopt(ctx))
		if errant.count() != 50 {
			t.Fatalf("%d rows after a copy of the primary", errant.count())
		}
	})
}

// half gives a primary and a replica with transactions of its own, whose clone of another replica was cut off in the middle by end, and what that said.
func half(t *testing.T, k *kind, end func(*testing.T, *node, context.CancelFunc)) (primary, victim *node, err error) {
	t.Helper()
	primary, donor, victim := errantReplica(t, k)
	ctx := testContext(t)
	in := cloneFrom(donor)
	in.Rate = 100<<20 + 1
	way := newValve(t, donor, 4<<20) // no limit of the rate holds up the first tenth of a second, in which a fast machine may be through
	in.Port = way.port()
	victim.must(victim.rebuild().Receive(ctx, in))
	placing, cut := context.WithCancel(ctx)
	defer cut()
	placed := make(chan error, 1)
	go func() { placed <- victim.rebuild().Place(placing, nil) }()
	select {
	case <-way.shut:
	case err := <-placed:
		t.Fatalf("it did not get so far: %v", err)
	}
	if _, _, ok := victim.CloneProgress(ctx); !ok {
		t.Fatal("no clone is under way")
	}
	if limit, err := row(ctx, victim.boss, "SELECT @@GLOBAL.clone_max_data_bandwidth AS mib"); err != nil || limit["mib"] != "100" {
		t.Errorf("it clones with a limit of %q MiB per second, and was told 100: %v", limit["mib"], err)
	}
	end(t, victim, cut)
	return primary, victim, <-placed
}

// TestCloneCutOffIsMadeAnew: whatever it has left, the next rebuild makes it whole, and until then nobody takes it for a copy.
func TestCloneCutOffIsMadeAnew(t *testing.T) {
	kill := func(t *testing.T, n *node, _ context.CancelFunc) { n.must(n.service.Kill(testContext(t))) }
	for name, c := range map[string]struct {
		end   func(t *testing.T, victim *node, cut context.CancelFunc)
		spoil func(t *testing.T, victim *node) // after that
	}{
		"it fails": {func(t *testing.T, victim *node, _ context.CancelFunc) {
			st, err := row(testContext(t), victim.boss, "SELECT PID AS pid FROM performance_schema.clone_status")
			victim.must(err)
			victim.sql("KILL QUERY " + st["pid"])
		}, func(*testing.T, *node) {}},
		"it is killed": {kill, func(*testing.T, *node) {}},
		"it does not start any more": {kill, func(t *testing.T, victim *node) {
			kill(t, victim, nil)
			victim.must(os.Truncate(filepath.Join(victim.dataDir(), "ibdata1"), 1<<20))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachServer(t, func(t *testing.T, k *kind) {
				k.only(t, "mysql", "it has no CLONE")
				primary, victim, err := half(t, k, c.end)
				if !errors.Is(err, ErrBackup) || victim.stage() != RebuildPlacing {
					t.Fatalf("a clone that was cut off: %v, stage %q", err, victim.stage())
				}
				t.Log(err)
				ctx := testContext(t)
				c.spoil(t, victim)
				next := cloneFrom(primary)
				next.ID = "2"
				victim.must(victim.rebuild().Receive(ctx, next))
				victim.must(victim.rebuild().Place(ctx, nil))
				victim.must(victim.rebuild().Adopt(ctx))
				victim.follow(primary, false)
				primary.must(primary.insert(ctx, 5))
				sameRows(t, primary, victim)
				victim.must(victim.rebuild().Finish())
			})
		})
	}
}

// TestCloneOfAReplacedDonorIsEnded: once another donor is named nobody waits for the one before.
func TestCloneOfAReplacedDonorIsEnded(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no CLONE")
		primary, errant, err := half(t, k, func(_ *testing.T, _ *node, cut context.CancelFunc) { cut() })
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cut off: %v", err)
		}
		ctx, r := testContext(t), errant.rebuild()
		errant.must(r.Redirect("127.0.0.1", primary.port))
		errant.must(r.Place(ctx, nil))
		st, err := row(ctx, errant.db, "SELECT SOURCE AS donor FROM performance_schema.clone_status")
		if errant.must(err); st["donor"] != (rebuildMark{Host: "127.0.0.1", Port: primary.port}).donor() {
			t.Errorf("it is a copy of %s", st["donor"])
		}
		errant.must(r.Adopt(ctx))
		if n := errant.count(); n != 50 {
			t.Errorf("%d rows", n)
		}
	})
}
