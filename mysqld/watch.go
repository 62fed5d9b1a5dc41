package mysqld

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"
)

const (
	// rearmInterval is how often a server that is down is knocked at. Only then:
	// while it runs, the watch sleeps in the kernel.
	rearmInterval = 100 * time.Millisecond
	// judgeTimeout bounds telling a dead server from a dropped connection.
	judgeTimeout = time.Second
)

// Watch keeps an idle connection over the unix socket, asleep in a read, and
// calls onDown when the server's process dies: the kernel closes the connection
// at that moment, so nothing is polled. A connection merely killed is opened
// anew without a call. After a death it is armed again as soon as the server
// returns. onDown is called from Watch's goroutine, once for each death seen
// while armed; it must not block for long. Watch returns when ctx ends.
func (s *Server) Watch(ctx context.Context, onDown func()) {
	for ctx.Err() == nil {
		w, err := s.arm(ctx)
		if err != nil {
			s.log.Debug("arming the watch", "server", s.target(), "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(rearmInterval):
			}
			continue
		}
		if s.onArmed != nil {
			s.onArmed()
		}
		s.wantWarm() // it is up, perhaps again: open the control connections
		died := w.wait(ctx) && s.isDead(ctx, w.process)
		w.close()
		if died && ctx.Err() == nil {
			onDown()
		}
	}
}

// watch is one armed connection.
type watch struct {
	conn    net.Conn
	session driver.Conn
	process watchedProcess
}

func (w *watch) close() {
	w.session.Close() // its end is what we wait for; an error says no more
	w.process.close()
}

// arm logs in over a connection of its own, outside the pool, and keeps the raw
// end of it. An authenticated connection, because the server drops others.
func (s *Server) arm(ctx context.Context) (*watch, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var raw net.Conn
	cfg := s.driver.Clone()
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, addr)
		raw = conn
		return conn, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	session, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := peerProcess(raw)
	if err != nil {
		p = process{} // TCP, or another pid namespace: judged by connecting only
	}
	return &watch{conn: raw, session: session, process: openProcess(p)}, nil
}

// wait sleeps until the connection ends (true) or ctx does (false).
func (w *watch) wait(ctx context.Context) bool {
	stop := context.AfterFunc(ctx, func() {
		// An instant in the past ends the read; failing means it is closed.
		_ = w.conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	var buf [256]byte
	for {
		// A server may say why it closes (an error packet) before it does.
		if _, err := w.conn.Read(buf[:]); err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// isDead tells a dead server from a connection that was killed. The process
// may still be on its way out when its files are already closed.
func (s *Server) isDead(ctx context.Context, old watchedProcess) bool {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if old.exited(ctx, 5*time.Millisecond) {
			return true
		}
		w, err := s.arm(ctx)
		switch {
		case err == nil:
			same := w.process.id == old.id
			w.close()
			return !same // another process: it died and is already back
		case Classify(err) == FaultDown && errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
			return true
		case serverErrorNumber(err) != 0 && Classify(err) != FaultDown:
			return false // it spoke: alive, but in trouble, which others see
		}
		// Dropped during the login: dying, or closing down. Look again.
	}
	return true
}

// watchedProcess holds a process by its pidfd, so that its number cannot be
// mistaken after reuse. Without a pidfd it never reports an exit.
type watchedProcess struct {
	id process
	fd int
}

// openProcess holds p; if that is not possible the exit is seen elsewhere.
func openProcess(p process) watchedProcess {
	w := watchedProcess{id: p, fd: -1}
	if p.PID == 0 {
		return w
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return w
	}
	w.fd = fd
	if !p.alive() { // the number may have been reused before we opened it
		w.close()
		w.fd = -1
	}
	return w
}

func (w watchedProcess) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd) // nothing was written, so nothing can be lost
	}
}

// exited waits at most timeout for the process to end. The kernel makes a pidfd
// readable when the last thread is gone, also for processes not our children.
func (w watchedProcess) exited(ctx context.Context, timeout time.Duration) bool {
	if w.fd < 0 {
		return w.id.PID != 0 && !w.id.alive()
	}
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
	deadline := time.Now().Add(timeout)
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds())))
		if n > 0 {
			return true
		}
		if !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return false
		}
	}
	return false
}

// waitExit sleeps until the process has ended or ctx has.
func (w watchedProcess) waitExit(ctx context.Context) error {
	for {
		if w.exited(ctx, 50*time.Millisecond) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for process %d to end: %w", w.id.PID, err)
		}
	}
}
