package mysqld

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Session is a client that a planned change would break off, or that
// SetReadOnly would wait for.
type Session struct {
	ID   uint64 // connection number
	User string
	// Age is that of its transaction or statement, whichever is older: whole
	// seconds, rounded down.
	Age time.Duration
	// Statement is the beginning of what it runs, without literals, or the
	// server's word for what it does, as "(killed)"; "" between two statements
	// of a transaction.
	Statement string
	// Transaction: it has a transaction open. DDL: its statement changes
	// definitions. Locks: it holds table locks, as LOCK TABLES takes them.
	Transaction, DDL, Locks bool
}

// Sessions lists the clients that run a statement, have a transaction open or
// hold table locks, the oldest first. It costs two or three queries, so it is
// for who asks, not for every look.
//
// MariaDB does not tell who holds the locks of LOCK TABLES between two
// statements: then a session without a number stands for whoever it is.
func (s *Server) Sessions(ctx context.Context) ([]Session, error) {
	if err := s.transactionsRead.rest(ctx); err != nil {
		return nil, err
	}
	var out []Session
	err := s.withConn(ctx, func(conn *sql.Conn) error {
		found, err := s.sessions(ctx, conn)
		out = found
		return err
	})
	slices.SortStableFunc(out, func(a, b Session) int { return int(b.Age/time.Second) - int(a.Age/time.Second) })
	return out, err
}

// transactionsAge is how long INNODB_TRX must not have been read for the next
// read to be fresh: for 100 ms after each both servers give the same again, so
// that polling faster would see one picture for ever.
const transactionsAge = 120 * time.Millisecond

// restingReads keeps reads apart.
type restingReads struct {
	mu   sync.Mutex
	last time.Time
}

// rest waits until transactionsAge has passed since the last read.
func (r *restingReads) rest(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	timer := time.NewTimer(time.Until(r.last.Add(transactionsAge)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting to read the open transactions: %w", ctx.Err())
	case <-timer.C:
	}
	r.last = time.Now()
	return nil
}

// openTransactions is of both servers. Times of it have whole seconds only.
const openTransactions = `SELECT trx_mysql_thread_id AS id, TIMESTAMPDIFF(SECOND, trx_started, NOW()) AS age FROM information_schema.INNODB_TRX`

func (s *Server) sessions(ctx context.Context, q querier) ([]Session, error) {
	// The times of the table are in the host's zone, NOW() in the session's.
	if err := execute(ctx, q, "SET SESSION time_zone='SYSTEM'"); err != nil {
		return nil, err
	}
	open, err := rows(ctx, q, openTransactions)
	if err != nil {
		return nil, err
	}
	locks, err := s.dialect.tableLocks(ctx, q)
	if err != nil {
		return nil, err
	}
	all, err := rows(ctx, q, "SHOW FULL PROCESSLIST")
	if err != nil {
		return nil, err
	}
	var out []Session
	for _, r := range all {
		if !s.client(r) {
			continue
		}
		one := Session{ID: r.number("Id"), User: r["User"], Locks: locks[r.number("Id")]}
		if i := slices.IndexFunc(open, func(t record) bool { return t.number("id") == one.ID }); i >= 0 {
			one.Transaction, one.Age = true, time.Duration(open[i].number("age"))*time.Second
		}
		if !strings.EqualFold(r["Command"], "Sleep") {
			one.Age = max(one.Age, time.Duration(r.number("Time"))*time.Second)
			one.Statement, one.DDL = beginning(r["Info"]), isDDL(r["Info"])
			if one.Statement == "" { // killed and not gone yet, for one
				one.Statement = "(" + strings.ToLower(r["Command"]) + ")"
			}
		} else if !one.Transaction && !one.Locks {
			continue
		}
		out = append(out, one)
	}
	return out, nil
}

// client reports whether a row of the process list is neither ours nor the
// server's own. Who is just logging in may be ours, or a replica.
func (s *Server) client(r record) bool {
	switch r["User"] {
	case s.cfg.ManagerUser, s.cfg.ReplicationUser, "system user", "event_scheduler", "unauthenticated user", "":
		return false
	}
	command := strings.ToLower(r["Command"])
	return !strings.HasPrefix(command, "binlog dump") && command != "daemon" && !strings.HasPrefix(command, "slave")
}

// BreakOff ends the connections of all accounts but ours and the server's own,
// on a server that may be writable, and returns how many: for a primary whose
// gate is closed and that is becoming read-only, so that nobody is waited for.
//
// Whoever looks like committing is left alone. Of one that begins to commit
// while it is killed the client is told an error, and the commit may stand: what
// is read of the position after SetReadOnly has returned holds it.
func (s *Server) BreakOff(ctx context.Context) (int, error) {
	all, err := rows(ctx, s.db, "SHOW FULL PROCESSLIST")
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, r := range all {
		// Killed, a connection stays in the list until it has rolled back.
		if !s.killable(r) || strings.EqualFold(r["Command"], "Killed") {
			continue
		}
		if err := s.kill(ctx, s.db, r.number("Id")); err != nil {
			return killed, fmt.Errorf("killing connection %s of %s: %w", r["Id"], r["User"], err)
		}
		killed++
	}
	return killed, nil
}
