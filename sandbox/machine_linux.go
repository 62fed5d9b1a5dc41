package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// States of a host, as Status shows them.
const (
	StateRunning = "running"
	StateFrozen  = "frozen" // every process stopped; the kernel still answers
	StateDown    = "down"
)

// host is a machine of the sandbox as the runner drives it, from outside.
type host struct {
	planHost
	plan plan
	log  *slog.Logger

	op sync.Mutex // held during one fault of this host: they do not overlap

	mu      sync.Mutex // guards what follows
	init    *exec.Cmd  // nil: down
	frozen  bool
	stopped map[int]bool // stopped already before the freeze; thaw leaves them so
}

// pids are what the runner calls the processes of a host; 0 is absent.
type pids struct{ init, hbd, mysqld int }

// start boots the host. It returns when its services have been started.
func (h *host) start() error {
	if h.pid() != 0 {
		return fmt.Errorf("%s is up already", h.Name)
	}
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer goRead.Close()
	defer goWrite.Close()
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer readyRead.Close()
	defer readyWrite.Close()

	cmd := exec.Command("/proc/self/exe") // not the path: the program may have been rebuilt since
	cmd.Args = []string{h.plan.Program, "sandbox", childVerb, kindHost, h.plan.Dir, h.Name}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{goRead, readyWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting host %s: %w", h.Name, err)
	}
	h.mu.Lock()
	h.init, h.frozen, h.stopped = cmd, false, nil
	h.mu.Unlock()
	err = plugIn(h.planHost, cmd.Process.Pid)
	goWrite.Close()
	readyWrite.Close()
	var report []byte
	if err == nil {
		report, err = io.ReadAll(readyRead)
	}
	if err == nil && string(report) != "ok" {
		err = fmt.Errorf("starting host %s: %s", h.Name, report)
	}
	if err != nil {
		return errors.Join(err, h.kill())
	}
	return nil
}

// kill is a power loss: the link goes first, so that nobody hears the sockets die.
func (h *host) kill() error {
	h.mu.Lock()
	cmd := h.init
	h.mu.Unlock()
	if cmd == nil {
		return fmt.Errorf("%s is down already", h.Name)
	}
	unplugErr := unplug(h.Name)
	if err := cmd.Process.Kill(); err != nil {
		return errors.Join(unplugErr, fmt.Errorf("killing host %s: %w", h.Name, err))
	}
	// The kernel has ended every process of a PID namespace before its init can be waited for.
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return errors.Join(unplugErr, fmt.Errorf("waiting for the end of host %s: %w", h.Name, err))
	}
	h.mu.Lock()
	h.init, h.frozen, h.stopped = nil, false, nil
	h.mu.Unlock()
	return unplugErr
}

// pid is the host's init as the runner calls it; 0: down.
func (h *host) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.init == nil {
		return 0
	}
	return h.init.Process.Pid
}

func (h *host) checkUp() error {
	if h.pid() == 0 {
		return fmt.Errorf("%s is down", h.Name)
	}
	return nil
}

func (h *host) checkRunning() error {
	if err := h.checkUp(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.frozen {
		return fmt.Errorf("%s is frozen", h.Name)
	}
	return nil
}

// look tells the host's state and its processes.
func (h *host) look() (string, pids) {
	init := h.pid()
	if init == 0 {
		return StateDown, pids{}
	}
	list, err := processesIn(init)
	if err != nil {
		return StateDown, pids{} // ended by itself, which only a defect of ours explains: the log has it
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	state := StateRunning
	if h.frozen {
		state = StateFrozen
	}
	p := pids{init: init, mysqld: findByArgument(list, h.plan.optionFile(h.Name), init)}
	// A script that stands in for hbd has children with its own command line: only the init's child counts.
	for _, c := range list {
		if c.parent == init && contains(c.argv, h.plan.hbdConfig(h.Name)) {
			p.hbd = c.pid
		}
	}
	return state, p
}

// freeze stops every process of the host, its init first so that nothing new is started.
func (h *host) freeze(ctx context.Context) error {
	if err := h.checkRunning(); err != nil {
		return err
	}
	init := h.pid()
	before, err := processesIn(init)
	if err != nil {
		return err
	}
	stopped := make(map[int]bool)
	for _, p := range before {
		stopped[p.pid] = p.state == 'T'
	}
	if err := signalProcess(init, unix.SIGSTOP); err != nil {
		return err
	}
	var failed error
	err = waitUntil(ctx, "every process of "+h.Name+" has stopped", func() bool {
		list, err := processesIn(init)
		if err != nil {
			failed = err
			return true
		}
		all := true
		for _, p := range list {
			if p.state != 'T' {
				all = false // looked at again: a process may fork just before its signal arrives
				failed = errors.Join(failed, signalProcess(p.pid, unix.SIGSTOP))
			}
		}
		return all || failed != nil
	})
	h.mu.Lock()
	h.frozen, h.stopped = true, stopped
	h.mu.Unlock()
	return errors.Join(err, failed)
}

// thaw undoes freeze; what was stopped before it stays stopped.
func (h *host) thaw() error {
	h.mu.Lock()
	frozen, stopped := h.frozen, h.stopped
	h.mu.Unlock()
	if !frozen {
		return fmt.Errorf("%s is not frozen", h.Name)
	}
	list, err := processesIn(h.pid())
	if err != nil {
		return err
	}
	for _, p := range list {
		if !stopped[p.pid] {
			err = errors.Join(err, signalProcess(p.pid, unix.SIGCONT))
		}
	}
	h.mu.Lock()
	h.frozen, h.stopped = false, nil
	h.mu.Unlock()
	return err
}

// signalProcess sends a signal; that the process has ended is no error.
func signalProcess(pid int, sig unix.Signal) error {
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending signal %d to process %d: %w", sig, pid, err)
	}
	return nil
}
