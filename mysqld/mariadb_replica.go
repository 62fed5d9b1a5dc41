package mysqld

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// change keeps what it does not name: the delay, lists of servers and domains, and
// TLS unless that is configured. The heartbeat is named always, because the server
// resets one that is not.
func (mariadb) change(src Source, cfg Config, st Status, _ bool) (string, []any) {
	retry, heartbeat := st.Channel.timing()
	statement := "CHANGE MASTER TO MASTER_HOST=?, MASTER_PORT=?, MASTER_USER=?, MASTER_PASSWORD=?," +
		" MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=" + retry + ", MASTER_HEARTBEAT_PERIOD=" + heartbeat
	args := []any{src.Host, src.Port, cfg.ReplicationUser, cfg.ReplicationPassword}
	tls := cfg.TLS
	if !st.HasReplication {
		statement += st.Channel.forgotten("MASTER_")
		if tls == nil {
			tls = st.Channel.TLS
		}
	}
	options, files := tlsOptions("MASTER_", tls)
	return statement + options, append(args, files...)
}

// repointsWhileApplying: CHANGE MASTER is refused (1198) while a thread runs.
func (mariadb) repointsWhileApplying() bool { return false }

// prepareFollow sets the replica's position, which is stale on a server that
// was a source meanwhile, to all that the server has.
func (mariadb) prepareFollow(ctx context.Context, q querier, st Status) error {
	r, err := row(ctx, q, "SELECT @@global.gtid_slave_pos AS position")
	if err != nil {
		return err
	}
	have, err := gtid.Parse(gtid.MariaDB, r["position"])
	if err != nil {
		return fmt.Errorf("reading gtid_slave_pos: %w", err)
	}
	executed, err := gtid.Parse(gtid.MariaDB, st.Executed)
	if err != nil {
		return fmt.Errorf("reading the executed position: %w", err)
	}
	if have.Equal(executed) {
		return nil
	}
	return execArgs(ctx, q, "SET GLOBAL gtid_slave_pos=?", st.Executed)
}

// revive is the rescue of docs/SERVERS.md, relay log. With both threads stopped any START in
// GTID mode deletes the relay logs; by file and position it reads them.
//
// Where to begin is taken from the relay logs themselves, not from SHOW SLAVE
// STATUS: its position is written without fsync and may be too early after a
// crash, which strict mode stops at. It leaves both threads stopped.
//
// It applies under another server_id, whatever the server has now: after a
// restart that is its own, and what it received without semi-sync bears no mark
// that its own transactions among it are to be applied.
func (m mariadb) revive(ctx context.Context, s *Server) (bool, error) {
	held, err := m.unapplied(ctx, s.db)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrRescue, err)
	}
	if held.target == "" {
		return false, nil
	}
	s.log.Info("applying the relay log of a stopped replica", "file", held.file, "position", held.offset, "until", held.target)
	id, err := s.serverID(ctx)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrRescue, err)
	}
	if err := execute(ctx, s.db, m.acceptOwn(id)...); err != nil {
		return false, fmt.Errorf("%w: taking another server_id: %w", ErrRescue, err)
	}
	if err := execArgs(ctx, s.db, "CHANGE MASTER TO MASTER_USE_GTID=no, RELAY_LOG_FILE=?, RELAY_LOG_POS=?", held.file, held.offset); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRescue, err)
	}
	if err := execute(ctx, s.db, m.words().startApplier); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRescue, err)
	}
	if err := s.drain(ctx, held.target); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRescue, err)
	}
	after := []string{m.words().stopApplier}
	if !aliased(id) {
		after = append(after, fmt.Sprintf("SET GLOBAL server_id=%d", id))
	}
	return false, execute(ctx, s.db, after...)
}

// unappliedRelay is where the relay logs begin to hold what is not applied, and
// the position that applying all of it leads to (empty if there is nothing).
type unappliedRelay struct {
	file   string
	offset int64
	target string
}

// unapplied reads the relay logs from their files: this process runs beside the
// server. Only whole transactions count; a half-received one is rolled back.
func (mariadb) unapplied(ctx context.Context, q querier) (unappliedRelay, error) {
	v, err := row(ctx, q, "SELECT @@global.relay_log_index AS relay_index, @@global.datadir AS datadir, @@global.gtid_slave_pos AS position")
	if err != nil {
		return unappliedRelay{}, err
	}
	applied, err := gtid.Parse(gtid.MariaDB, v["position"])
	if err != nil {
		return unappliedRelay{}, err
	}
	index := v["relay_index"]
	if !filepath.IsAbs(index) {
		index = filepath.Join(v["datadir"], index)
	}
	groups, err := readRelay(index, gtid.MariaDB)
	if err != nil {
		return unappliedRelay{}, err
	}
	var out unappliedRelay
	target := applied
	for _, g := range groups {
		if applied.Contains(g.set) || !g.Complete {
			continue
		}
		if out.file == "" {
			out.file, out.offset = filepath.Base(g.File), g.Offset
		}
		if target, err = gtid.Union(target, g.set); err != nil {
			return unappliedRelay{}, fmt.Errorf("relay log holds %s: %w", g.GTID, err)
		}
	}
	if out.file != "" {
		out.target = target.String()
	}
	return out, nil
}

// waitApplied: gtid_slave_pos moves when the transaction is committed.
func (mariadb) waitApplied(ctx context.Context, q querier, position string, slice time.Duration) (bool, error) {
	r, err := row(ctx, q, "SELECT MASTER_GTID_WAIT(?, ?) AS answer", position, slice.Seconds())
	if err != nil {
		return false, err
	}
	return r["answer"] == "0", nil
}

func (mariadb) stopsInHalf() bool { return false }

// freeApplier: MariaDB's STOP rolls a half-received transaction back by itself.
func (mariadb) freeApplier(context.Context, querier) (bool, error) { return false, nil }
