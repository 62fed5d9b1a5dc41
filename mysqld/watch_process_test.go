package mysqld

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"
)

// TestWatchedProcess: an end is told at once to who waits, and nobody is told of one that did not come.
func TestWatchedProcess(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := readProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	w := openProcess(p)
	defer w.close()
	if w.pidfd == nil {
		t.Fatal("no pidfd for a process that lives")
	}
	// Over and over: an end of one wait must not be taken for one of the next.
	for i := range 50 {
		if w.exited(t.Context(), time.Duration(i%3)*time.Millisecond) {
			t.Fatal("a process that lives has exited")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.waitExit(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting for a process that lives: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- w.waitExit(t.Context()) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// It is not reaped yet: the zombie has ended all the same.
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the end was not noticed")
	}
	if !w.exited(t.Context(), 0) || w.signal(9) != nil {
		t.Error("an ended process has not exited, or signalling it is an error")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("killed without an error")
	}
	gone := openProcess(p)
	defer gone.close()
	if !gone.exited(t.Context(), 0) || gone.waitExit(t.Context()) != nil {
		t.Error("a process that is gone has not exited")
	}
}
