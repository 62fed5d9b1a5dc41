package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/internal/porttest"
	"github.com/highbase/highbase/mysqld"
)

// patience bounds every wait of these tests; it is no expectation.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == plainVerb {
		fmt.Fprintln(os.Stderr, execPlain(os.Args[2:]))
		os.Exit(exitFailed)
	}
	os.Exit(m.Run())
}

// witness is the configuration of a node without a database, all on loopback.
func witness(t *testing.T) *config {
	t.Helper()
	text := fmt.Sprintf(`
cluster: shop
node: w1
data_dir: %s
address: 127.0.0.1
ports: {api: %d, raft: %d, gossip: %d, metrics: %d}
peers:
  - {id: db1, address: 127.0.0.2}
  - {id: db2, address: 127.0.0.3}
  - {id: w1, address: 127.0.0.1, role: witness}
vips: [{address: 10.77.0.100, interface: lo}]
`, t.TempDir(), porttest.Free(t), porttest.Free(t), porttest.Free(t), porttest.Free(t))
	c, err := parseConfig("hbd.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDaemonRunsAndStops starts a witness, sees it answer on both ports and tell systemd, and stops it by a signal.
func TestDaemonRunsAndStops(t *testing.T) {
	told := notifySocket(t)
	c := witness(t)
	d := &daemon{cfg: c, log: slog.New(slog.NewTextHandler(t.Output(), nil)), exit: func(int) { t.Error("exited") }}
	signals, ended := make(chan os.Signal, 2), make(chan error, 1)
	go func() { ended <- d.run(signals) }()
	if got := <-told; got != "READY=1" {
		t.Fatalf("systemd was told %q", got)
	}
	for url, want := range map[string]int{
		"http://" + hostPort("127.0.0.1", c.Ports.Metrics) + "/healthz": 200,
		"http://" + hostPort("127.0.0.1", c.Ports.Metrics) + "/readyz":  503, // it belongs to no cluster yet
		"http://" + hostPort("127.0.0.1", c.Ports.Metrics) + "/primary": 503,
		"http://" + hostPort("127.0.0.1", c.Ports.Metrics) + "/metrics": 200,
		"http://" + hostPort("127.0.0.1", c.Ports.API) + "/v1/status":   200,
		"http://" + hostPort("127.0.0.1", c.Ports.API) + "/v1/history":  200,
	} {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || err != nil {
			t.Errorf("%s: %d, want %d: %s", url, resp.StatusCode, want, body)
		}
	}
	signals <- syscall.SIGTERM
	if got := <-told; got != "STOPPING=1" {
		t.Errorf("systemd was told %q", got)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("not stopped")
	}
	if _, err := net.Dial("tcp", hostPort("127.0.0.1", c.Ports.API)); err == nil {
		t.Error("still listening after the stop")
	}
}

// notifySocket stands in for systemd.
func notifySocket(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	told := make(chan string, 8)
	go func() {
		buf := make([]byte, 256)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			told <- string(buf[:n])
		}
	}()
	return told
}

func TestTakenPortIsAFailure(t *testing.T) {
	c := witness(t)
	ln, err := net.Listen("tcp", hostPort(c.Address, c.Ports.Metrics))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := &daemon{cfg: c, log: slog.New(slog.DiscardHandler), exit: func(int) { t.Error("exited") }}
	if err := d.run(make(chan os.Signal)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
}

func TestCommandLine(t *testing.T) {
	dir, text := inDir(t, readTestdata(t, "good.yaml"))
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	if err := errors.Join(os.WriteFile(good, []byte(text), 0o600), os.WriteFile(bad, []byte("cluster: 5\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		out  string // in either stream
	}{
		{[]string{"-version"}, exitDone, "hbd dev ("},
		{[]string{"-check-config", "-config", good}, exitDone, "nothing wrong"},
		{[]string{"-check-config", "-config", bad}, exitFailed, bad + ":1:10: cluster: is the number 5"},
		{[]string{"-config", filepath.Join(dir, "none.yaml")}, exitFailed, "no such file"},
		{[]string{"-frobnicate"}, exitUsage, "not defined"},
		{[]string{"start"}, exitUsage, "too much"},
		{[]string{"-h"}, exitDone, "configuration file"},
	} {
		var out bytes.Buffer
		if code := command(c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.out) {
			t.Errorf("%q: exit %d, want %d, saying %q:\n%s", c.args, code, c.code, c.out, out.String())
		}
		if strings.Contains(out.String(), "secret") {
			t.Errorf("%q shows a password", c.args)
		}
	}
}

// hook writes a fence script.
func hook(t *testing.T, script string) (fenceHook, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "fence")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncd "+dir+"\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return fenceHook{path, "--off"}, dir
}

func TestFenceHook(t *testing.T) {
	h, dir := hook(t, `echo "$@" > args`)
	if err := h.Fence(context.Background(), "db1"); err != nil {
		t.Fatal(err)
	}
	if args, err := os.ReadFile(filepath.Join(dir, "args")); err != nil || string(args) != "--off db1\n" {
		t.Errorf("run with %q, %v", args, err)
	}
	h, _ = hook(t, "echo the switch does not answer\nexit 3")
	if err := h.Fence(context.Background(), "db1"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a failed fence: %v", err)
	}
}

func TestHangingFenceHookEndsWithItsChildren(t *testing.T) {
	h, dir := hook(t, "sleep 600 &\necho $! > child\nmkfifo never\nread x < never")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- h.Fence(ctx, "db1") }()
	child := 0
	await(t, "the hook's child", func() bool {
		raw, err := os.ReadFile(filepath.Join(dir, "child"))
		n, scanErr := fmt.Sscan(string(raw), &child)
		return err == nil && n == 1 && scanErr == nil
	})
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatal("the hook outlives its caller")
	}
	await(t, "the end of the hook's child", func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err != nil || strings.Contains(string(raw), ") Z ")
	})
}

// await looks again and again until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer deadline.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waiting for %s", what)
		}
	}
}

// TestWhatIsStartedHasNotOurPriority runs a program as the server would be.
func TestWhatIsStartedHasNotOurPriority(t *testing.T) {
	p := priority{nice: 7, oom: 333, raised: true}
	argv := p.plain([]string{"/bin/sh", "-c", "nice; cat /proc/self/oom_score_adj"})
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil || string(out) != "7\n333\n" {
		t.Errorf("%q, %v", out, err)
	}
	if argv := (priority{}).plain([]string{"/bin/true"}); len(argv) != 1 {
		t.Errorf("with no priority to give back: %q", argv)
	}
}

// still is a service whose server runs, or not.
type still struct {
	mysqld.Service
	running bool
}

func (s still) Running(context.Context) (int, bool, error) { return 4711, s.running, nil }

func TestRewindIsRefusedWithoutItsConditions(t *testing.T) {
	files, err := identity.OpenDurable[serverFiles](filepath.Join(t.TempDir(), "files.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := &database{server: watched{files: files}, dialect: dialectMariaDB, tails: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		what    string
		running bool
		files   serverFiles
		why     string
	}{
		{"a server that runs", true, serverFiles{DataDir: t.TempDir()}, "still runs as process 4711"},
		{"files never seen", false, serverFiles{}, "never seen"},
		{"no binary log", false, serverFiles{DataDir: t.TempDir()}, "index"},
		{"a binary log that is gone", false, serverFiles{DataDir: t.TempDir(), BinlogIndex: "binlog.index"}, "no such file"},
	} {
		if err := files.Store(c.files); err != nil {
			t.Fatal(err)
		}
		d.service = still{running: c.running}
		if saved, err := d.PrepareRewind(context.Background(), "0-1-5"); err == nil || !strings.Contains(err.Error(), c.why) || saved != "" {
			t.Errorf("%s: %q, %v", c.what, saved, err)
		}
	}
}

func TestDamagedNoteOfFilesIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "server-files.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := openNote[serverFiles](filepath.Join(dir, "server-files.json"), "files", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, found := files.Load(); found {
		t.Error("something was read of a damaged note")
	}
}
