package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/mysqld"
)

// minFree is the free space below which a disk counts as full: a binary log event of a common size no longer fits, and
// the servers then wait for space inside the commit.
const minFree = 1 << 20 // bytes

// diskFile is written in the data directory. Both servers ignore files there that begin with a dot.
const diskFile = ".highbase-disk-probe"

// diskResult is what one try of the disk gave.
type diskResult struct {
	full bool
	err  error // why it could not be tried; no evidence either way
}

// directories are where a server must be able to write, each file system once.
func directories(st mysqld.Status) []string {
	var dirs []string
	if st.DataDir != "" {
		dirs = append(dirs, st.DataDir)
	}
	if st.BinlogIndex != "" {
		dir := filepath.Dir(st.BinlogIndex)
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(st.DataDir, dir)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// tryDisk looks at free space and writes a little, with fsync. It may take for ever: call it from a task.
func tryDisk(dirs []string) diskResult {
	var result diskResult
	tried := map[uint64]bool{}
	for _, dir := range dirs {
		var info unix.Stat_t
		if err := unix.Stat(dir, &info); err != nil {
			result.err = errors.Join(result.err, fmt.Errorf("looking at %s: %w", dir, err))
			continue
		}
		if tried[info.Dev] {
			continue
		}
		tried[info.Dev] = true
		full, err := tryDirectory(dir)
		result.full = result.full || full
		result.err = errors.Join(result.err, err)
	}
	return result
}

// tryDirectory tells whether the file system of dir is full. Free space is what ordinary users have: this process may be
// root and have a reserve that the server has not.
func tryDirectory(dir string) (full bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, fmt.Errorf("looking at the free space of %s: %w", dir, err)
	}
	if fs.Blocks > 0 && fs.Bavail*uint64(fs.Bsize) < minFree {
		return true, nil
	}
	err = writeProbe(filepath.Join(dir, diskFile))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return true, nil
	}
	return false, err
}

// writeProbe writes and flushes a small file. It is cut first, so that its block must be allocated anew.
func writeProbe(path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("trying the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString("hbd tries whether this disk still takes writes\n"); err != nil {
		return fmt.Errorf("trying the disk: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("trying the disk: %w", err)
	}
	return nil
}
