package mysqld

import (
	"context"
	"strconv"
	"time"
)

// mysqlHeartbeat is the heartbeat of the channel that hbd uses: the one without a name.
const mysqlHeartbeat = "SELECT HEARTBEAT_INTERVAL AS period FROM performance_schema.replication_connection_configuration WHERE CHANNEL_NAME=''"

// readMySQLChannel takes the set-up out of SHOW REPLICA STATUS and the heartbeat, which that lacks, from elsewhere.
func readMySQLChannel(ctx context.Context, q querier, r record, c *Channel) error {
	c.User, c.ConnectRetry, c.IgnoreServerIDs = r["Source_User"], r["Connect_Retry"], r["Replicate_Ignore_Server_Ids"]
	c.Delay = time.Duration(r.number("SQL_Delay")) * time.Second
	if r.yes("Source_SSL_Allowed") {
		c.TLS = &ReplicationTLS{CA: r["Source_SSL_CA_File"], Cert: r["Source_SSL_Cert"], Key: r["Source_SSL_Key"], Verify: r.yes("Source_SSL_Verify_Server_Cert")}
	}
	found, err := row(ctx, q, mysqlHeartbeat)
	if err != nil {
		return err
	}
	c.Heartbeat = found["period"]
	return nil
}

func (mysqlDialect) settings(st Status) []Setting {
	out := durableSettings(st)
	if !st.SourceSemiSyncEnabled {
		return out
	}
	return append(out,
		Setting{"rpl_semi_sync_source_timeout", strconv.FormatUint(st.SemiSyncTimeoutMS, 10), strconv.FormatUint(maxSemiSyncTimeout, 10)},
		Setting{"rpl_semi_sync_source_wait_no_replica", onOffServer(st.WaitNoReplica), "ON"},
		Setting{"rpl_semi_sync_source_wait_point", st.WaitPoint, "AFTER_SYNC"})
}

func (mysqlDialect) mend(one Setting) string { return setGlobal(one) }
