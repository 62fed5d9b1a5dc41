package sandbox_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/highbase/highbase/sandbox"
)

// standIn does of hbd what the sandbox needs: it starts the server as a child that outlives it, answers the two
// requests of a bootstrap and takes the VIP. SIGTERM ends it, the server lives on.
func standIn(config string) int {
	if err := serveStandIn(config); err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		return 1
	}
	return 0
}

func serveStandIn(config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	if err := startServer(filepath.Dir(config)); err != nil {
		return err
	}
	var vips []string
	for _, m := range regexp.MustCompile(`address: "([^"]+)", interface`).FindAllStringSubmatch(string(text), -1) {
		vips = append(vips, m[1])
	}
	var steady atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/bootstrap", func(w http.ResponseWriter, r *http.Request) {
		for _, vip := range vips {
			if out, err := exec.Command("ip", "addr", "add", vip, "dev", "eth0").CombinedOutput(); err != nil {
				http.Error(w, string(out), http.StatusInternalServerError)
				return
			}
		}
		steady.Store(true)
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"phase": %q, "failures_tolerated": 1}`, map[bool]string{true: "steady", false: "none"}[steady.Load()])
	})
	server := &http.Server{Addr: ":7948", Handler: mux}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startServer starts the server beside the configuration, if there is one and it does not run.
func startServer(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "my.cnf")); errors.Is(err, os.ErrNotExist) {
		return nil // a witness
	}
	if text, err := os.ReadFile(filepath.Join(dir, "mysqld.pid")); err == nil {
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && syscall.Kill(pid, 0) == nil {
			return nil
		}
	}
	cmd := exec.Command("mariadbd", "--defaults-file="+filepath.Join(dir, "my.cnf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

// TestWithHBD brings a cluster of stand-ins up to an answer through both VIPs, and treats its hbd badly.
func TestWithHBD(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sb := up(t, sandbox.Options{Name: "hbd", Nodes: 1, Witnesses: 1, VIP6: true, HBD: self})
	db1, w1 := hostOf(t, sb, "db1"), hostOf(t, sb, "w1")
	if db1.PIDs.HBD == 0 || db1.PIDs.Mysqld == 0 || w1.PIDs.HBD == 0 || w1.PIDs.Mysqld != 0 || w1.Socket != "" {
		t.Fatalf("db1 is %+v, w1 is %+v", db1, w1)
	}
	st, err := sb.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, vip := range []string{st.VIP, st.VIP6} {
		if got := query(t, sb, "client", "["+vip+"]:3306", "SELECT @@server_id"); got != "1" {
			t.Errorf("the server behind %s has id %q", vip, got)
		}
	}
	if got := sh(t, sb, "client", "mariadb -NBe 'SELECT @@server_id' app"); got != "1" {
		t.Errorf("through the client's own option file: %q", got)
	}

	t.Run("kill-hbd", func(t *testing.T) {
		fault(t, sb, "kill-hbd", "db1")
		await(t, "hbd is back", func() bool {
			now := hostOf(t, sb, "db1").PIDs.HBD
			return now != 0 && now != db1.PIDs.HBD
		})
		if now := hostOf(t, sb, "db1").PIDs.Mysqld; now != db1.PIDs.Mysqld {
			t.Errorf("the server did not outlive hbd: process %d, was %d", now, db1.PIDs.Mysqld)
		}
	})
	t.Run("stop-hbd", func(t *testing.T) {
		fault(t, sb, "stop-hbd", "db1")
		if now := hostOf(t, sb, "db1").PIDs; now.HBD != 0 || now.Mysqld != db1.PIDs.Mysqld {
			t.Errorf("after stop-hbd: %+v", now)
		}
		wantError(t, sb, "no hbd is running on db1", "kill-hbd", "db1")
		fault(t, sb, "start-hbd", "db1")
		await(t, "hbd is back", func() bool { return hostOf(t, sb, "db1").PIDs.HBD != 0 })
	})
	t.Run("pause-hbd", func(t *testing.T) {
		fault(t, sb, "pause-hbd", "db1")
		if s := stateOf(t, hostOf(t, sb, "db1").PIDs.HBD); s != "T" {
			t.Errorf("hbd is in state %s, want T", s)
		}
		fault(t, sb, "freeze", "db1")
		fault(t, sb, "thaw", "db1")
		if s := stateOf(t, hostOf(t, sb, "db1").PIDs.HBD); s != "T" {
			t.Errorf("after freeze and thaw hbd is in state %s, want T still", s)
		}
		fault(t, sb, "resume-hbd", "db1")
		if s := stateOf(t, hostOf(t, sb, "db1").PIDs.HBD); s == "T" {
			t.Error("hbd is still stopped")
		}
	})
	t.Run("drop-vip", func(t *testing.T) {
		wantError(t, sb, "w1 does not hold the VIP", "drop-vip", "w1")
		sh(t, sb, "db1", "ip addr replace "+st.VIP+"/32 dev eth0")
		fault(t, sb, "drop-vip", "db1")
		if got := sh(t, sb, "db1", "ip -o addr show eth0"); strings.Contains(got, st.VIP) || !strings.Contains(got, db1.Address) {
			t.Errorf("addresses after drop-vip: %s", got)
		}
	})
	wantError(t, sb, "runs no mysqld", "start-mysqld", "db1")
}

// TestFailedBootstrapLeavesNothing: an hbd that ends at once makes Up fail with its log and without remains.
func TestFailedBootstrapLeavesNothing(t *testing.T) {
	needServer(t)
	dir := shortDir(t)
	var bootstrapping atomic.Bool
	ctx, cancel := contextUntil(t, func() bool {
		if !bootstrapping.Load() {
			return false
		}
		text, err := os.ReadFile(filepath.Join(dir, "sad/db1/hbd.log"))
		return err == nil && strings.Contains(string(text), "stand-in")
	})
	defer cancel()
	hbd := filepath.Join(t.TempDir(), "hbd")
	if err := os.WriteFile(hbd, []byte("#!/bin/sh\necho stand-in cannot start\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := sandbox.Up(ctx, sandbox.Options{Name: "sad", Dir: dir, Nodes: 1, HBD: hbd, TieToCaller: true,
		Progress: func(line string) { bootstrapping.Store(line == "bootstrapping the cluster") }})
	if err == nil || !strings.Contains(err.Error(), "stand-in cannot start") {
		t.Fatalf("Up returned %v, want hbd's own words", err)
	}
}
