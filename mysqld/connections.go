package mysqld

import (
	"context"
	"fmt"
	"strings"
)

// KillClients ends the connections of all accounts but ours and the server's
// own, and returns how many.
//
// A connection killed while its commit waits for an acknowledgement is told an
// error and commits all the same (MariaDB), so it never kills one that looks
// like committing, and it works only where no commit can begin: on a read-only
// server, or one without source semi-sync. Else it returns ErrWritable.
func (s *Server) KillClients(ctx context.Context) (int, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return 0, err
	}
	if !st.ReadOnly && st.SourceSemiSyncEnabled {
		return 0, fmt.Errorf("killing clients: %w and its commits wait for acknowledgements", ErrWritable)
	}
	if st.SourceSemiSyncEnabled && st.WaitSessions > 0 {
		return 0, fmt.Errorf("killing clients: %w (wait_sessions %d)", ErrWaiting, st.WaitSessions)
	}
	all, err := rows(ctx, s.db, "SHOW FULL PROCESSLIST")
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, r := range all {
		if !s.killable(r) {
			continue
		}
		if err := s.kill(ctx, s.db, r.number("Id")); err != nil {
			return killed, fmt.Errorf("killing connection %s of %s: %w", r["Id"], r["User"], err)
		}
		killed++
	}
	return killed, nil
}

// killable reports whether a row of the process list is a client that is not
// committing. Both servers say "semi-sync" for the waiter itself and "commit"
// for those queued behind it in its group.
func (s *Server) killable(r record) bool {
	if !s.client(r) {
		return false
	}
	state := strings.ToLower(r["State"])
	return !strings.Contains(state, "semi-sync") && !strings.Contains(state, "commit")
}
