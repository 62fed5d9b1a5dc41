package probe

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/internal/porttest"
)

func TestKillIsSeenAtOnce(t *testing.T) { eachServer(t, testKillIsSeenAtOnce) }

func testKillIsSeenAtOnce(t *testing.T, dialect string) {
	h := newHost(t, dialect, "", func(c *Config) { c.Interval = time.Hour }) // no look will find it: only the watches can
	before := h.prober.Server()
	if before.Started == "" || before.Executed != h.prober.Look(context.Background()).Executed {
		t.Fatalf("before: %+v", before)
	}
	killed := time.Now()
	h.kill(t)
	st := h.awaitFault(t, fsm.ServerDown, FaultNoProcess)
	t.Logf("seen %v after the kill was asked for (Kill itself waits for the end)", time.Since(killed))
	if st.Started != "" || st.Version != before.Version || h.prober.Generation() != "" {
		t.Errorf("of a dead server: %+v", st)
	}
	h.start(t)
	st = h.prober.Look(context.Background())
	if st.State != fsm.ServerUp || st.Started == before.Started || st.Started == "" {
		t.Errorf("after the restart: %+v, before %+v", st, before)
	}
}

// TestStopInGoodOrderIsToldApart: of a server that was stopped clients may have heard what no replica has; of one that was killed they have not.
func TestStopInGoodOrderIsToldApart(t *testing.T) { eachServer(t, testStopInGoodOrderIsToldApart) }

func testStopInGoodOrderIsToldApart(t *testing.T, dialect string) {
	h := newHost(t, dialect, "", nil)
	for _, stopped := range []bool{false, true, false} {
		if st := h.prober.Look(context.Background()); st.State != fsm.ServerUp || st.Stopped {
			t.Fatalf("before: %+v", st)
		}
		if stopped {
			h.stop(t)
		} else {
			h.kill(t)
		}
		if st := h.awaitFault(t, fsm.ServerDown, FaultNoProcess); st.Stopped != stopped {
			t.Errorf("stopped in good order %t, it says %+v", stopped, st)
		}
		// What a failed start leaves behind is no news of the run before it.
		if err := os.Remove(h.socket); err != nil && !stopped {
			t.Fatal(err)
		}
		if st := h.prober.Look(context.Background()); st.Stopped != stopped {
			t.Errorf("without a socket: stopped in good order %t, it says %+v", stopped, st)
		}
		h.start(t)
	}
}

// TestWithoutWatchesTheKillIsNotSeenAtOnce is the control of TestKillIsSeenAtOnce: nothing else sees it.
func TestWithoutWatchesTheKillIsNotSeenAtOnce(t *testing.T) {
	eachServer(t, testWithoutWatchesTheKillIsNotSeenAtOnce)
}

func testWithoutWatchesTheKillIsNotSeenAtOnce(t *testing.T, dialect string) {
	h := newHost(t, dialect, "", func(c *Config) {
		c.Interval, c.Process = time.Hour, nil
		c.Database = blind{c.Database}
	})
	h.kill(t)
	if st := h.prober.Server(); st.State != fsm.ServerUp {
		t.Fatalf("without watches it is %+v", st)
	}
	if st := h.prober.Look(context.Background()); st.State != fsm.ServerDown || st.Fault != FaultNoProcess {
		t.Fatalf("a look finds %+v", st)
	}
}

// blind is a database whose connections' end nobody watches.
type blind struct{ Database }

func (blind) Watch(ctx context.Context, _ func()) { <-ctx.Done() }

func TestFrozenServerIsHung(t *testing.T) { eachServer(t, testFrozenServerIsHung) }

func testFrozenServerIsHung(t *testing.T, dialect string) {
	h := newHost(t, dialect, "", nil)
	before := h.prober.Server()
	if err := syscall.Kill(h.pid(t), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	h.awaitFault(t, fsm.ServerUp, FaultFrozen) // first only a reason, not a judgement
	st := h.awaitFault(t, fsm.ServerHung, FaultFrozen)
	if took := time.Since(stopped); took < 600*time.Millisecond {
		t.Errorf("hung after %v, before its time", took)
	}
	if st.Started != before.Started || st.Executed != before.Executed {
		t.Errorf("a hung server is still the same: %+v", st)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	h.prober.Look(ctx) // must come back although the server does not answer
	if ctx.Err() == nil {
		t.Error("a look at a stopped server succeeded")
	}
	if err := h.prober.Reach(ctx, "127.0.0.1", h.port); err == nil {
		t.Error("a stopped server counts as reached")
	}
	if err := syscall.Kill(h.pid(t), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.awaitFault(t, fsm.ServerUp, "")
}

func TestTooManyConnectionsIsUp(t *testing.T) { eachServer(t, testTooManyConnectionsIsUp) }

func testTooManyConnectionsIsUp(t *testing.T, dialect string) {
	// Few looks: what must see it is the login a client would make.
	h := newHost(t, dialect, "", nil, "--max-connections=12")
	app := h.connect(t, "app", "app")
	ctx := context.Background()
	// Whoever is refused may have been in the way of a login of the prober's that ends: what that leaves is taken too.
	h.await(t, "up with too many connections", func(st fsm.ServerStatus) bool {
		if st.State == fsm.ServerUp && st.Fault == FaultTooManyConnections {
			return true
		}
		for {
			conn, err := app.Conn(ctx)
			if err == nil {
				t.Cleanup(func() { conn.Close() })
				continue
			}
			if !strings.Contains(err.Error(), "1040") {
				t.Fatal(err)
			}
			return false
		}
	})
	if err := h.prober.Reach(ctx, "127.0.0.1", h.port); err != nil {
		t.Errorf("a full server counts as out of reach: %v", err)
	}
}

func TestWaitingCommitsAreToldApart(t *testing.T) { eachServer(t, testWaitingCommitsAreToldApart) }

func testWaitingCommitsAreToldApart(t *testing.T, dialect string) {
	h := newHost(t, dialect, "", nil)
	ctx := context.Background()
	app := h.connect(t, "app", "app")
	if err := h.server.SetWritable(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := app.ExecContext(ctx, "CREATE TABLE app.t (a INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	if st := h.prober.Look(ctx); st.SourceSync || st.Acks != 0 || st.ReplicaSyncSet {
		t.Errorf("with semi-sync off: %+v", st)
	}
	if err := h.server.ReplicaSemiSync(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := h.server.EnableSourceSemiSync(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if st := h.prober.Look(ctx); !st.SourceSync || st.Acks != 1 || !st.ReplicaSyncSet || st.ReplicaSync {
		t.Errorf("with semi-sync set, and no replica of anybody: %+v", st)
	}
	waiting, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := app.ExecContext(waiting, "INSERT INTO app.t VALUES (1)")
		ended <- err
	}()
	st := h.awaitFault(t, fsm.ServerUp, FaultCommitsWait)
	if st.Waiting == 0 || !st.SourceSync {
		t.Errorf("%+v", st)
	}
	if st.For <= 0 {
		t.Errorf("in its state for %v", st.For)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the commit was acknowledged by nobody and succeeded")
	}
}

func TestFullDiskIsToldApart(t *testing.T) { eachServer(t, testFullDiskIsToldApart) }

func testFullDiskIsToldApart(t *testing.T, dialect string) {
	if os.Geteuid() != 0 {
		t.Skip("skipping: mounting a small file system needs root")
	}
	if os.Getenv(ownMounts) == "" {
		inOwnMounts(t)
		return
	}
	small := t.TempDir()
	if err := syscall.Mount("hb-probe", small, "tmpfs", 0, "size=300m"); err != nil {
		t.Skipf("skipping: mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	h := newHost(t, dialect, small, nil)
	filler := filepath.Join(small, "filler")
	fill(t, filler)
	h.awaitFault(t, fsm.ServerUp, FaultDiskFull)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.awaitFault(t, fsm.ServerUp, "")
}

// ownMounts marks a test process that has a mount namespace of its own: what it mounts goes with it.
const ownMounts = "HIGHBASE_PROBE_OWN_MOUNTS"

// inOwnMounts runs this test once more, in a process with its own mounts.
func inOwnMounts(t *testing.T) {
	t.Helper()
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), ownMounts+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := again.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	}
}

// fill writes until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for written := 0; written < 1<<10; written++ {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
	t.Fatal("the small file system is not small")
}

func TestReach(t *testing.T) { eachServer(t, testReach) }

func testReach(t *testing.T, dialect string) {
	h := newHost(t, dialect, "", nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stranger, err := New(Config{Database: h.server, Login: Account{User: replName, Password: "wrong"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Reach(ctx, "127.0.0.1", h.port); err != nil {
		t.Errorf("a refused password is an answer: %v", err)
	}
	if err := (Reacher{Log: slog.New(slog.DiscardHandler)}).Reach(ctx, "127.0.0.1", h.port); err != nil {
		t.Errorf("without an account, a refusal is an answer: %v", err)
	}
	if err := h.prober.Reach(ctx, "127.0.0.1", porttest.Free(t)); err == nil {
		t.Error("reached where nobody listens")
	}
	var aborted string
	db := h.connect(t, "app", "app")
	for range 3 {
		if err := h.prober.Reach(ctx, "127.0.0.1", h.port); err != nil {
			t.Error(err)
		}
	}
	var name string
	if err := db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Aborted_clients'").Scan(&name, &aborted); err != nil || aborted != "0" {
		t.Errorf("aborted clients: %s, %v", aborted, err)
	}
}

func TestLookJoinsOnlyWhatBeganAfterTheCall(t *testing.T) {
	db := newSlow()
	p, err := New(Config{Database: db})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan struct{}, 4)
	look := func() {
		p.Look(context.Background())
		answers <- struct{}{}
	}
	go look()
	<-db.asked // the first look is under way
	for range 3 {
		go look()
	}
	db.release <- struct{}{}
	<-answers
	<-db.asked // the others joined one second look that began after it
	select {
	case <-answers:
		t.Fatal("a call was answered by a look that began before it")
	default:
	}
	for len(answers) < 3 {
		select {
		case db.release <- struct{}{}:
		case <-db.asked: // a call that came after the second look had begun
		case <-time.After(time.Millisecond):
		}
	}
}
