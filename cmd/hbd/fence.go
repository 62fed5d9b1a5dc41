package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/highbase/highbase/fsm"
)

const (
	// fenceTimeout bounds a fence hook besides the caller's own patience: a power switch takes seconds.
	fenceTimeout = 30 * time.Second
	// fenceWait is how long the hook's own children may hold its output open once it was ended.
	fenceWait = time.Second
	// fenceOutput is how much of the hook's words an error repeats.
	fenceOutput = 2 << 10
)

// fenceHook is the external fence: a command that powers a node off. It is run with the node's id as last argument, and
// means by exit status 0 that the node is certainly off.
type fenceHook []string

// Fence implements cluster.Fencer.
func (h fenceHook) Fence(ctx context.Context, node fsm.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h[0], append(h[1:len(h):len(h)], string(node))...)
	// A group of its own, so that a script's children end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = fenceWait
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	words := out.Bytes()
	return fmt.Errorf("fence hook %s for %s: %w: %s", h[0], node, err, strings.TrimSpace(string(words[max(0, len(words)-fenceOutput):])))
}
