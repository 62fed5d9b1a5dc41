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

// abandonedStatements remembers the connections of our own statements about one
// matter that did not return in time and may still be under way in the server. They
// are not used for anything else.
type abandonedStatements struct {
	about string // what the variables have in their names
	mu    sync.Mutex
	left  map[uint64]serverConnection // by number
}

// Who may write, and what a commit waits for. They are ended apart: a read_only that
// hangs behind a commit holds back new ones, also while semi-sync is set.
const (
	aboutReadOnly = "read_only"
	aboutSemiSync = "rpl_semi_sync"
)

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

// connectionNames remembers the names of our connections: they do not change, and
// asking takes time while clients wait.
type connectionNames struct {
	mu    sync.Mutex
	known map[any]serverConnection // by the driver's connection
}

// mostNames bounds it: connections that are gone are not taken out.
const mostNames = 64

func (s *Server) connection(ctx context.Context, conn *sql.Conn) (serverConnection, error) {
	var key any
	if err := conn.Raw(func(connection any) error { key = connection; return nil }); err != nil {
		return serverConnection{}, err
	}
	c := &s.names
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
	if c.known == nil || len(c.known) >= mostNames {
		c.known = make(map[any]serverConnection)
	}
	c.known[key] = serverConnection{number: r.number("id"), run: run}
	return c.known[key], nil
}

// endAbandoned kills those of our own statements that never returned, and waits
// until their connections are gone: a kill is a request, and a statement that is about
// to take effect does so after it; one may not even have been read yet. On an error
// they are remembered.
func (s *Server) endAbandoned(ctx context.Context, abandoned *abandonedStatements) error {
	left := abandoned.all()
	if len(left) == 0 {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	// All over one connection: what it shows and what it kills is of one run of the server.
	err := s.withConn(ctx, func(conn *sql.Conn) error {
		own, err := s.connection(ctx, conn)
		if err != nil {
			return err
		}
		return poll(ctx, func() (bool, error) { return s.killAbandoned(ctx, conn, own.run, left, abandoned.about) })
	})
	if err != nil {
		return fmt.Errorf("ending statements left behind: %w", err)
	}
	abandoned.forget(left)
	return nil
}

// killAbandoned kills what is left of them in a run of the server, and reports whether
// nothing was. A server that was started anew gives its numbers again: what stands there
// is another's. No commit is hit: nothing else is ever sent over these connections, and
// the text is looked at as well. Where runs cannot be told apart it alone tells, and
// one that was not read yet is not found.
func (s *Server) killAbandoned(ctx context.Context, conn *sql.Conn, run process, left map[uint64]serverConnection, about string) (gone bool, err error) {
	all, err := rows(ctx, conn, "SHOW FULL PROCESSLIST")
	if err != nil {
		return false, err
	}
	gone = true
	for _, r := range all {
		one, ok := left[r.number("Id")]
		if !ok || r["User"] != s.cfg.ManagerUser || one.run != run {
			continue
		}
		text := strings.ToLower(r["Info"])
		under := text == "" && run != (process{}) || strings.HasPrefix(text, "set global") && strings.Contains(text, about) // "": not read yet
		if !under && run == (process{}) {
			continue
		}
		gone = false
		if !under {
			continue // the statement before it, whose end is still to be shown
		}
		if err := s.kill(ctx, conn, one.number); err != nil {
			return false, fmt.Errorf("on connection %d: %w", one.number, err)
		}
	}
	return gone, nil
}

// kill ends one connection; one that is already gone is no error.
func (s *Server) kill(ctx context.Context, q querier, id uint64) error {
	err := execArgs(ctx, q, s.dialect.words().kill, id)
	const noSuchThread = 1094
	if serverErrorNumber(err) == noSuchThread {
		return nil
	}
	return err
}
