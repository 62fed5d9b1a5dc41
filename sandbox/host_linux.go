package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors that the runner gives a host.
const (
	hostGoFD    = 3 // ends (EOF) when the host's link is in place
	hostReadyFD = 4 // gets "ok", or what went wrong
)

// hostInit is PID 1 of one host: it sets the host up, keeps hbd (or, bare, starts the server) and runs commands.
type hostInit struct {
	plan   plan
	host   planHost
	log    *slog.Logger
	reaper *reaper
	hbd    *keeper // nil on a client and in a bare sandbox
	mysqld *keeper // nil unless bare: otherwise hbd starts the server
}

func runHost(dir, name string, log *slog.Logger) error {
	ready := os.NewFile(hostReadyFD, "ready")
	unix.CloseOnExec(hostReadyFD)
	h, err := setUpHost(dir, name, log)
	if err != nil {
		_, writeErr := io.WriteString(ready, err.Error())
		return errors.Join(err, writeErr)
	}
	l, err := listenControl(h.plan.hostSocket(name))
	if err == nil {
		err = h.startServices()
	}
	report := "ok"
	if err != nil {
		report = err.Error()
	}
	if _, writeErr := io.WriteString(ready, report); err == nil {
		err = writeErr
	}
	if err := errors.Join(err, ready.Close()); err != nil {
		return err
	}
	return serve(context.Background(), l, log, h.handle)
}

func setUpHost(dir, name string, log *slog.Logger) (*hostInit, error) {
	// A terminal or a caller never ends a host; who ends it sends SIGKILL. Caught, not ignored: commands would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	link := os.NewFile(hostGoFD, "go")
	unix.CloseOnExec(hostGoFD)
	if _, err := io.ReadAll(link); err != nil {
		return nil, fmt.Errorf("waiting for the link: %w", err)
	}
	link.Close() // read to its end: nothing left to fail
	p, err := readPlan(dir)
	if err != nil {
		return nil, err
	}
	host, err := p.host(name)
	if err != nil {
		return nil, err
	}
	if err := privateMounts(); err != nil {
		return nil, err
	}
	if err := hostMounts(p, log); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return nil, fmt.Errorf("setting the host name: %w", err)
	}
	if err := configureHost(host); err != nil {
		return nil, err
	}
	h := &hostInit{plan: p, host: host, log: log, reaper: newReaper()}
	return h, h.makeKeepers()
}

func (h *hostInit) makeKeepers() error {
	name := h.host.Name
	switch {
	case h.host.Role == RoleClient:
	case !h.plan.Bare:
		h.hbd = &keeper{name: "hbd", argv: []string{h.plan.HBD, "-config", h.plan.hbdConfig(name)},
			logFile: h.plan.hbdLog(name), restart: true, reaper: h.reaper, log: h.log}
	case h.host.Role == RoleData:
		s, err := newServer(h.plan.Server)
		if err != nil {
			return err
		}
		argv, err := s.command(h.plan, h.host)
		if err != nil {
			return err
		}
		h.mysqld = &keeper{name: "mysqld", argv: argv, logFile: h.plan.path(name, "mysqld.out"), reaper: h.reaper, log: h.log}
	}
	return nil
}

func (h *hostInit) startServices() error {
	for _, k := range []*keeper{h.hbd, h.mysqld} {
		if k == nil {
			continue
		}
		if err := k.Start(); err != nil {
			return err
		}
	}
	return nil
}

func (h *hostInit) handle(ctx context.Context, req request, files []*os.File) (reply, []*os.File) {
	defer closeAll(files)
	switch req.Op {
	case "exec":
		exit, err := h.exec(ctx, req, files)
		rep := errorReply(err)
		rep.Exit = exit
		return rep, nil
	case "start-hbd", "start-mysqld":
		k, err := h.keeper(strings.TrimPrefix(req.Op, "start-"))
		if err == nil {
			err = k.Start()
		}
		return errorReply(err), nil
	case "stop-hbd":
		k, err := h.keeper("hbd")
		if err == nil {
			err = k.Stop(ctx)
		}
		return errorReply(err), nil
	default:
		return errorReply(usagef("unknown operation %q", req.Op)), nil
	}
}

func (h *hostInit) keeper(name string) (*keeper, error) {
	k := h.hbd
	if name == "mysqld" {
		k = h.mysqld
	}
	if k == nil {
		return nil, usagef("the sandbox itself runs no %s on %s", name, h.host.Name)
	}
	return k, nil
}

// exec runs a command with the caller's three descriptors until it ends or the caller goes away.
func (h *hostInit) exec(ctx context.Context, req request, files []*os.File) (int, error) {
	if len(req.Args) == 0 || len(files) != 3 {
		return 0, usagef("a command and three descriptors are needed")
	}
	dir := req.Dir
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = "/"
	}
	pid, status, err := h.reaper.start(req.Args, h.execEnv(req.Env), dir, files)
	if err != nil {
		return 0, err
	}
	closeAll(files) // the command has its own now; a pipe must end when the command closes it
	select {
	case st := <-status:
		return exitCode(st), nil
	case <-ctx.Done():
		if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("ending the command: %w", err)
		}
		<-status
		return 0, context.Cause(ctx)
	}
}

// execEnv is the caller's environment with what makes the project's and the server's tools find this host.
func (h *hostInit) execEnv(env []string) []string {
	path := os.Getenv("PATH")
	var out []string
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "PATH":
			path = value
		case "HBCTL_ADDR", "MYSQL_HOME": // ours follow, but a C program would take the first
		default:
			out = append(out, v)
		}
	}
	var own []string
	for _, program := range []string{h.plan.Program, h.plan.HBD} {
		if program != "" && !contains(own, filepath.Dir(program)) {
			own = append(own, filepath.Dir(program))
		}
	}
	out = append(out, "PATH="+strings.Join(append(own, path, "/usr/sbin", "/sbin"), ":"))
	var nodes []string
	for _, peer := range h.plan.Hosts {
		if peer.Role != RoleClient {
			nodes = append(nodes, fmt.Sprintf("%s:%d", peer.Address, apiPort))
		}
	}
	out = append(out, "HBCTL_ADDR="+strings.Join(nodes, ","))
	// Stronger than the machine's own option files, which name a socket too.
	return append(out, "MYSQL_HOME="+h.plan.path(h.host.Name))
}
