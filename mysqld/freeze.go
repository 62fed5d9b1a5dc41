package mysqld

import (
	"context"
	"fmt"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// severAfter is how long STOP of the receiver may take before its socket is
// destroyed: an idle STOP takes 2-9 ms, one over a dead link 2-5 s.
const severAfter = 50 * time.Millisecond

// Freeze revokes this replica's acknowledgements and returns all that it has
// received: the position is read after STOP of the receiver has returned, so an
// acknowledgement in flight is in it.
//
// The applier is made to run before the receiver is touched. If it stopped on
// an error of its own, nothing is started or stopped and ErrApplierStopped is
// returned: the caller leaves this member out. If STOP does not return in 50 ms
// sever, which destroys the receiver's socket to the source, is called, and
// again every 50 ms until it does; nil means there is nothing to destroy.
//
// It may be repeated. Where both threads were stopped already (a new receive
// generation) what the relay log holds is applied first. On a server with no
// source it returns the executed position.
func (s *Server) Freeze(ctx context.Context, sever func() error) (received string, err error) {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	st, err := s.replicaStatus(ctx)
	if err != nil {
		return "", err
	}
	if !st.HasReplication {
		return st.Executed, nil
	}
	if st, err = s.freeze(ctx, st, sever); err != nil {
		return "", fmt.Errorf("freezing: %w", err)
	}
	return st.Received, nil
}

// EndReceiving stops the receiver of a replica that has applied all that its source
// has sent and will send: as no received transaction depends on its applier, it is
// not looked first whether that runs, as Freeze does. Clients wait meanwhile. sever
// is as for Freeze.
func (s *Server) EndReceiving(ctx context.Context, sever func() error) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.stopReceiver(ctx, sever)
}

// freeze does it on a replica, which says st, and returns what was read after
// STOP. The caller holds the right to change replication.
func (s *Server) freeze(ctx context.Context, st Status, sever func() error) (Status, error) {
	if _, err := s.ensureApplier(ctx, st); err != nil {
		return st, err
	}
	if st.IORunning != ThreadNo {
		if err := s.stopReceiver(ctx, sever); err != nil {
			return st, err
		}
	}
	st, err := s.replicaStatus(ctx)
	switch {
	case err != nil:
		return st, err
	case st.IORunning != ThreadNo:
		return st, fmt.Errorf("the receiver is %s again after its STOP", st.IORunning)
	case st.SQLErrno != 0 && !s.allApplied(st):
		return st, fmt.Errorf("%w: %d %s", ErrApplierStopped, st.SQLErrno, st.SQLError)
	}
	return st, nil
}

// stopReceiver stops the IO thread and nothing else.
func (s *Server) stopReceiver(ctx context.Context, sever func() error) error {
	return s.helped(ctx, s.dialect.words().stopReceiver, severAfter, sever)
}

// helped runs a statement that may hang, and every so often what makes it go on;
// nil for nothing. It ends with ctx.
func (s *Server) helped(ctx context.Context, statement string, every time.Duration, help func() error) error {
	done := make(chan error, 1)
	go func() { done <- execute(ctx, s.db, statement) }()
	if help == nil {
		return <-done
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ticker.C:
			if err := help(); err != nil && ctx.Err() == nil {
				s.log.Warn("a statement that hangs could not be helped", "server", s.target(), "statement", statement, "error", err)
			}
		}
	}
}

// allApplied reports whether the relay log holds nothing that is not applied.
func (s *Server) allApplied(st Status) bool {
	return s.applied(st, st.Received)
}

// applied reports whether st has executed a position.
func (s *Server) applied(st Status, position string) bool {
	executed, errE := gtid.Parse(s.dialect.flavor(), st.Executed)
	wanted, errW := gtid.Parse(s.dialect.flavor(), position)
	return errE == nil && errW == nil && executed.Contains(wanted)
}

// ensureApplier makes the SQL thread run. With the receiver running or
// connecting a plain START keeps the relay log on both servers. With both
// stopped the dialect applies what the relay log holds; it may have to leave
// both stopped, with everything applied (running is false then).
func (s *Server) ensureApplier(ctx context.Context, st Status) (running bool, err error) {
	switch {
	case st.SQLRunning:
		return true, nil
	case st.SQLErrno != 0 && st.IORunning == ThreadNo && s.allApplied(st):
		// It was killed inside a half-received transaction (see stopApplier), or its
		// error is about nothing that is here: there is nothing to apply.
		return false, nil
	case st.SQLErrno != 0 && !Transient(st.SQLErrno):
		return false, fmt.Errorf("%w: %d %s", ErrApplierStopped, st.SQLErrno, st.SQLError)
	}
	if err := s.waitForNobody(ctx); err != nil {
		return false, err
	}
	if st.IORunning == ThreadNo {
		return s.dialect.revive(ctx, s)
	}
	if err := execute(ctx, s.db, s.dialect.words().startApplier); err != nil {
		return false, err
	}
	now, err := s.Status(ctx)
	if err != nil {
		return false, err
	}
	if !now.SQLRunning {
		return false, fmt.Errorf("%w: %d %s", ErrApplierStopped, now.SQLErrno, now.SQLError)
	}
	return true, nil
}

// waitForNobody switches source semi-sync off before an applier is started: what it
// applies would wait for acknowledgements that nobody gives. An option file may
// have switched it on. It releases nobody: it is left on at a server that may be
// written to, and where a commit waits, which may have been a primary a moment ago.
func (s *Server) waitForNobody(ctx context.Context) error {
	st, err := s.Status(ctx)
	if err != nil || !st.SourceSemiSyncEnabled || !st.ReadOnly || st.WaitSessions > 0 {
		return err
	}
	return s.disableSource(ctx, st)
}

// Reconnect makes a receiver that waits for its next try connect now. The applier
// runs throughout, so nothing is forgotten. A receiver that is connected is left
// alone.
func (s *Server) Reconnect(ctx context.Context, sever func() error) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if st.IORunning != ThreadConnecting {
		return nil
	}
	if running, err := s.ensureApplier(ctx, st); err != nil || !running {
		return err
	}
	if err := s.stopReceiver(ctx, sever); err != nil {
		return fmt.Errorf("reconnecting: %w", err)
	}
	return execute(ctx, s.db, s.dialect.words().startReceiver)
}
