package mysqld

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"strings"
	"sync"
)

// serverConnection names one of our connections: by the number that the server gave
// it and by the run of the server, zero where it cannot be seen.
type serverConnection struct {
	number uint64
	run    process
}

// mayBe reports whether a row of the process list may be this connection. A server
// that was started anew gives its numbers again; what stands there is another's.
func (c serverConnection) mayBe(info string) bool {
	if c.run != (process{}) {
		return c.run.alive()
	}
	text := strings.ToLower(info)
	return strings.HasPrefix(text, "set global") && strings.Contains(text, "read_only")
}

// abandonedStatements remembers the connections of our own statements that did not
// return in time and may still be under way in the server.
type abandonedStatements struct {
	mu   sync.Mutex
	left map[uint64]serverConnection // by number
}

func (a *abandonedStatements) add(conn serverConnection) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == nil {
		a.left = make(map[uint64]serverConnection)
	}
	a.left[conn.number] = conn
}

// all returns them.
func (a *abandonedStatements) all() map[uint64]serverConnection {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.left)
}

// forget takes out those that are gone for certain.
func (a *abandonedStatements) forget(gone map[uint64]serverConnection) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.left, func(number uint64, conn serverConnection) bool { return gone[number] == conn })
}

// connectionNumbers remembers the names of our connections: they do not change, and
// asking takes time while clients wait.
type connectionNumbers struct {
	mu    sync.Mutex
	known map[any]serverConnection // by the driver's connection
}

// mostNumbers bounds it: connections that are gone are not taken out.
const mostNumbers = 64

func (s *Server) connection(ctx context.Context, conn *sql.Conn) (serverConnection, error) {
	var key any
	if err := conn.Raw(func(connection any) error { key = connection; return nil }); err != nil {
		return serverConnection{}, err
	}
	c := &s.numbers
	c.mu.Lock()
	one, ok := c.known[key]
	c.mu.Unlock()
	if ok {
		return one, nil
	}
	// Noted when this connection was opened or later, and it is this run that answers below: no later one can have been noted yet.
	run := s.peer.current()
	r, err := row(ctx, conn, "SELECT CONNECTION_ID() AS id")
	if err != nil {
		return serverConnection{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= mostNumbers {
		c.known = make(map[any]serverConnection)
	}
	c.known[key] = serverConnection{number: r.number("id"), run: run}
	return c.known[key], nil
}

// endAbandoned kills our own read_only statements that never returned, and waits
// until their connections are gone: a kill is a request, and a statement that is about
// to take effect does so after it; one may not even have been read yet. They are not
// commits, and it is certain whose they are, so no waiter is hit.
func (s *Server) endAbandoned(ctx context.Context) error {
	left := s.abandoned.all()
	if len(left) == 0 {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		all, err := rows(ctx, s.db, "SHOW FULL PROCESSLIST")
		if err != nil {
			return false, err
		}
		gone := true
		for _, r := range all {
			conn, ok := left[r.number("Id")]
			if !ok || r["User"] != s.cfg.ManagerUser || !conn.mayBe(r["Info"]) {
				continue
			}
			gone = false
			if err := s.kill(ctx, conn.number); err != nil {
				return false, fmt.Errorf("on connection %d: %w", conn.number, err)
			}
		}
		return gone, nil
	})
	if err != nil {
		return fmt.Errorf("ending statements left behind: %w", err)
	}
	s.abandoned.forget(left)
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
