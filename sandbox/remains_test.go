package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/highbase/highbase/sandbox"
)

// remains lists what exists of a sandbox on the machine outside of its directory.
type remains struct {
	processes  []string
	namespaces map[string]bool // "net:[4026532000]", of every kind
	mounts     []string        // in our own mount namespace
	links      []string        // in our own network namespace
}

// remainsOf looks for processes that name the directory in their command line or live in one of the namespaces.
func remainsOf(t *testing.T, dir string, namespaces map[string]bool) remains {
	t.Helper()
	r := remains{namespaces: map[string]bool{}}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, p := range all {
		cmdline, err := os.ReadFile(p + "/cmdline")
		if err != nil || filepath.Base(p) == self {
			continue // ended meanwhile
		}
		ours := bytes.Contains(cmdline, []byte(dir))
		for _, kind := range []string{"net", "mnt", "pid", "uts"} {
			link, err := os.Readlink(p + "/ns/" + kind)
			own, ownErr := os.Readlink("/proc/self/ns/" + kind)
			if err != nil || ownErr != nil {
				continue // a zombie has none
			}
			if namespaces[link] || ours && link != own {
				r.namespaces[link] = true
				ours = true
			}
		}
		if ours {
			r.processes = append(r.processes, filepath.Base(p)+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, dir) {
			r.mounts = append(r.mounts, line)
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		r.links = append(r.links, l.Name())
	}
	return r
}

// runnerOf finds the sandbox's own process.
func runnerOf(t *testing.T, dir string) int {
	t.Helper()
	for _, p := range remainsOf(t, dir, nil).processes {
		if strings.Contains(p, " _run runner ") {
			pid, err := strconv.Atoi(strings.Fields(p)[0])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no runner")
	return 0
}

// TestKilledRunnerLeavesNothing: SIGKILL of one process ends everything; only files stay, and the next up removes them.
func TestKilledRunnerLeavesNothing(t *testing.T) {
	links := remainsOf(t, "no such directory", nil).links
	dir := shortDir(t)
	needServer(t)
	o := sandbox.Options{Name: "victim", Dir: dir, Bare: true, Nodes: 1, DiskSize: 100 << 20, TieToCaller: true}
	sb, err := sandbox.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	fault(t, sb, "freeze", "db1") // stopped processes must end too

	before := remainsOf(t, dir, nil)
	if len(before.processes) < 4 || len(before.namespaces) < 3*4-2 { // runner, db1, its server, client; uts of the runner is ours
		t.Fatalf("the search finds too little to prove anything: %+v", before)
	}
	if len(before.mounts) != 0 || !slices.Equal(before.links, links) {
		t.Errorf("mounts or links of the sandbox are seen outside: %+v", before)
	}
	if err := syscall.Kill(runnerOf(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "nothing is left", func() bool {
		now := remainsOf(t, dir, before.namespaces)
		return len(now.processes) == 0 && len(now.namespaces) == 0 && len(now.mounts) == 0 && slices.Equal(now.links, links)
	})
	if _, err := sandbox.OpenIn(dir, "victim"); !errors.Is(err, sandbox.ErrNotUp) {
		t.Errorf("opening a killed sandbox: %v", err)
	}
	again, err := sandbox.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := sh(t, again, "db1", "hostname"); got != "db1" {
		t.Errorf("the next sandbox of the name: %q", got)
	}
	if err := again.Down(t.Context()); err != nil {
		t.Error(err)
	}
	if err := again.Down(t.Context()); !errors.Is(err, sandbox.ErrNotUp) {
		t.Errorf("down for the second time: %v", err)
	}
}

// TestTwoAtOnce: sandboxes of different names do not meet, a second of one name is refused.
func TestTwoAtOnce(t *testing.T) {
	dir := shortDir(t)
	var boxes [2]*sandbox.Sandbox
	var wg sync.WaitGroup
	for i := range boxes {
		wg.Go(func() {
			sb, err := sandbox.Up(t.Context(), sandbox.Options{Name: fmt.Sprintf("n%d", i), Dir: dir, Bare: true, Nodes: 1, TieToCaller: true})
			if err != nil {
				t.Error(err)
				return
			}
			boxes[i] = sb
			t.Cleanup(func() {
				if err := sb.Down(context.Background()); err != nil {
					t.Error(err)
				}
			})
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if _, err := sandbox.Up(t.Context(), sandbox.Options{Name: "n0", Dir: dir, Bare: true}); !errors.Is(err, sandbox.ErrAlreadyUp) {
		t.Errorf("a second n0: %v", err)
	}
	fault(t, boxes[0], "kill-host", "db1")
	if hostOf(t, boxes[1], "db1").PIDs.Mysqld == 0 {
		t.Error("a fault of one sandbox hit the other")
	}
	opened, err := sandbox.OpenIn(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, opened, "client", "db1:3306", "SELECT 1"); got != "1" {
		t.Errorf("an opened sandbox answers %q", got)
	}
}

// TestDisk fills a memory disk; it survives the power loss of its host, as a disk does.
func TestDisk(t *testing.T) {
	sb := up(t, sandbox.Options{Name: "disk", Bare: true, Nodes: 1, DiskSize: 100 << 20})
	data := hostOf(t, sb, "db1").Datadir
	write := func() int {
		exit, err := sb.Exec(t.Context(), "db1", []string{"sh", "-c", "head -c 4096 /dev/zero > " + data + "/probe"}, nil, nil, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return exit
	}
	if write() != 0 {
		t.Fatal("the disk is full before the fault")
	}
	sh(t, sb, "db1", "rm "+data+"/probe")
	fault(t, sb, "fill-disk", "db1")
	if write() == 0 {
		t.Error("a full disk takes 4096 bytes")
	}
	fault(t, sb, "kill-host", "db1")
	fault(t, sb, "start-host", "db1")
	if write() == 0 {
		t.Error("the disk was emptied by a power loss")
	}
	fault(t, sb, "free-disk", "db1")
	if write() != 0 {
		t.Error("a freed disk takes nothing")
	}
}

// TestTied: a tied sandbox ends with the process that built it, even by SIGKILL.
func TestTied(t *testing.T) {
	needServer(t)
	if base := os.Getenv("HIGHBASE_TEST_TIED"); base != "" {
		up(t, sandbox.Options{Name: "tied", Dir: base, Bare: true, Nodes: 1})
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	dir := shortDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestTied$")
	cmd.Env = append(os.Environ(), "HIGHBASE_TEST_TIED="+dir)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the caller ended with %v: %s", err, out)
	}
	await(t, "nothing is left", func() bool { return len(remainsOf(t, dir, nil).processes) == 0 })
	if err := sandbox.Down(t.Context(), dir, "tied"); err != nil {
		t.Error(err)
	}
}

func TestBadOptions(t *testing.T) {
	for _, c := range []struct {
		words string
		o     sandbox.Options
	}{
		{`sandbox name "A b"`, sandbox.Options{Name: "A b"}},
		{"nodes = 10", sandbox.Options{Nodes: 10}},
		{"witnesses = -1", sandbox.Options{Witnesses: -1}},
		{`server = "oracle"`, sandbox.Options{Server: "oracle"}},
		{`timing = "slow"`, sandbox.Options{Timing: "slow"}},
		{"min-replicas = 3: 3 database hosts have 2 replicas", sandbox.Options{Server: "mysql", MinReplicas: 3}},
		{"MariaDB waits for one", sandbox.Options{MinReplicas: 2}},
		{"degrade-after = -1s", sandbox.Options{DegradeAfter: -time.Second}},
		{"disk size = 5", sandbox.Options{DiskSize: 5}},
		{"the directory is too long", sandbox.Options{Bare: true, Dir: "/tmp/" + strings.Repeat("x", 100)}},
	} {
		if _, err := sandbox.Up(t.Context(), c.o); !errors.Is(err, sandbox.ErrUsage) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: %v, want a usage error with %q", c.o, err, c.words)
		}
	}
	if _, err := sandbox.Up(t.Context(), sandbox.Options{Dir: t.TempDir(), HBD: "/no/such/hbd"}); err == nil || !strings.Contains(err.Error(), "--hbd") {
		t.Errorf("without hbd: %v", err)
	}
	if err := sandbox.Down(t.Context(), t.TempDir(), "nobody"); !errors.Is(err, sandbox.ErrNotUp) {
		t.Errorf("down of nothing: %v", err)
	}
}

// TestRootless builds a sandbox as an unprivileged user and tries what needs rights of its own.
func TestRootless(t *testing.T) {
	needServer(t)
	if os.Getenv("HIGHBASE_TEST_ROOTLESS") != "" || os.Geteuid() != 0 {
		tryRootless(t)
		return
	}
	dir := shortDir(t)
	const nobody = 65534
	self, err := os.ReadFile("/proc/self/exe") // where the go command builds it, nobody may not look
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, self, 0o755), os.Mkdir(filepath.Join(dir, "home"), 0o700),
		os.Chown(filepath.Join(dir, "home"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestRootless$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"HIGHBASE_TEST_ROOTLESS=1", "HOME=" + filepath.Join(dir, "home"), "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Logf("as nobody: %s", out)
	}
	if err := errors.Join(os.Remove(program), os.RemoveAll(filepath.Join(dir, "home"))); err != nil {
		t.Fatal(err)
	}
}

func tryRootless(t *testing.T) {
	base, err := sandbox.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(base, os.Getenv("HOME")) {
		t.Fatalf("sandboxes would live in %s", base)
	}
	sb := up(t, sandbox.Options{Dir: base, Bare: true, Nodes: 2, DiskSize: 100 << 20})
	if got := query(t, sb, "client", "db1:3306", "SELECT @@server_id"); got != "1" {
		t.Errorf("db1's server has id %q", got)
	}
	if got := sh(t, sb, "db1", "hostname; mariadb -NBe 'SELECT user()'"); got != "db1\nroot@localhost" {
		t.Errorf("on db1: %q", got)
	}
	before := hostOf(t, sb, "db1")
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", before.PIDs.Mysqld)); err != nil || !bytes.Contains(cmdline, []byte("mariadbd")) {
		t.Errorf("process %d is %q, %v", before.PIDs.Mysqld, cmdline, err)
	}
	fault(t, sb, "partition", "db1/db2")
	if connects(t, sb, "db1", "db2") || !connects(t, sb, "client", "db2") {
		t.Error("partition")
	}
	fault(t, sb, "freeze", "db1")
	fault(t, sb, "kill-host", "db1")
	fault(t, sb, "fill-disk", "db2")
	fault(t, sb, "heal-all")
	await(t, "db1 greets again", func() bool { return greets(t, sb, "db1") })
	if !connects(t, sb, "db1", "db2") {
		t.Error("db1 and db2 are still parted")
	}
}
