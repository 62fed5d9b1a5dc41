package mysqld

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// SetReadOnly makes the server refuse writes: read_only on MariaDB (accounts
// with READ_ONLY ADMIN still write), super_read_only on MySQL. When it returns
// nil no commit is under way.
//
// It hangs behind a commit that waits for an acknowledgement, and new writes
// hang with it. At ctx's end it returns FaultHung and kills nothing: a waiter
// killed is a waiter told success, and the statement left behind goes on
// holding back new writes, which is what a fence wants. The next step of a
// fence is SIGKILL; of a way back SetWritable, which ends the statement first.
func (s *Server) SetReadOnly(ctx context.Context) error {
	s.boot.interfere()
	if err := s.setGlobals(ctx, &s.abandoned, s.dialect.words().readOnly); err != nil || len(s.abandoned.all()) == 0 {
		return err
	}
	// A statement left behind may be one that makes the server writable, and may take effect only now. Once all of them
	// are ended the last word is this one.
	if err := s.endAbandoned(ctx, &s.abandoned); err != nil {
		return err
	}
	return s.setGlobals(ctx, &s.abandoned, s.dialect.words().readOnly)
}

// SetBarrierWritable lets only the manager write: read_only on, super_read_only
// off. On a writable server it hangs as SetReadOnly does.
func (s *Server) SetBarrierWritable(ctx context.Context) error {
	if err := s.endAbandoned(ctx, &s.abandoned); err != nil {
		return err
	}
	s.boot.interfere()
	if err := s.beOneself(ctx); err != nil {
		return err
	}
	return s.setGlobals(ctx, &s.abandoned, s.dialect.words().barrierWritable)
}

// SetWritable lets everybody write. The caller holds a valid lease.
func (s *Server) SetWritable(ctx context.Context) error {
	if err := s.endAbandoned(ctx, &s.abandoned); err != nil {
		return err
	}
	s.boot.interfere()
	return s.setGlobals(ctx, &s.abandoned, s.dialect.words().writable)
}

// setGlobals runs statements on one connection and remembers that if ctx ended
// while one was under way: the server does not notice that nobody waits.
func (s *Server) setGlobals(ctx context.Context, abandoned *abandonedStatements, statements []string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return s.withConn(ctx, func(conn *sql.Conn) error { return s.setGlobalsOn(ctx, conn, abandoned, statements) })
}

func (s *Server) setGlobalsOn(ctx context.Context, conn *sql.Conn, abandoned *abandonedStatements, statements []string) error {
	one, err := s.connection(ctx, conn)
	if err != nil {
		return err
	}
	err = execute(ctx, conn, statements...)
	if err != nil && ctx.Err() != nil {
		abandoned.add(one)
		// The driver gives it back if ctx ended between two statements: nothing else may run on what is to be killed.
		err = errors.Join(err, dispose(conn))
	}
	return err
}

// dispose closes a connection instead of giving it back. database/sql does so for one
// that is said to be bad.
func dispose(conn *sql.Conn) error {
	err := conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}
