package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one line of /proc as the reader sees it.
type process struct {
	pid, parent int
	state       byte // 'T' stopped, 'Z' zombie, ...; see proc(5)
	argv        []string
}

// processesIn lists the processes of the PID namespace that init, a pid of ours, belongs to; zombies are left out.
// Processes of namespaces below it are not in the list.
func processesIn(init int) ([]process, error) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	if err != nil {
		return nil, fmt.Errorf("reading the PID namespace of process %d: %w", init, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		if link, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid")); err != nil || link != ns {
			continue // another host's, or gone meanwhile
		}
		if p, ok := readProcess(pid); ok && p.state != 'Z' && p.state != 'X' {
			list = append(list, p)
		}
	}
	return list, nil
}

// readProcess reads /proc/PID; ok is false if the process is gone.
func readProcess(pid int) (p process, ok bool) {
	dir := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	// "PID (COMMAND) STATE PPID ...": the command may hold anything, parentheses too.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 || len(fields[0]) != 1 {
		return p, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return p, false
	}
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, false
	}
	argv := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	return process{pid: pid, parent: parent, state: fields[0][0], argv: argv}, true
}

// ending reports whether the process is a zombie, or will be at once: it has given back its memory already, and with it
// its command line, by which it is found.
func (p process) ending() bool {
	return p.state == 'Z' || p.state == 'X' || len(p.argv) == 1 && p.argv[0] == ""
}

// findByArgument returns the process with an argument ending in suffix, preferring one whose parent is parent; 0 if
// there is none. A server is found by its option file and hbd by its configuration, which survives every kind of
// restart, where a pid file may be stale.
func findByArgument(list []process, suffix string, parent int) int {
	found := 0
	for _, p := range list {
		for _, a := range p.argv[1:] {
			if !strings.HasSuffix(a, suffix) {
				continue
			}
			if p.parent == parent {
				return p.pid
			}
			if found == 0 {
				found = p.pid
			}
		}
	}
	return found
}

// killAndWait sends SIGKILL to pid and waits until it has ended (its parent may not have collected it yet).
func killAndWait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", pid, err)
	}
	return waitPidfd(ctx, fd)
}

// waitPidfd returns when the process of the pidfd has ended, or with the cause of ctx's end.
func waitPidfd(ctx context.Context, fd int) error {
	const slice = 20 // ms between looks at ctx; the end of the process itself is noticed at once
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, slice)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for a process to end: %w", err)
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for a process to end: %w", context.Cause(ctx))
		}
	}
}

// waitUntil calls done every few milliseconds until it is true or ctx ends. It is for conditions that the kernel
// offers no event for.
func waitUntil(ctx context.Context, what string, done func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}

// pidOfPidfd returns what the caller's PID namespace calls the process: 0 if it has ended or is not visible here.
func pidOfPidfd(fd int) (int, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("reading a process descriptor: %w", err)
	}
	for _, line := range strings.Split(string(info), "\n") {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				return 0, fmt.Errorf("reading a process descriptor: %w", err)
			}
			return max(pid, 0), nil // -1: ended
		}
	}
	return 0, errors.New("reading a process descriptor: the kernel gives no Pid line")
}
