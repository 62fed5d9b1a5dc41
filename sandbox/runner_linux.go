package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors that Up gives the runner.
const (
	runnerReadyFD = 3 // gets progress messages and the outcome
	runnerLockFD  = 4 // the sandbox's lock, held while the runner lives
	runnerTieFD   = 5 // its end (EOF) ends the sandbox; only if tied
)

// progress is one message of the runner to Up, a line of JSON.
type progress struct {
	Line  string `json:"line,omitempty"`
	Error string `json:"error,omitempty"`
	Ready bool   `json:"ready,omitempty"`
}

// runner is PID 1 of a sandbox. Its network namespace is the switch.
type runner struct {
	plan   plan
	server server
	log    *slog.Logger
	filter filter
	hosts  map[string]*host
}

func runRunner(dir string, tied bool, log *slog.Logger) error {
	for fd := runnerReadyFD; fd <= runnerTieFD; fd++ {
		unix.CloseOnExec(fd)
	}
	out := json.NewEncoder(os.NewFile(runnerReadyFD, "ready"))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		<-signals
		os.Exit(0) // the kernel ends everything below
	}()
	if tied {
		go func() {
			_, err := io.Copy(io.Discard, os.NewFile(runnerTieFD, "tie"))
			log.Info("the process that this sandbox belongs to has ended", "error", err)
			os.Exit(0)
		}()
	}
	r, l, err := buildSandbox(dir, log, func(line string) error { return out.Encode(progress{Line: line}) })
	if err != nil {
		return errors.Join(err, out.Encode(progress{Error: err.Error()}))
	}
	if err := out.Encode(progress{Ready: true}); err != nil {
		return fmt.Errorf("reporting that the sandbox is ready: %w", err)
	}
	return serve(context.Background(), l, log, r.handle)
}

func buildSandbox(dir string, log *slog.Logger, say func(string) error) (*runner, *net.UnixListener, error) {
	p, err := readPlan(dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := newServer(p.Server)
	if err != nil {
		return nil, nil, err
	}
	r := &runner{plan: p, server: s, log: log, hosts: make(map[string]*host)}
	ctx := context.Background()
	if err := privateMounts(); err != nil {
		return nil, nil, err
	}
	if err := makeSwitch(); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(say("preparing the data directories"), writeFiles(p, s)); err != nil {
		return nil, nil, err
	}
	if err := prepareServers(ctx, p, s); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(say("starting the hosts"), r.startAll(ctx)); err != nil {
		return nil, nil, err
	}
	l, err := listenControl(p.controlSocket())
	return r, l, err
}

// startAll starts every host at the same time and, in a bare sandbox, waits until the servers answer.
func (r *runner) startAll(ctx context.Context) error {
	for _, ph := range r.plan.Hosts {
		r.hosts[ph.Name] = &host{planHost: ph, plan: r.plan, log: r.log.With("node", ph.Name)}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	errs := make([]error, len(r.plan.Hosts))
	var wg sync.WaitGroup
	for i, ph := range r.plan.Hosts {
		wg.Go(func() {
			h := r.hosts[ph.Name]
			errs[i] = h.start()
			if errs[i] == nil && r.plan.Bare && ph.Role == RoleData {
				errs[i] = r.waitServer(ctx, h)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// waitServer waits until the host's server greets a client, as every MySQL server does first.
func (r *runner) waitServer(ctx context.Context, h *host) error {
	err := waitUntil(ctx, "the server of "+h.Name+" answers", func() bool {
		conn, err := r.dialFrom(ctx, h, "tcp", net.JoinHostPort(h.Address, fmt.Sprint(mysqlPort)))
		if err != nil {
			return false
		}
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return false
		}
		_, err = conn.Read(make([]byte, 1))
		return err == nil
	})
	if err != nil {
		text, readErr := os.ReadFile(r.plan.serverLog(h.Name))
		return errors.Join(fmt.Errorf("%w: %s", err, tail(text, 1500)), readErr)
	}
	return nil
}

func (r *runner) handle(ctx context.Context, req request, files []*os.File) (reply, []*os.File) {
	closeAll(files) // no request to the runner needs any
	switch req.Op {
	case "status":
		return r.status()
	case "fault":
		err := r.fault(ctx, req.Verb, req.Args)
		r.log.Info("fault", "verb", req.Verb, "args", req.Args, "error", err)
		return errorReply(err), nil
	case "dial":
		file, err := r.dial(ctx, req)
		if err != nil {
			return errorReply(err), nil
		}
		return reply{}, []*os.File{file}
	case "sockets":
		files, err := r.sockets(req)
		if err != nil {
			return errorReply(err), nil
		}
		return reply{}, files
	case "running":
		h, err := r.host(req.Host)
		if err == nil {
			err = h.checkRunning()
		}
		return errorReply(err), nil
	default:
		return errorReply(usagef("unknown operation %q", req.Op)), nil
	}
}

func (r *runner) host(name string) (*host, error) {
	if _, err := r.plan.host(name); err != nil {
		return nil, err
	}
	return r.hosts[name], nil
}

// status reports every host, with pidfds of its processes in order.
func (r *runner) status() (reply, []*os.File) {
	var rep reply
	var files []*os.File
	for _, ph := range r.plan.Hosts {
		h := r.hosts[ph.Name]
		state, pids := h.look()
		s := hostState{Name: ph.Name, State: state}
		for _, p := range []struct {
			pid  int
			have *bool
		}{{pids.init, &s.Init}, {pids.hbd, &s.HBD}, {pids.mysqld, &s.Mysqld}} {
			if p.pid == 0 {
				continue
			}
			fd, err := unix.PidfdOpen(p.pid, 0)
			if err != nil {
				continue // ended since we looked: it is reported as absent
			}
			*p.have = true
			files = append(files, os.NewFile(uintptr(fd), "pidfd"))
		}
		rep.Hosts = append(rep.Hosts, s)
	}
	return rep, files
}
