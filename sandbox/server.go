package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// server is what differs between database servers. There is one file for each.
type server interface {
	// program returns the server's executable.
	program(p plan) (string, error)
	// seed makes a data directory with the accounts of p and an empty GTID history.
	seed(ctx context.Context, p plan, datadir string) error
	// individualise takes out of a copy of the seed what only one server may have.
	individualise(datadir string) error
	// options returns the option file of one host.
	options(p plan, h planHost) string
	// brokenOptions returns an option file with which the server refuses to start.
	brokenOptions() string
	// command returns the command line that runs the server in the foreground.
	command(p plan, h planHost) ([]string, error)
}

// newServer returns the server of the dialect, or an error wrapping ErrUsage.
func newServer(dialect string) (server, error) {
	switch dialect {
	case "mariadb":
		return mariadb{}, nil
	case "mysql":
		return mysqlServer{}, nil
	default:
		return nil, usagef("server = %q: want mariadb or mysql", dialect)
	}
}

// CheckServer returns an error if the server that o asks for is not on this machine.
func CheckServer(o Options) error {
	setDefault(&o.Server, "mariadb")
	s, err := newServer(o.Server)
	if err != nil {
		return err
	}
	_, err = s.program(plan{ServerPath: o.ServerPath})
	return err
}

// findServerProgram looks for name where the plan says or, without that, in $PATH and the usual places, which an
// unprivileged user's $PATH may lack. The plan may name the directory of the programs or the root that a server's
// packages were unpacked into.
func findServerProgram(p plan, name string) (string, error) {
	dirs := []string{p.ServerPath, filepath.Join(p.ServerPath, "usr/sbin"), filepath.Join(p.ServerPath, "usr/bin")}
	if p.ServerPath == "" {
		dirs = append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin")
	}
	for _, d := range dirs {
		file := filepath.Join(d, name)
		if _, err := exec.LookPath(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s not found in %s", name, strings.Join(dirs, ", "))
}

// prepareServers makes one seed data directory and copies it to every database host, with its option file.
func prepareServers(ctx context.Context, p plan, s server) error {
	if _, err := s.program(p); err != nil {
		return err
	}
	seed := p.path("seed")
	if err := s.seed(ctx, p, seed); err != nil {
		return err
	}
	for _, h := range p.Hosts {
		if h.Role != RoleData {
			continue
		}
		if err := makeDisk(p, h.Name); err != nil {
			return err
		}
		// Holes and shared blocks are kept where the file system can: most of a redo log is empty.
		if err := run(ctx, "", "cp", "-a", "--reflink=auto", "--sparse=always", seed, p.datadir(h.Name)); err != nil {
			return fmt.Errorf("copying the data directory of %s: %w", h.Name, err)
		}
		if err := s.individualise(p.datadir(h.Name)); err != nil {
			return fmt.Errorf("making the server of %s one of its own: %w", h.Name, err)
		}
		for file, text := range map[string]string{p.optionFile(h.Name): s.options(p, h), p.breakFile(h.Name): ""} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return fmt.Errorf("writing the option file of %s: %w", h.Name, err)
			}
		}
		if err := os.MkdirAll(p.path(h.Name, "tmp"), 0o700); err != nil {
			return fmt.Errorf("making the temporary directory of %s: %w", h.Name, err)
		}
	}
	if err := os.RemoveAll(seed); err != nil {
		return fmt.Errorf("removing the seed data directory: %w", err)
	}
	return nil
}

// run runs a command to its end; its output is in the error if it fails.
func run(ctx context.Context, stdin string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", filepath.Base(argv[0]), err, tail(out, 2000))
	}
	return nil
}

// tail returns the last n bytes, trimmed.
func tail(text []byte, n int) string {
	if len(text) > n {
		text = text[len(text)-n:]
	}
	return strings.TrimSpace(string(text))
}

// lockInstall lets one sandbox of the machine at a time initialise a data directory: several at once starve each
// other. The returned function ends that.
func lockInstall() (func(), error) {
	path := "/tmp/highbase-install-db.lock"
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the lock for data directories: %w", err)
	}
	if err := retryEINTR(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
