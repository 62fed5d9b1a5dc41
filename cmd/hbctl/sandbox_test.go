package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/highbase/highbase/sandbox"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "5": 5, "3K": 3 << 10, "300m": 300 << 20, "2G": 2 << 30} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1", "0", "1.5G", "3T", "9000000000000000000G"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}

// TestSandboxExitCodes: mistakes are 2, refusals 1, and down of nothing is what was asked for.
func TestSandboxExitCodes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args  []string
		code  int
		words string
	}{
		{[]string{"down"}, exitDone, "not up"},
		{[]string{"status"}, exitFailed, "hbctl sandbox up"},
		{[]string{"fault", "cut", "db1"}, exitFailed, "hbctl sandbox up"},
		{[]string{"exec", "db1"}, exitUsage, "requires at least 2"},
		{[]string{"up", "--disk-size", "3x"}, exitUsage, "size"},
		{[]string{"up", "--server", "oracle"}, exitUsage, "want mariadb or mysql"},
		{[]string{"up", "--nodes", "0x"}, exitUsage, "--nodes"},
		{[]string{"explode"}, exitUsage, "unknown command"},
		{[]string{"status", "--name", "A b"}, exitUsage, "sandbox name"},
		{[]string{}, exitUsage, "Commands:"},
	} {
		var out, errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &errs, env: func(string) string { return "" }}
		code := run(t.Context(), append([]string{"sandbox", "--dir", dir}, c.args...), a)
		if code != c.code || !strings.Contains(errs.String(), c.words) {
			t.Errorf("sandbox %v: code %d, want %d with %q:\n%s", c.args, code, c.code, c.words, errs.String())
		}
	}
}

// TestSandboxCommand drives the built program, which also runs the sandbox.
func TestSandboxCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipping, no root: package sandbox tests the rest without it")
	}
	if _, err := exec.LookPath("mariadb-install-db"); err != nil {
		t.Skipf("skipping, no MariaDB server: %v", err)
	}
	dir, err := os.MkdirTemp("", "hbctl") // t.TempDir's path leaves no room for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	hbctl := filepath.Join(dir, "hbctl")
	if out, err := exec.Command("go", "build", "-o", hbctl, ".").CombinedOutput(); err != nil {
		t.Fatalf("building hbctl: %v: %s", err, out)
	}
	do := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command(hbctl, append([]string{"sandbox", "--dir", dir}, args...)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if cmd.ProcessState.ExitCode() != code {
			t.Fatalf("hbctl sandbox %v: %v, want code %d: %s%s", args, err, code, out, errs.String())
		}
		return string(out) + errs.String()
	}
	t.Cleanup(func() {
		if err := sandbox.Down(context.Background(), dir, "cmd"); err == nil {
			t.Error("the sandbox was still there at the end of the test")
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	do(0, "up", "--bare", "--nodes", "1", "--name", "cmd")
	var st sandbox.Status
	if err := json.Unmarshal([]byte(do(0, "status", "--name", "cmd", "-o", "json")), &st); err != nil || len(st.Hosts) != 2 || st.Hosts[0].PIDs.Mysqld == 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
	for _, dashes := range [][]string{{"--"}, nil} {
		argv := append(append([]string{"exec", "--name", "cmd", "db1"}, dashes...), "sh", "-c", "hostname; exit 7")
		if out := do(7, argv...); out != "db1\n" {
			t.Errorf("%v printed %q", argv, out)
		}
	}
	do(1, "up", "--bare", "--name", "cmd")
	do(2, "fault", "--name", "cmd", "cut", "db9")
	do(0, "fault", "--name", "cmd", "cut", "db1")
	do(0, "down", "--name", "cmd")
	do(0, "down", "--name", "cmd")
}
