package mysqld

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is for the few things the kernel has no event for: a lock let
// go of, a socket that begins to answer.
const pollInterval = 5 * time.Millisecond

// lockFiles are files in a data directory that a running server holds locked.
var lockFiles = []string{"ibdata1", "aria_log_control"}

// DataDirOf finds the data directory in a server's command line, "" if it does not
// stand there.
func DataDirOf(command []string) string { return dataDirOf(command) }

// dataDirOf finds --datadir in a command line.
func dataDirOf(command []string) string {
	for i, arg := range command {
		if dir, ok := strings.CutPrefix(arg, "--datadir="); ok {
			return dir
		}
		if (arg == "--datadir" || arg == "-h") && i+1 < len(command) {
			return command[i+1]
		}
	}
	return ""
}

// workingDir is the data directory of a running server: both servers change
// into it. Empty if it cannot be seen.
func workingDir(pid int) string {
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return ""
	}
	return dir
}

// waitUnlocked waits until nobody holds the data directory. A killed server's
// locks outlive its process by 12-124 ms (seen), once by a second, and a server
// started meanwhile gives up or retries only each second.
func waitUnlocked(ctx context.Context, dir string) error {
	if dir == "" {
		return nil
	}
	return poll(ctx, func() (bool, error) {
		for _, name := range lockFiles {
			held, err := locked(filepath.Join(dir, name))
			if err != nil {
				return false, err
			}
			if held {
				return false, nil
			}
		}
		return true, nil
	})
}

// clearSocketLock removes what a killed MySQL leaves beside its socket: a file with
// its process number. The next start gives up if any process has that number by
// then, as is likely after a reboot or in a container. To be called where the data
// directory is known not to be in use; a socket that somebody listens on is left
// alone.
func clearSocketLock(ctx context.Context, socket string) error {
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", socket); err == nil {
		conn.Close() // nothing was said on it
		return nil
	}
	if err := os.Remove(socket + ".lock"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the lock that a killed server left: %w", err)
	}
	return nil
}

// locked asks whether another process holds a POSIX lock on the file, without
// taking one.
func locked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for the lock of %s: %w", path, err)
	}
	defer f.Close()
	// An open-file-description query: a classic one would, when the file is
	// closed, drop locks this process might hold.
	query := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query); err != nil {
		return false, fmt.Errorf("asking for the lock of %s: %w", path, err)
	}
	return query.Type != unix.F_UNLCK, nil
}

// poll calls done every few milliseconds until it says so, fails, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// answers reports whether a server greets on the socket. A greeting, not only a
// connection: the kernel accepts for a server that hangs.
func answers(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var greeting [5]byte
	n, err := conn.Read(greeting[:])
	return err == nil && n > 0
}

// adopt waits for a server that somebody else started. ErrExited if it ends instead:
// it may have been on its way out, and the start that was asked for is still to come.
func adopt(ctx context.Context, p process, socket string) error {
	w := openProcess(p)
	defer w.close()
	return waitServing(ctx, w, socket)
}

// waitServing waits until the server p answers on the socket, or has ended.
func waitServing(ctx context.Context, p watchedProcess, socket string) error {
	err := poll(ctx, func() (bool, error) {
		if p.exited(ctx, 0) {
			return false, ErrExited
		}
		return answers(ctx, socket), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the server on %s: %w", socket, err)
	}
	return nil
}

// readPID reads a pid file; 0 if there is none.
func readPID(path string) (int, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err == nil && pid > 0 {
		return pid, nil
	}
	return 0, nil // being written, or left empty by a crash
}

// commandLine is the command line of a process.
func commandLine(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
}

// killProcess sends SIGKILL to p and waits until it is gone and has let go of
// the data directory. SIGKILL also ends a stopped process.
func killProcess(ctx context.Context, p process, dir string) error {
	w := openProcess(p)
	defer w.close()
	if w.pidfd != nil {
		if err := w.signal(unix.SIGKILL); err != nil {
			return fmt.Errorf("killing process %d: %w", p.PID, err)
		}
		if err := w.waitExit(ctx); err != nil {
			return err
		}
	} else if p.alive() {
		return fmt.Errorf("killing process %d: it cannot be held by a pidfd", p.PID)
	}
	if err := waitUnlocked(ctx, dir); err != nil {
		return fmt.Errorf("waiting for the data directory %s to be let go: %w", dir, err)
	}
	return nil
}

// stopProcess sends SIGTERM to p and waits until it is gone.
func stopProcess(ctx context.Context, p process, dir string) error {
	w := openProcess(p)
	defer w.close()
	if w.pidfd == nil {
		if p.alive() {
			return fmt.Errorf("stopping process %d: it cannot be held by a pidfd", p.PID)
		}
		return nil
	}
	if err := w.signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", p.PID, err)
	}
	if err := w.waitExit(ctx); err != nil {
		return err
	}
	return waitUnlocked(ctx, dir)
}

// startGuard makes a kill win over a start under way: a fence must not be
// undone by a process that appears after it.
type startGuard struct {
	mu    sync.Mutex
	kills int
}

// killed counts a kill; starts that began before it must end theirs.
func (g *startGuard) killed() {
	g.mu.Lock()
	g.kills++
	g.mu.Unlock()
}

// begin gives what overtaken asks for.
func (g *startGuard) begin() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.kills
}

// overtaken is ErrKilled if a kill came after begin.
func (g *startGuard) overtaken(begun int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kills != begun {
		return ErrKilled
	}
	return nil
}

// watchProcess calls onExit each time the process that find returns ends.
func watchProcess(ctx context.Context, find func() (process, bool), onExit func()) {
	for ctx.Err() == nil {
		p, running := find()
		if !running {
			select {
			case <-ctx.Done():
			case <-time.After(rearmInterval):
			}
			continue
		}
		w := openProcess(p)
		err := w.waitExit(ctx)
		w.close()
		if err == nil {
			onExit()
		}
	}
}
