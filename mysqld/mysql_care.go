package mysqld

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// mysqlHeartbeat is the heartbeat of the channel that hbd uses: the one without a name.
const mysqlHeartbeat = "SELECT HEARTBEAT_INTERVAL AS period FROM performance_schema.replication_connection_configuration WHERE CHANNEL_NAME=''"

// readMySQLChannel takes the set-up out of SHOW REPLICA STATUS.
func readMySQLChannel(r record, c *Channel) {
	c.User, c.ConnectRetry, c.IgnoreServerIDs = r["Source_User"], r["Connect_Retry"], r["Replicate_Ignore_Server_Ids"]
	c.Delay = time.Duration(r.number("SQL_Delay")) * time.Second
	if r.yes("Source_SSL_Allowed") {
		c.TLS = &ReplicationTLS{CA: r["Source_SSL_CA_File"], Cert: r["Source_SSL_Cert"], Key: r["Source_SSL_Key"], Verify: r.yes("Source_SSL_Verify_Server_Cert")}
	}
}

func (mysqlDialect) heartbeat(ctx context.Context, q querier) (string, error) {
	found, err := row(ctx, q, mysqlHeartbeat)
	return found["period"], err
}

// persistedPrefix marks a setting that is looked at as persisted, not as it is now.
const persistedPrefix = "persisted "

// mysqlPersisted must be persisted so that a server that somebody else starts comes up harmless: it takes no writes, does
// not replicate, and keeps what it had received. Never the other way round: a server persisted as writable would be.
var mysqlPersisted = []struct{ name, want string }{{"super_read_only", "ON"}, {"skip_replica_start", "ON"}, {"relay_log_recovery", "OFF"}}

// mysqlNeverPersisted must not be persisted with another value.
var mysqlNeverPersisted = []struct{ name, want string }{{"read_only", "ON"}, {"rpl_semi_sync_replica_enabled", "OFF"}}

func (mysqlDialect) persisted(ctx context.Context, q querier) (map[string]string, error) {
	found, err := rows(ctx, q, "SELECT VARIABLE_NAME AS name, VARIABLE_VALUE AS value FROM performance_schema.persisted_variables")
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(found))
	for _, r := range found {
		out[r["name"]] = r["value"]
	}
	return out, nil
}

// unpersisted are the settings among the persisted ones that are not as they must be.
func unpersisted(persisted map[string]string) []Setting {
	var out []Setting
	for _, p := range mysqlPersisted {
		is := "not set"
		if value, set := persisted[p.name]; set {
			is = onOffServer(record{"v": value}.yes("v"))
		}
		out = append(out, Setting{persistedPrefix + p.name, is, p.want})
	}
	for _, p := range mysqlNeverPersisted {
		if value, set := persisted[p.name]; set {
			out = append(out, Setting{persistedPrefix + p.name, onOffServer(record{"v": value}.yes("v")), p.want})
		}
	}
	return out
}

func (mysqlDialect) settings(st Status) []Setting {
	out := append(durableSettings(st), st.persistedSettings...)
	if st.HasReplication && st.ReadOnly {
		// Not on a primary, which lets the manager alone write at its barrier.
		out = append(out, Setting{"super_read_only", onOffServer(st.SuperReadOnly), "ON"})
	}
	if !st.SourceSemiSyncEnabled {
		return out
	}
	return append(out,
		Setting{"rpl_semi_sync_source_timeout", strconv.FormatUint(st.SemiSyncTimeoutMS, 10), strconv.FormatUint(maxSemiSyncTimeout, 10)},
		Setting{"rpl_semi_sync_source_wait_no_replica", onOffServer(st.WaitNoReplica), "ON"},
		Setting{"rpl_semi_sync_source_wait_point", st.WaitPoint, "AFTER_SYNC"})
}

// mend: PERSIST_ONLY leaves the running value alone, which on a primary is another.
func (mysqlDialect) mend(one Setting) string {
	if name, persisted := strings.CutPrefix(one.Name, persistedPrefix); persisted {
		return "SET PERSIST_ONLY " + name + "=" + one.Want
	}
	return setGlobal(one)
}
