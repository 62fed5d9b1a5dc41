package mysqld

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// child runs the server as a child of this program, in a session of its own so
// that it survives this program: the next one adopts it. (Under systemd that
// needs KillMode=process in this program's unit.)
type child struct {
	cfg   ServiceConfig
	words words
	log   *slog.Logger
	mu    sync.Mutex // one start or stop at a time
	guard startGuard
	spawn sync.Mutex // a process is either not there or findable
}

var _ Service = (*child)(nil)

func newChild(cfg ServiceConfig, w words) *child {
	return &child{cfg: cfg, words: w, log: cfg.Logger}
}

// identity is what is kept beside the pid file: the number alone may be reused.
type identity struct {
	Boot    string  `json:"boot"`
	Process process `json:"process"`
}

func (c *child) identityFile() string { return c.cfg.PIDFile + ".highbase" }

// find looks for the running server: first by the identity kept, then by the
// server's own pid file, in which case the command line must be ours. That is
// the case of a program killed between start and keeping the identity.
func (c *child) find() (process, bool) {
	raw, err := os.ReadFile(c.identityFile())
	var kept identity
	if err == nil && json.Unmarshal(raw, &kept) == nil && kept.Boot == bootID() && kept.Process.alive() {
		return kept.Process, true
	}
	pid, err := readPID(c.cfg.PIDFile)
	if err != nil || pid == 0 {
		return process{}, false
	}
	p, err := readProcess(pid)
	if err != nil || !c.isOurs(pid) {
		return process{}, false
	}
	return p, true
}

// isOurs compares the command line. The first word may differ: a script is
// shown by its interpreter.
func (c *child) isOurs(pid int) bool {
	line := strings.Join(commandLine(pid), "\x00") + "\x00"
	return strings.Contains(line, c.pidArgument()+"\x00")
}

func (c *child) pidArgument() string { return "--pid-file=" + c.cfg.PIDFile }

// Running implements Service.
func (c *child) Running(context.Context) (int, bool, error) {
	p, running := c.find()
	return p.PID, running, nil
}

// Start implements Service.
func (c *child) Start(ctx context.Context, opts StartOptions) error {
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
	p, err := c.launch(opts, begun)
	if err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	w := openProcess(p)
	defer w.close()
	if err := waitServing(ctx, w, c.cfg.Socket); err != nil {
		return fmt.Errorf("starting the server (see %s): %w", c.cfg.Log, errors.Join(c.guard.overtaken(begun), err))
	}
	return nil
}

// launch starts the process and keeps its identity, unless a kill came.
func (c *child) launch(opts StartOptions, begun int) (process, error) {
	c.spawn.Lock()
	defer c.spawn.Unlock()
	if err := c.guard.overtaken(begun); err != nil {
		return process{}, err
	}
	out, err := os.OpenFile(c.cfg.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return process{}, err
	}
	defer out.Close()
	args := append(append([]string(nil), c.cfg.Command[1:]...), c.pidArgument())
	args = append(args, startArguments(c.words, opts)...)
	cmd := exec.Command(c.cfg.Command[0], args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process{}, err
	}
	p, err := readProcess(cmd.Process.Pid)
	go func() {
		// Reaps it. How it ended is for the log: callers see that it did.
		if err := cmd.Wait(); err != nil {
			c.log.Info("the server's process ended", "pid", cmd.Process.Pid, "state", err)
		}
	}()
	if errors.Is(err, errNoProcess) {
		return process{}, ErrExited
	}
	if err != nil {
		return process{}, err
	}
	return p, c.keep(p)
}

// keep writes the identity in one step: half of one would adopt nobody.
func (c *child) keep(p process) error {
	raw, err := json.Marshal(identity{Boot: bootID(), Process: p})
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(c.identityFile()), "."+filepath.Base(c.identityFile())+".new")
	if err := os.WriteFile(temporary, raw, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, c.identityFile())
}

// dataDir is the configured data directory, or the one the process runs in.
func (c *child) dataDir(p process) string {
	if c.cfg.DataDir != "" {
		return c.cfg.DataDir
	}
	return workingDir(p.PID)
}

// Stop implements Service.
func (c *child) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, running := c.find()
	if !running {
		return nil
	}
	return stopProcess(ctx, p, c.dataDir(p))
}

// Kill implements Service. It does not wait for a Start under way: a fence
// cannot.
func (c *child) Kill(ctx context.Context) error {
	c.guard.killed()
	c.spawn.Lock()
	p, running := c.find()
	c.spawn.Unlock()
	if !running {
		return nil
	}
	return killProcess(ctx, p, c.dataDir(p))
}

// Watch implements Service.
func (c *child) Watch(ctx context.Context, onExit func()) { watchProcess(ctx, c.find, onExit) }
