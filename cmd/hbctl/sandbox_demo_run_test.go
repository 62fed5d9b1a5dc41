package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

// TestDemo plays the real demo with real servers: as it should be, with an hbd that decides otherwise, interrupted, and
// after one that was killed.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("skipping, -short: three clusters are built")
	}
	if os.Geteuid() != 0 {
		t.Skip("skipping, no root: package sandbox tests building without it")
	}
	if _, err := exec.LookPath("mariadb-install-db"); err != nil {
		t.Skipf("skipping, no MariaDB server: %v", err)
	}
	dir, err := os.MkdirTemp("", "hbctl") // t.TempDir's path leaves no room for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	bin, boxes := filepath.Join(dir, "bin"), filepath.Join(dir, "box")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "github.com/highbase/highbase/cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("building: %v: %s", err, out)
	}
	command := func(args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(bin, "hbctl"), append([]string{"sandbox", "--dir", boxes, "demo", "--timing", "fast", "-o", "json"}, args...)...)
	}
	t.Run("held", func(t *testing.T) { testDemoHeld(t, command()) })
	nothingLeft(t, boxes)
	t.Run("decided otherwise", func(t *testing.T) {
		// Positive control: the demo must not call a failover a restart, and must go on to the end.
		other := filepath.Join(dir, "hbd-other")
		script := fmt.Sprintf("#!/bin/sh\nsed -i 's/^on_service_down:.*/on_service_down: failover/' \"$2\"\nexec %s/hbd \"$@\"\n", bin)
		if err := os.WriteFile(other, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		testDemoOtherwise(t, command("--hbd", other))
	})
	nothingLeft(t, boxes)
	t.Run("interrupted", func(t *testing.T) { testDemoSignalled(t, command(), "2. ", syscall.SIGINT, exitFailed) })
	nothingLeft(t, boxes)
	t.Run("killed", func(t *testing.T) {
		testDemoSignalled(t, command(), "   ready", syscall.SIGKILL, -1)
		if entries, err := os.ReadDir(boxes); err != nil || len(entries) == 0 {
			t.Errorf("a killed demo leaves files: %v, %v", entries, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), demoDownLimit)
		defer cancel()
		err := await(ctx, "nothing to be left", func(ctx context.Context) (bool, string) {
			if err := sweepDemos(ctx, boxes); err != nil { // its processes may still be ending
				return false, err.Error()
			}
			entries, err := os.ReadDir(boxes)
			return err == nil && len(entries) == 0, fmt.Sprint(entries, err)
		})
		if err != nil {
			t.Error(err)
		}
	})
	nothingLeft(t, boxes)
}

// nothingLeft looks for what a demo should have removed.
func nothingLeft(t *testing.T, boxes string) {
	t.Helper()
	entries, err := os.ReadDir(boxes)
	if err != nil || len(entries) > 0 {
		t.Errorf("a demo has left %v, %v", entries, err)
	}
}

// runDemo runs one to its end and reads its report.
func runDemo(t *testing.T, cmd *exec.Cmd, code int) (demoReport, string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var r demoReport
	if jsonErr := json.Unmarshal(out.Bytes(), &r); jsonErr != nil || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("demo: %v, want code %d; report %v: %s%s", err, code, jsonErr, out.String(), errs.String())
	}
	return r, errs.String()
}

func testDemoHeld(t *testing.T, cmd *exec.Cmd) {
	r, story := runDemo(t, cmd, exitDone)
	if !r.OK || r.Reason != "" || len(r.Nodes) != 3 || r.Writes.Lost != 0 || r.Writes.Acknowledged < 4*demoCalm {
		t.Errorf("report %+v", r)
	}
	sum := 0
	for i, want := range []string{api.KindRestart, api.KindTakeover, decidedRejoin, api.KindSwitchover} {
		if len(r.Steps) <= i {
			t.Fatalf("%d steps", len(r.Steps))
		}
		s := r.Steps[i]
		sum += s.Acknowledged
		if s.Decided != want || s.Cause == "" || s.WriteGapMS <= 0 || s.Problem != "" || len(s.Phases) == 0 || s.Replicas != 2 {
			t.Errorf("step %d: %+v", i+1, s)
		}
	}
	if sum != r.Writes.Acknowledged {
		t.Errorf("the steps have %d acknowledged writes, all have %d", sum, r.Writes.Acknowledged)
	}
	if !strings.Contains(story, "4. An operator") {
		t.Errorf("the story is %s", story)
	}
}

func testDemoOtherwise(t *testing.T, cmd *exec.Cmd) {
	r, story := runDemo(t, cmd, exitFailed)
	if r.OK || !strings.Contains(r.Reason, "a failover was decided, expected a restart") || len(r.Steps) != 4 || len(r.Nodes) != 3 {
		t.Errorf("report %+v", r)
	}
	if !strings.Contains(story, "the end of") || !strings.Contains(story, "hbd.log") {
		t.Errorf("no log is shown: %s", story)
	}
}

// testDemoSignalled sends a signal when a line of the story begins with the words.
func testDemoSignalled(t *testing.T, cmd *exec.Cmd, words string, sig os.Signal, code int) {
	story, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(story)
	seen := false
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), words) {
			seen = true
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
		}
	}
	err = cmd.Wait()
	if !seen || cmd.ProcessState.ExitCode() != code {
		t.Errorf("signalled: %t; ended with %v, want code %d", seen, err, code)
	}
}
