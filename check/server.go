package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/highbase/highbase/cluster/api"
)

// variable is a setting that a running server must have, by its names on MariaDB and MySQL; a name is empty where there
// is none.
type variable struct {
	code           string
	mariadb, mysql string
	want           []string
	mend           string
}

// inFile is the usual way to mend.
const inFile = "set it in the option file and restart the servers one after the other, the primary last, after hbctl promote"

var variables = []variable{
	{"check.gtid", "gtid_strict_mode", "gtid_mode", []string{"ON"}, inFile},
	{"check.gtid-consistency", "", "enforce_gtid_consistency", []string{"ON"}, inFile},
	{"check.log-bin", "log_bin", "log_bin", []string{"ON"}, inFile},
	{"check.log-replica-updates", "log_slave_updates", "log_replica_updates", []string{"ON"}, inFile},
	{"check.binlog-format", "binlog_format", "binlog_format", []string{"ROW"}, inFile},
	{"check.sync-binlog", "sync_binlog", "sync_binlog", []string{"1"}, "hbd puts it back while it runs; " + inFile},
	{"check.flush-log", "innodb_flush_log_at_trx_commit", "innodb_flush_log_at_trx_commit", []string{"1"}, "hbd puts it back while it runs; " + inFile},
	{"check.relay-log-recovery", "", "relay_log_recovery", []string{"OFF"}, "SET PERSIST_ONLY relay_log_recovery=OFF and restart"},
	{"check.performance-schema", "", "performance_schema", []string{"ON"}, inFile},
}

// boots are what a server must start with even if hbd is not there to say so.
var boots = []variable{
	{"check.boot-read-only", "read_only", "super_read_only", []string{"ON"}, ""},
	{"check.boot-replication", "skip_slave_start", "skip_replica_start", []string{"ON"}, ""},
	{"check.boot-gtid", "gtid_strict_mode", "gtid_mode", []string{"ON"}, ""},
	{"check.boot-log-bin", "log_bin", "", nil, ""},
	{"check.boot-log-replica-updates", "log_slave_updates", "", []string{"ON"}, ""},
	{"check.boot-binlog-format", "binlog_format", "", []string{"ROW"}, ""},
	{"check.boot-sync-binlog", "sync_binlog", "", []string{"1"}, ""}, // the default of MySQL is 1
	{"check.boot-server-id", "server_id", "server_id", nil, ""},
}

// serverRows are about a node's server.
var serverRows = func() []row {
	out := []row{{code: "check.server", what: "database server", applies: hasServer, find: findServer, says: func(f api.CheckFacts) string { return f.Server.Version }}}
	for _, v := range variables {
		out = append(out, v.row(v.findRunning, func(f api.CheckFacts) string { return f.Server.Variables[v.name(f)] }))
	}
	for _, v := range boots {
		out = append(out, v.row(v.findBoot, func(f api.CheckFacts) string { return f.Server.Boot[v.name(f)] }))
	}
	return append(out,
		row{code: "check.boot-acks", what: "replica semi-sync at boot", applies: serverAnswers, find: findBootAcks},
		row{code: "check.grants", what: "privileges of the manager", applies: serverAnswers, find: findGrants},
		row{code: "check.events", what: "scheduled events, which follow the primary", applies: serverAnswers, find: findEvents, says: func(f api.CheckFacts) string { return fmt.Sprint(f.Server.Events) }},
		row{code: "check.replication-account", what: "replication account", applies: serverAnswers, find: findReplicationAccount},
		row{code: "check.bypass", what: "accounts that write in spite of read_only", applies: serverAnswers, find: findBypass},
		row{code: "check.engine", what: "tables of other engines than InnoDB", applies: hasServer, find: findEngines},
		row{code: "check.xa", what: "XA transactions", applies: serverAnswers, find: findXA},
		row{code: "check.problems", what: "named problems", applies: serverAnswers, find: findProblems},
	)
}()

func (v variable) name(f api.CheckFacts) string { return nameFor(f, v.mariadb, v.mysql) }

// row makes the row of a variable, where the node's kind of server has it.
func (v variable) row(find func(api.CheckFacts) []finding, says func(api.CheckFacts) string) row {
	what := v.mariadb
	if v.mysql != "" && v.mysql != v.mariadb {
		what = strings.TrimPrefix(v.mariadb+" / "+v.mysql, " / ")
	}
	return row{code: v.code, what: what, find: find, says: says, applies: func(f api.CheckFacts) bool { return serverAnswers(f) && v.name(f) != "" }}
}

func (v variable) findRunning(f api.CheckFacts) []finding {
	value, set := f.Server.Variables[v.name(f)]
	if !set && v.name(f) == "binlog_format" {
		return nil // releases without the variable know no other
	}
	if is(value, v.want...) {
		return nil
	}
	return []finding{failed(v.name(f), shown(value, set), strings.Join(v.want, " or "), v.mend)}
}

// findBoot: a missing line is no more than a warning where hbd alone starts the server, with these as arguments.
func (v variable) findBoot(f api.CheckFacts) []finding {
	s := f.Server
	kind := failed
	if s.Kind != "systemd" {
		kind = warning
	}
	if s.BootError != "" {
		return []finding{warning(v.name(f), s.BootError, "known", "look at the option files by hand: my_print_defaults mysqld")}
	}
	value, set := s.Boot[v.name(f)]
	switch {
	case set && len(v.want) == 0, set && is(value, v.want...):
		return nil
	case s.Dialect == "mysql" && v.mysql == "super_read_only" && is(s.Boot["read_only"], "ON"):
		return nil
	}
	required, line := "a line in the option file", v.name(f)+" = ..."
	if len(v.want) > 0 {
		required, line = v.want[0], v.name(f)+" = "+v.want[0]
	}
	mend := "add to [mysqld] of the option file: " + line
	if s.Dialect == "mysql" {
		mend = fmt.Sprintf("SET PERSIST_ONLY %s (hbd does when it may), or %s", strings.ReplaceAll(line, " = ", "="), mend)
	}
	return []finding{kind(v.name(f), shown(value, set), required, mend)}
}

func findServer(f api.CheckFacts) []finding {
	if f.Server.Error == "" {
		return nil
	}
	return []finding{failed("database server", f.Server.Error, "answers", "hbctl status tells what hbd does about it")}
}

// findBootAcks: only a member of the sync set may acknowledge, and a server that has just started is none.
func findBootAcks(f api.CheckFacts) []finding {
	name := nameFor(f, "rpl_semi_sync_slave_enabled", "rpl_semi_sync_replica_enabled")
	if value := f.Server.Boot[name]; is(value, "ON") {
		return []finding{failed(name, value, "OFF or no line", "take it out of the option file, or SET PERSIST_ONLY it to OFF")}
	}
	return nil
}

func findGrants(f api.CheckFacts) []finding {
	if len(f.Server.MissingGrants) == 0 {
		return nil
	}
	missing := strings.Join(f.Server.MissingGrants, ", ")
	return []finding{failed("privileges of the manager", "lacks "+missing, "all of docs/SERVERS.md", "GRANT "+missing+" to the manager's account, on the primary")}
}

// findEvents: where nobody uses events the rights need not be there. Without EVENT on MySQL it cannot be seen whether somebody does.
func findEvents(f api.CheckFacts) []finding {
	s := f.Server
	blind := s.Dialect == "mysql" && slices.Contains(s.MissingEventGrants, "EVENT")
	if len(s.MissingEventGrants) == 0 || s.Events == 0 && !blind {
		return nil
	}
	current := fmt.Sprintf("%d, and after a change of the primary they do not run", s.Events)
	if blind {
		current = "cannot be seen, and after a change of the primary none runs"
	}
	missing := strings.Join(s.MissingEventGrants, ", ")
	return []finding{warning("scheduled events", current, "the manager has "+missing, "GRANT "+missing+" ON *.* to the manager's account, on the primary")}
}

func findReplicationAccount(f api.CheckFacts) []finding {
	if f.Server.Replication == "" {
		return nil
	}
	return []finding{failed("replication account", f.Server.Replication, "REPLICATION SLAVE from every node", "create it, or grant it, on the primary")}
}

func findBypass(f api.CheckFacts) []finding {
	if f.Server.BypassError != "" {
		return []finding{warning("accounts that write in spite of read_only", f.Server.BypassError, "known", "GRANT SELECT ON mysql.* to the manager")}
	}
	var out []finding
	for _, a := range f.Server.Bypass {
		out = append(out, warning("account "+a, "writes in spite of read_only", "no application uses it", "revoke ALL, SUPER and the privilege that bypasses read_only, or keep it for administrators"))
	}
	return out
}

func findEngines(f api.CheckFacts) []finding {
	s := f.Server
	if s.OtherCount == 0 {
		return nil
	}
	current := strings.Join(s.OtherTables, ", ")
	if more := s.OtherCount - len(s.OtherTables); more > 0 {
		current += fmt.Sprintf(" and %d more", more)
	}
	return []finding{failed("tables of other engines than InnoDB", current, "InnoDB", "ALTER TABLE ... ENGINE=InnoDB, on the primary: what they hold is not rolled back and may be lost")}
}

func findXA(f api.CheckFacts) []finding {
	if f.Server.XAStarts == 0 {
		return nil
	}
	return []finding{warning("XA transactions", fmt.Sprintf("%d since the server started", f.Server.XAStarts), "none", "a tail with XA is not rewound: the node is rebuilt")}
}

// findProblems: what status names and no row above says better.
func findProblems(f api.CheckFacts) []finding {
	var out []finding
	for _, p := range f.Server.Problems {
		out = append(out, warning("named problem", p, "none", "as it says"))
	}
	return out
}
