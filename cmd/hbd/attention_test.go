package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// beat is a fixed answer to how long the next beat of a period is away.
func beat(period time.Duration) time.Duration { return period - time.Millisecond }

// onThree is a process with three processors, asked for by a person if set says so.
func onThree(t *testing.T, set string) *attention {
	procs := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	runtime.GOMAXPROCS(3)
	t.Setenv("GOMAXPROCS", set)
	return newAttention(100*time.Millisecond, beat)
}

// calmPause is what beat leaves of so many pings.
const calmPause = calmLooks*100*time.Millisecond - time.Millisecond

func TestAttention(t *testing.T) {
	a := onThree(t, "")
	looks := 0
	a.look = func() { looks++ }
	for _, step := range []struct {
		on    bool
		procs int
		pause time.Duration
		looks int
	}{{true, 3, 99 * time.Millisecond, 0}, {false, 1, calmPause, 0}, {false, 1, calmPause, 0}, {true, 3, 99 * time.Millisecond, 1}} {
		a.set(step.on)
		if looks != step.looks {
			t.Errorf("attentive %t: %d looks were asked for, want %d", step.on, looks, step.looks)
		}
		if got := runtime.GOMAXPROCS(0); got != step.procs {
			t.Errorf("attentive %t: %d processors, want %d", step.on, got, step.procs)
		}
		if got := a.pause(); got != step.pause {
			t.Errorf("attentive %t: %v to the next look, want %v", step.on, got, step.pause)
		}
	}
}

// TestAttentionLeavesProcessorsToWhoSetsThem: GOMAXPROCS is a person's decision.
func TestAttentionLeavesProcessorsToWhoSetsThem(t *testing.T) {
	a := onThree(t, "3")
	a.set(false)
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("%d processors, 3 were asked for", got)
	}
	if got := a.pause(); got != calmPause {
		t.Errorf("%v to the next look", got)
	}
}

const plainEnv = "HIGHBASE_TEST_PLAIN"

// TestPlainGivesTheTimerSlackBack: a server that inherited hbd's would wake late.
func TestPlainGivesTheTimerSlackBack(t *testing.T) {
	const file = "/proc/self/timerslack_ns"
	if os.Getenv(plainEnv) != "" {
		if err := setSlack(ownSlack); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(raw)) != "500000" {
			t.Fatalf("own slack is %s, %v", raw, err)
		}
		t.Fatal(execPlain([]string{"0", "0", "/bin/cat", file}))
	}
	if os.Getuid() != 0 {
		t.Skip("skipping, not root: the slack of other threads cannot be set")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPlainGivesTheTimerSlackBack$")
	cmd.Env = append(os.Environ(), plainEnv+"=1")
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != "50000" {
		t.Fatalf("what was made plain has a slack of %q, %v", out, err)
	}
}
