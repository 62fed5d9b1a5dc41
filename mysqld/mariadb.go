package mysqld

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// mariadb speaks to MariaDB 10.6 and later.
type mariadb struct{}

var _ dialect = mariadb{}

func (mariadb) flavor() gtid.Flavor { return gtid.MariaDB }

func (mariadb) database() string { return "" }

func (mariadb) hidesEvents() bool { return false }

func (mariadb) words() words {
	return words{
		startApplier:       "START SLAVE SQL_THREAD",
		stopApplier:        "STOP SLAVE SQL_THREAD",
		startReceiver:      "START SLAVE IO_THREAD",
		stopReceiver:       "STOP SLAVE IO_THREAD",
		forgetSource:       "RESET SLAVE ALL",
		readOnly:           []string{"SET GLOBAL read_only=1"},
		barrierWritable:    []string{"SET GLOBAL read_only=1"},
		writable:           []string{"SET GLOBAL read_only=0"},
		disableSource:      "SET GLOBAL rpl_semi_sync_master_enabled=0",
		replicaSemiSyncOn:  "SET GLOBAL rpl_semi_sync_slave_enabled=1",
		replicaSemiSyncOff: "SET GLOBAL rpl_semi_sync_slave_enabled=0",
		kill:               "KILL CONNECTION ?",
		// The table itself: information_schema.EVENTS makes a temporary one on disk at every look.
		events:        "SELECT db AS in_schema, name, definer, status, sql_mode, time_zone, character_set_client AS client, collation_connection AS collation FROM mysql.event",
		bootArguments: []string{"--read-only=ON", "--skip-slave-start=ON", "--rpl-semi-sync-slave-enabled=OFF"},
		// It cuts whatever is only prepared, acknowledged or not: docs/SERVERS.md, rewind.
		rewindArguments: []string{"--init-rpl-role=SLAVE"},
	}
}

const mariadbVariables = `SELECT @@global.version AS version, @@global.server_id AS server_id, @@global.gtid_domain_id AS gtid_domain_id,
 @@global.datadir AS datadir, @@global.log_bin_index AS log_bin_index, @@global.read_only AS read_only,
 @@global.gtid_binlog_pos AS gtid_binlog_pos, @@global.gtid_slave_pos AS gtid_slave_pos, @@global.gtid_strict_mode AS gtid_strict_mode,
 @@global.log_bin AS log_bin, @@global.log_slave_updates AS log_slave_updates, @@global.binlog_format AS binlog_format,
 @@global.sync_binlog AS sync_binlog, @@global.innodb_flush_log_at_trx_commit AS flush_log,
 @@global.rpl_semi_sync_master_enabled AS source_enabled, @@global.rpl_semi_sync_slave_enabled AS replica_enabled,
 @@global.rpl_semi_sync_master_timeout AS semi_sync_timeout, @@global.rpl_semi_sync_master_wait_no_slave AS wait_no_replica,
 @@global.rpl_semi_sync_master_wait_point AS wait_point, @@global.slave_net_timeout AS net_timeout`

// The counters are asked for by LIKE: with WHERE every counter is computed, those of the accounts too, whose lock an
// account statement holds while it waits for its acknowledgement (docs/SERVERS.md, hangs).
const (
	mariadbUptime    = `SHOW GLOBAL STATUS LIKE 'Uptime'`
	mariadbSemiSync  = `SHOW GLOBAL STATUS LIKE 'Rpl\_semi\_sync\_%'`
	mariadbHeartbeat = `SHOW GLOBAL STATUS LIKE 'Slave\_heartbeat\_period'`
)

// mariadbThreads shows the replication threads with their numbers. Not
// information_schema.PROCESSLIST, whose temporary table needs Aria: polled
// beside starting and stopping replication it ended two servers of 10.11.19 in
// five test runs (one with a backtrace: SIGSEGV in ha_maria::drop_table under
// free_tmp_table).
const mariadbThreads = "SHOW PROCESSLIST"

func (m mariadb) readStatus(ctx context.Context, q querier, st *Status, uptime bool) (time.Duration, error) {
	v, err := row(ctx, q, mariadbVariables)
	if err != nil {
		return 0, err
	}
	if err := knownMariaDB(v["version"]); err != nil {
		return 0, err
	}
	counters, err := named(ctx, q, mariadbSemiSync)
	if err != nil {
		return 0, err
	}
	if uptime {
		some, err := named(ctx, q, mariadbUptime)
		if err != nil {
			return 0, err
		}
		maps.Copy(counters, some)
	}
	st.Version = v["version"]
	st.ServerID, st.GTIDDomain = uint32(v.number("server_id")), uint32(v.number("gtid_domain_id"))
	st.DataDir, st.BinlogIndex = v["datadir"], v["log_bin_index"]
	st.ReadOnly = v.yes("read_only")
	st.Executed = joinMariaDB(v["gtid_binlog_pos"], v["gtid_slave_pos"])
	st.LogBin, st.LogReplicaUpdates, st.BinlogFormat = v.yes("log_bin"), v.yes("log_slave_updates"), v["binlog_format"]
	st.GTIDStrict = v.yes("gtid_strict_mode")
	st.SyncBinlog, st.FlushLogAtTrxCommit = int(v.number("sync_binlog")), int(v.number("flush_log"))
	st.SourceSemiSyncEnabled, st.ReplicaSemiSyncEnabled = v.yes("source_enabled"), v.yes("replica_enabled")
	st.SemiSyncTimeoutMS, st.WaitNoReplica, st.WaitPoint = v.number("semi_sync_timeout"), v.yes("wait_no_replica"), v["wait_point"]
	st.Acks = 1
	st.SourceSemiSyncActive = counters.yes("rpl_semi_sync_master_status")
	st.ReplicaSemiSyncActive = counters.yes("rpl_semi_sync_slave_status")
	st.SemiSyncClients = int(counters.number("rpl_semi_sync_master_clients"))
	st.WaitSessions = int(counters.number("rpl_semi_sync_master_wait_sessions"))
	if !st.GTIDStrict {
		st.Problems = append(st.Problems, "gtid_strict_mode is off, so two histories can mix unseen; set it to ON.")
	}
	st.Channel.NetTimeout = v["net_timeout"]
	return time.Duration(counters.number("uptime")) * time.Second, m.readReplication(ctx, q, st)
}

// knownMariaDB refuses versions that nothing here was measured on or near.
func knownMariaDB(version string) error {
	var major, minor int
	n, err := fmt.Sscanf(version, "%d.%d.", &major, &minor)
	if err == nil && n == 2 && strings.Contains(version, "MariaDB") && (major > 10 || major == 10 && minor >= 6) {
		return nil
	}
	return fmt.Errorf("%w: MariaDB %q, 10.6 or later is needed", ErrUnsupported, version)
}

// readReplication fills in the replica's side.
func (mariadb) readReplication(ctx context.Context, q querier, st *Status) error {
	r, err := row(ctx, q, "SHOW SLAVE STATUS")
	if err != nil || r == nil {
		return err
	}
	st.HasReplication = true
	st.SourceHost, st.SourcePort = r["Master_Host"], uint16(r.number("Master_Port"))
	if id := uint32(r.number("Master_Server_Id")); id != 0 {
		st.SourceID = strconv.FormatUint(uint64(Status{ServerID: id}.OwnServerID()), 10)
	}
	st.SourceByGTID = r["Using_Gtid"] == "Slave_Pos"
	st.Received = r["Gtid_IO_Pos"]
	st.IORunning, st.SQLRunning = receiverState(r["Slave_IO_Running"]), r.yes("Slave_SQL_Running")
	st.IOErrno, st.IOError = int(r.number("Last_IO_Errno")), r["Last_IO_Error"]
	st.SQLErrno, st.SQLError = int(r.number("Last_SQL_Errno")), r["Last_SQL_Error"]
	st.RelayLogFile, st.RelayLogPosition = r["Relay_Log_File"], r.number("Relay_Log_Pos")
	st.LagSeconds = lagSeconds(r, "Seconds_Behind_Master")
	readMariaDBChannel(r, &st.Channel)
	return nil
}

func (mariadb) heartbeat(ctx context.Context, q querier) (string, error) {
	v, err := named(ctx, q, mariadbHeartbeat)
	return v["slave_heartbeat_period"], err
}

func (mariadb) readThreads(ctx context.Context, q querier, st *Status) error {
	threads, err := rows(ctx, q, mariadbThreads)
	if err != nil {
		return err
	}
	for _, t := range threads {
		switch t["Command"] {
		case "Slave_IO":
			st.ReceiverID = t.number("Id")
		case "Slave_SQL":
			st.ApplierID = t.number("Id")
		}
	}
	return nil
}

// receiverState reads the word both servers use. "Preparing" is MariaDB's word
// for a thread that starts.
func receiverState(word string) ThreadState {
	switch word {
	case "Yes":
		return ThreadYes
	case "No", "":
		return ThreadNo
	}
	return ThreadConnecting
}

// lagSeconds reads the lag, nil while the server does not know it.
func lagSeconds(r record, column string) *float64 {
	if _, known := r[column]; !known {
		return nil
	}
	lag := float64(r.number(column))
	return &lag
}

// joinMariaDB is the union of the binary log's position and the replica's. The
// first alone is empty after a rebuild, the second stale on a former replica.
// Where the two contradict each other the binary log tells what was done here.
func joinMariaDB(binlog, replica string) string {
	b, errB := gtid.Parse(gtid.MariaDB, binlog)
	r, errR := gtid.Parse(gtid.MariaDB, replica)
	if errB != nil || errR != nil {
		return binlog
	}
	u, err := gtid.Union(b, r)
	if err != nil {
		return binlog
	}
	return u.String()
}

// history is the last transaction of every writer, and what was received before
// the first binary log, as after a restore from a backup.
func (mariadb) history(ctx context.Context, q querier) (string, error) {
	v, err := row(ctx, q, "SELECT @@global.gtid_binlog_state AS b, @@global.gtid_slave_pos AS r")
	if err != nil {
		return "", err
	}
	return v["b"] + "," + v["r"], nil
}

func (mariadb) executed(ctx context.Context, q querier) (string, error) {
	v, err := row(ctx, q, "SELECT @@global.gtid_binlog_pos AS b, @@global.gtid_slave_pos AS r")
	if err != nil {
		return "", err
	}
	return joinMariaDB(v["b"], v["r"]), nil
}

// written: the position is that of the binary log, in which waiting transactions stand already.
func (m mariadb) written(ctx context.Context, q querier) (string, error) { return m.executed(ctx, q) }

// bypassers reads the privileges that the manager is allowed to see.
func (mariadb) bypassers(ctx context.Context, q querier, cfg Config) ([]string, error) {
	return grantees(ctx, q, cfg, "SUPER", "READ_ONLY ADMIN")
}

// errBlind is returned when the manager sees no account but its own.
var errBlind = errors.New("the manager sees only its own privileges")

// grantees names the accounts, other than the manager and the server's own
// locked ones, that hold any of the privileges. Both servers show foreign
// accounts only to who may read the schema mysql.
func grantees(ctx context.Context, q querier, cfg Config, privileges ...string) ([]string, error) {
	found, err := rows(ctx, q, "SELECT GRANTEE, MAX(PRIVILEGE_TYPE IN ("+quotedList(privileges)+")) AS bypasses"+
		" FROM information_schema.USER_PRIVILEGES GROUP BY GRANTEE ORDER BY GRANTEE")
	if err != nil {
		return nil, err
	}
	var out []string
	foreign := false
	for _, r := range found {
		name := r["GRANTEE"]
		if strings.HasPrefix(name, "'"+cfg.ManagerUser+"'@") {
			continue
		}
		foreign = true
		locked := strings.HasPrefix(name, "'mariadb.sys'@") || strings.HasPrefix(name, "'mysql.s") || strings.HasPrefix(name, "'mysql.infoschema'")
		if r.yes("bypasses") && !locked {
			out = append(out, name)
		}
	}
	if !foreign {
		return nil, errBlind
	}
	return out, nil
}

// enableSource: MariaDB waits for exactly one replica, whatever is asked for.
func (mariadb) enableSource(acks int) ([]string, error) {
	if acks != 1 {
		return nil, fmt.Errorf("%w: %d asked for, MariaDB waits for exactly 1", ErrAcks, acks)
	}
	return []string{fmt.Sprintf("SET GLOBAL rpl_semi_sync_master_wait_point='AFTER_SYNC', GLOBAL rpl_semi_sync_master_timeout=%d,"+
		" GLOBAL rpl_semi_sync_master_wait_no_slave=1, GLOBAL rpl_semi_sync_master_enabled=1", uint64(maxSemiSyncTimeout))}, nil
}

func (mariadb) loadSemiSync(context.Context, querier) error { return nil }

// finishRewind: the server was a source, so its replica position is old.
func (mariadb) finishRewind(ctx context.Context, q querier) error {
	return execute(ctx, q, "SET GLOBAL gtid_slave_pos=@@global.gtid_binlog_pos")
}
