package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Donation is a running backup of a server: the bytes are read from it, and
// io.EOF means that the backup is complete and good. A slow reader makes a slow
// backup; nothing is kept on the donor's disk.
type Donation struct {
	// Size is about how many bytes will come.
	Size int64

	cmd     *exec.Cmd
	cancel  context.CancelFunc
	out     io.ReadCloser
	said    *lastWords
	options string // file with the account, removed at the end

	mu    sync.Mutex
	end   error
	ended bool
}

// Donate begins a backup of this server (MariaDB only: MySQL's clone needs no
// help). scratch is a directory of this program's own: the account stands in a
// file there, because a command line can be read by everybody. ctx ends it, as
// does Close. plain makes a command line run at ordinary priority.
//
// While it copies, the server goes on; at the end commits are held up for a moment
// (BACKUP STAGE BLOCK_COMMIT), and a commit that waits for its acknowledgement
// holds that up.
func (s *Server) Donate(ctx context.Context, scratch string, plain func([]string) []string) (*Donation, error) {
	if s.cfg.Dialect != "mariadb" {
		return nil, fmt.Errorf("%w: a backup stream of dialect %s", ErrUnsupported, s.cfg.Dialect)
	}
	if s.cfg.Socket == "" {
		return nil, errors.New("mysqld: a backup needs the server's socket")
	}
	st, err := s.Status(ctx)
	if err != nil {
		return nil, err
	}
	d := &Donation{said: &lastWords{}, options: filepath.Join(scratch, "backup.cnf")}
	if d.Size, err = copySize(st.DataDir); err != nil {
		return nil, fmt.Errorf("sizing the data: %w", err)
	}
	text := fmt.Sprintf("[mariadb-backup]\nuser=%s\npassword=%s\n", optionValue(s.cfg.ManagerUser), optionValue(s.cfg.ManagerPassword))
	if err := writeSynced(d.options, []byte(text)); err != nil {
		return nil, fmt.Errorf("writing the backup's account: %w", err)
	}
	args := []string{"mariadb-backup", "--defaults-file=" + d.options, "--backup", "--stream=mbstream", "--socket=" + s.cfg.Socket, "--target-dir=" + scratch, "--tmpdir=" + scratch,
		// Forcing a checkpoint first, which 10.11.14 does by itself, never ends while somebody writes without a pause
		// (docs/SERVERS.md, checkpoint of a backup). Versions that do not know the option say so and go on.
		"--loose-skip-innodb-log-checkpoint-now"}
	if plain != nil {
		args = plain(args)
	}
	ctx, d.cancel = context.WithCancel(ctx)
	d.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	d.cmd.Stderr = d.said
	if d.out, err = d.cmd.StdoutPipe(); err != nil {
		d.cancel()
		return nil, fmt.Errorf("starting a backup: %w", errors.Join(err, os.Remove(d.options)))
	}
	if err := d.cmd.Start(); err != nil {
		d.cancel()
		return nil, fmt.Errorf("starting a backup (is mariadb-backup installed?): %w", errors.Join(err, os.Remove(d.options)))
	}
	s.log.Info("backup begun", "pid", d.cmd.Process.Pid, "bytes", d.Size)
	return d, nil
}

// Read implements io.Reader.
func (d *Donation) Read(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return 0, d.end
	}
	n, err := d.out.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return 0, d.finish(err)
	}
	return 0, d.finish(nil)
}

// finish waits for the tool: only a good end is io.EOF.
func (d *Donation) finish(cause error) error {
	d.ended = true
	err := errors.Join(cause, d.cmd.Wait())
	d.cancel()
	removed := os.Remove(d.options)
	switch {
	case err != nil:
		d.end = fmt.Errorf("%w: %w: %s", ErrBackup, err, d.said)
	case removed != nil && !errors.Is(removed, fs.ErrNotExist):
		d.end = fmt.Errorf("removing the backup's account: %w", removed)
	default:
		d.end = io.EOF
	}
	return d.end
}

// Close ends the backup if it still runs, and a Read under way. The server lets go
// of its locks when the tool's connection ends.
func (d *Donation) Close() error {
	d.cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		_ = d.finish(nil) // it was killed, or nobody wants what is left of it
	}
	return nil
}

// optionValue quotes a value for an option file: the outer quotes are taken off,
// and backslashes begin an escape.
func optionValue(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(v) + `"`
}

// notCopied are files that a backup leaves out: logs of the past.
var notCopied = []string{"ib_logfile*", "ibtmp*", "*relay*", "*-bin.*", "*bin.[0-9]*", "*.err", "*.pid"}

// copySize is about how many bytes a backup of the directory has.
func copySize(dataDir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dataDir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // dropped meanwhile
		}
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == workName {
			return fs.SkipDir
		}
		for _, pattern := range notCopied {
			if ok, _ := filepath.Match(pattern, e.Name()); ok && !e.IsDir() {
				return nil
			}
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size, err
}
