package mysqld

import (
	"strings"
	"testing"
)

// TestMendSettings: what was weakened behind our back is named with its values and put back, by the manager's own grants.
func TestMendSettings(t *testing.T) { eachServer(t, testMendSettings) }

func testMendSettings(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source := nodes[0]
	source.must(source.MendSettings(testContext(t))) // MySQL persists at first what it must boot with
	for _, c := range []struct{ set, name string }{
		{"SET GLOBAL sync_binlog=0", "sync_binlog"},
		{"SET GLOBAL innodb_flush_log_at_trx_commit=2", "innodb_flush_log_at_trx_commit"},
		{"SET GLOBAL binlog_format=MIXED", "binlog_format"},
		{"SET GLOBAL gtid_strict_mode=0", "gtid_strict_mode"},
		{"SET GLOBAL rpl_semi_sync_master_timeout=10", "rpl_semi_sync_master_timeout"},
		{"SET GLOBAL rpl_semi_sync_master_wait_no_slave=0", "rpl_semi_sync_master_wait_no_slave"},
		{"SET GLOBAL rpl_semi_sync_master_wait_point=AFTER_COMMIT", "rpl_semi_sync_master_wait_point"},
	} {
		if k.dialect == "mysql" && (c.name == "gtid_strict_mode") {
			continue // cannot be set at run time
		}
		source.say(c.set)
		weak := source.status().Weakened
		if len(weak) != 1 || weak[0].Name != source.inWords(c.name) || weak[0].Is == weak[0].Want {
			t.Errorf("after %q: %v", c.set, weak)
		}
		source.must(source.MendSettings(testContext(t)))
		if weak := source.status().Weakened; len(weak) != 0 {
			t.Errorf("after mending %q: %v", c.set, weak)
		}
	}
	if p := source.status().Problems; len(p) != 0 {
		t.Errorf("problems left: %q", p)
	}
	// A replica has no use for the source's semi-sync settings, and needs the durable ones.
	replica := nodes[1]
	replica.must(replica.MendSettings(testContext(t)))
	replica.say("SET GLOBAL rpl_semi_sync_master_timeout=10", "SET GLOBAL sync_binlog=0")
	if weak := replica.status().Weakened; len(weak) != 1 || weak[0].Name != "sync_binlog" {
		t.Errorf("on a replica: %v", weak)
	}
}

// TestMendWithoutPrivilege: what cannot be put back is named, and the rest is put back.
func TestMendWithoutPrivilege(t *testing.T) { eachServer(t, testMendWithoutPrivilege) }

func testMendWithoutPrivilege(t *testing.T, k *kind) {
	k.only(t, "mariadb", "there one privilege covers all settings")
	n := cluster(t, k, 1, false)[0]
	n.sql("SET GLOBAL sync_binlog=0", "SET GLOBAL innodb_flush_log_at_trx_commit=2", "REVOKE SUPER ON *.* FROM 'highbase'@'localhost'")
	n.sql("KILL USER highbase") // privileges of a session are those of its login
	var err error
	n.eventually("mending", func() bool {
		err = n.MendSettings(testContext(t))
		return serverErrorNumber(err) == 1227
	})
	if !strings.Contains(err.Error(), "innodb_flush_log_at_trx_commit") {
		t.Errorf("does not say what: %v", err)
	}
	if weak := n.status().Weakened; len(weak) != 1 || weak[0].Name != "innodb_flush_log_at_trx_commit" {
		t.Errorf("left: %v", weak)
	}
}

// TestOperatorsOptionsSurvive: a delay, ignored servers, filters by domain, retry and heartbeat of an operator's choice
// are kept by a repoint, by a repair of the login, and by a promotion with a return.
func TestOperatorsOptionsSurvive(t *testing.T) { eachServer(t, testOperatorsOptionsSurvive) }

func testOperatorsOptionsSurvive(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, false)
	a, b, replica := nodes[0], nodes[1], nodes[2]
	ctx := testContext(t)
	lists, servers, domains := " IGNORE_SERVER_IDS=(77,78), IGNORE_DOMAIN_IDS=(5),", "77,78", "5"
	if k.dialect == "mysql" { // 3139: not with GTIDs
		lists, servers, domains = "", "", ""
	}
	replica.say("STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=1,"+lists+" MASTER_CONNECT_RETRY=7, MASTER_HEARTBEAT_PERIOD=3", "START SLAVE")
	kept := func(when string) {
		t.Helper()
		c := replica.status().Channel
		c.Heartbeat, _, _ = strings.Cut(c.Heartbeat, ".") // 3.000 or 3
		if c.Delay.Seconds() != 1 || strings.ReplaceAll(c.IgnoreServerIDs, " ", "") != servers || c.IgnoreDomains != domains || c.ConnectRetry != "7" || c.Heartbeat != "3" {
			t.Errorf("%s: %+v", when, c)
		}
		if drift := replica.status().ChannelDrift; len(drift) != 0 {
			t.Errorf("%s: an operator's option counts as drift: %q", when, drift)
		}
	}
	kept("at first")
	_, err := replica.Follow(ctx, b.source())
	replica.must(err)
	kept("after a repoint")
	replica.say("STOP SLAVE", "CHANGE MASTER TO MASTER_PASSWORD='wrong', MASTER_HEARTBEAT_PERIOD=3", "START SLAVE")
	replica.eventually("being refused", func() bool { return LoginRefused(replica.status().IOErrno) })
	_, err = replica.Follow(ctx, b.source())
	replica.must(err)
	replica.connected(false)
	kept("after a wrong password")
	replica.eventually("stopping with all applied, which is a second late", func() bool { return replica.StopReplication(ctx) == nil })
	_, err = replica.Follow(ctx, a.source())
	replica.must(err)
	kept("after a promotion and a return")
	replica.say("STOP SLAVE", "RESET SLAVE ALL")
	_, err = replica.Follow(ctx, b.source())
	replica.must(err)
	kept("after RESET SLAVE ALL")
}

// TestOwnTiming: where nobody chose, the receiver's timing is ours.
func TestOwnTiming(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ have, want [2]string }{
		{[2]string{"", ""}, [2]string{"1", "0.5"}},
		{[2]string{"60", "30.000"}, [2]string{"1", "0.5"}},
		{[2]string{"1", "0.500"}, [2]string{"1", "0.500"}},
		{[2]string{"9", "2.000"}, [2]string{"9", "2.000"}},
	} {
		retry, heartbeat := Channel{ConnectRetry: c.have[0], Heartbeat: c.have[1], NetTimeout: "60"}.timing()
		if retry != c.want[0] || heartbeat != c.want[1] {
			t.Errorf("of %v: %s, %s", c.have, retry, heartbeat)
		}
	}
}

// TestTransientErrorIsRetried: an applier that gave up on a lock wait goes on when asked, with nothing forgotten.
func TestTransientErrorIsRetried(t *testing.T) { eachServer(t, testTransientErrorIsRetried) }

func testTransientErrorIsRetried(t *testing.T, k *kind) {
	k.only(t, "mariadb", "nobody can lock a row under super_read_only")
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	source.must(source.insert(ctx, 1))
	source.sql("UPDATE app.t SET v='x'")
	replica.must(replica.Drain(ctx, source.status().Executed))
	replica.say("SET GLOBAL slave_transaction_retries=0", "SET GLOBAL innodb_lock_wait_timeout=1")
	replica.say("STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD") // takes the timeout along
	tx, err := replica.boss.BeginTx(ctx, nil)
	replica.must(err)
	var id int
	replica.must(tx.QueryRowContext(ctx, "SELECT id FROM app.t FOR UPDATE").Scan(&id))
	source.sql("UPDATE app.t SET v='y'")
	replica.eventually("giving up", func() bool { return replica.status().SQLErrno != 0 })
	before := replica.status()
	if !Transient(before.SQLErrno) {
		t.Fatalf("error %d %s", before.SQLErrno, before.SQLError)
	}
	replica.must(tx.Rollback())
	_, err = replica.Follow(ctx, source.source())
	replica.must(err)
	sameRows(t, source, replica)
	if now := replica.status(); now.Generation != before.Generation {
		t.Errorf("generation %q became %q", before.Generation, now.Generation)
	}
}

// mysqlWords are MySQL's for statements written for MariaDB.
var mysqlWords = strings.NewReplacer("wait_no_slave", "wait_no_replica", "sync_master_", "sync_source_", "CHANGE MASTER TO", "CHANGE REPLICATION SOURCE TO", "MASTER_", "SOURCE_",
	"STOP SLAVE", "STOP REPLICA", "START SLAVE", "START REPLICA", "RESET SLAVE", "RESET REPLICA", "slave_transaction_retries", "replica_transaction_retries")

// inWords is a statement written for MariaDB in the server's own words.
func (n *node) inWords(statement string) string {
	if n.kind.dialect == "mysql" {
		return mysqlWords.Replace(statement)
	}
	return statement
}

// say runs statements written for MariaDB.
func (n *node) say(statements ...string) {
	n.t.Helper()
	for _, s := range statements {
		n.sql(n.inWords(s))
	}
}
