package mysqld

import (
	"context"
	"database/sql"
	"fmt"
)

// createEvent makes the list of the events that are enabled on the primary, which
// replicas get and cannot know otherwise. It is made with its first entry: where
// there are no events nothing is written.
const createEvent = "CREATE TABLE IF NOT EXISTS highbase.event (in_schema VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, PRIMARY KEY (in_schema, name))" +
	" ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

// ListedEvents are the events that are noted as enabled on the primary; none
// where the list was never made.
func (s *Server) ListedEvents(ctx context.Context) ([]EventName, error) {
	found, err := rows(ctx, s.db, "SELECT in_schema, name FROM highbase.event")
	if number := serverErrorNumber(err); number == noSuchTable || number == noSuchSchema {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]EventName, 0, len(found))
	for _, r := range found {
		out = append(out, EventName{r["in_schema"], r["name"]})
	}
	return out, nil
}

// ListEvents changes the list, in one transaction; nothing of it is there if it
// fails before may, which is asked right before each statement that commits, as
// in EnableEvent. On a writable source only.
func (s *Server) ListEvents(ctx context.Context, add, remove []EventName, may func() error) error {
	err := s.ownSession(ctx, func(conn *sql.Conn) error {
		err := changeList(ctx, conn, add, remove, may)
		if serverErrorNumber(err) != noSuchTable {
			return err
		}
		if err := execute(ctx, conn, "ROLLBACK"); err != nil {
			return err
		}
		if err := may(); err != nil {
			return err
		}
		if err := execute(ctx, conn, createEvent); err != nil { // the schema is the barrier's
			return err
		}
		return changeList(ctx, conn, add, remove, may)
	})
	if err != nil {
		return fmt.Errorf("noting which events are enabled: %w", err)
	}
	return nil
}

// changeList leaves the transaction open if it fails: the session ends then.
func changeList(ctx context.Context, conn *sql.Conn, add, remove []EventName, may func() error) error {
	if err := execute(ctx, conn, "START TRANSACTION"); err != nil {
		return err
	}
	for _, e := range remove {
		if err := execArgs(ctx, conn, "DELETE FROM highbase.event WHERE in_schema=? AND name=?", e.Schema, e.Name); err != nil {
			return err
		}
	}
	for _, e := range add {
		if err := execArgs(ctx, conn, "INSERT INTO highbase.event (in_schema, name) VALUES (?, ?) ON DUPLICATE KEY UPDATE name=VALUES(name)", e.Schema, e.Name); err != nil {
			return err
		}
	}
	if err := may(); err != nil {
		return err
	}
	return execute(ctx, conn, "COMMIT")
}
