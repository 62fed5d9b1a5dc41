package mysqld

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/highbase/highbase/fsm/gtid"
)

// Adopt starts the server on the copy and tells it where the copy stands in the
// cluster's history, as if it had followed up to there. It is read-only and does
// not replicate yet.
func (r *Rebuild) Adopt(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.mark()
	if err != nil {
		return err
	}
	switch m.Stage {
	case RebuildPlaced:
	case RebuildAdopted:
		return nil
	default:
		return fmt.Errorf("starting the server on a copy: %w: the rebuild is at %q", ErrStage, m.Stage)
	}
	if err := r.cfg.Service.Start(ctx, StartOptions{}); err != nil {
		return fmt.Errorf("starting the server on a copy: %w", err)
	}
	if err := r.cfg.Server.dialect.adoptHistory(ctx, r.cfg.Server.db, m.State); err != nil {
		return fmt.Errorf("setting the copy's position %s: %w", m.State, err)
	}
	m.Stage = RebuildAdopted
	return r.setMark(m)
}

// adoptHistory begins the binary log anew: what it held was another life's, and a
// copy has none. The whole list of writers is kept, not only the position, so
// that this server can tell a branch from its own past once it is a source.
func (mariadb) adoptHistory(ctx context.Context, q querier, state string) error {
	position := lastOfDomains(state)
	if err := execute(ctx, q, "STOP SLAVE", "RESET SLAVE ALL", "RESET MASTER"); err != nil {
		return err
	}
	if err := execArgs(ctx, q, "SET GLOBAL gtid_binlog_state=?", state); err != nil {
		return err
	}
	if err := execArgs(ctx, q, "SET GLOBAL gtid_slave_pos=?", position); err != nil {
		return err
	}
	v, err := row(ctx, q, "SELECT @@global.gtid_binlog_pos AS b, @@global.gtid_slave_pos AS r")
	if err != nil {
		return err
	}
	for _, name := range []string{"b", "r"} {
		have, err := gtid.Parse(gtid.MariaDB, v[name])
		if err != nil {
			return err
		}
		want, err := gtid.Parse(gtid.MariaDB, position)
		if err != nil {
			return err
		}
		if !have.Equal(want) {
			return fmt.Errorf("the server says %s after being set to %s", v[name], position)
		}
	}
	return nil
}

// lastOfDomains is the position of a state that names each domain's latest
// transaction after the earlier ones.
func lastOfDomains(state string) string {
	last := map[string]string{}
	var order []string
	for part := range strings.SplitSeq(state, ",") {
		part = strings.TrimSpace(part)
		domain, _, found := strings.Cut(part, "-")
		if !found {
			continue
		}
		if _, known := last[domain]; !known {
			order = append(order, domain)
		}
		last[domain] = part
	}
	for i, domain := range order {
		order[i] = last[domain]
	}
	return strings.Join(order, ",")
}

// binlogPlace is where a copy stands in its donor's binary log.
type binlogPlace struct {
	file   string
	offset int64
}

// infoFiles are the names under which mariadb-backup says so: the second is that
// of 11.1 and later.
var infoFiles = []string{"xtrabackup_binlog_info", "mariadb_backup_binlog_info"}

func readBinlogInfo(dir string) (binlogPlace, error) {
	for _, name := range infoFiles {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return binlogPlace{}, fmt.Errorf("reading where the copy stands: %w", err)
		}
		fields := strings.Fields(string(raw))
		if len(fields) < 2 {
			return binlogPlace{}, fmt.Errorf("reading where the copy stands: %s says %q", name, raw)
		}
		offset, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return binlogPlace{}, fmt.Errorf("reading where the copy stands: %s says %q", name, raw)
		}
		return binlogPlace{file: fields[0], offset: offset}, nil
	}
	return binlogPlace{}, fmt.Errorf("%w: the copy does not say where it stands in the donor's binary log (%s)", ErrBackup, strings.Join(infoFiles, ", "))
}
