package mysqld

import (
	"context"
	"fmt"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// dialect is the one seam between the shared sequences and a server family.
// Nothing outside mariadb*.go and mysql*.go knows a server's words.
type dialect interface {
	flavor() gtid.Flavor
	words() words
	// database is the schema that control connections are opened on; "" for none.
	database() string

	// readStatus fills in what the server says; Received may be left as only
	// what the relay log holds. It returns the uptime, 0 if that is not asked for
	// and costs a statement.
	readStatus(ctx context.Context, q querier, st *Status, uptime bool) (time.Duration, error)
	// readReplication fills in the replica's part of it, but for what the two
	// that follow read.
	readReplication(ctx context.Context, q querier, st *Status) error
	// readThreads fills in the numbers of the replication threads.
	readThreads(ctx context.Context, q querier, st *Status) error
	// heartbeat is the channel's, in seconds.
	heartbeat(ctx context.Context, q querier) (string, error)
	executed(ctx context.Context, q querier) (string, error)
	// written is executed, and what is in the binary log but waits there for its acknowledgement.
	written(ctx context.Context, q querier) (string, error)
	// history reads what tells whether a position is in this server's past, as
	// gtid.ParseHistory takes it.
	history(ctx context.Context, q querier) (string, error)
	// bypassers names accounts other than the manager that ignore read_only.
	bypassers(ctx context.Context, q querier, cfg Config) ([]string, error)

	// enableSource gives the statements that switch semi-sync on at a source
	// so that a commit waits for acks replicas for ever. ErrAcks if it cannot.
	enableSource(acks int) ([]string, error)
	// loadSemiSync makes semi-sync available; MariaDB has it built in.
	loadSemiSync(ctx context.Context, q querier) error

	// change gives the CHANGE statement that points the server, which says st, at
	// src. It names no more than must change. appliesOn tells that the applier goes
	// on running during it.
	change(src Source, cfg Config, st Status, appliesOn bool) (statement string, args []any)
	// tableLocks are the connections that hold locks of LOCK TABLES and the like,
	// where the server tells.
	tableLocks(ctx context.Context, q querier) (map[uint64]bool, error)
	// settings are those of a status that can be put back at run time and must be
	// as they are wanted; mend is the statement that does.
	settings(st Status) []Setting
	mend(one Setting) string
	// persisted are the settings that the server itself keeps for its next start.
	persisted(ctx context.Context, q querier) (map[string]string, error)
	// repointsWhileApplying tells that the receiver alone can be repointed.
	repointsWhileApplying() bool
	// prepareFollow brings the server's replication position up to what it has
	// executed. Both threads are stopped.
	prepareFollow(ctx context.Context, q querier, st Status) error
	// revive applies what the relay log holds while both threads are stopped
	// and leaves the applier running if it can (running) or both stopped.
	revive(ctx context.Context, s *Server) (running bool, err error)

	// acceptOwn gives the statements that make a receiver without semi-sync take
	// transactions that this server wrote itself; takeBack those that give it its
	// own identity again, once everything received meanwhile is applied.
	acceptOwn(serverID uint32) []string
	takeBack(serverID uint32) []string

	// waitApplied waits at most slice for position to be applied; it reports
	// whether it is.
	waitApplied(ctx context.Context, q querier, position string, slice time.Duration) (bool, error)
	// hidesEvents tells that events are not shown to who lacks EVENT.
	hidesEvents() bool
	// stopsInHalf tells that STOP of the applier waits for the rest of a
	// half-received transaction, so that freeApplier is needed.
	stopsInHalf() bool
	// freeApplier ends a transaction that the applier holds half-received. Only
	// after everything received whole is applied and with the receiver stopped.
	freeApplier(ctx context.Context, q querier) (open bool, err error)

	// finishRewind follows a start that rolled back the tail.
	finishRewind(ctx context.Context, q querier) error
	// adoptHistory gives a server that runs on a copy the history of the copy.
	adoptHistory(ctx context.Context, q querier, state string) error
}

// words are the statements that differ only in wording.
type words struct {
	startApplier, stopApplier   string
	startReceiver, stopReceiver string
	forgetSource                string
	readOnly                    []string // refuse everybody the server can refuse
	barrierWritable             []string // refuse all but the manager
	writable                    []string
	disableSource               string
	replicaSemiSyncOn           string
	replicaSemiSyncOff          string
	// killQuery and kill take the connection's number.
	kill string
	// events lists the scheduled events, one to a row: in_schema, name, definer,
	// status, and the settings of the session that made it.
	events string
	// bootArguments are appended to the server's command line for every start,
	// rewindArguments for the one start that rolls back the tail.
	bootArguments, rewindArguments []string
}

// dialectFor knows the dialects by name.
func dialectFor(name string) (dialect, error) {
	switch name {
	case "mariadb":
		return mariadb{}, nil
	case "mysql":
		return mysqlDialect{}, nil
	}
	return nil, fmt.Errorf("%w: dialect %q (known: mariadb, mysql)", ErrUnsupported, name)
}

// commonProblems are the settings both servers share.
func commonProblems(st *Status) []string {
	var out []string
	add := func(bad bool, problem string) {
		if bad {
			out = append(out, problem)
		}
	}
	add(!st.LogBin, "The binary log is off; set log_bin.")
	add(!st.LogReplicaUpdates, "A replica does not log what it applies, so it cannot become a source; set log_slave_updates (log_replica_updates on MySQL).")
	add(st.SyncBinlog != 1, fmt.Sprintf("sync_binlog is %d, so a power loss forgets acknowledged transactions; set it to 1.", st.SyncBinlog))
	add(st.FlushLogAtTrxCommit != 1, fmt.Sprintf("innodb_flush_log_at_trx_commit is %d, so a power loss forgets acknowledged transactions; set it to 1.", st.FlushLogAtTrxCommit))
	add(st.BinlogFormat != "ROW", fmt.Sprintf("binlog_format is %q, so replicas may compute other rows and a tail cannot be judged; set it to ROW.", st.BinlogFormat))
	add(st.SourceSemiSyncEnabled && !st.WaitNoReplica, "Commits do not wait once the last replica has left; set rpl_semi_sync_master_wait_no_slave (rpl_semi_sync_source_wait_no_replica on MySQL) to ON.")
	add(st.SourceSemiSyncEnabled && st.WaitPoint != "AFTER_SYNC", fmt.Sprintf("The semi-sync wait point is %q, so other sessions see rows that are not acknowledged; set it to AFTER_SYNC.", st.WaitPoint))
	add(st.SourceSemiSyncEnabled && st.SemiSyncTimeoutMS != maxSemiSyncTimeout, fmt.Sprintf("The semi-sync timeout is %d ms, after which commits are acknowledged without a replica; set it to %d.", st.SemiSyncTimeoutMS, uint64(maxSemiSyncTimeout)))
	add(st.SourceSemiSyncEnabled && st.HasReplication, "Source semi-sync is on at a replica, whose applier may wait for acknowledgements for ever; switch it off.")
	return out
}
