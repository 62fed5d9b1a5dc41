package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockName returns the lock file of a sandbox. It lies beside the directory, which is removed while it is held.
func lockName(base, name string) string { return filepath.Join(base, "."+name+".lock") }

// lock takes the lock of a sandbox name, or returns ErrAlreadyUp if its runner (or another Up or Down) holds it. The
// lock ends with the last descriptor of the file, so it survives nobody.
func lock(base, name string) (*os.File, error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of sandboxes: %w", err)
	}
	path := lockName(base, name)
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("opening the lock of sandbox %s: %w", name, err)
		}
		err = retryEINTR(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
		if errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("%w: %s in %s", ErrAlreadyUp, name, base)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("locking sandbox %s: %w", name, err)
		}
		// Whoever held it before may have removed the file: then this lock is on nothing that others see.
		held, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("reading the lock of sandbox %s: %w", name, err)
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(held, now) {
			return f, nil
		}
		f.Close()
	}
}

// removeFiles removes what a sandbox left on disk; the caller holds its lock, which it gives up with it.
func removeFiles(base, name string, held *os.File) error {
	err := os.RemoveAll(filepath.Join(base, name))
	if err != nil {
		err = fmt.Errorf("removing the files of sandbox %s: %w", name, err)
	}
	if rmErr := os.Remove(lockName(base, name)); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("removing the lock of sandbox %s: %w", name, rmErr))
	}
	return errors.Join(err, held.Close())
}
