package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/cluster/api"
)

// built is the binary under test, built once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hbctl-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "hbctl")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return path, fmt.Errorf("building hbctl: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := built(); path != "" {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// command prepares the binary with an environment of its own.
func command(t *testing.T, addr string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"HBCTL_ADDR=" + addr, "HOME=" + t.TempDir(), "SUDO_USER=ann"}
	return cmd
}

// hbctl runs the binary and gives exit code, stdout and stderr.
func hbctl(t *testing.T, addr string, args ...string) (int, string, string) {
	t.Helper()
	cmd := command(t, addr, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// fakeNode is a strict stand-in for hbd: a request without an answer fails the test.
type fakeNode struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string]func(w http.ResponseWriter, body string)
	asked   []string
}

func newFakeNode(t *testing.T, status api.Status) (*fakeNode, string) {
	t.Helper()
	f := &fakeNode{t: t, answers: map[string]func(http.ResponseWriter, string){}}
	f.on("GET "+api.PathStatus, 200, status)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return f, strings.TrimPrefix(srv.URL, "http://")
}

// on answers a request with a value as JSON.
func (f *fakeNode) on(request string, status int, v any) {
	f.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	f.handle(request, func(w http.ResponseWriter, _ string) {
		w.WriteHeader(status)
		_, _ = w.Write(data)
	})
}

func (f *fakeNode) handle(request string, h func(http.ResponseWriter, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[request] = h
}

// changes are the requests that were not reads, with their bodies.
func (f *fakeNode) changes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	h := f.answers[r.Method+" "+r.URL.Path]
	if r.Method != http.MethodGet {
		f.asked = append(f.asked, r.URL.Path+" "+string(body))
	}
	f.mu.Unlock()
	if h == nil {
		f.t.Errorf("unexpected request %s %s %s", r.Method, r.URL.Path, body)
		http.NotFound(w, r)
		return
	}
	h(w, string(body))
}

func closedAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// checkRun runs the binary and checks code and texts; want is looked for in stdout and stderr together.
func checkRun(t *testing.T, addr string, code int, want string, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := hbctl(t, addr, args...)
	if got != code || !strings.Contains(stdout+stderr, want) {
		t.Errorf("hbctl %s: exit %d, want %d and %q\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, code, want, stdout, stderr)
	}
	return stdout, stderr
}

// onTerminal runs the binary on a pseudo-terminal, types answer at the question, and gives exit code
// and all that was shown.
func onTerminal(t *testing.T, addr, answer string, args ...string) (int, string) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipping, no pseudo-terminal here: %v", err)
	}
	defer ours.Close()
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipping, no pseudo-terminal here: %v", err)
	}
	cmd := command(t, addr, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() }) // a test that hangs tells nothing
	defer timer.Stop()
	var shown strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := ours.Read(buf)
		shown.Write(buf[:n])
		if err != nil {
			break // EIO: the other side is closed
		}
		if strings.HasSuffix(shown.String(), "[y/N] ") || strings.HasSuffix(shown.String(), "to accept that: ") {
			if _, err := ours.WriteString(answer + "\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%v; shown: %s", err, shown.String())
	}
	return cmd.ProcessState.ExitCode(), shown.String()
}
