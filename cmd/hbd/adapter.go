package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/highbase/highbase/cluster"
	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
	"github.com/highbase/highbase/probe"
)

var (
	_ cluster.Prober    = (*probe.Prober)(nil)
	_ cluster.Database  = (*database)(nil)
	_ cluster.Service   = service{}
	_ cluster.Addresser = (*addresser)(nil)
	_ cluster.Clients   = (*addresser)(nil)
	_ cluster.Fencer    = fenceHook{}
	_ cluster.Rebuilder = (*rebuilder)(nil)
)

// serverFiles is where a server keeps its files. It is kept on disk because it must be known while the server is down:
// a tail is judged then.
type serverFiles struct {
	DataDir     string `json:"data_dir"`
	BinlogIndex string `json:"binlog_index"`
}

// watched is a server that remembers where its files are whenever it is asked for its status.
type watched struct {
	*mysqld.Server
	files   *identity.Durable[serverFiles]
	channel *identity.Durable[mysqld.Channel]
	log     *slog.Logger
}

// Status is the server's, remembered.
func (w watched) Status(ctx context.Context) (mysqld.Status, error) {
	st, err := w.Server.Status(ctx)
	if err != nil {
		return st, err
	}
	now := serverFiles{DataDir: st.DataDir, BinlogIndex: st.BinlogIndex}
	if before, found := w.files.Load(); !found || before != now {
		if err := w.files.Store(now); err != nil {
			w.log.Error("where the server keeps its files is not remembered: after a crash its tail cannot be judged", "error", err)
		}
	}
	w.keepChannel(st)
	return st, nil
}

// database fits a server to what the cluster asks of it.
type database struct {
	server    watched
	service   mysqld.Service
	addresses *addresser
	dialect   string
	tails     string // directory of saved tails
	log       *slog.Logger
}

// SetReadOnly implements cluster.Database, as do the others.
func (d *database) SetReadOnly(ctx context.Context) error { return d.server.SetReadOnly(ctx) }

func (d *database) SetBarrierWritable(ctx context.Context) error {
	return d.server.SetBarrierWritable(ctx)
}

func (d *database) SetWritable(ctx context.Context) error { return d.server.SetWritable(ctx) }

// SourceSync with no acknowledgements is a cluster of one: semi-sync stays off, or nobody could ever commit. A writable server refuses it:
// SourceAsync is the one that tells waiting clients success.
func (d *database) SourceSync(ctx context.Context, acks int) error {
	if acks == 0 {
		return d.server.DisableSourceSemiSync(ctx)
	}
	return d.server.EnableSourceSemiSync(ctx, acks)
}

// SourceAsync implements cluster.Database: the one way to stop waiting on a writable server.
func (d *database) SourceAsync(ctx context.Context) error { return d.server.Degrade(ctx) }

// Follow makes the acknowledgements count first: set before the receiver starts, they need no restart of it.
func (d *database) Follow(ctx context.Context, src cluster.Following) error {
	return d.follow(ctx, src, mysqld.Source{Host: src.Host, Port: src.Port})
}

// FollowDelayed implements cluster.Database.
func (d *database) FollowDelayed(ctx context.Context, src cluster.Following) error {
	return d.follow(ctx, src, mysqld.Source{Host: src.Host, Port: src.Port, DiscardReceived: true})
}

func (d *database) follow(ctx context.Context, f cluster.Following, src mysqld.Source) error {
	st, err := d.server.Status(ctx)
	if err != nil {
		return err
	}
	src.Sever = d.severFrom(st.SourceHost)
	acks := func() error { return d.server.StopAcknowledging(ctx, src.Sever) }
	if f.Sync {
		acks = func() error { return d.server.AcknowledgeIn(ctx, f.Epoch, src.Sever) }
	}
	err = acks()
	late := errors.Is(err, mysqld.ErrApplierStopped) // it must run first, and Follow sees to that
	if err != nil && !late {
		return fmt.Errorf("acknowledging, %v: %w", f.Sync, err)
	}
	if _, err := d.server.Follow(ctx, src); err != nil || !late {
		return err
	}
	return acks()
}

// SyncOff implements cluster.Database.
func (d *database) SyncOff(ctx context.Context) error {
	st, err := d.server.Status(ctx)
	if err != nil {
		return err
	}
	return d.server.StopAcknowledging(ctx, d.severFrom(st.SourceHost))
}

// CutReplica implements cluster.Database.
func (d *database) CutReplica(ctx context.Context, host string) error {
	_, err := d.server.CutReplica(ctx, host)
	return err
}

// CutThread implements cluster.Database.
func (d *database) CutThread(ctx context.Context, id uint64) error {
	return d.server.CutThread(ctx, id)
}

// Replicas implements cluster.Database.
func (d *database) Replicas(ctx context.Context) ([]cluster.Replica, error) {
	found, err := d.server.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]cluster.Replica, 0, len(found))
	for _, r := range found {
		out = append(out, cluster.Replica(r))
	}
	return out, nil
}

// MendSettings implements cluster.Database.
func (d *database) MendSettings(ctx context.Context) error { return d.server.MendSettings(ctx) }

func (d *database) Nudge(ctx context.Context) error { return d.server.Nudge(ctx) }

func (d *database) Reconnect(ctx context.Context) error {
	st, err := d.server.Status(ctx)
	if err != nil {
		return err
	}
	return d.server.Reconnect(ctx, d.severFrom(st.SourceHost))
}

// severFrom destroys the sockets to a source; nil when there is none whose address is known.
func (d *database) severFrom(source string) func() error {
	ip, err := netip.ParseAddr(source)
	if err != nil {
		return nil
	}
	return func() error {
		_, err := d.addresses.SeverPeer(ip)
		return err
	}
}

func (d *database) Freeze(ctx context.Context, sever func() error) (received string, err error) {
	return d.server.Freeze(ctx, sever)
}

// EndReceiving implements cluster.Database.
func (d *database) EndReceiving(ctx context.Context, sever func() error) error {
	return d.server.EndReceiving(ctx, sever)
}

func (d *database) Drain(ctx context.Context, position string) error {
	return d.server.Drain(ctx, position)
}

func (d *database) Discard(ctx context.Context, sever func() error) error {
	return d.server.Discard(ctx, sever)
}
func (d *database) Purged(ctx context.Context) (string, error) { return d.server.Purged(ctx) }
func (d *database) StopReplication(ctx context.Context) error  { return d.server.StopReplication(ctx) }

// BecomeSource implements cluster.Database.
func (d *database) BecomeSource(ctx context.Context, p cluster.Promotion) (run string, err error) {
	return d.server.BecomeSource(ctx, mysqld.Promotion(p))
}

func (d *database) ForgetSource(ctx context.Context) error { return d.server.ForgetSource(ctx) }

func (d *database) WriteBarrier(ctx context.Context, epoch uint64, node string) error {
	if err := d.server.EnsureEpochTable(ctx); err != nil {
		return fmt.Errorf("making the table of epochs: %w", err)
	}
	return d.server.WriteBarrier(ctx, epoch, node)
}

func (d *database) LastEpoch(ctx context.Context) (uint64, error) {
	epoch, _, err := d.server.LastEpoch(ctx)
	return epoch, err
}

func (d *database) KillClients(ctx context.Context) (int, error) { return d.server.KillClients(ctx) }

// Sessions implements cluster.Database.
func (d *database) Sessions(ctx context.Context) ([]fsm.Session, error) {
	found, err := d.server.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]fsm.Session, 0, len(found))
	for _, s := range found {
		out = append(out, fsm.Session(s))
	}
	return out, nil
}

// BreakOff implements cluster.Database.
func (d *database) BreakOff(ctx context.Context) (int, error) { return d.server.BreakOff(ctx) }

func (d *database) Position(ctx context.Context) (string, error) {
	st, err := d.server.Status(ctx)
	return st.Executed, err
}

// Written implements cluster.Database.
func (d *database) Written(ctx context.Context) (string, error) { return d.server.Written(ctx) }

func (d *database) History(ctx context.Context) (string, error) { return d.server.History(ctx) }

func (d *database) Contains(ctx context.Context, position string) (bool, error) {
	return d.server.Contains(ctx, position)
}

// PrepareRewind refuses while mysqld runs: a running server could commit what is judged.
func (d *database) PrepareRewind(ctx context.Context, history string) (saved string, err error) {
	pid, running, err := d.service.Running(ctx)
	if err != nil {
		return "", fmt.Errorf("making sure that mysqld is down: %w", err)
	}
	if running {
		return "", fmt.Errorf("mysqld still runs as process %d", pid)
	}
	index, err := d.binlogIndex()
	if err != nil {
		return "", err
	}
	tail, err := mysqld.ReadTail(d.dialect, index, history)
	if errors.Is(err, mysqld.ErrBinlog) {
		return "", fmt.Errorf("%w: %w", cluster.ErrNotRewindable, err)
	}
	if err != nil {
		return "", err
	}
	if tail.Empty() {
		return "", nil
	}
	if err := tail.Rewindable(); err != nil {
		return "", fmt.Errorf("%w: %w", cluster.ErrNotRewindable, err)
	}
	if saved, err = tail.Save(d.tails, d.log); err != nil {
		return "", err
	}
	if d.dialect == dialectMySQL {
		return saved, tail.Cut()
	}
	return saved, nil // MariaDB cuts it itself at the start with rewind
}

// binlogIndex is as the server gave it last, made absolute.
func (d *database) binlogIndex() (string, error) {
	files, found := d.server.files.Load()
	switch {
	case !found || files.DataDir == "":
		return "", errors.New("where the server keeps its binary logs was never seen")
	case files.BinlogIndex == "":
		return mysqld.FindBinlogIndex(files.DataDir)
	case !filepath.IsAbs(files.BinlogIndex):
		return filepath.Join(files.DataDir, files.BinlogIndex), nil
	}
	return files.BinlogIndex, nil
}

func (d *database) FinishRewind(ctx context.Context) error { return d.server.FinishRewind(ctx) }

// service fits mysqld's service to what the cluster asks of it.
type service struct{ mysqld.Service }

// Start implements cluster.Service.
func (s service) Start(ctx context.Context, rewind bool) error {
	return s.Service.Start(ctx, mysqld.StartOptions{Rewind: rewind})
}
