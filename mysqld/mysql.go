package mysqld

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// mysqlDialect speaks to MySQL 8.0.26 and later: the first with the source and
// replica words in both the statements and the semi-sync plugins.
type mysqlDialect struct{}

var _ dialect = mysqlDialect{}

func (mysqlDialect) flavor() gtid.Flavor { return gtid.MySQL }

func (mysqlDialect) hidesEvents() bool { return true }

func (mysqlDialect) words() words {
	return words{
		startApplier:       "START REPLICA SQL_THREAD",
		stopApplier:        "STOP REPLICA SQL_THREAD",
		startReceiver:      "START REPLICA IO_THREAD",
		stopReceiver:       "STOP REPLICA IO_THREAD",
		forgetSource:       "RESET REPLICA ALL",
		readOnly:           []string{"SET GLOBAL super_read_only=1"}, // implies read_only=1
		barrierWritable:    []string{"SET GLOBAL read_only=1", "SET GLOBAL super_read_only=0"},
		writable:           []string{"SET GLOBAL super_read_only=0", "SET GLOBAL read_only=0"},
		disableSource:      "SET GLOBAL rpl_semi_sync_source_enabled=0",
		replicaSemiSyncOn:  "SET GLOBAL rpl_semi_sync_replica_enabled=1",
		replicaSemiSyncOff: "SET GLOBAL rpl_semi_sync_replica_enabled=0",
		kill:               "KILL CONNECTION ?",
		events: "SELECT EVENT_SCHEMA AS in_schema, EVENT_NAME AS name, DEFINER AS definer, STATUS AS status, SQL_MODE AS sql_mode, TIME_ZONE AS time_zone," +
			" CHARACTER_SET_CLIENT AS client, COLLATION_CONNECTION AS collation FROM information_schema.EVENTS",
		// The plugins are loaded here because INSTALL PLUGIN is refused while
		// super_read_only is on; loose, in case their files are missing. A
		// persisted variable outranks all these (docs/SERVERS.md); the look at boot
		// shows that. relay_log_recovery=OFF keeps received transactions over a
		// crash.
		bootArguments: []string{"--read-only=ON", "--super-read-only=ON", "--skip-replica-start=ON",
			"--plugin-load-add=semisync_source.so", "--plugin-load-add=semisync_replica.so", "--plugin-load-add=mysql_clone.so",
			"--loose-rpl-semi-sync-replica-enabled=OFF", "--relay-log-recovery=OFF"},
		// The tail is cut from the file before the start; see Tail.Cut.
		rewindArguments: nil,
	}
}

// Variables are read one by one with SELECT: SHOW VARIABLES, as every look at a
// schema that is not the session's own, waits for the lock that an account
// statement holds while it waits for its acknowledgement (docs/SERVERS.md, hangs).
var (
	mysqlVariables = globals("version", "server_id", "server_uuid", "datadir", "log_bin_index", "read_only", "super_read_only", "gtid_executed",
		"gtid_mode", "enforce_gtid_consistency", "log_bin", "log_replica_updates", "sync_binlog", "innodb_flush_log_at_trx_commit",
		"performance_schema", "relay_log_recovery", "replica_net_timeout")
	// mysqlSometimes are not there in every release, or only with the plugins.
	mysqlSometimes = []string{
		globals("rpl_semi_sync_source_enabled", "rpl_semi_sync_source_timeout", "rpl_semi_sync_source_wait_no_replica",
			"rpl_semi_sync_source_wait_point", "rpl_semi_sync_source_wait_for_replica_count"),
		globals("rpl_semi_sync_replica_enabled"),
		globals("binlog_format"),
	}
)

// globals is the select list of global variables, each under its own name.
func globals(names ...string) string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = "@@global." + name + " AS " + name
	}
	return strings.Join(list, ", ")
}

// variables reads all that there are.
func (mysqlDialect) variables(ctx context.Context, q querier) (record, error) {
	const unknownVariable = 1193
	v, err := row(ctx, q, "SELECT "+mysqlVariables+", "+strings.Join(mysqlSometimes, ", "))
	if serverErrorNumber(err) != unknownVariable {
		return v, err
	}
	if v, err = row(ctx, q, "SELECT "+mysqlVariables); err != nil {
		return nil, err
	}
	for _, list := range mysqlSometimes {
		some, err := row(ctx, q, "SELECT "+list)
		if err != nil && serverErrorNumber(err) != unknownVariable {
			return nil, err
		}
		maps.Copy(v, some)
	}
	return v, nil
}

// database is the schema of the control connections: the counters are in it, and
// rights to the session's own schema are known without the accounts' lock.
func (mysqlDialect) database() string { return "performance_schema" }

const mysqlCounters = `SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime','Rpl_semi_sync_source_status','Rpl_semi_sync_source_clients',
 'Rpl_semi_sync_source_wait_sessions','Rpl_semi_sync_replica_status')`

const mysqlThreads = `SELECT NAME, PROCESSLIST_ID FROM performance_schema.threads
 WHERE NAME IN ('thread/sql/replica_io','thread/sql/replica_sql','thread/sql/slave_io','thread/sql/slave_sql')`

func (m mysqlDialect) readStatus(ctx context.Context, q querier, st *Status, _ bool) (time.Duration, error) {
	v, err := m.variables(ctx, q)
	if err != nil {
		return 0, err
	}
	if err := knownMySQL(v["version"]); err != nil {
		return 0, err
	}
	counters, err := named(ctx, q, mysqlCounters)
	if err != nil {
		return 0, err
	}
	st.Version, st.ServerUUID, st.ServerID = v["version"], v["server_uuid"], uint32(v.number("server_id"))
	st.DataDir, st.BinlogIndex = v["datadir"], v["log_bin_index"]
	st.ReadOnly, st.SuperReadOnly = v.yes("read_only"), v.yes("super_read_only")
	st.Executed = withoutSpace(v["gtid_executed"])
	st.GTIDStrict = v.yes("gtid_mode") && v.yes("enforce_gtid_consistency")
	st.LogBin, st.LogReplicaUpdates, st.BinlogFormat = v.yes("log_bin"), v.yes("log_replica_updates"), v["binlog_format"]
	if _, there := v["binlog_format"]; !there {
		st.BinlogFormat = "ROW" // releases without the variable know no other
	}
	st.SyncBinlog, st.FlushLogAtTrxCommit = int(v.number("sync_binlog")), int(v.number("innodb_flush_log_at_trx_commit"))
	st.SourceSemiSyncEnabled, st.ReplicaSemiSyncEnabled = v.yes("rpl_semi_sync_source_enabled"), v.yes("rpl_semi_sync_replica_enabled")
	st.SemiSyncTimeoutMS, st.WaitNoReplica = v.number("rpl_semi_sync_source_timeout"), v.yes("rpl_semi_sync_source_wait_no_replica")
	st.WaitPoint, st.Acks = v["rpl_semi_sync_source_wait_point"], int(v.number("rpl_semi_sync_source_wait_for_replica_count"))
	st.SourceSemiSyncActive = counters.yes("rpl_semi_sync_source_status")
	st.ReplicaSemiSyncActive = counters.yes("rpl_semi_sync_replica_status")
	st.SemiSyncClients = int(counters.number("rpl_semi_sync_source_clients"))
	st.WaitSessions = int(counters.number("rpl_semi_sync_source_wait_sessions"))
	st.Channel.NetTimeout = v["replica_net_timeout"]
	// Who may see what is persisted is looked up under the accounts' lock, which an account statement holds while it waits for its acknowledgement.
	// So a source is not asked: a status that hangs looks like a hung server. MAX_EXECUTION_TIME does not end that wait.
	if v.yes("performance_schema") && !st.SourceSemiSyncEnabled {
		persisted, err := m.persisted(ctx, q)
		if err != nil {
			return 0, err
		}
		st.persistedSettings = unpersisted(persisted)
	}
	st.Problems = append(st.Problems, mysqlProblems(v, st)...)
	return time.Duration(counters.number("uptime")) * time.Second, m.readReplication(ctx, q, st)
}

// mysqlProblems are the settings that only MySQL has.
func mysqlProblems(v record, st *Status) []string {
	var out []string
	if !st.GTIDStrict {
		out = append(out, "GTIDs are off; set gtid_mode=ON and enforce_gtid_consistency=ON.")
	}
	if !v.yes("performance_schema") {
		out = append(out, "performance_schema is off, so replication threads and half-received transactions cannot be seen; set it to ON.")
	}
	if v.yes("relay_log_recovery") {
		out = append(out, "relay_log_recovery is on, so a restart drops received transactions; set it to OFF.")
	}
	return out
}

// knownMySQL refuses versions whose words differ.
func knownMySQL(version string) error {
	var major, minor, patch int
	n, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	if err == nil && n == 3 && !strings.Contains(version, "MariaDB") {
		if major > 8 || major == 8 && (minor > 0 || patch >= 26) {
			return nil
		}
	}
	return fmt.Errorf("%w: MySQL %q, 8.0.26 or later is needed", ErrUnsupported, version)
}

// readReplication fills in the replica's side.
func (mysqlDialect) readReplication(ctx context.Context, q querier, st *Status) error {
	r, err := row(ctx, q, "SHOW REPLICA STATUS")
	if err != nil || r == nil {
		return err
	}
	st.HasReplication = true
	st.SourceHost, st.SourcePort = r["Source_Host"], uint16(r.number("Source_Port"))
	st.SourceID = r["Source_UUID"]
	st.SourceByGTID = r.yes("Auto_Position")
	st.Received = withoutSpace(r["Retrieved_Gtid_Set"])
	if st.Executed == "" { // it tells that too
		st.Executed = withoutSpace(r["Executed_Gtid_Set"])
	}
	st.IORunning, st.SQLRunning = receiverState(r["Replica_IO_Running"]), r.yes("Replica_SQL_Running")
	st.IOErrno, st.IOError = int(r.number("Last_IO_Errno")), r["Last_IO_Error"]
	st.SQLErrno, st.SQLError = int(r.number("Last_SQL_Errno")), r["Last_SQL_Error"]
	st.RelayLogFile, st.RelayLogPosition = r["Relay_Log_File"], r.number("Relay_Log_Pos")
	st.LagSeconds = lagSeconds(r, "Seconds_Behind_Source")
	readMySQLChannel(r, &st.Channel)
	return nil
}

func (mysqlDialect) readThreads(ctx context.Context, q querier, st *Status) error {
	threads, err := rows(ctx, q, mysqlThreads)
	if err != nil {
		return err
	}
	for _, t := range threads {
		switch {
		case strings.HasSuffix(t["NAME"], "_io"):
			st.ReceiverID = t.number("PROCESSLIST_ID")
		case strings.HasSuffix(t["NAME"], "_sql"):
			st.ApplierID = t.number("PROCESSLIST_ID")
		}
	}
	return nil
}

// withoutSpace joins the lines that MySQL breaks long sets into.
func withoutSpace(set string) string { return strings.Join(strings.Fields(set), "") }

// history is what is written: a replica may have applied what still waits here for its acknowledgement, and that is nothing that this server never
// had.
func (m mysqlDialect) history(ctx context.Context, q querier) (string, error) {
	return m.written(ctx, q)
}

func (mysqlDialect) executed(ctx context.Context, q querier) (string, error) {
	r, err := row(ctx, q, "SELECT @@global.gtid_executed AS position")
	return withoutSpace(r["position"]), err
}

// written adds the GTIDs that sessions own: a transaction in the binary log that waits for its acknowledgement, or was acknowledged a moment ago, is
// not in gtid_executed before the engine has committed it. Owned ones are read first: what has left them by the second read is in gtid_executed.
func (m mysqlDialect) written(ctx context.Context, q querier) (string, error) {
	owned, err := row(ctx, q, "SELECT @@global.gtid_owned AS owned")
	if err != nil {
		return "", err
	}
	executed, err := m.executed(ctx, q)
	if err != nil {
		return "", err
	}
	set, err := gtid.Parse(gtid.MySQL, executed)
	if err != nil {
		return "", fmt.Errorf("gtid_executed: %w", err)
	}
	for _, part := range ownedSets(owned["owned"]) {
		more, err := gtid.Parse(gtid.MySQL, part)
		if err != nil {
			return "", fmt.Errorf("gtid_owned: %w", err)
		}
		if set, err = gtid.Union(set, more); err != nil {
			return "", fmt.Errorf("gtid_owned: %w", err)
		}
	}
	return set.String(), nil
}

// ownedSets takes the owners out of gtid_owned: "uuid:57#12:58#13" are two transactions of the sessions 12 and 13. Sets of several servers are
// separated by commas.
func ownedSets(owned string) []string {
	var out []string
	for part := range strings.SplitSeq(withoutSpace(owned), ",") {
		uuid, rest, found := strings.Cut(part, ":")
		if !found {
			continue
		}
		for item := range strings.SplitSeq(rest, ":") {
			number, _, _ := strings.Cut(item, "#")
			out = append(out, uuid+":"+number)
		}
	}
	return out
}

// bypassers: super_read_only stops all of them, but not while the barrier is
// written, when only read_only is on.
func (mysqlDialect) bypassers(ctx context.Context, q querier, cfg Config) ([]string, error) {
	return grantees(ctx, q, cfg, "SUPER", "CONNECTION_ADMIN")
}

func (mysqlDialect) enableSource(acks int) ([]string, error) {
	if acks < 1 {
		return nil, fmt.Errorf("%w: %d asked for", ErrAcks, acks)
	}
	return []string{fmt.Sprintf("SET GLOBAL rpl_semi_sync_source_wait_point='AFTER_SYNC', GLOBAL rpl_semi_sync_source_timeout=%d,"+
		" GLOBAL rpl_semi_sync_source_wait_no_replica=1, GLOBAL rpl_semi_sync_source_wait_for_replica_count=%d, GLOBAL rpl_semi_sync_source_enabled=1",
		uint64(maxSemiSyncTimeout), acks)}, nil
}

// acceptOwn: a server's own transactions never come back to it. What the cluster
// has stays in its binary log at a rewind, and a rebuild begins behind them.
func (mysqlDialect) acceptOwn(uint32) []string { return nil }

func (mysqlDialect) takeBack(uint32) []string { return nil }

// mysqlPlugins are the semi-sync plugins and their files.
var mysqlPlugins = []struct{ name, file string }{
	{"rpl_semi_sync_source", "semisync_source.so"},
	{"rpl_semi_sync_replica", "semisync_replica.so"},
}

// loadSemiSync installs the plugins that are missing. INSTALL PLUGIN writes a
// system table, which super_read_only refuses: callers see 1290 then, and the
// option file should load them (plugin_load_add), as the boot arguments do.
func (mysqlDialect) loadSemiSync(ctx context.Context, q querier) error {
	for _, p := range mysqlPlugins {
		r, err := row(ctx, q, "SELECT PLUGIN_STATUS FROM information_schema.PLUGINS WHERE PLUGIN_NAME=?", p.name)
		if err != nil {
			return err
		}
		if r["PLUGIN_STATUS"] == "ACTIVE" {
			continue
		}
		if err := execute(ctx, q, fmt.Sprintf("INSTALL PLUGIN %s SONAME '%s'", p.name, p.file)); err != nil {
			return err
		}
	}
	return nil
}

// finishRewind: gtid_executed is what the cut left; nothing is to be set.
func (mysqlDialect) finishRewind(context.Context, querier) error { return nil }
