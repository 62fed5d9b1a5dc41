package mysqld

import (
	"context"
	"fmt"
	"time"
)

// mysqlRetryCount is how often a replica tries to reconnect, once a second:
// a year. The default of MySQL 9 gives up after ten.
const mysqlRetryCount = 365 * 24 * 3600

// change keeps what it does not name: the delay, the list of servers, and TLS
// unless that is configured. GET_SOURCE_PUBLIC_KEY lets caching_sha2_password work
// without TLS. With the applier running the server refuses SOURCE_AUTO_POSITION
// (3081), which then is on already.
func (mysqlDialect) change(src Source, cfg Config, st Status, appliesOn bool) (string, []any) {
	retry, heartbeat := st.Channel.timing()
	statement := "CHANGE REPLICATION SOURCE TO SOURCE_HOST=?, SOURCE_PORT=?, SOURCE_USER=?, SOURCE_PASSWORD=?," +
		fmt.Sprintf(" SOURCE_CONNECT_RETRY=%s, SOURCE_RETRY_COUNT=%d, SOURCE_HEARTBEAT_PERIOD=%s", retry, mysqlRetryCount, heartbeat)
	args := []any{src.Host, src.Port, cfg.ReplicationUser, cfg.ReplicationPassword}
	tls := cfg.TLS
	if !st.HasReplication {
		statement += st.Channel.forgotten("SOURCE_")
		if tls == nil {
			tls = st.Channel.TLS
		}
	}
	options, files := tlsOptions("SOURCE_", tls)
	if options == "" {
		options = ", GET_SOURCE_PUBLIC_KEY=1"
	}
	if !appliesOn {
		options += ", SOURCE_AUTO_POSITION=1"
	}
	return statement + options, append(args, files...)
}

// repointsWhileApplying: with the receiver stopped, host and port may change
// under a running applier, and the relay log is kept.
func (mysqlDialect) repointsWhileApplying() bool { return true }

// prepareFollow: gtid_executed is one truth for source and replica.
func (mysqlDialect) prepareFollow(context.Context, querier, Status) error { return nil }

// revive: MySQL keeps its relay log when a thread is started (with
// relay_log_recovery off, which Status checks), so the applier just runs.
func (m mysqlDialect) revive(ctx context.Context, s *Server) (bool, error) {
	if err := execute(ctx, s.db, m.words().startApplier); err != nil {
		return false, fmt.Errorf("%w: %w", ErrRescue, err)
	}
	return true, nil
}

// waitApplied answers 0 when applied, 1 when the slice is over.
func (mysqlDialect) waitApplied(ctx context.Context, q querier, position string, slice time.Duration) (bool, error) {
	r, err := row(ctx, q, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?) AS answer", position, slice.Seconds())
	if err != nil {
		return false, err
	}
	return r["answer"] == "0", nil
}

func (mysqlDialect) stopsInHalf() bool { return true }

// mysqlOpenAppliers finds the threads of an applier inside a transaction: the
// coordinator that has not handed out all of it, and whoever applies it. Not
// INNODB_TRX: it shows an old picture to whoever asks soon after another, and
// nothing of a transaction of which no row has come yet.
const mysqlOpenAppliers = `SELECT t.PROCESSLIST_ID AS id FROM performance_schema.replication_applier_status_by_coordinator c
 JOIN performance_schema.threads t ON t.THREAD_ID = c.THREAD_ID
 WHERE c.CHANNEL_NAME = '' AND c.PROCESSING_TRANSACTION LIKE '%:%' AND NOT GTID_SUBSET(c.PROCESSING_TRANSACTION, @@GLOBAL.gtid_executed)
 UNION ALL SELECT t.PROCESSLIST_ID FROM performance_schema.replication_applier_status_by_worker w
 JOIN performance_schema.threads t ON t.THREAD_ID = w.THREAD_ID
 WHERE w.CHANNEL_NAME = '' AND w.APPLYING_TRANSACTION LIKE '%:%' AND NOT GTID_SUBSET(w.APPLYING_TRANSACTION, @@GLOBAL.gtid_executed)`

// freeApplier kills the applier that holds a half-received transaction open.
// Its row locks would block the promoted server, and STOP would wait 60 s for
// the rest (docs/SERVERS.md, half a transaction). One with workers stops with error 1756. Needs SYSTEM_USER.
func (m mysqlDialect) freeApplier(ctx context.Context, q querier) (open bool, err error) {
	found, err := rows(ctx, q, mysqlOpenAppliers)
	if err != nil {
		return false, err
	}
	for _, r := range found {
		err := execArgs(ctx, q, m.words().kill, r.number("id"))
		const noSuchThread = 1094
		if err != nil && serverErrorNumber(err) != noSuchThread {
			return true, err
		}
	}
	return len(found) > 0, nil
}
