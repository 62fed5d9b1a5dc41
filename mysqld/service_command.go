package mysqld

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// command starts and stops the server through command lines of the user's. The
// process is the one the server's pid file names.
type command struct {
	cfg   ServiceConfig
	words words
	log   *slog.Logger
	mu    sync.Mutex // one start or stop at a time
	guard startGuard
}

var _ Service = (*command)(nil)

func newCommand(cfg ServiceConfig, w words) *command {
	return &command{cfg: cfg, words: w, log: cfg.Logger}
}

// find reads the pid file. It may be stale, so the process named must hold the
// data directory as its working directory where that is known.
func (c *command) find() (process, bool) {
	pid, err := readPID(c.cfg.PIDFile)
	if err != nil || pid == 0 {
		return process{}, false
	}
	p, err := readProcess(pid)
	if err != nil {
		return process{}, false
	}
	if dir := workingDir(pid); c.cfg.DataDir != "" && dir != "" && !sameFile(dir, c.cfg.DataDir) {
		return process{}, false
	}
	return p, true
}

// sameFile compares two paths by what they lead to.
func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// Running implements Service.
func (c *command) Running(context.Context) (int, bool, error) {
	p, running := c.find()
	return p.PID, running, nil
}

// Start implements Service. The options of a harmless start are handed over in
// the environment, as HIGHBASE_MYSQLD_OPTS and MYSQLD_OPTS: the command must
// give them to the server, or the option file must hold the same (Status shows
// when neither does). HIGHBASE_REWIND=1 marks the start that rolls back.
func (c *command) Start(ctx context.Context, opts StartOptions) error {
	begun := c.guard.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, running := c.find(); running {
		if err := adopt(ctx, p, c.cfg.Socket); !errors.Is(err, ErrExited) {
			return err
		}
	}
	if err := waitUnlocked(ctx, c.cfg.DataDir); err != nil {
		return fmt.Errorf("starting the server: %w: the data directory %s stays locked: %w", ErrForeign, c.cfg.DataDir, err)
	}
	if err := clearSocketLock(ctx, c.cfg.Socket); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	if err := c.guard.overtaken(begun); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	arguments := strings.Join(startArguments(c.words, opts), " ")
	env := []string{"HIGHBASE_MYSQLD_OPTS=" + arguments, "MYSQLD_OPTS=" + arguments}
	if opts.Rewind {
		env = append(env, "HIGHBASE_REWIND=1")
	}
	if err := c.run(ctx, c.cfg.StartCommand, env); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	var p process
	if err := poll(ctx, func() (bool, error) {
		var running bool
		p, running = c.find()
		return running, nil
	}); err != nil {
		return fmt.Errorf("starting the server: no process in %s: %w", c.cfg.PIDFile, err)
	}
	if err := c.guard.overtaken(begun); err != nil {
		return fmt.Errorf("starting the server: %w", errors.Join(err, killProcess(ctx, p, c.dataDir(p))))
	}
	w := openProcess(p)
	defer w.close()
	return waitServing(ctx, w, c.cfg.Socket)
}

// run runs a command line; its output is in the error.
func (c *command) run(ctx context.Context, line, env []string) error {
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %q: %w: %s", strings.Join(line, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Stop implements Service.
func (c *command) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, running := c.find()
	if !running {
		return nil
	}
	if len(c.cfg.StopCommand) == 0 {
		return stopProcess(ctx, p, c.dataDir(p))
	}
	w := openProcess(p)
	defer w.close()
	dir := c.dataDir(p)
	if err := c.run(ctx, c.cfg.StopCommand, nil); err != nil {
		return fmt.Errorf("stopping the server: %w", err)
	}
	if err := w.waitExit(ctx); err != nil {
		return err
	}
	return waitUnlocked(ctx, dir)
}

// Kill implements Service. The kill command, if there is one, runs first; what
// counts is that the process is gone.
func (c *command) Kill(ctx context.Context) error {
	c.guard.killed()
	p, running := c.find()
	if !running {
		return nil
	}
	dir := c.dataDir(p)
	if len(c.cfg.KillCommand) > 0 {
		if err := c.run(ctx, c.cfg.KillCommand, nil); err != nil {
			c.log.Warn("the kill command failed; sending SIGKILL", "error", err)
		}
	}
	return killProcess(ctx, p, dir)
}

// dataDir is the configured data directory, or the one the process runs in.
func (c *command) dataDir(p process) string {
	if c.cfg.DataDir != "" {
		return c.cfg.DataDir
	}
	return workingDir(p.PID)
}

// Watch implements Service.
func (c *command) Watch(ctx context.Context, onExit func()) { watchProcess(ctx, c.find, onExit) }
