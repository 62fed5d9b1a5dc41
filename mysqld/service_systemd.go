package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// systemdTimeout bounds one question to systemd.
const systemdTimeout = 2 * time.Second

// systemdBus is what is needed of systemd's D-Bus interface.
type systemdBus interface {
	StartUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, done chan<- string) (int, error)
	KillUnitWithTarget(ctx context.Context, name string, target dbus.Who, signal int32) error
	ResetFailedUnitContext(ctx context.Context, name string) error
	GetServicePropertyContext(ctx context.Context, service, property string) (*dbus.Property, error)
	Close()
}

var _ systemdBus = (*dbus.Conn)(nil)

// dialSystemd prefers systemd's private socket: it works without a bus daemon.
func dialSystemd(ctx context.Context) (systemdBus, error) {
	if conn, err := dbus.NewSystemdConnectionContext(ctx); err == nil {
		return conn, nil
	}
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	return conn, nil
}

// systemd runs the server as a unit. The unit must not start it by itself
// (disabled, Restart=no) and must read our options of each start:
//
//	[Service]
//	Restart=no
//	EnvironmentFile=-/run/highbase/mariadb.service.env
//	ExecStart=
//	ExecStart=/usr/sbin/mariadbd $MYSQLD_OPTS
//
// (Debian's mariadb.service has $MYSQLD_OPTS already.) The file stands on a
// tmpfs and is removed as soon as the server serves, so a rewind option cannot
// come back with a later start or a reboot. A unit that ignores it boots by its
// option file alone; Status.Problems tells when that is not harmless.
type systemd struct {
	cfg   ServiceConfig
	words words
	log   *slog.Logger
	dial  func(context.Context) (systemdBus, error)

	mu    sync.Mutex // one start or stop at a time
	guard startGuard

	lastMu sync.Mutex
	last   process // main process last seen, for when systemd does not answer
}

var _ Service = (*systemd)(nil)

func newSystemd(cfg ServiceConfig, w words, dial func(context.Context) (systemdBus, error)) *systemd {
	if cfg.EnvironmentFile == "" {
		cfg.EnvironmentFile = filepath.Join("/run/highbase", cfg.Unit+".env")
	}
	return &systemd{cfg: cfg, words: w, log: cfg.Logger, dial: dial}
}

// withBus runs f with a connection of its own: calls are rare, and a connection
// kept would have to be watched.
func (s *systemd) withBus(ctx context.Context, f func(systemdBus) error) error {
	bus, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	return f(bus)
}

// find asks systemd for the unit's main process.
func (s *systemd) find(ctx context.Context) (process, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	var pid uint32
	err := s.withBus(ctx, func(bus systemdBus) error {
		property, err := bus.GetServicePropertyContext(ctx, s.cfg.Unit, "MainPID")
		if err != nil {
			return fmt.Errorf("asking systemd for the main process of %s: %w", s.cfg.Unit, err)
		}
		var ok bool
		if pid, ok = property.Value.Value().(uint32); !ok {
			return fmt.Errorf("asking systemd for the main process of %s: got %v", s.cfg.Unit, property.Value)
		}
		return nil
	})
	if err != nil {
		return process{}, false, err
	}
	if pid == 0 {
		return process{}, false, nil
	}
	p, err := readProcess(int(pid))
	if errors.Is(err, errNoProcess) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	s.lastMu.Lock()
	s.last = p
	s.lastMu.Unlock()
	return p, true, nil
}

// Running implements Service.
func (s *systemd) Running(ctx context.Context) (int, bool, error) {
	p, running, err := s.find(ctx)
	return p.PID, running, err
}

// Start implements Service.
func (s *systemd) Start(ctx context.Context, opts StartOptions) error {
	begun := s.guard.begin()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, running, err := s.find(ctx); err != nil {
		return err
	} else if running {
		if err := s.waitServing(ctx); !errors.Is(err, ErrExited) { // as in adopt
			return err
		}
	}
	if err := waitUnlocked(ctx, s.cfg.DataDir); err != nil {
		return fmt.Errorf("starting %s: %w: the data directory %s stays locked: %w", s.cfg.Unit, ErrForeign, s.cfg.DataDir, err)
	}
	if err := clearSocketLock(ctx, s.cfg.Socket); err != nil {
		return fmt.Errorf("starting %s: %w", s.cfg.Unit, err)
	}
	if err := s.writeEnvironment(startArguments(s.words, opts)); err != nil {
		return fmt.Errorf("starting %s: %w", s.cfg.Unit, err)
	}
	// However the start ends, its options must not outlive it.
	startErr := s.guard.overtaken(begun)
	if startErr == nil {
		startErr = s.startUnit(ctx)
	}
	if err := s.guard.overtaken(begun); err != nil {
		startErr = errors.Join(err, s.kill(ctx))
	}
	if err := os.Remove(s.cfg.EnvironmentFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(startErr, fmt.Errorf("removing the options of one start: %w", err))
	}
	return startErr
}

// startUnit starts the unit and waits until the server serves.
func (s *systemd) startUnit(ctx context.Context) error {
	err := s.withBus(ctx, func(bus systemdBus) error {
		if err := bus.ResetFailedUnitContext(ctx, s.cfg.Unit); err != nil {
			s.log.Debug("resetting the failed state", "unit", s.cfg.Unit, "error", err) // a unit not loaded has none
		}
		return s.job(ctx, "starting", bus.StartUnitContext)
	})
	if err != nil {
		return err
	}
	return s.waitServing(ctx)
}

// job runs one systemd job to its end.
func (s *systemd) job(ctx context.Context, verb string, run func(context.Context, string, string, chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := run(ctx, s.cfg.Unit, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, s.cfg.Unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s %s: %w: systemd says %q", verb, s.cfg.Unit, ErrExited, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, s.cfg.Unit, ctx.Err())
	}
}

func (s *systemd) waitServing(ctx context.Context) error {
	p, running, err := s.find(ctx)
	if err != nil {
		return err
	}
	if !running {
		return fmt.Errorf("starting %s: %w", s.cfg.Unit, ErrExited)
	}
	w := openProcess(p)
	defer w.close()
	return waitServing(ctx, w, s.cfg.Socket)
}

// writeEnvironment hands the options of one start to the unit.
func (s *systemd) writeEnvironment(args []string) error {
	if err := os.MkdirAll(filepath.Dir(s.cfg.EnvironmentFile), 0o755); err != nil {
		return err
	}
	line := "MYSQLD_OPTS=" + strings.Join(args, " ") + "\n"
	return os.WriteFile(s.cfg.EnvironmentFile, []byte(line), 0o644)
}

// Stop implements Service.
func (s *systemd) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.withBus(ctx, func(bus systemdBus) error { return s.job(ctx, "stopping", bus.StopUnitContext) })
	if err != nil {
		return err
	}
	return waitUnlocked(ctx, s.cfg.DataDir)
}

// Kill implements Service. The signal goes to the main process directly, which
// needs no answer of systemd; the unit's other processes get theirs through it.
func (s *systemd) Kill(ctx context.Context) error {
	s.guard.killed()
	return s.kill(ctx)
}

// kill ends what runs now.
func (s *systemd) kill(ctx context.Context) error {
	p, running, err := s.find(ctx)
	if err != nil {
		s.lastMu.Lock()
		p = s.last
		s.lastMu.Unlock()
		s.log.Warn("systemd does not answer; killing the process last seen", "unit", s.cfg.Unit, "pid", p.PID, "error", err)
		if p.PID == 0 {
			return err
		}
		running = p.alive()
	}
	if !running {
		return nil
	}
	dir := s.cfg.DataDir
	if dir == "" {
		dir = workingDir(p.PID)
	}
	if err := killProcess(ctx, p, dir); err != nil {
		return err
	}
	err = s.withBus(ctx, func(bus systemdBus) error {
		return bus.KillUnitWithTarget(ctx, s.cfg.Unit, dbus.All, 9)
	})
	if err != nil {
		s.log.Debug("killing what is left of the unit", "unit", s.cfg.Unit, "error", err) // nothing left is an error too
	}
	return nil
}

// Watch implements Service.
func (s *systemd) Watch(ctx context.Context, onExit func()) {
	watchProcess(ctx, func() (process, bool) {
		p, running, err := s.find(ctx)
		if err != nil {
			s.log.Debug("looking for the unit's process", "unit", s.cfg.Unit, "error", err)
		}
		return p, running
	}, onExit)
}
