package probe

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// processView is what the kernel says of the server's process.
type processView struct {
	running bool   // certainly there
	gone    bool   // certainly not there; neither: unknown
	stopped bool   // state T or t
	run     string // identifies it, in the form of mysqld.Status.Incarnation
}

// stat is what is read of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	state byte
	start uint64 // field 22: clock ticks from boot to its start
}

// readStat reads a process; false if there is none. A zombie runs nothing and counts as none. That it could not be read, as without a file descriptor
// left, does not say that it is gone.
func readStat(pid int) (stat, bool, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return stat{}, false, nil
	case err != nil:
		return stat{}, false, err
	}
	s, there := parseStat(raw)
	return s, there, nil
}

// parseStat reads from behind the command, which stands in parentheses and may hold anything.
func parseStat(raw []byte) (stat, bool) {
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	const state, start = 0, 19 // fields 3 and 22
	if len(fields) <= start || len(fields[state]) != 1 {
		return stat{}, false
	}
	ticks, err := strconv.ParseUint(fields[start], 10, 64)
	if err != nil {
		return stat{}, false
	}
	s := stat{state: fields[state][0], start: ticks}
	return s, s.state != 'Z' && s.state != 'X'
}

var knownBoot atomic.Pointer[string]

// bootID is the kernel's id of this boot. Without one, number and start still tell the runs of a boot apart.
func bootID() string {
	if id := knownBoot.Load(); id != nil {
		return *id
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // and asked again
	}
	id := strings.TrimSpace(string(boot))
	knownBoot.Store(&id)
	return id
}

// runID identifies a run of a process for ever: boot, number and start.
func runID(pid int, start uint64) string { return fmt.Sprintf("%s/%d-%d", bootID(), pid, start) }

// parseRun finds number and start in an identity made by runID or package mysqld.
func parseRun(run string) (pid int, start uint64, ok bool) {
	p, s, found := strings.Cut(run[strings.LastIndexByte(run, '/')+1:], "-")
	pid, errPID := strconv.Atoi(p)
	start, errStart := strconv.ParseUint(s, 10, 64)
	return pid, start, found && errPID == nil && errStart == nil && pid > 0
}

// viewRun looks whether the run seen last is still there. It asks the kernel only, so it cannot hang.
func viewRun(run string) processView {
	pid, start, ok := parseRun(run)
	if !ok {
		return processView{}
	}
	return viewPID(pid, start)
}

// viewPID looks at a process; start 0 accepts any that has the number.
func viewPID(pid int, start uint64) processView {
	s, ok, err := readStat(pid)
	if err != nil {
		return processView{}
	}
	if !ok || (start != 0 && s.start != start) {
		return processView{gone: true}
	}
	return processView{running: true, stopped: s.state == 'T' || s.state == 't', run: runID(pid, s.start)}
}
