package mysqld

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// generationTracker notices that a replica may have forgotten what it received,
// also when somebody did it behind our back.
//
// Every way to lose a relay log needs both threads stopped at one moment (a
// CHANGE or RESET, and on MariaDB any START after it). The servers number their
// threads and never reuse a number while they run. So as long as, from one
// observation to the next, at least one thread kept its number, the two were
// never stopped together and the generation is the same.
type generationTracker struct {
	mu                sync.Mutex
	incarnation       string
	receiver, applier uint64
	token             string
}

// observe takes the numbers of the running threads (0: not running) and gives
// the generation, empty while both are stopped. The token is made of the
// applier's number, so that it survives a restart of this process as long as
// the applier does.
func (g *generationTracker) observe(incarnation string, receiver, applier uint64) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	kept := g.token != "" && incarnation == g.incarnation &&
		(applier != 0 && applier == g.applier || receiver != 0 && receiver == g.receiver)
	switch {
	case applier == 0 && receiver == 0:
		g.token = ""
	case kept:
	case applier != 0:
		g.token = fmt.Sprintf("%s/%d", incarnation, applier)
	default:
		g.token = fmt.Sprintf("%s/receiver-%d", incarnation, receiver)
	}
	g.incarnation, g.receiver, g.applier = incarnation, receiver, applier
	return g.token
}

const (
	// bootWindow is how young a server must be for its settings to be the ones
	// it booted with.
	bootWindow = 10 * time.Second
	// uptimeJitter is how far two readings of now - Uptime may lie apart: both
	// servers count whole seconds.
	uptimeJitter = 2 * time.Second
)

// bootTracker remembers, for the running server, when it started and what it
// was seen to boot with before this process changed anything.
type bootTracker struct {
	mu          sync.Mutex
	process     process
	startedAt   time.Time
	problems    []string
	interfered  bool
	seenAnybody bool
	// since is when the tracker began to look. A server that is older may have
	// been changed by whoever looked after it before.
	since time.Time
}

// knows tells whether a process is the one whose start was noted.
func (b *bootTracker) knows(p process) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seenAnybody && p == b.process && p != process{}
}

// observe fills in the start and the incarnation of a status just read, and
// returns the problems seen at boot.
func (b *bootTracker) observe(st *Status, p process, uptime time.Duration, now time.Time) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	started := now.Add(-uptime)
	moved := started.Sub(b.startedAt).Abs() > uptimeJitter
	if !b.seenAnybody || p != b.process || (p == process{} && moved) {
		b.process, b.startedAt, b.seenAnybody = p, started.Truncate(time.Second), true
		b.problems = nil
		if uptime < bootWindow && !b.interfered && b.youngerThanTracker(p, started) {
			b.problems = bootProblems(st)
		}
	}
	b.interfered = false
	st.StartedAt = b.startedAt
	st.Incarnation = p.incarnation()
	if (p == process{}) {
		st.Incarnation = fmt.Sprintf("started-%d", b.startedAt.Unix())
	}
	return b.problems
}

// youngerThanTracker: the process began after this program began to look. Its
// start is known in clock ticks where there is a process to look at, else only
// in the whole seconds of the server's own uptime.
func (b *bootTracker) youngerThanTracker(p process, started time.Time) bool {
	if p.Start == 0 {
		return started.After(b.since)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return false
	}
	age := time.Duration(up.Nano()) - time.Duration(p.Start)*(time.Second/userHZ)
	const tick = time.Second / userHZ // its start is rounded down by up to one
	return age < time.Since(b.since)+tick
}

// userHZ is the unit of /proc/PID/stat's start time on every Linux (proc(5)).
const userHZ = 100

// interfere notes that we changed what bootProblems looks at: the next first
// look at a server says nothing about its option file.
func (b *bootTracker) interfere() {
	b.mu.Lock()
	b.interfered = true
	b.mu.Unlock()
}

// bootProblems says what a server must not have booted with. Only the primary
// by its lease may write or acknowledge, so every start must be harmless.
func bootProblems(st *Status) []string {
	var out []string
	if !st.ReadOnly {
		out = append(out, "The server boots writable; set read_only=ON in its option file.")
	}
	if st.IORunning != ThreadNo || st.SQLRunning {
		out = append(out, "The server starts replication when it boots; set skip_slave_start (skip_replica_start on MySQL) in its option file.")
	}
	if st.ReplicaSemiSyncEnabled {
		out = append(out, "The server boots with replica semi-sync on; take it out of the option file, because only a member of the sync set may acknowledge.")
	}
	return out
}
