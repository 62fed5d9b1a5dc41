package mysqld

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Errors of a rebuild that a caller may branch on.
var (
	// ErrNoSpace is returned before anything is copied when the disk cannot hold
	// the old data and the copy beside each other.
	ErrNoSpace = errors.New("mysqld: not enough disk space for a rebuild")
	// ErrBackup is returned, with its last words, when a backup tool fails.
	ErrBackup = errors.New("mysqld: the backup tool failed")
	// ErrStage is returned for a step that is not due: the steps of a rebuild
	// have one order.
	ErrStage = errors.New("mysqld: this step of the rebuild is not due")
)

// RebuildStage is how far a rebuild has come. It is on disk, so that a rebuild
// that was cut off is found and goes on, or begins again.
type RebuildStage string

// The stages, in order. Up to RebuildPrepared the server's own data is whole and
// in use; from RebuildPlacing on it may not be started before Place has ended.
const (
	RebuildNone      RebuildStage = ""
	RebuildReceiving RebuildStage = "receiving" // a copy arrives; it is worth nothing after a crash
	RebuildPrepared  RebuildStage = "prepared"  // the copy is whole and consistent
	RebuildPlacing   RebuildStage = "placing"   // the old data is being moved aside
	RebuildEntering  RebuildStage = "entering"  // the copy is being moved to its place
	RebuildPlaced    RebuildStage = "placed"    // the copy is the data; its position is not set yet
	RebuildAdopted   RebuildStage = "adopted"   // the server runs on it; the old data is still kept
)

// RebuildConfig tells which server's data is replaced, and by what means.
type RebuildConfig struct {
	Server  *Server
	Service Service
	// DataDir is the server's data directory. It may be empty: a new host.
	DataDir string
	// Plain makes a command line run at ordinary priority; nil leaves it as it is.
	Plain  func([]string) []string
	Logger *slog.Logger
}

// Rebuild replaces a server's data by a copy of another's (MariaDB: a stream of
// mariadb-backup). The steps are Receive, Place, Adopt and Finish; each may be
// repeated after a crash or an error, and Stage tells which one is due.
//
// It decides nothing: whether the data may be thrown away is the caller's to
// know before Place.
type Rebuild struct {
	cfg  RebuildConfig
	log  *slog.Logger
	mu   sync.Mutex // one step at a time
	work string     // directory of this package beside the data, on the same file system
}

// rebuildMark is what is kept of a rebuild on disk.
type rebuildMark struct {
	ID    string       `json:"id"`
	Stage RebuildStage `json:"stage"`
	// State is MariaDB's gtid_binlog_state at the copy's position, the latest
	// transaction of each domain last.
	State string `json:"state"`
	// MySQL: whom to clone from, how fast, and since when (the server's clock).
	Host  string `json:"host,omitempty"`
	Port  uint16 `json:"port,omitempty"`
	Rate  int64  `json:"rate,omitempty"`
	Began string `json:"began,omitempty"`
	// Again: this order has found what a clone of another one left. See placeClone.
	Again bool `json:"again,omitempty"`
	// Cleared: on the way of a new server's data to its place, what was there has
	// been moved aside. See seed.
	Cleared bool `json:"cleared,omitempty"`
}

// clones tells that the server copies by itself.
func (r *Rebuild) clones() bool { return r.cfg.Server.cfg.Dialect == "mysql" }

// workName is the directory that a rebuild works in.
const workName = ".highbase-rebuild"

// OpenRebuild finds what an earlier rebuild left; it changes nothing.
func OpenRebuild(cfg RebuildConfig) (*Rebuild, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("mysqld: a rebuild needs to know the data directory: start the server once, or give --datadir in its command line")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.EvalSymlinks(cfg.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err = filepath.Clean(cfg.DataDir), nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding the data directory: %w", err)
	}
	cfg.DataDir = dir
	r := &Rebuild{cfg: cfg, log: cfg.Logger}
	r.work = r.inside()
	if _, err := os.Stat(r.beside()); err == nil {
		r.work = r.beside()
	}
	return r, nil
}

// beside is the usual place of the work directory; inside the data directory it
// is where that is a mount of its own, or its parent may not be written to. The
// server then shows it as a strange database while it runs.
func (r *Rebuild) beside() string { return r.cfg.DataDir + workName }
func (r *Rebuild) inside() string { return filepath.Join(r.cfg.DataDir, workName) }

func (r *Rebuild) incoming() string { return filepath.Join(r.work, "new") }
func (r *Rebuild) outgoing() string { return filepath.Join(r.work, "old") }
func (r *Rebuild) markFile() string { return filepath.Join(r.work, "rebuild.json") }

// Stage tells how far which rebuild has come.
func (r *Rebuild) Stage() (id string, stage RebuildStage, err error) {
	m, err := r.mark()
	return m.ID, m.Stage, err
}

// mark reads the marker; the zero value if there is none.
func (r *Rebuild) mark() (rebuildMark, error) {
	raw, err := os.ReadFile(r.markFile())
	if errors.Is(err, fs.ErrNotExist) {
		return rebuildMark{}, nil
	}
	if err != nil {
		return rebuildMark{}, fmt.Errorf("reading the rebuild's marker: %w", err)
	}
	var m rebuildMark
	if err := json.Unmarshal(raw, &m); err != nil {
		return rebuildMark{}, fmt.Errorf("reading the rebuild's marker %s: %w", r.markFile(), err)
	}
	return m, nil
}

// setMark is durable when it returns: what it says is then true after any crash.
func (r *Rebuild) setMark(m rebuildMark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing the rebuild's marker: %w", err)
	}
	part := r.markFile() + ".part"
	if err := writeSynced(part, raw); err != nil {
		return fmt.Errorf("writing the rebuild's marker: %w", err)
	}
	if err := os.Rename(part, r.markFile()); err != nil {
		return fmt.Errorf("writing the rebuild's marker: %w", err)
	}
	if err := syncDir(r.work); err != nil {
		return fmt.Errorf("writing the rebuild's marker: %w", err)
	}
	r.log.Info("rebuild", "stage", m.Stage, "rebuild", m.ID, "dir", r.work)
	return nil
}

// writeSynced writes a whole file and waits for the disk.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// makeWork makes the work directory on the file system of the data.
func (r *Rebuild) makeWork() error {
	if err := os.MkdirAll(r.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	if _, err := os.Stat(r.work); err == nil {
		return nil
	}
	r.work = r.beside()
	err := os.Mkdir(r.work, 0o700)
	if err == nil {
		same, serr := sameFileSystem(r.work, r.cfg.DataDir)
		if same {
			return syncDir(filepath.Dir(r.work))
		}
		err = errors.Join(serr, os.Remove(r.work))
	}
	r.work = r.inside()
	if inner := os.Mkdir(r.work, 0o700); inner != nil {
		return fmt.Errorf("making a directory for the copy: %w", errors.Join(err, inner))
	}
	return syncDir(r.cfg.DataDir)
}

func sameFileSystem(a, b string) (bool, error) {
	var of [2]syscall.Stat_t
	for i, path := range []string{a, b} {
		if err := syscall.Stat(path, &of[i]); err != nil {
			return false, fmt.Errorf("looking at %s: %w", path, err)
		}
	}
	return of[0].Dev == of[1].Dev, nil
}

// HasData tells whether a data directory holds a server's data at all: a new
// host has none. The system tables count, not InnoDB's files: a server that is
// started on nothing makes those before it gives up.
func HasData(dataDir string) (bool, error) {
	for _, name := range []string{"mysql.ibd", "mysql/global_priv.frm", "mysql/user.frm"} { // MySQL, MariaDB, MariaDB before 10.4
		_, err := os.Stat(filepath.Join(dataDir, name))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("looking for data in %s: %w", dataDir, err)
		}
	}
	return false, nil
}
