package mysqld

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/highbase/highbase/fsm/gtid"
)

// ErrNotRewindable is returned, with the reason, for a tail that must not be
// rolled back: the node has to be rebuilt.
var ErrNotRewindable = errors.New("mysqld: the tail cannot be rolled back")

// Tail is what the binary logs of a stopped server hold beyond a position of
// the cluster: what died unacknowledged with a primary.
type Tail struct {
	Flavor gtid.Flavor
	// File and Offset are where the first foreign transaction begins, Size is
	// the file's length. Empty and zero if there is no tail.
	File         string
	Offset, Size int64
	// Groups are the foreign transactions, in order, an incomplete one last.
	Groups []Group
	// InLastFile: the whole tail stands in the last file.
	InLastFile bool
	// Mixed: a transaction that the cluster has follows a foreign one, so the
	// tail is no suffix.
	Mixed bool
	// Stopped: the server was stopped in good order. It has committed the tail, and
	// MySQL has told clients that waited for an acknowledgement success.
	Stopped bool
	// Torn is how many bytes at the end of the last file are no whole event.
	Torn int64
}

// ReadTail reads what the binary logs listed in index hold beyond known, the
// cluster's history (Server.History), from the last file backwards, and changes
// nothing. dialect is "mariadb" or
// "mysql". Bad bytes give an error (ErrBinlog): judge nothing by it, rebuild.
func ReadTail(dialect, index, known string) (Tail, error) {
	d, err := dialectFor(dialect)
	if err != nil {
		return Tail{}, err
	}
	have, err := gtid.ParseHistory(d.flavor(), known)
	if err != nil {
		return Tail{}, fmt.Errorf("reading the known history: %w", err)
	}
	files, err := binlogFiles(index)
	if err != nil {
		return Tail{}, err
	}
	tail := Tail{Flavor: d.flavor(), InLastFile: true}
	for i := len(files) - 1; i >= 0; i-- {
		scan, torn, err := scanFile(files[i], tail.Flavor)
		if err != nil {
			return Tail{}, err
		}
		groups, last := scan.groups, i == len(files)-1
		if last {
			tail.Torn, tail.Stopped = torn, scan.stopped
		} else if torn > 0 {
			return Tail{}, fmt.Errorf("%w: %s is not whole and not the last file", ErrBinlog, files[i])
		}
		if tail.prepend(groups, have) && !last {
			tail.InLastFile = false
		}
		if len(groups) > 0 && have.Holds(groups[0].set) {
			// What is before it is known too, or errant from long ago: that
			// shows in the executed position after the start.
			break
		}
	}
	if len(tail.Groups) == 0 {
		return tail, nil
	}
	tail.File, tail.Offset = tail.Groups[0].File, tail.Groups[0].Offset
	info, err := os.Stat(tail.File)
	if err != nil {
		return Tail{}, fmt.Errorf("reading the tail: %w", err)
	}
	tail.Size = info.Size()
	return tail, nil
}

// prepend takes the foreign groups of an earlier file and reports whether there
// were any.
func (t *Tail) prepend(groups []Group, known gtid.History) bool {
	var foreign []Group
	for _, g := range groups {
		if !known.Holds(g.set) {
			foreign = append(foreign, g)
		} else if len(foreign) > 0 {
			t.Mixed = true
		}
	}
	t.Groups = append(foreign, t.Groups...)
	return len(foreign) > 0
}

// Empty reports whether the server has nothing that the cluster lacks.
func (t Tail) Empty() bool { return len(t.Groups) == 0 }

// GTIDs lists the foreign transactions, for reports and for the saved file.
func (t Tail) GTIDs() []string {
	out := make([]string, 0, len(t.Groups))
	for _, g := range t.Groups {
		out = append(out, g.GTID)
	}
	return out
}

// Rewindable reports why the tail must not be rolled back; nil if it may be, as
// far as the binary log shows. MySQL rolls InnoDB's DDL back too; whether every
// table was InnoDB shows only in gtid_executed after the start.
func (t Tail) Rewindable() error {
	switch {
	case t.Empty():
		return nil
	case t.Stopped:
		return fmt.Errorf("%w: mysqld was stopped in good order and has committed it: clients may have heard success", ErrNotRewindable)
	case t.Mixed:
		return fmt.Errorf("%w: transactions of the cluster follow foreign ones", ErrNotRewindable)
	case !t.InLastFile:
		return fmt.Errorf("%w: it reaches back before the last file", ErrNotRewindable)
	}
	for _, g := range t.Groups {
		switch {
		case !g.Complete, g.Kind == GroupRows: // recovery drops what is not whole
		case g.Kind == GroupDDL && t.Flavor == gtid.MySQL:
		default:
			return fmt.Errorf("%w: %s at %d is %s", ErrNotRewindable, g.GTID, g.Offset, g.Kind)
		}
	}
	return nil
}

// Save writes the raw tail to a file in dir that mysqlbinlog (mariadb-binlog)
// reads: the log's beginning (magic number and format description) and then
// every byte of the tail. It is on disk when Save returns. Beside it, with .txt,
// stands a list for people. The bytes are what must not be lost: that the list
// could not be written is logged, and no reason to leave a node out. An empty
// tail saves nothing.
func (t Tail) Save(dir string, log *slog.Logger) (string, error) {
	if t.Empty() {
		return "", nil
	}
	path := savedPath(dir, "", t.GTIDs(), t.Size-t.Offset)
	if err := t.save(dir, path); err != nil {
		return "", fmt.Errorf("saving the tail of %s: %w", t.File, err)
	}
	list := listOf(t.Groups, "that this server logged as the primary and nobody acknowledged. The rewind takes them back.")
	if err := errors.Join(writeSynced(listPath(path), []byte(list)), syncDir(dir)); err != nil {
		log.Warn("the tail is saved, and the list of what is in it could not be written", "file", path, "error", err)
	}
	return path, nil
}

func (t Tail) save(dir, path string) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	in, err := os.Open(t.File)
	if err != nil {
		return err
	}
	defer in.Close()
	return saveWhole(path, func(out io.Writer) error {
		if err := copyPreamble(out, in); err != nil {
			return err
		}
		_, err := io.Copy(out, io.NewSectionReader(in, t.Offset, t.Size-t.Offset))
		return err
	})
}

// Cut truncates the file where the tail begins, so that MySQL's recovery rolls
// the tail back. The server must not run and the tail must be saved. On MariaDB
// it refuses: an engine-committed tail would leave no trace (docs/SERVERS.md, rewind), and
// StartOptions.Rewind does it there.
func (t Tail) Cut() error {
	if t.Flavor != gtid.MySQL {
		return fmt.Errorf("%w: a binary log of MariaDB is never cut by hand", ErrNotRewindable)
	}
	if err := t.Rewindable(); err != nil || t.Empty() {
		return err
	}
	f, err := os.OpenFile(t.File, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cutting the tail: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cutting the tail: %w", err)
	}
	if info.Size() != t.Size {
		return fmt.Errorf("%w: %s has %d bytes, %d when it was read", ErrNotRewindable, t.File, info.Size(), t.Size)
	}
	if err := f.Truncate(t.Offset); err != nil {
		return fmt.Errorf("cutting the tail: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cutting the tail: %w", err)
	}
	return nil
}

// FindBinlogIndex finds the index of the binary logs of a stopped server in its
// data directory; relay logs have theirs beside it. An error if there is not
// exactly one: then it has to be configured (Status.BinlogIndex tells it while
// the server runs).
func FindBinlogIndex(dataDir string) (string, error) {
	all, err := filepath.Glob(filepath.Join(dataDir, "*.index"))
	if err != nil {
		return "", fmt.Errorf("looking for binary logs in %s: %w", dataDir, err)
	}
	var found []string
	for _, path := range all {
		if !strings.Contains(filepath.Base(path), "relay") {
			found = append(found, path)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("looking for binary logs in %s: %d index files", dataDir, len(found))
	}
	return found[0], nil
}

// makeDir makes a directory whose own name is durable, too.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes a new name in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
