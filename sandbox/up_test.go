package sandbox_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/highbase/highbase/sandbox"
)

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
		if strings.Contains(err.Error(), "operation not permitted") && os.Geteuid() != 0 {
			t.Skipf("skipping, no root and no user namespaces: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return sb
}

func needServer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("mariadb-install-db"); err != nil {
		t.Skipf("skipping, no MariaDB server: %v", err)
	}
}

// shortDir is a temporary directory with a path that leaves room for socket names; t.TempDir's holds the test's name.
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

func TestBareUp(t *testing.T) {
	sb := up(t, sandbox.Options{Name: "bare", Bare: true})
	db1 := hostOf(t, sb, "db1")
	if db1.PIDs.Mysqld == 0 || db1.PIDs.HBD != 0 || db1.State != sandbox.StateRunning {
		t.Fatalf("db1 is %+v", db1)
	}
	if got := sh(t, sb, "db1", "hostname; ip -o link show eth0 | grep -c LOWER_UP; ls /sys/class/net; cat /proc/1/comm | cut -c1-4"); got != "db1\n1\neth0\nlo\nsand" {
		t.Errorf("on db1: %q", got)
	}
	t.Log(sh(t, sb, "db2", "mariadb -NBe 'select @@server_id, @@read_only, @@gtid_binlog_pos, @@gtid_slave_pos, user()'"))
}
