package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"sync"
	"time"
)

// Fault does one of Faults. It returns when the fault has had its effect on the host; what the cluster makes of it
// comes later. The error wraps ErrUsage if the verb, its arguments or the sandbox's options can never allow it.
func (s *Sandbox) Fault(ctx context.Context, verb string, args ...string) error {
	if _, err := findFault(verb, args); err != nil {
		return err
	}
	_, files, err := s.call(ctx, request{Op: "fault", Verb: verb, Args: args})
	closeAll(files)
	return err
}

// Dial connects to addr from inside a host's network. The host part of addr is an IP address or the name of a host.
// The connection is an ordinary one of this process: it lives on after a freeze, and hears nothing after a kill-host.
func (s *Sandbox) Dial(ctx context.Context, host, network, addr string) (net.Conn, error) {
	_, files, err := s.call(ctx, request{Op: "dial", Host: host, Network: network, Address: addr})
	if err != nil {
		return nil, fmt.Errorf("dialling %s from %s: %w", addr, host, err)
	}
	defer closeAll(files)
	if len(files) != 1 {
		return nil, fmt.Errorf("dialling %s from %s: got %d descriptors", addr, host, len(files))
	}
	return net.FileConn(files[0])
}

// Exec runs argv on a host until it ends and returns its exit status, 128 + N after signal N. The command gets the
// caller's environment with a PATH that finds hbctl, HBCTL_ADDR for it, and MYSQL_HOME for the mariadb client: on
// a database host it logs in as root over the socket, on the client as app through the VIP. A nil stream is /dev/null. When ctx ends, the command and its process group are killed.
func (s *Sandbox) Exec(ctx context.Context, host string, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if len(argv) == 0 {
		return 0, usagef("exec needs a command")
	}
	if _, _, err := s.call(ctx, request{Op: "running", Host: host}); err != nil {
		return 0, err
	}
	var st streams
	defer st.close()
	if err := st.open(stdin, stdout, stderr); err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/" // the directory was removed under us
	}
	req := request{Op: "exec", Host: host, Args: argv, Env: os.Environ(), Dir: dir}
	rep, _, err := call(ctx, s.plan.hostSocket(host), req, st.fds()...)
	if ctx.Err() != nil {
		st.cutShort()
	}
	if err != nil && errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s went down", host)
	}
	return rep.Exit, errors.Join(err, st.finish())
}

// call asks the runner.
func (s *Sandbox) call(ctx context.Context, req request) (reply, []*os.File, error) {
	rep, files, err := call(ctx, s.plan.controlSocket(), req)
	var gone *net.OpError
	if errors.Is(err, io.EOF) || errors.As(err, &gone) {
		err = fmt.Errorf("%w: %s (%w)", ErrNotUp, s.plan.Name, err)
	}
	return rep, files, err
}

// streams turns readers and writers into the three descriptors of a command.
type streams struct {
	child  [3]*os.File // what the command gets
	owned  []*os.File  // of child, ours to close
	input  *os.File    // our end of a pipe to standard input
	output []*os.File  // our ends of the pipes from standard output and error
	copies sync.WaitGroup
	mu     sync.Mutex
	err    error
}

func (st *streams) open(stdin io.Reader, stdout, stderr io.Writer) error {
	if f, ok := stdin.(*os.File); ok {
		st.child[0] = f
	} else if stdin == nil {
		f, err := st.own(os.Open(os.DevNull))
		if err != nil {
			return err
		}
		st.child[0] = f
	} else if err := st.pipeIn(stdin); err != nil {
		return err
	}
	for i, w := range []io.Writer{stdout, stderr} {
		if f, ok := w.(*os.File); ok {
			st.child[i+1] = f
			continue
		}
		if w == nil {
			f, err := st.own(os.OpenFile(os.DevNull, os.O_WRONLY, 0))
			if err != nil {
				return err
			}
			st.child[i+1] = f
			continue
		}
		if i == 1 && same(w, stdout) {
			st.child[2] = st.child[1] // one writer for both: one pipe keeps the order
			continue
		}
		if err := st.pipeOut(i+1, w); err != nil {
			return err
		}
	}
	return nil
}

func (st *streams) own(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, fmt.Errorf("opening the command's streams: %w", err)
	}
	st.owned = append(st.owned, f)
	return f, nil
}

func (st *streams) pipeIn(from io.Reader) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("opening the command's streams: %w", err)
	}
	st.owned = append(st.owned, r)
	st.child[0], st.input = r, w
	go func() { // not waited for: the command may end without reading, and from may never end
		_, _ = io.Copy(w, from) // fails when the command has stopped reading, which is its right
		w.Close()
	}()
	return nil
}

func (st *streams) pipeOut(i int, to io.Writer) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("opening the command's streams: %w", err)
	}
	st.owned = append(st.owned, w)
	st.child[i] = w
	st.output = append(st.output, r)
	st.copies.Go(func() {
		defer r.Close()
		if _, err := io.Copy(to, r); err != nil {
			st.mu.Lock()
			st.err = errors.Join(st.err, fmt.Errorf("copying the command's output: %w", err))
			st.mu.Unlock()
		}
	})
	return nil
}

// same reports whether two writers are one; values that cannot be compared are not.
func same(a, b io.Writer) bool {
	ta, tb := reflect.TypeOf(a), reflect.TypeOf(b)
	return ta == tb && ta != nil && ta.Comparable() && a == b
}

// cutShort ends the wait for output of a cancelled command: something that left its process group may hold the pipe.
func (st *streams) cutShort() {
	for _, r := range st.output {
		_ = r.SetReadDeadline(time.Now()) // fails if it is closed already, which is as good
	}
}

func (st *streams) fds() []int {
	var fds []int
	for _, f := range st.child {
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// finish waits until all output has arrived, once the command has ended.
func (st *streams) finish() error {
	st.close()
	st.copies.Wait()
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}

func (st *streams) close() {
	closeAll(st.owned)
	st.owned = nil
	if st.input != nil {
		st.input.Close() // the copier may have closed it already
	}
}
