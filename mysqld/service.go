package mysqld

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Errors of services that a caller may branch on.
var (
	// ErrExited is returned by Start when the server ended before it served:
	// a wrong option, a damaged file, or a rewind that MariaDB refuses.
	ErrExited = errors.New("mysqld: the server exited while starting")
	// ErrKilled is returned by a Start that a Kill overtook; nothing runs.
	ErrKilled = errors.New("mysqld: killed while starting")
	// ErrForeign is returned when a server that this service did not start
	// holds the place: another one must not be started, nor this one killed.
	ErrForeign = errors.New("mysqld: a process that is not this service's holds the place")
)

// StartOptions changes one start.
type StartOptions struct {
	// Rewind rolls back what recovery finds prepared (MariaDB: the option
	// --init-rpl-role=SLAVE, for this one start). It also rolls back what was
	// acknowledged, so only after docs/DESIGN.md, "Return", allows it. On MySQL the
	// tail is cut beforehand (Tail.Cut) and this changes nothing.
	Rewind bool
}

// Service starts and stops the process of one server. Only one such service may
// exist for a data directory, and nothing else may start the server: a plain
// start commits an unacknowledged tail.
type Service interface {
	// Start starts the server read-only, with replication stopped and replica
	// semi-sync off, and returns when it answers on its socket. A server that
	// runs already is no error. It waits for a lock on the data directory that
	// outlives a killed process. ErrExited if the server gives up.
	Start(ctx context.Context, opts StartOptions) error
	// Stop shuts the server down cleanly and returns when it is gone. Never
	// while a commit may wait for an acknowledgement: the server would tell the
	// client success (MySQL) or commit it (MariaDB). It never becomes a kill.
	Stop(ctx context.Context) error
	// Kill sends SIGKILL and returns when the process is gone and has let go of
	// the data directory. A server that does not run is no error. A Start under
	// way fails with ErrKilled.
	Kill(ctx context.Context) error
	// Running reports the server's process.
	Running(ctx context.Context) (pid int, running bool, err error)
	// Watch calls onExit each time the process ends, also one adopted after a
	// restart of this program, until ctx ends.
	Watch(ctx context.Context, onExit func())
}

// ServiceConfig says how a server's process is handled.
type ServiceConfig struct {
	// Kind is "child", "systemd" or "command".
	Kind string
	// Dialect is "mariadb" or "mysql": its options for a harmless start.
	Dialect string
	// Socket is the server's unix socket: Start waits until it answers.
	Socket string
	// DataDir is the data directory. Empty: taken from the command line
	// (--datadir) or from the process once it runs.
	DataDir string
	// Command is the server's command line (child). The first word must be the
	// server itself or something that becomes it by exec, not mysqld_safe. The
	// options of a harmless start are appended.
	Command []string
	// PIDFile is where the server writes its number. A child gets it as an
	// option, and its identity is kept beside it, in PIDFile + ".highbase".
	PIDFile string
	// Log gets a child's output, appended.
	Log string
	// Unit is the systemd unit.
	Unit string
	// EnvironmentFile is the file read by the unit (systemd); see systemd.go.
	// Empty: /run/highbase/UNIT.env.
	EnvironmentFile string
	// StartCommand, StopCommand and KillCommand are command lines (command);
	// without the last two signals are sent.
	StartCommand, StopCommand, KillCommand []string
	// Logger gets what callers do not get as errors; nil discards it.
	Logger *slog.Logger
}

// NewService makes the service that cfg describes. It touches nothing yet.
func NewService(cfg ServiceConfig) (Service, error) {
	d, err := dialectFor(cfg.Dialect)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Socket == "" {
		return nil, errors.New("mysqld: a service needs the server's socket")
	}
	if cfg.DataDir == "" {
		cfg.DataDir = dataDirOf(cfg.Command)
	}
	switch cfg.Kind {
	case "child":
		if len(cfg.Command) == 0 || cfg.PIDFile == "" || cfg.Log == "" {
			return nil, errors.New("mysqld: service kind child needs command, pid_file and log")
		}
		return newChild(cfg, d.words()), nil
	case "systemd":
		if cfg.Unit == "" {
			return nil, errors.New("mysqld: service kind systemd needs a unit")
		}
		return newSystemd(cfg, d.words(), dialSystemd), nil
	case "command":
		if len(cfg.StartCommand) == 0 || cfg.PIDFile == "" {
			return nil, errors.New("mysqld: service kind command needs command.start and pid_file")
		}
		return newCommand(cfg, d.words()), nil
	}
	return nil, fmt.Errorf("mysqld: unknown service kind %q (known: child, systemd, command)", cfg.Kind)
}

// startArguments are the options of one start.
func startArguments(w words, opts StartOptions) []string {
	args := append([]string(nil), w.bootArguments...)
	if opts.Rewind {
		args = append(args, w.rewindArguments...)
	}
	return args
}
