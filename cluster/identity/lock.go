package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned when another daemon holds the data directory.
var ErrLocked = errors.New("data directory is in use by another daemon")

// lockFile is never removed: removing a lock file lets two daemons lock two different files of one name.
const lockFile = "hbd.lock"

// Lock is the exclusive right to a data directory. The kernel gives it back when the process ends, in
// whatever way, so nothing has to be cleaned up after a crash.
type Lock struct {
	f *os.File
}

// LockDir makes dir if needed and locks it, or returns ErrLocked at once with the holder's process id.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making data directory: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(lockError(dir, path, err), f.Close())
	}
	// The process id is for the error message of the next one only; the lock is the flock.
	if err := writePID(f); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
	}
	return &Lock{f: f}, nil
}

// Close gives the directory back.
func (l *Lock) Close() error {
	return l.f.Close()
}

// lockError names the holder if its lock file says who it is.
func lockError(dir, path string, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	holder := "unknown"
	if raw, readErr := os.ReadFile(path); readErr == nil {
		if pid, convErr := strconv.Atoi(strings.TrimSpace(string(raw))); convErr == nil {
			holder = strconv.Itoa(pid)
		}
	}
	return fmt.Errorf("locking %s: %w (process %s)", dir, ErrLocked, holder)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
