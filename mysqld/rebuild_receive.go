package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// spaceReserve is left free beside the copy, in bytes: redo that arrives while
// copying, and room for the server to go on.
const spaceReserve = 256 << 20

// Incoming is one copy on its way.
type Incoming struct {
	// ID names the rebuild; a half-received copy of another is thrown away.
	ID string
	// Size is about how many bytes will come.
	Size int64
	// Stream is what mariadb-backup writes (mbstream). It must end with io.EOF
	// only when the backup is known to be complete.
	Stream io.Reader
	// StateAt asks the donor for its gtid_binlog_state at a place in its binary
	// log (Server.StateAt).
	StateAt func(ctx context.Context, file string, offset int64) (string, error)
	// Host and Port are the donor's server, Rate the bytes per second to take from
	// it at most, 0 for no limit: MySQL clones by itself, and its stream is empty.
	Host string
	Port uint16
	Rate int64
}

// Receive unpacks a copy beside the data and makes it consistent. The server and
// its data are not touched. What an earlier attempt left is removed first: two
// copies are never kept. ErrStage if a copy is already being put in its place; but a
// clone that has failed half-way there may be made again for another rebuild.
func (r *Rebuild) Receive(ctx context.Context, in Incoming) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.mark()
	if err != nil {
		return err
	}
	if m.Stage == RebuildPlacing || m.Stage == RebuildEntering {
		if r.clones() {
			return r.cloneAnew(m, in)
		}
		return fmt.Errorf("%w: the copy of rebuild %s is half in its place", ErrStage, m.ID)
	}
	if err := r.receive(ctx, in); err != nil {
		return fmt.Errorf("receiving a copy: %w", err)
	}
	return nil
}

func (r *Rebuild) receive(ctx context.Context, in Incoming) error {
	if err := r.clear(); err != nil {
		return err
	}
	if err := r.makeWork(); err != nil {
		return err
	}
	if r.clones() {
		return r.receiveClone(ctx, in)
	}
	if err := r.checkSpace(in.Size); err != nil {
		return err
	}
	if err := r.setMark(rebuildMark{ID: in.ID, Stage: RebuildReceiving}); err != nil {
		return err
	}
	if err := os.Mkdir(r.incoming(), 0o700); err != nil {
		return err
	}
	if err := r.tool(ctx, in.Stream, "mbstream", "-x", "-C", r.incoming()); err != nil {
		return err
	}
	place, err := readBinlogInfo(r.incoming())
	if err != nil {
		return err
	}
	state, err := in.StateAt(ctx, place.file, place.offset)
	if err != nil {
		return fmt.Errorf("asking the donor for its history at %s:%d: %w", place.file, place.offset, err)
	}
	if err := r.tool(ctx, nil, "mariadb-backup", "--prepare", "--target-dir="+r.incoming()); err != nil {
		return err
	}
	if err := r.dropLeftovers(); err != nil {
		return err
	}
	if err := r.takeOwner(); err != nil {
		return err
	}
	if err := syncFileSystem(r.incoming()); err != nil {
		return err
	}
	return r.setMark(rebuildMark{ID: in.ID, Stage: RebuildPrepared, State: state})
}

// clear removes what an earlier rebuild left, its marker last.
func (r *Rebuild) clear() error {
	for _, path := range []string{r.incoming(), r.outgoing(), r.markFile(), r.work} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing what an earlier rebuild left: %w", err)
		}
	}
	return nil
}

// checkSpace compares what will come with what is free.
func (r *Rebuild) checkSpace(size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.work, &st); err != nil {
		return fmt.Errorf("asking for the free space at %s: %w", r.work, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if need := size + spaceReserve; free < need {
		return fmt.Errorf("%w: the copy needs %d MiB at %s (%d of data, the rest in reserve), %d MiB are free; free some, or give the data directory more room",
			ErrNoSpace, need>>20, r.work, size>>20, free>>20)
	}
	return nil
}

// tool runs one program of mariadb-backup and keeps its last words for the error.
func (r *Rebuild) tool(ctx context.Context, in io.Reader, args ...string) error {
	plain := args
	if r.cfg.Plain != nil {
		plain = r.cfg.Plain(args)
	}
	cmd := exec.CommandContext(ctx, plain[0], plain[1:]...)
	said := &lastWords{}
	cmd.Stdout, cmd.Stderr = said, said
	broken := &brokenReader{from: in}
	if in != nil {
		cmd.Stdin = broken
	}
	err := cmd.Run()
	if broken.err != nil {
		return broken.err
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w: %s", ErrBackup, args[0], err, said)
	}
	return nil
}

// brokenReader remembers why a stream ended, so that its error counts and not
// what the unpacking program made of it.
type brokenReader struct {
	from io.Reader
	err  error
}

func (b *brokenReader) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// lastWords keeps the end of what a program says.
type lastWords struct{ text []byte }

// Write implements io.Writer.
func (l *lastWords) Write(p []byte) (int, error) {
	const kept = 2000
	l.text = append(l.text, p...)
	if over := len(l.text) - kept; over > 0 {
		l.text = append(l.text[:0], l.text[over:]...)
	}
	return len(p), nil
}

func (l *lastWords) String() string { return strings.TrimSpace(string(l.text)) }

// leftovers are files of the backup tool that are no data.
var leftovers = []string{"xtrabackup_*", "mariadb_backup_*", "backup-my.cnf"}

func (r *Rebuild) dropLeftovers() error {
	for _, pattern := range leftovers {
		found, err := filepath.Glob(filepath.Join(r.incoming(), pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("removing a file of the backup tool: %w", err)
			}
		}
	}
	return nil
}

// takeOwner gives the copy, and paths beside it, to whom the data directory belongs: the server's own
// account, if this program runs as another.
func (r *Rebuild) takeOwner(paths ...string) error {
	var st unix.Stat_t
	if err := unix.Stat(r.cfg.DataDir, &st); err != nil {
		return fmt.Errorf("looking at the owner of %s: %w", r.cfg.DataDir, err)
	}
	if int(st.Uid) == os.Geteuid() {
		return nil
	}
	for _, path := range paths {
		if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return filepath.WalkDir(r.incoming(), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}

// syncFileSystem waits until everything written to the file system is on disk.
func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("writing %s to disk: %w", dir, err)
	}
	return nil
}
