package mysqld

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
)

// abandonedStatements remembers our own statements that did not return in time
// and may still be under way in the server.
type abandonedStatements struct {
	mu  sync.Mutex
	ids map[uint64]bool // connection numbers
}

func (a *abandonedStatements) add(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids == nil {
		a.ids = make(map[uint64]bool)
	}
	a.ids[id] = true
}

// empty tells whether nothing was left behind.
func (a *abandonedStatements) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.ids) == 0
}

// take returns the numbers and forgets them.
func (a *abandonedStatements) take() map[uint64]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := a.ids
	a.ids = nil
	return ids
}

// connectionNumbers remembers the numbers that the server gave our connections: they
// do not change, and asking takes time while clients wait.
type connectionNumbers struct {
	mu    sync.Mutex
	known map[any]uint64 // by the driver's connection
}

// mostNumbers bounds it: connections that are gone are not taken out.
const mostNumbers = 64

func (c *connectionNumbers) of(ctx context.Context, conn *sql.Conn) (id uint64, err error) {
	var key any
	if err := conn.Raw(func(connection any) error { key = connection; return nil }); err != nil {
		return 0, err
	}
	c.mu.Lock()
	id = c.known[key]
	c.mu.Unlock()
	if id != 0 {
		return id, nil
	}
	r, err := row(ctx, conn, "SELECT CONNECTION_ID() AS id")
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= mostNumbers {
		c.known = make(map[any]uint64)
	}
	c.known[key] = r.number("id")
	return c.known[key], nil
}

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
	if err := s.setGlobals(ctx, s.dialect.words().readOnly); err != nil || s.abandoned.empty() {
		return err
	}
	// A statement left behind may be one that makes the server writable, and may take effect only now. Once all of them
	// are ended the last word is this one.
	if err := s.endAbandoned(ctx); err != nil {
		return err
	}
	return s.setGlobals(ctx, s.dialect.words().readOnly)
}

// SetBarrierWritable lets only the manager write: read_only on, super_read_only
// off. On a writable server it hangs as SetReadOnly does.
func (s *Server) SetBarrierWritable(ctx context.Context) error {
	if err := s.endAbandoned(ctx); err != nil {
		return err
	}
	s.boot.interfere()
	if err := s.beOneself(ctx); err != nil {
		return err
	}
	return s.setGlobals(ctx, s.dialect.words().barrierWritable)
}

// SetWritable lets everybody write. The caller holds a valid lease.
func (s *Server) SetWritable(ctx context.Context) error {
	if err := s.endAbandoned(ctx); err != nil {
		return err
	}
	s.boot.interfere()
	return s.setGlobals(ctx, s.dialect.words().writable)
}

// setGlobals runs statements on one connection and remembers it if ctx ended
// while one was under way: the server does not notice that nobody waits.
func (s *Server) setGlobals(ctx context.Context, statements []string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return s.withConn(ctx, func(conn *sql.Conn) error {
		id, err := s.numbers.of(ctx, conn)
		if err != nil {
			return err
		}
		if err := execute(ctx, conn, statements...); err != nil {
			if ctx.Err() != nil {
				s.abandoned.add(id)
			}
			return err
		}
		return nil
	})
}

// endAbandoned kills our own read_only statements that never returned; they
// would close the server again at some later time. They are not commits, and
// the number, the account and the text are all checked, so no waiter is hit.
func (s *Server) endAbandoned(ctx context.Context) error {
	ids := s.abandoned.take()
	if len(ids) == 0 {
		return nil
	}
	all, err := rows(ctx, s.db, "SHOW FULL PROCESSLIST")
	if err != nil {
		for id := range ids {
			s.abandoned.add(id)
		}
		return fmt.Errorf("looking for statements left behind: %w", err)
	}
	for _, r := range all {
		id := r.number("Id")
		text := strings.ToLower(r["Info"])
		if !ids[id] || r["User"] != s.cfg.ManagerUser || !strings.HasPrefix(text, "set global") || !strings.Contains(text, "read_only") {
			continue
		}
		if err := s.kill(ctx, id); err != nil {
			s.abandoned.add(id)
			return fmt.Errorf("ending the statement left behind on connection %d: %w", id, err)
		}
	}
	return nil
}

// kill ends one connection; one that is already gone is no error.
func (s *Server) kill(ctx context.Context, id uint64) error {
	err := execArgs(ctx, s.db, s.dialect.words().kill, id)
	const noSuchThread = 1094
	if serverErrorNumber(err) == noSuchThread {
		return nil
	}
	return err
}
