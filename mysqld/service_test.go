package mysqld

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

func TestChildIsAdopted(t *testing.T) { eachServer(t, testChildIsAdopted) }

func testChildIsAdopted(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	ctx := testContext(t)
	n.start(StartOptions{})
	pid := n.pid()
	if st := n.status(); !st.ReadOnly || st.ReplicaSemiSyncEnabled || len(st.Problems) != 0 {
		t.Fatalf("not a harmless start: %+v", st)
	}

	// The next hbd knows nothing but the files.
	next := n.newService()
	if got, running, err := next.Running(ctx); err != nil || !running || got != pid {
		t.Fatalf("adopted %d (%v), want %d: %v", got, running, pid, err)
	}
	exited := make(chan struct{}, 1)
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	go next.Watch(watching, func() { exited <- struct{}{} })
	n.must(next.Start(ctx, StartOptions{}))
	if n.pid() != pid {
		t.Fatal("starting a running server started another")
	}
	n.must(os.Remove(filepath.Join(n.dir, "pid.highbase"))) // died before it kept the identity
	if got, running, err := next.Running(ctx); err != nil || !running || got != pid {
		t.Fatalf("adopted by the server's pid file %d (%v), want %d: %v", got, running, pid, err)
	}
	n.must(next.Kill(ctx))
	select {
	case <-exited:
	case <-ctx.Done():
		t.Fatal("the exit of an adopted server was not seen")
	}
	if _, running, _ := n.service.Running(ctx); running {
		t.Fatal("it runs after Kill")
	}
	for _, name := range lockFiles {
		if held, err := locked(filepath.Join(n.dataDir(), name)); err != nil || held {
			t.Fatalf("%s is still held: %v", name, err)
		}
	}
	n.must(next.Kill(ctx)) // nothing to kill is no error

	// A stopped process is killed all the same.
	n.must(next.Start(ctx, StartOptions{}))
	n.signal(sigStop)
	n.must(next.Kill(ctx))
	n.must(next.Start(ctx, StartOptions{}))
	n.must(next.Stop(ctx))
	if _, running, _ := next.Running(ctx); running {
		t.Fatal("it runs after Stop")
	}
}

func TestChildDoesNotAdoptAStranger(t *testing.T) { eachServer(t, testChildDoesNotAdoptAStranger) }

func testChildDoesNotAdoptAStranger(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	self, err := readProcess(os.Getpid())
	n.must(err)
	self.Start++ // the number was reused
	c := n.service.(*child)
	n.must(c.keep(self))
	n.must(os.WriteFile(c.cfg.PIDFile, []byte("1\n"), 0o644))
	if pid, running, _ := n.service.Running(testContext(t)); running {
		t.Fatalf("adopted process %d", pid)
	}
}

func TestChildThatGivesUp(t *testing.T) { eachServer(t, testChildThatGivesUp) }

func testChildThatGivesUp(t *testing.T, k *kind) {
	n := newNode(t, k, 1, "--no-such-option")
	if err := n.service.Start(testContext(t), StartOptions{}); !errors.Is(err, ErrExited) {
		t.Fatalf("starting: %v", err)
	}
}

// TestStartOfAServerOnItsWayOut: it was running, and is not what was asked for.
func TestStartOfAServerOnItsWayOut(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := newNode(t, k, 1)
		ctx := testContext(t)
		n.must(n.service.Start(ctx, StartOptions{}))
		before, _, _ := n.service.Running(ctx)
		n.signal(syscall.SIGTERM)
		n.eventually("taking no connections", func() bool { return n.boss.PingContext(ctx) != nil })
		n.must(n.service.Start(ctx, StartOptions{}))
		if after, running, _ := n.service.Running(ctx); !running || after == before {
			t.Errorf("process %d runs: %t, it was %d", after, running, before)
		}
	})
}

// TestKillOvertakesAStart: whatever the order, nothing runs after a fence.
func TestKillOvertakesAStart(t *testing.T) { eachServer(t, testKillOvertakesAStart) }

func testKillOvertakesAStart(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	ctx := testContext(t)
	for range 3 {
		started := make(chan error, 1)
		go func() { started <- n.service.Start(ctx, StartOptions{}) }()
		n.eventually("launching", func() bool { _, running, _ := n.service.Running(ctx); return running })
		n.must(n.service.Kill(ctx))
		if err := <-started; err != nil && !errors.Is(err, ErrKilled) {
			t.Fatalf("the start overtaken: %v", err)
		}
		if _, running, _ := n.service.Running(ctx); running {
			t.Fatal("it runs after Kill")
		}
	}
	c := n.service.(*child)
	begun := c.guard.begin()
	n.must(n.service.Kill(ctx))
	if _, err := c.launch(StartOptions{}, begun); !errors.Is(err, ErrKilled) {
		t.Fatalf("a start that waited for the lock when the kill came: %v", err)
	}
}

func TestStartWaitsForTheLock(t *testing.T) { eachServer(t, testStartWaitsForTheLock) }

func testStartWaitsForTheLock(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	n.start(StartOptions{})
	other, err := NewService(ServiceConfig{Kind: "child", Dialect: k.dialect, Socket: n.socket, Command: n.command(),
		PIDFile: filepath.Join(n.dir, "pid2"), Log: filepath.Join(n.dir, "log2")})
	n.must(err)
	if err := other.Start(short(t), StartOptions{}); !errors.Is(err, ErrForeign) {
		t.Fatalf("a second server on the data directory: %v", err)
	}
}

func TestBootProblems(t *testing.T) { eachServer(t, testBootProblems) }

func testBootProblems(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	c := n.service.(*child)
	c.words.bootArguments = nil // as a unit that ignores the options would start it
	n.start(StartOptions{})
	if problems := strings.Join(n.status().Problems, "\n"); !strings.Contains(problems, "boots writable") {
		t.Fatalf("problems: %q", problems)
	}
}

func TestCommandService(t *testing.T) { eachServer(t, testCommandService) }

func testCommandService(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	ctx := testContext(t)
	pidFile := filepath.Join(n.dir, "pid")
	script := "exec setsid " + strings.Join(n.command(), " ") + " --pid-file=" + pidFile + " $MYSQLD_OPTS >>" + n.dir + "/log 2>&1 &"
	s, err := NewService(ServiceConfig{Kind: "command", Dialect: k.dialect, Socket: n.socket, PIDFile: pidFile,
		DataDir: n.dataDir(), StartCommand: []string{"sh", "-c", script}})
	n.must(err)
	n.service = s
	n.start(StartOptions{})
	if !n.status().ReadOnly {
		t.Fatal("the options did not reach the server")
	}
	n.must(s.Stop(ctx))
	n.start(StartOptions{})
	n.must(s.Kill(ctx))
	if _, running, _ := s.Running(ctx); running {
		t.Fatal("it runs after Kill")
	}
}

// fakeSystemd starts the server the way a unit with our drop-in would.
type fakeSystemd struct {
	t       *testing.T
	service *child
	envFile string
	options []string // what the unit was given, one entry for each start
}

func (f *fakeSystemd) StartUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error) {
	if name != "mariadb.service" || mode != "replace" {
		f.t.Errorf("unexpected start of %q, mode %q", name, mode)
	}
	raw, err := os.ReadFile(f.envFile)
	if err != nil {
		return 0, err
	}
	line := strings.TrimSpace(string(raw))
	f.options = append(f.options, line)
	opts := StartOptions{Rewind: strings.Contains(line, "--init-rpl-role=SLAVE")}
	result := "done"
	if err := f.service.Start(ctx, opts); err != nil {
		result = "failed"
	}
	done <- result
	return 1, nil
}

func (f *fakeSystemd) StopUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error) {
	if err := f.service.Stop(ctx); err != nil {
		return 0, err
	}
	done <- "done"
	return 2, nil
}

func (f *fakeSystemd) KillUnitWithTarget(_ context.Context, name string, target dbus.Who, signal int32) error {
	if target != dbus.All || signal != 9 {
		f.t.Errorf("unexpected kill of %q, target %v, signal %d", name, target, signal)
	}
	return nil
}

func (f *fakeSystemd) ResetFailedUnitContext(context.Context, string) error { return nil }

func (f *fakeSystemd) GetServicePropertyContext(ctx context.Context, service, property string) (*dbus.Property, error) {
	if property != "MainPID" {
		f.t.Errorf("unexpected property %q", property)
	}
	pid, _, err := f.service.Running(ctx)
	return &dbus.Property{Name: property, Value: godbus.MakeVariant(uint32(pid))}, err
}

func (f *fakeSystemd) Close() {}

func TestSystemdService(t *testing.T) { eachServer(t, testSystemdService) }

func testSystemdService(t *testing.T, k *kind) {
	k.only(t, "mariadb", "what systemd is asked does not depend on the server; only MariaDB has options for a rewind")
	n := newNode(t, k, 1)
	ctx := testContext(t)
	fake := &fakeSystemd{t: t, service: n.service.(*child), envFile: filepath.Join(n.dir, "env", "unit.env")}
	cfg := ServiceConfig{Unit: "mariadb.service", Socket: n.socket, DataDir: n.dataDir(), EnvironmentFile: fake.envFile, Logger: n.log}
	s := newSystemd(cfg, mariadb{}.words(), func(context.Context) (systemdBus, error) { return fake, nil })
	n.must(s.Start(ctx, StartOptions{Rewind: true}))
	if _, err := os.Stat(fake.envFile); !os.IsNotExist(err) {
		t.Fatal("the options of one start outlive it")
	}
	n.must(s.Stop(ctx))
	n.must(s.Start(ctx, StartOptions{}))
	if len(fake.options) != 2 || !strings.Contains(fake.options[0], "--init-rpl-role=SLAVE") || strings.Contains(fake.options[1], "rpl-role") {
		t.Fatalf("options of the starts: %q", fake.options)
	}
	// Without an answer of systemd the process last seen is killed.
	s.dial = func(context.Context) (systemdBus, error) { return nil, errors.New("no bus") }
	n.must(s.Kill(ctx))
	if _, running, _ := n.service.Running(ctx); running {
		t.Fatal("it runs after Kill")
	}
	fake.service.cfg.Command = append(fake.service.cfg.Command, "--no-such-option")
	s.dial = func(context.Context) (systemdBus, error) { return fake, nil }
	if err := s.Start(ctx, StartOptions{}); !errors.Is(err, ErrExited) {
		t.Fatalf("a unit that fails: %v", err)
	}
}

func TestWatchProcessEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	self, err := readProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	watchProcess(ctx, func() (process, bool) { return self, true }, func() { t.Error("we are alive") })
}
