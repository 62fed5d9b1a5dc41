package mysqld

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// process identifies one process for as long as the machine is up: the start
// time tells apart two processes that had the same number.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, field 22 of /proc/PID/stat
}

// errNoProcess is returned when a process is gone, or dead and not yet reaped.
var errNoProcess = errors.New("no such process")

// errUnseen is returned where a process is not to be seen: over TCP, in another pid
// namespace, behind a /proc that hides those of others.
var errUnseen = errors.New("the process is not to be seen")

// readProcess looks a process up. A zombie counts as gone: it runs nothing.
func readProcess(pid int) (process, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return process{}, errNoProcess
		}
		if errors.Is(err, os.ErrPermission) {
			return process{}, errUnseen
		}
		return process{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	// The command name stands in parentheses and may hold anything.
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return process{}, fmt.Errorf("reading process %d: stat line has no command", pid)
	}
	fields := strings.Fields(string(raw[end+1:]))
	const state, startTime = 0, 19 // fields 3 and 22, counted from after the command
	if len(fields) <= startTime {
		return process{}, fmt.Errorf("reading process %d: stat line has %d fields", pid, len(fields))
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return process{}, errNoProcess
	}
	start, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	return process{PID: pid, Start: start}, nil
}

// incarnation names it for all times.
func (p process) incarnation() string { return fmt.Sprintf("%s/%d-%d", bootID(), p.PID, p.Start) }

// alive reports whether this very process still runs, as far as can be seen: one
// that cannot be looked at (no file descriptor left) is not gone for that.
func (p process) alive() bool {
	now, err := readProcess(p.PID)
	if err != nil {
		return p.PID != 0 && !errors.Is(err, errNoProcess)
	}
	return now == p
}

// bootID is the kernel's id of this boot; empty where it cannot be read.
func bootID() string {
	if id := knownBoot.Load(); id != nil {
		return *id
	}
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // and asked again
	}
	id := strings.TrimSpace(string(raw))
	knownBoot.Store(&id)
	return id
}

var knownBoot atomic.Pointer[string]

// peerTracker remembers which process answered the latest connection.
type peerTracker struct {
	mu   sync.Mutex
	last process
	look func(net.Conn) (process, error) // nil is peerProcess
}

// note looks at the other end of a connection. A process that is not to be seen is
// none. One that could not be looked at this time, or has just ended, is an error: the
// connection must not be taken for one to the process before it.
func (t *peerTracker) note(conn net.Conn) error {
	look := t.look
	if look == nil {
		look = peerProcess
	}
	p, err := look(conn)
	if err != nil && !errors.Is(err, errUnseen) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = p
	return nil
}

// current is the process last seen; zero if none was.
func (t *peerTracker) current() process {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// peerProcess is the process that listens at the other end of a unix socket;
// errUnseen where it cannot be seen.
func peerProcess(conn net.Conn) (process, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return process{}, errUnseen
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return process{}, fmt.Errorf("reading the peer of a socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return process{}, fmt.Errorf("reading the peer of a socket: %w", err)
	}
	if credErr != nil {
		return process{}, fmt.Errorf("reading the peer of a socket: %w", credErr)
	}
	if cred.Pid <= 0 {
		return process{}, errUnseen // another pid namespace
	}
	return readProcess(int(cred.Pid))
}
