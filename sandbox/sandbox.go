package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// downTimeout bounds the wait for the kernel to have ended every process of a sandbox.
const downTimeout = 20 * time.Second

// Sandbox is a running sandbox. Its methods may be called from several goroutines and from any process of the same
// user.
type Sandbox struct {
	base string
	plan plan
	tie  int // descriptor whose end ends a tied sandbox; 0: none
}

// Up builds a sandbox and returns when its hosts run and, unless Options.Bare or NoBootstrap, its cluster has a
// primary that answers a client through the VIP. If ctx ends first, or anything fails, nothing is left (see
// Options.KeepFailed). Errors wrap ErrUsage or ErrAlreadyUp where those are the cause.
func Up(ctx context.Context, o Options) (*Sandbox, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p, err := newPlan(o)
	if err != nil {
		return nil, err
	}
	held, err := lock(o.Dir, o.Name)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{base: o.Dir, plan: p}
	if err := s.build(ctx, o, held); err != nil {
		return nil, err
	}
	if o.Bare || o.NoBootstrap {
		return s, nil
	}
	o.Progress("bootstrapping the cluster")
	if err := s.bootstrap(ctx); err != nil {
		err = fmt.Errorf("bootstrapping the cluster: %w%s", err, s.hbdLogs())
		if o.KeepFailed {
			return s, err
		}
		return nil, errors.Join(err, s.Down(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// build prepares the directory and starts the runner; it consumes the lock.
func (s *Sandbox) build(ctx context.Context, o Options, held *os.File) error {
	err := os.RemoveAll(s.plan.Dir) // what a killed sandbox of this name left
	if err == nil {
		err = os.Mkdir(s.plan.Dir, 0o700)
	}
	if err == nil {
		err = s.plan.write()
	}
	if err == nil {
		err = s.startRunner(ctx, o, held)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("building sandbox %s: %w", o.Name, err), s.closeTie(), removeFiles(s.base, o.Name, held))
	}
	return held.Close() // the runner has its own descriptor of the same lock
}

func (s *Sandbox) startRunner(ctx context.Context, o Options, held *os.File) error {
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer ready.Close()
	defer readyWrite.Close()
	logFile, err := os.OpenFile(s.plan.runnerLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the sandbox's log: %w", err)
	}
	defer logFile.Close()
	cmd := exec.Command(o.Program, "sandbox", childVerb, kindRunner, s.plan.Dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{readyWrite, held}
	cmd.SysProcAttr = runnerAttributes()
	if o.TieToCaller {
		tie, err := s.makeTie()
		if err != nil {
			return err
		}
		defer tie.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, tie)
		cmd.Args = append(cmd.Args, "tied")
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the sandbox's own process (without root, the system must allow user namespaces): %w", err)
	}
	ended := make(chan struct{})
	go func() { // for as long as this process lives: otherwise the runner stays a zombie
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	readyWrite.Close()
	if err := waitReady(ctx, ready, o.Progress); err != nil {
		killErr := cmd.Process.Kill()
		if errors.Is(killErr, os.ErrProcessDone) {
			killErr = nil
		}
		<-ended // with it, everything below it has ended
		text, readErr := os.ReadFile(s.plan.runnerLog())
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("it ended without a word: %s", tail(text, 2000))
		}
		return errors.Join(err, killErr, readErr)
	}
	return nil
}

// makeTie returns the runner's end of a pipe. Ours is a bare descriptor, not an os.File: only the end of this process or
// Down may close it, not the garbage collector when the caller forgets its Sandbox.
func (s *Sandbox) makeTie() (*os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	s.tie = fds[1]
	return os.NewFile(uintptr(fds[0]), "tie"), nil
}

func (s *Sandbox) closeTie() error {
	if s.tie == 0 {
		return nil
	}
	fd := s.tie
	s.tie = 0
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("closing the tie to the sandbox: %w", err)
	}
	return nil
}

// runnerAttributes detaches the runner from terminal and namespaces. Without root it becomes root of a user
// namespace that maps only the caller.
func runnerAttributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if uid := os.Geteuid(); uid != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// waitReady passes the runner's progress on until it is ready. It returns io.EOF if the runner ended silently.
func waitReady(ctx context.Context, ready *os.File, say func(string)) error {
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	in := json.NewDecoder(ready)
	for {
		var p progress
		err := in.Decode(&p)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case p.Error != "":
			return errors.New(p.Error)
		case p.Ready:
			return nil
		}
		say(p.Line)
	}
}

// Open finds the running sandbox of that name ("" is DefaultName) in DefaultDir; the error wraps ErrNotUp if there
// is none.
func Open(name string) (*Sandbox, error) { return OpenIn("", name) }

// OpenIn is Open for a directory given as in Options.Dir.
func OpenIn(dir, name string) (*Sandbox, error) {
	base, err := baseDir(dir)
	if err != nil {
		return nil, err
	}
	setDefault(&name, DefaultName)
	if err := checkName(name); err != nil {
		return nil, err
	}
	p, err := readPlan(filepath.Join(base, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s in %s", ErrNotUp, name, base)
	}
	if err != nil {
		return nil, err
	}
	c, err := dialControl(p.controlSocket())
	if err != nil {
		return nil, fmt.Errorf("%w: %s in %s (%w)", ErrNotUp, name, base, err)
	}
	return &Sandbox{base: base, plan: p}, c.Close()
}

// Down ends the sandbox and removes everything of it. When it returns nil no process of it exists.
func (s *Sandbox) Down(ctx context.Context) error {
	return errors.Join(Down(ctx, s.base, s.plan.Name), s.closeTie())
}

// Down is Sandbox.Down by directory and name, as in Options. It also removes what a killed sandbox has left, and
// returns an error wrapping ErrNotUp if there is nothing of that name.
func Down(ctx context.Context, dir, name string) error {
	base, err := baseDir(dir)
	if err != nil {
		return err
	}
	setDefault(&name, DefaultName)
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(base, name)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s in %s", ErrNotUp, name, base)
	}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	if err := endRunner(ctx, (plan{Dir: filepath.Join(base, name)}).controlSocket()); err != nil {
		return fmt.Errorf("ending sandbox %s: %w", name, err)
	}
	held, err := lock(base, name)
	if err != nil {
		return fmt.Errorf("removing sandbox %s (is another up or down at work?): %w", name, err)
	}
	return removeFiles(base, name, held)
}

// endRunner kills the process that listens on the control socket, if there is one, and waits for its end. The kernel
// ends every process of a PID namespace before its init counts as ended.
func endRunner(ctx context.Context, socket string) error {
	c, err := dialControl(socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("asking who runs it: %w", credErr)
	}
	if cred.Pid <= 0 {
		return errors.New("it was started outside of this PID namespace: end it there")
	}
	return killAndWait(ctx, int(cred.Pid))
}
