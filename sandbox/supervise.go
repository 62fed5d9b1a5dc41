package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartDelay is how long a dead hbd stays dead: about what an init system needs.
const restartDelay = 50 * time.Millisecond

// reaper starts processes as PID 1 of a host and collects every process that ends, its own or an orphan.
// os/exec would collect only its own, and would race with the collection of the others.
type reaper struct {
	mu   sync.Mutex
	wait map[int]chan syscall.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{wait: make(map[int]chan syscall.WaitStatus)}
	ended := make(chan os.Signal, 1) // one is enough: each wake-up collects all
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			r.collect()
		}
	}()
	return r
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return // nobody left to collect now
		}
		if ch, ok := r.wait[pid]; ok {
			ch <- status // buffered
			delete(r.wait, pid)
		}
	}
}

// start runs argv; its status arrives on the channel when it ends. files are the child's descriptors 0, 1 and 2.
func (r *reaper) start(argv, env []string, dir string, files []*os.File) (int, <-chan syscall.WaitStatus, error) {
	path, err := lookPath(argv[0], env, dir)
	if err != nil {
		return 0, nil, err
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	r.mu.Lock() // until registered: the child may end before ForkExec returns
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s: %w", path, err)
	}
	ch := make(chan syscall.WaitStatus, 1)
	r.wait[pid] = ch
	return pid, ch, nil
}

// lookPath finds a program by the PATH of env, not by our own.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for _, v := range env {
		list, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			file := filepath.Join(d, name)
			if info, err := os.Stat(file); err == nil && !info.IsDir() && unix.Access(file, unix.X_OK) == nil {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("%s: command not found", name)
}

// keeper runs one long-lived process of a host and, if restart is set, runs it again whenever it ends unasked.
type keeper struct {
	name    string
	argv    []string
	logFile string // gets standard output and error, appended
	restart bool
	reaper  *reaper
	log     *slog.Logger

	mu    sync.Mutex
	want  bool
	pid   int           // 0: not running
	ended chan struct{} // closed when pid has ended
}

// Start makes the process run; it is no error if it does.
func (k *keeper) Start() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.pid != 0 && hasEnded(k.pid) { // but we have not been told yet
		ended := k.ended
		k.mu.Unlock()
		<-ended
		k.mu.Lock()
	}
	k.want = true
	return k.launch()
}

// hasEnded reports whether a child is only waiting to be collected, or about to.
func hasEnded(pid int) bool {
	p, ok := readProcess(pid)
	return !ok || p.ending()
}

// launch starts the process unless it runs; k.mu is held.
func (k *keeper) launch() error {
	if k.pid != 0 {
		return nil
	}
	out, err := os.OpenFile(k.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", k.name, err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	defer null.Close()
	pid, status, err := k.reaper.start(k.argv, os.Environ(), "/", []*os.File{null, out, out})
	if err != nil {
		return err
	}
	k.pid, k.ended = pid, make(chan struct{})
	go k.watch(status, k.ended)
	return nil
}

func (k *keeper) watch(status <-chan syscall.WaitStatus, ended chan struct{}) {
	st := <-status
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pid = 0
	close(ended)
	k.log.Info("process ended", "process", k.name, "status", exitCode(st), "wanted", k.want)
	if !k.restart {
		k.want = false
		return
	}
	if k.want {
		time.AfterFunc(restartDelay, k.again)
	}
}

func (k *keeper) again() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.want || k.pid != 0 {
		return
	}
	if err := k.launch(); err != nil {
		k.log.Error("restart failed, trying again", "process", k.name, "error", err)
		time.AfterFunc(restartDelay, k.again)
	}
}

// Stop asks the process to end (SIGTERM), waits until it has, and leaves it ended.
func (k *keeper) Stop(ctx context.Context) error {
	k.mu.Lock()
	k.want = false
	pid, ended := k.pid, k.ended
	if pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			k.mu.Unlock()
			return fmt.Errorf("stopping %s: %w", k.name, err)
		}
	}
	k.mu.Unlock()
	if pid == 0 {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to end after SIGTERM: %w", k.name, context.Cause(ctx))
	}
}

// exitCode is the status as a shell shows it: 128 + N for signal N.
func exitCode(st syscall.WaitStatus) int {
	if st.Signaled() {
		return 128 + int(st.Signal())
	}
	return st.ExitStatus()
}
