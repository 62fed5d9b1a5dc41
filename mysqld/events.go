package mysqld

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// EventName names a scheduled event.
type EventName struct{ Schema, Name string }

// EventState is what a server does with a scheduled event.
type EventState string

// The states of an event. A replica holds every event that it has received in the third, whatever it is at the
// source, and keeps it when it becomes a source itself.
const (
	EventEnabled  EventState = "enabled"
	EventDisabled EventState = "disabled"
	EventOnSource EventState = "disabled on this side"
)

// Event is a scheduled event of a server.
type Event struct {
	EventName
	State EventState
}

// ErrEventRights is returned where the manager lacks what EventGrants gives. The
// error names it.
var ErrEventRights = errors.New("mysqld: the manager's account may not handle scheduled events")

// noSuchEvent is of both servers (ER_EVENT_DOES_NOT_EXIST).
const noSuchEvent = 1539

// Events lists the scheduled events of the server. MySQL shows none to a session
// that had no right to them when it logged in: that is ErrEventRights and no empty
// list, and a session of its own is asked, so that a right given later counts.
func (s *Server) Events(ctx context.Context) ([]Event, error) {
	ask, hides := s.db, s.dialect.hidesEvents()
	if hides {
		ask = s.fresh
	}
	found, err := rows(ctx, ask, s.dialect.words().events)
	if err != nil {
		return nil, s.withRights(ctx, err)
	}
	if hides {
		// Without EVENT on everything it sees some at most.
		missing, err := s.missingEventGrants(ctx)
		if err != nil || len(missing) > 0 && (len(found) == 0 || slices.Contains(missing, "EVENT")) {
			return nil, errors.Join(err, s.lacking(missing))
		}
	}
	out := make([]Event, 0, len(found))
	for _, r := range found {
		out = append(out, Event{EventName{r["in_schema"], r["name"]}, eventState(r["status"])})
	}
	return out, nil
}

// eventState reads the servers' words: SLAVESIDE_DISABLED, REPLICA_SIDE_DISABLED.
func eventState(word string) EventState {
	switch {
	case word == "ENABLED":
		return EventEnabled
	case strings.HasSuffix(word, "SIDE_DISABLED"):
		return EventOnSource
	}
	return EventDisabled
}

// EnableEvent enables an event that is disabled on this side only, and changes
// nothing else of it; one that is gone or in another state is left alone, and
// false is returned. On a writable source: replicas take it as disabled on their
// side, the former source too.
//
// may is asked right before the statement is sent; its error is returned. From
// there the server goes on whatever becomes of ctx, so who must know that it has
// ended does not end ctx.
func (s *Server) EnableEvent(ctx context.Context, name EventName, may func() error) (enabled bool, err error) {
	err = s.ownSession(ctx, func(conn *sql.Conn) error {
		e, err := s.event(ctx, conn, name)
		if err != nil || eventState(e["status"]) != EventOnSource {
			return err
		}
		statement, err := alterEvent(ctx, conn, e)
		if err != nil {
			return err
		}
		// The server writes down the altering session's settings as the event's.
		err = execArgs(ctx, conn, "SET SESSION time_zone=?, character_set_client=?, collation_connection=?, sql_mode=?",
			e["time_zone"], e["client"], e["collation"], e["sql_mode"])
		if err != nil {
			return err
		}
		if err := may(); err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, statement)
		enabled = err == nil
		return err
	})
	if serverErrorNumber(err) == noSuchEvent {
		if e, again := s.event(ctx, s.db, name); again == nil && e == nil {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("enabling the event %s.%s: %w", name.Schema, name.Name, s.withRights(ctx, err))
	}
	return enabled, nil
}

// event reads one event's row, nil if there is none.
func (s *Server) event(ctx context.Context, q querier, name EventName) (record, error) {
	return row(ctx, q, s.dialect.words().events+" HAVING in_schema=? AND name=?", name.Schema, name.Name)
}

// alterEvent is the statement that enables an event, in the character set that the
// session will have: that is the event's.
func alterEvent(ctx context.Context, q querier, e record) (string, error) {
	definer := quoted(e["definer"])
	if at := strings.LastIndex(e["definer"], "@"); at >= 0 {
		definer = quoted(e["definer"][:at])
		if host := e["definer"][at+1:]; host != "" { // a role has none
			definer += "@" + quoted(host)
		}
	}
	text := "ALTER DEFINER=" + definer + " EVENT " + quoted(e["in_schema"]) + "." + quoted(e["name"]) + " ENABLE"
	client := e["client"]
	if isASCII(text) || strings.HasPrefix(client, "utf8") {
		return text, nil
	}
	if strings.ContainsFunc(client, func(r rune) bool { return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
		return "", fmt.Errorf("the character set %q is no name", client)
	}
	r, err := row(ctx, q, "SELECT HEX(CONVERT(? USING "+client+")) AS text, HEX(CONVERT(CONVERT(? USING "+client+") USING utf8mb4)) AS back", text, text)
	if err != nil {
		return "", err
	}
	if back, err := hex.DecodeString(r["back"]); err != nil || string(back) != text {
		return "", fmt.Errorf("%q cannot be said in %s, the event's character set", text, client)
	}
	raw, err := hex.DecodeString(r["text"])
	return string(raw), err
}

// quoted is an identifier in a statement, in every SQL mode.
func quoted(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// ownSession runs f in a session of its own: f may change its settings, and it has
// every right that was given before now. It waits for the locks of others for a
// second at most, so that what f sends ends soon, but for its acknowledgement.
func (s *Server) ownSession(ctx context.Context, f func(*sql.Conn) error) error {
	conn, err := s.fresh.Conn(ctx)
	if err != nil {
		return fmt.Errorf("logging in to %s: %w", s.target(), err)
	}
	defer conn.Close()
	if err := execute(ctx, conn, "SET SESSION lock_wait_timeout=1, innodb_lock_wait_timeout=1"); err != nil {
		return err
	}
	return f(conn)
}
