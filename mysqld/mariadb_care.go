package mysqld

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// readMariaDBChannel takes the set-up out of SHOW SLAVE STATUS.
func readMariaDBChannel(r record, c *Channel) {
	c.User, c.ConnectRetry = r["Master_User"], r["Connect_Retry"]
	c.Delay = time.Duration(r.number("SQL_Delay")) * time.Second
	c.IgnoreServerIDs, c.DoDomains, c.IgnoreDomains = r["Replicate_Ignore_Server_Ids"], r["Replicate_Do_Domain_Ids"], r["Replicate_Ignore_Domain_Ids"]
	c.TLS = nil
	if r.yes("Master_SSL_Allowed") {
		c.TLS = &ReplicationTLS{CA: r["Master_SSL_CA_File"], Cert: r["Master_SSL_Cert"], Key: r["Master_SSL_Key"], Verify: r.yes("Master_SSL_Verify_Server_Cert")}
	}
}

// settings: what concerns semi-sync at a source is given anew whenever it is enabled, so only then must it hold.
func (mariadb) settings(st Status) []Setting {
	out := durableSettings(st)
	out = append(out, Setting{"gtid_strict_mode", onOffServer(st.GTIDStrict), "ON"})
	if !st.SourceSemiSyncEnabled {
		return out
	}
	return append(out,
		Setting{"rpl_semi_sync_master_timeout", strconv.FormatUint(st.SemiSyncTimeoutMS, 10), strconv.FormatUint(maxSemiSyncTimeout, 10)},
		Setting{"rpl_semi_sync_master_wait_no_slave", onOffServer(st.WaitNoReplica), "ON"},
		Setting{"rpl_semi_sync_master_wait_point", st.WaitPoint, "AFTER_SYNC"})
}

func (mariadb) mend(one Setting) string { return setGlobal(one) }

// persisted: MariaDB keeps none. Its option file is not ours to write.
func (mariadb) persisted(context.Context, querier) (map[string]string, error) { return nil, nil }

// durableSettings have the same names on both servers.
func durableSettings(st Status) []Setting {
	return []Setting{
		{"sync_binlog", strconv.Itoa(st.SyncBinlog), "1"},
		{"innodb_flush_log_at_trx_commit", strconv.Itoa(st.FlushLogAtTrxCommit), "1"},
		{"binlog_format", st.BinlogFormat, "ROW"},
	}
}

// setGlobal writes the statement for one of our own settings: names and values are constants here.
func setGlobal(one Setting) string { return fmt.Sprintf("SET GLOBAL %s=%s", one.Name, one.Want) }

// onOffServer is how the servers write a switch.
func onOffServer(on bool) string {
	if on {
		return "ON"
	}
	return "OFF"
}
