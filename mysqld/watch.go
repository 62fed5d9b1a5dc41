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
	// noPidfdInterval is how often a process is looked at that cannot be waited for.
	noPidfdInterval = 50 * time.Millisecond
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
// mistaken after reuse. Without a pidfd its number is looked at.
type watchedProcess struct {
	id    process
	pidfd *os.File // nil without one
}

// openProcess holds p; if that is not possible the exit is seen elsewhere.
func openProcess(p process) watchedProcess {
	w := watchedProcess{id: p}
	if p.PID == 0 {
		return w
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return w
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else the runtime would not wait for it
		_ = unix.Close(fd)
		return w
	}
	w.pidfd = os.NewFile(uintptr(fd), "pidfd")
	if !p.alive() { // the number may have been reused before we opened it
		w.close()
		w.pidfd = nil
	}
	return w
}

func (w watchedProcess) close() {
	if w.pidfd != nil {
		_ = w.pidfd.Close() // nothing was written, so nothing can be lost
	}
}

// signal sends one; that the process has ended is success.
func (w watchedProcess) signal(sig unix.Signal) error {
	conn, err := w.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return sent
}

// ended looks at a pidfd. The kernel makes it readable when the last thread is
// gone, also for processes not our children.
func ended(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// exited waits at most timeout for the process to end.
func (w watchedProcess) exited(ctx context.Context, timeout time.Duration) bool {
	if w.pidfd == nil {
		return w.id.PID != 0 && !w.id.alive()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return w.await(ctx) == nil
}

// await sleeps until the process has ended, or ctx has.
func (w watchedProcess) await(ctx context.Context) error {
	conn, err := w.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	if err := w.pidfd.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		// An instant in the past ends the wait; failing means it is closed.
		_ = w.pidfd.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-over // else it would end the next wait
		}
	}()
	waited := conn.Read(ended)
	gone := waited == nil
	if err := conn.Control(func(fd uintptr) { gone = gone || ended(fd) }); err != nil {
		return err
	}
	if gone {
		return nil
	}
	return errors.Join(ctx.Err(), waited)
}

// waitExit sleeps until the process has ended or ctx has.
func (w watchedProcess) waitExit(ctx context.Context) error {
	for w.pidfd == nil && ctx.Err() == nil && !w.exited(ctx, 0) {
		select {
		case <-ctx.Done():
		case <-time.After(noPidfdInterval):
		}
	}
	err := ctx.Err()
	if w.pidfd != nil {
		err = w.await(ctx)
	}
	if err != nil {
		return fmt.Errorf("waiting for process %d to end: %w", w.id.PID, err)
	}
	return nil
}
