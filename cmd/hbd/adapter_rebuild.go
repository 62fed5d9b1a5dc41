package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/highbase/highbase/cluster"
	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
)

// rebuilder fits mysqld's rebuild to what the cluster asks of it.
type rebuilder struct {
	database *database
	dataDir  string // as configured, "" to use what was seen
	scratch  string
	plain    func([]string) []string
	log      *slog.Logger

	mu   sync.Mutex
	open *mysqld.Rebuild
	of   string // data directory it was opened for
}

func newRebuilder(c *config, h *host, log *slog.Logger, p priority) *rebuilder {
	r := &rebuilder{database: h.database, dataDir: c.Server.DataDir, scratch: filepath.Join(c.DataDir, "backup"), plain: p.gentle, log: log}
	if r.dataDir == "" {
		r.dataDir = mysqld.DataDirOf(c.Server.Service.Command)
	}
	return r
}

// errNoDataDir is returned while nobody knows where the data is.
var errNoDataDir = errors.New("where the server keeps its data was never seen: start it once, or set server.data_dir")

// where is the data directory: as the server gave it last, else as configured.
func (r *rebuilder) where() (string, error) {
	if files, found := r.database.server.files.Load(); found && files.DataDir != "" {
		return files.DataDir, nil
	}
	if r.dataDir == "" {
		return "", errNoDataDir
	}
	return r.dataDir, nil
}

// rebuild is the rebuild of the present data directory.
func (r *rebuilder) rebuild() (*mysqld.Rebuild, error) {
	dir, err := r.where()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != nil && r.of == dir {
		return r.open, nil
	}
	b, err := mysqld.OpenRebuild(mysqld.RebuildConfig{Server: r.database.server.Server, Service: r.database.service, DataDir: dir, Plain: r.plain, Logger: r.log})
	if err != nil {
		return nil, err
	}
	r.open, r.of = b, dir
	return b, nil
}

// Stage implements cluster.Rebuilder, as do the others. A server that was never seen has had no rebuild.
func (r *rebuilder) Stage() (cluster.RebuildStage, error) {
	b, err := r.rebuild()
	if errors.Is(err, errNoDataDir) {
		return cluster.RebuildStage{}, nil
	}
	if err != nil {
		return cluster.RebuildStage{}, err
	}
	id, stage, err := b.Stage()
	out := cluster.RebuildStage{ID: id, Whole: stage == mysqld.RebuildPrepared}
	switch stage {
	case mysqld.RebuildNone:
	case mysqld.RebuildReceiving, mysqld.RebuildPrepared:
		out.Copy = fsm.CopyArriving
	case mysqld.RebuildPlacing, mysqld.RebuildEntering:
		if out.Copy = fsm.CopyPlacing; r.database.dialect == dialectMySQL {
			out.Copy = fsm.CopyHalf // it fetches the copy only now
		}
	case mysqld.RebuildPlaced:
		out.Copy = fsm.CopyPlacing
	case mysqld.RebuildAdopted:
		out.Copy = fsm.CopyAdopted
	default:
		err = errors.Join(err, fmt.Errorf("a rebuild at %q is not known to this version", stage))
	}
	return out, err
}

func (r *rebuilder) Empty() (bool, error) {
	dir, err := r.where()
	if err != nil {
		return false, err
	}
	has, err := mysqld.HasData(dir)
	return !has, err
}

func (r *rebuilder) Donate(ctx context.Context) (io.ReadCloser, int64, error) {
	if r.database.dialect == dialectMySQL {
		return r.donateClone(ctx)
	}
	if err := os.MkdirAll(r.scratch, 0o700); err != nil {
		return nil, 0, fmt.Errorf("making a directory for the backup: %w", err)
	}
	d, err := r.database.server.Donate(ctx, r.scratch, r.plain)
	if err != nil {
		return nil, 0, err
	}
	return d, d.Size, nil
}

// donateClone has nothing to give: MySQL gives it by itself to whoever has the replication account.
func (r *rebuilder) donateClone(ctx context.Context) (io.ReadCloser, int64, error) {
	size, err := r.database.server.CloneSize(ctx)
	return io.NopCloser(strings.NewReader("")), size, err
}

func (r *rebuilder) Progress(ctx context.Context) (received, size int64, ok bool) {
	if r.database.dialect != dialectMySQL {
		return 0, 0, false
	}
	return r.database.server.CloneProgress(ctx)
}

func (r *rebuilder) HistoryAt(ctx context.Context, file string, offset int64) (string, error) {
	return r.database.server.StateAt(ctx, file, offset)
}

func (r *rebuilder) Receive(ctx context.Context, in cluster.Incoming) error {
	b, err := r.rebuild()
	if err != nil {
		return err
	}
	err = b.Receive(ctx, mysqld.Incoming{ID: in.ID, Size: in.Size, Stream: in.Stream, StateAt: in.HistoryAt,
		Host: in.Host, Port: in.Port, Rate: in.Rate})
	if errors.Is(err, mysqld.ErrNoSpace) {
		return fmt.Errorf("%w: %w", cluster.ErrNoRoom, err)
	}
	return err
}

func (r *rebuilder) Place(ctx context.Context, silent func()) error {
	b, err := r.rebuild()
	if err != nil {
		return err
	}
	return b.Place(ctx, silent)
}

func (r *rebuilder) Redirect(host string, port uint16) error {
	b, err := r.rebuild()
	if err != nil {
		return err
	}
	return b.Redirect(host, port)
}

func (r *rebuilder) Adopt(ctx context.Context) error {
	b, err := r.rebuild()
	if err != nil {
		return err
	}
	return b.Adopt(ctx)
}

func (r *rebuilder) Finish() error {
	b, err := r.rebuild()
	if err != nil {
		return err
	}
	return b.Finish()
}

func (r *rebuilder) SaveErrant(_ context.Context, history string) (string, []string, error) {
	index, err := r.database.binlogIndex()
	if err != nil {
		return "", nil, err
	}
	errant, err := mysqld.FindErrant(r.database.dialect, index, history)
	if err != nil {
		return "", nil, err
	}
	file, err := errant.Save(r.database.tails)
	return file, errant.GTIDs(), err
}
