package sandbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/sandbox"
)

// patience is how long a condition may take on a machine that does other things: no measure of ours.
const patience = 20 * time.Second

// up builds a sandbox that is gone after the test, however the test ends.
func up(t *testing.T, o sandbox.Options) *sandbox.Sandbox {
	t.Helper()
	needServer(t)
	if o.Dir == "" {
		o.Dir = shortDir(t)
	}
	o.TieToCaller = true
	sb, err := sandbox.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkRunnerLog(t, sb)
		if err := sb.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return sb
}

// checkRunnerLog fails the test on what the sandbox's own processes cannot tell it otherwise.
func checkRunnerLog(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	st, err := sb.Status(context.Background())
	if err != nil {
		t.Error(err)
		return
	}
	text, err := os.ReadFile(filepath.Join(st.Dir, "runner.log"))
	if err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"DATA RACE", "panic", "level=WARN", "level=ERROR"} {
		if bytes.Contains(text, []byte(bad)) {
			t.Errorf("the sandbox's log has %q:\n%s", bad, text)
			return
		}
	}
}

// needServer skips where no sandbox can be built, and says what is missing.
func needServer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("mariadb-install-db"); err != nil {
		t.Skipf("skipping, no MariaDB server: %v", err)
	}
	if os.Geteuid() != 0 {
		if out, err := exec.Command("unshare", "-Urpfmn", "--mount-proc", "true").CombinedOutput(); err != nil {
			t.Skipf("skipping, neither root nor user namespaces: %v: %s", err, out)
		}
	}
}

// shortDir is a temporary directory with a path that leaves room for socket names; t.TempDir's holds the test's
// name. After the test it must be empty: a sandbox leaves nothing.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hbsb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range left {
			t.Errorf("left behind: %s", e.Name())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func hostOf(t *testing.T, sb *sandbox.Sandbox, name string) sandbox.Host {
	t.Helper()
	st, err := sb.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range st.Hosts {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no host %s in %+v", name, st)
	return sandbox.Host{}
}

// sh runs a shell command on a host and returns its output; the exit status must be 0.
func sh(t *testing.T, sb *sandbox.Sandbox, host, script string) string {
	t.Helper()
	var out bytes.Buffer
	exit, err := sb.Exec(t.Context(), host, []string{"sh", "-c", script}, nil, &out, &out)
	if err != nil || exit != 0 {
		t.Fatalf("on %s: %s: exit %d, %v\n%s", host, script, exit, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

func fault(t *testing.T, sb *sandbox.Sandbox, verb string, args ...string) {
	t.Helper()
	if err := sb.Fault(t.Context(), verb, args...); err != nil {
		t.Fatalf("fault %s %v: %v", verb, args, err)
	}
}

// wantError expects a fault to be refused in these words.
func wantError(t *testing.T, sb *sandbox.Sandbox, words, verb string, args ...string) {
	t.Helper()
	if err := sb.Fault(t.Context(), verb, args...); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("fault %s %v: %v, want an error with %q", verb, args, err, words)
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !done() {
		select {
		case <-late:
			t.Fatalf("after %s still not true: %s", patience, what)
		case <-tick.C:
		}
	}
}

// contextUntil is a context that ends once done is true.
func contextUntil(t *testing.T, done func() bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for !done() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	}()
	return ctx, cancel
}

// query asks the server at addr, dialled from inside a host, as the application.
func query(t *testing.T, sb *sandbox.Sandbox, from, addr, statement string) string {
	t.Helper()
	st, err := sb.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := mysql.ParseDSN(st.DSN)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addr = addr
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return sb.Dial(ctx, from, network, addr)
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	var value string
	if err := db.QueryRowContext(t.Context(), statement).Scan(&value); err != nil {
		t.Fatalf("asking %s from %s: %v", addr, from, err)
	}
	return value
}

// connects reports whether a TCP connection from one host to another's server succeeds soon.
func connects(t *testing.T, sb *sandbox.Sandbox, from, to string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	conn, err := sb.Dial(ctx, from, "tcp", to+":3306")
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// stateOf is a process's state as ps shows it, read from outside the sandbox.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}
