package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// ownNice puts hbd before the server on a busy host: it must renew a lease in time, and needs little.
	ownNice = -10
	// ownOOM lets the kernel kill nearly everything else first when memory runs out (proc_pid_oom_score_adj(5)).
	ownOOM = -900
	// ownSlack is how late the kernel may wake a thread whose time has come, so that it can do so together with others
	// (PR_SET_TIMERSLACK(2const)). Go's runtime looks every 20 us whether there is work, for a while after each burst of it:
	// that was most of what woke a quiet hbd. Nothing here waits for less than a millisecond.
	ownSlack = 500_000
	// plainSlack is Linux's own.
	plainSlack = 50_000
)

// priority is what this process had before it raised its own, so that what it starts gets the same.
type priority struct {
	nice   int
	oom    int
	raised bool
}

const oomFile = "/proc/self/oom_score_adj"

// raisePriority is a courtesy, not a guarantee: without the right it goes on as it is.
func raisePriority(log *slog.Logger) priority {
	var p priority
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil {
		p.nice = 20 - raw // the system call's own numbering (getpriority(2), C library/kernel differences)
		err = setNice(ownNice)
	}
	if err != nil {
		log.Debug("own priority not raised", "error", err)
	} else {
		p.raised = true
		log.Debug("own priority raised", "nice", ownNice, "was", p.nice)
	}
	text, err := os.ReadFile(oomFile)
	if err == nil {
		p.oom, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err == nil {
		err = os.WriteFile(oomFile, []byte(strconv.Itoa(ownOOM)), 0)
	}
	if err != nil {
		log.Debug("own OOM score not lowered", "error", err)
	} else {
		p.raised = true
		log.Debug("own OOM score lowered", "oom_score_adj", ownOOM, "was", p.oom)
	}
	// What this process starts is only given its own slack back if it is made plain anyway.
	if p.raised {
		if err := setSlack(ownSlack); err != nil {
			log.Debug("own timer slack not raised", "error", err)
		}
	}
	return p
}

// setNice sets the nice value of every thread.
func setNice(nice int) error {
	return eachThread(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, nice) })
}

// setSlack sets the timer slack of every thread.
func setSlack(nanoseconds int) error {
	return eachThread(func(tid int) error {
		return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), []byte(strconv.Itoa(nanoseconds)), 0)
	})
}

// eachThread sets what Linux keeps for each thread and new threads inherit from their maker. A thread made meanwhile by one
// not yet set is caught by the second round; one that has ended needs nothing.
func eachThread(set func(tid int) error) error {
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			if err := set(tid); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("thread %d: %w", tid, err)
			}
		}
	}
	return nil
}

// plainVerb makes hbd a small program that gives its priority back and becomes another.
const plainVerb = "_plain"

// plain is the command line that runs argv with the priority this process began with: a server that inherited hbd's would
// stand beside it, not behind. It is run by this very binary, also when its file was replaced meanwhile.
func (p priority) plain(argv []string) []string {
	if !p.raised || len(argv) == 0 {
		return argv
	}
	return append([]string{"/proc/self/exe", plainVerb, strconv.Itoa(p.nice), strconv.Itoa(p.oom)}, argv...)
}

// copyNice puts a backup behind the server that it reads.
const copyNice = 10

// gentle is plain for a program that should take what others leave. Its name is looked up: it is run by its path.
func (p priority) gentle(argv []string) []string {
	if !p.raised || len(argv) == 0 {
		return argv
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return argv // whoever runs it says that it is missing
	}
	return append([]string{"/proc/self/exe", plainVerb, strconv.Itoa(min(p.nice+copyNice, 19)), strconv.Itoa(p.oom), path}, argv[1:]...)
}

// execPlain becomes argv[2:] with nice argv[0] and OOM score argv[1]. Giving priority up needs no right; what fails all
// the same is worth a word, not a server that does not start.
func execPlain(argv []string) error {
	if len(argv) < 3 {
		return errors.New("nothing to run")
	}
	runtime.LockOSThread() // the thread that calls exec is the one that goes on
	nice, err := strconv.Atoi(argv[0])
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hbd: giving the priority back:", err)
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, plainSlack, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "hbd: giving the timer slack back:", err)
	}
	if err := os.WriteFile(oomFile, []byte(argv[1]), 0); err != nil {
		fmt.Fprintln(os.Stderr, "hbd: giving the OOM score back:", err)
	}
	return fmt.Errorf("running %s: %w", argv[2], unix.Exec(argv[2], argv[2:], os.Environ()))
}
