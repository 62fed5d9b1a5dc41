package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// minDiskSize is the smallest memory disk that a fresh data directory and its redo log fit into, in bytes.
const minDiskSize = 64 << 20

// privateMounts makes the calling process's mount namespace a receiver only: what is mounted here is seen nowhere
// else, what the machine unmounts is let go here too. Then it mounts a /proc of its own PID namespace.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separating the mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc (a container that hides parts of /proc forbids it): %w", err)
	}
	return nil
}

// hostMounts makes /etc/hosts know the hosts of the sandbox, and /sys/class/net show this host's interfaces.
func hostMounts(p plan, log *slog.Logger) error {
	if err := unix.Mount(p.hostsFile(), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("putting our /etc/hosts in place: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		// Only programs that look for interfaces below /sys notice; netlink is unaffected.
		log.Info("/sys shows the machine's interfaces, not the host's", "error", err)
	}
	return nil
}

// makeDisk prepares the directory that the host's data directory lies on: a memory disk if the plan says so.
func makeDisk(p plan, host string) error {
	disk := p.disk(host)
	if err := os.MkdirAll(disk, 0o700); err != nil {
		return fmt.Errorf("making the disk of %s: %w", host, err)
	}
	if p.DiskSize == 0 {
		return nil
	}
	options := fmt.Sprintf("size=%d,mode=0700", p.DiskSize)
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting the disk of %s: %w", host, err)
	}
	return nil
}

// fillDisk leaves not one free byte on the host's memory disk.
func fillDisk(p plan, host string) error {
	if p.DiskSize == 0 {
		return usagef("%s lies on the machine's own disk, which is not filled: use up --disk-size SIZE", host)
	}
	f, err := os.OpenFile(p.fillFile(host), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, unix.ENOSPC) {
		return nil // not even an empty file fits
	}
	if err != nil {
		return fmt.Errorf("filling the disk of %s: %w", host, err)
	}
	for size := 1 << 20; size >= 512; {
		if _, err = f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
			continue
		}
		if err != nil {
			break
		}
	}
	if closeErr := f.Close(); err == nil || errors.Is(err, unix.ENOSPC) {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("filling the disk of %s: %w", host, err)
	}
	return nil
}

// freeDisk undoes fillDisk; it is no error if nothing was filled.
func freeDisk(p plan, host string) error {
	if err := os.Remove(p.fillFile(host)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("freeing the disk of %s: %w", host, err)
	}
	return nil
}

// fillFile lies beside the data directory, not in it: a server would take it for something of its own.
func (p plan) fillFile(host string) string { return p.path(host, "disk", "fill") }
