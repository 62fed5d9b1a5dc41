package check

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

// sound is a node on which nothing is to be mended.
func sound(id, serverID, dialect string) api.CheckFacts {
	s := &api.CheckServer{Dialect: dialect, Kind: "systemd", Version: "10.11.19-MariaDB", FreeBytes: 10e9, DataBytes: 5e9}
	s.Variables = map[string]string{"server_id": serverID, "log_bin": "ON", "binlog_format": "ROW", "sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1", "innodb_page_size": "16384", "sql_mode": "STRICT"}
	s.Boot = map[string]string{"server_id": serverID, "log_bin": "binlog", "binlog_format": "row", "sync_binlog": "1"}
	if dialect == "mysql" {
		s.Version = "9.7.4"
		maps.Copy(s.Variables, map[string]string{"gtid_mode": "ON", "enforce_gtid_consistency": "ON", "log_replica_updates": "ON", "relay_log_recovery": "OFF", "performance_schema": "ON"})
		maps.Copy(s.Boot, map[string]string{"super_read_only": "ON", "skip_replica_start": "1", "gtid_mode": "ON"})
	} else {
		maps.Copy(s.Variables, map[string]string{"gtid_strict_mode": "ON", "log_slave_updates": "ON", "gtid_domain_id": "0"})
		maps.Copy(s.Boot, map[string]string{"read_only": "1", "skip_slave_start": "ON", "gtid_strict_mode": "ON", "log_slave_updates": "on"})
	}
	return api.CheckFacts{Node: id, Role: "data", Budget: "1.2 s", DriftPPM: 10000, KernelGate: true, Server: s,
		ARP: []api.CheckARP{{Interface: "eth0", Ignore: 1, Announce: 2}}, Units: []api.CheckUnit{{Name: "mariadb.service", State: "disabled", Restart: "no"}},
		Reach: []api.CheckReach{{Peer: "db9", Port: "api", Address: "10.0.0.9:7948"}}}
}

func cluster(dialect string) []api.CheckFacts {
	w := sound("w1", "", dialect)
	w.Role, w.Server, w.KernelGate = "witness", nil, false
	return []api.CheckFacts{sound("db1", "1", dialect), sound("db2", "2", dialect), w}
}

func TestSoundClustersHaveNothingToMend(t *testing.T) {
	for _, dialect := range []string{"mariadb", "mysql"} {
		got := Judge("db1", cluster(dialect))
		seen := map[string]bool{}
		for _, r := range got.Rows {
			seen[r.Rule] = true
			if r.Result != api.CheckOK || r.Mend != "" || r.Variable == "" {
				t.Errorf("%s: %+v", dialect, r)
			}
			if r.Node == "w1" && strings.Contains(r.Rule, "boot") {
				t.Errorf("a witness has no server: %+v", r)
			}
		}
		if !got.OK || len(seen) < 20 {
			t.Errorf("%s: ok %v, %d rules", dialect, got.OK, len(seen))
		}
	}
}

// change makes one thing wrong on db2.
type change struct {
	code    string
	result  string
	dialect string
	do      func(f *api.CheckFacts)
	current string
}

func variableIs(name, value string) func(*api.CheckFacts) {
	return func(f *api.CheckFacts) { f.Server.Variables[name] = value }
}

func bootLacks(name string) func(*api.CheckFacts) {
	return func(f *api.CheckFacts) { delete(f.Server.Boot, name) }
}

var changes = []change{
	{"check.asked", api.CheckFailed, "", func(f *api.CheckFacts) { f.Error = "connection refused" }, "connection refused"},
	{"check.clock", api.CheckFailed, "", func(f *api.CheckFacts) { f.ClockPPM = -6000 }, "-6000"},
	{"check.clock", api.CheckWarning, "", func(f *api.CheckFacts) { f.ClockError = "not permitted" }, "not permitted"},
	{"check.reach", api.CheckFailed, "", func(f *api.CheckFacts) { f.Reach[0].Error = "timeout" }, "timeout"},
	{"check.kernel-gate", api.CheckFailed, "", func(f *api.CheckFacts) { f.KernelGate = false }, "weaker"},
	{"check.nftables-flush", api.CheckWarning, "", func(f *api.CheckFacts) { f.FlushRuleset = []string{"/etc/nftables.conf:3"} }, "flush ruleset"},
	{"check.arp", api.CheckFailed, "", func(f *api.CheckFacts) { f.ARP[0].Ignore = 0 }, "0"},
	{"check.arp", api.CheckFailed, "", func(f *api.CheckFacts) { f.ARP[0].Announce = 0 }, "0"},
	{"check.unit", api.CheckFailed, "", func(f *api.CheckFacts) { f.Units[0].State = "enabled" }, "enabled"},
	{"check.unit", api.CheckFailed, "", func(f *api.CheckFacts) { f.Units[0].Restart = "on-failure" }, "on-failure"},
	{"check.unit", api.CheckWarning, "", func(f *api.CheckFacts) { f.UnitsError = "no bus" }, "no bus"},
	{"check.server", api.CheckFailed, "", func(f *api.CheckFacts) { f.Server.Error = "hangs" }, "hangs"},
	{"check.gtid", api.CheckFailed, "mariadb", variableIs("gtid_strict_mode", "OFF"), "OFF"},
	{"check.gtid", api.CheckFailed, "mysql", variableIs("gtid_mode", "ON_PERMISSIVE"), "ON_PERMISSIVE"},
	{"check.gtid-consistency", api.CheckFailed, "mysql", variableIs("enforce_gtid_consistency", "OFF"), "OFF"},
	{"check.log-bin", api.CheckFailed, "", variableIs("log_bin", "OFF"), "OFF"},
	{"check.log-replica-updates", api.CheckFailed, "mariadb", variableIs("log_slave_updates", "OFF"), "OFF"},
	{"check.binlog-format", api.CheckFailed, "", variableIs("binlog_format", "MIXED"), "MIXED"},
	{"check.sync-binlog", api.CheckFailed, "", variableIs("sync_binlog", "0"), "0"},
	{"check.flush-log", api.CheckFailed, "", variableIs("innodb_flush_log_at_trx_commit", "2"), "2"},
	{"check.relay-log-recovery", api.CheckFailed, "mysql", variableIs("relay_log_recovery", "ON"), "ON"},
	{"check.performance-schema", api.CheckFailed, "mysql", variableIs("performance_schema", "OFF"), "OFF"},
	{"check.boot-read-only", api.CheckFailed, "mariadb", bootLacks("read_only"), "not set"},
	{"check.boot-read-only", api.CheckFailed, "mysql", bootLacks("super_read_only"), "not set"},
	{"check.boot-read-only", api.CheckWarning, "mariadb", func(f *api.CheckFacts) { f.Server.Kind = "child"; delete(f.Server.Boot, "read_only") }, "not set"},
	{"check.boot-read-only", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.BootError = "--no-defaults" }, "--no-defaults"},
	{"check.boot-replication", api.CheckFailed, "mariadb", bootLacks("skip_slave_start"), "not set"},
	{"check.boot-replication", api.CheckFailed, "mysql", bootLacks("skip_replica_start"), "not set"},
	{"check.boot-gtid", api.CheckFailed, "", func(f *api.CheckFacts) { delete(f.Server.Boot, "gtid_strict_mode"); delete(f.Server.Boot, "gtid_mode") }, "not set"},
	{"check.boot-log-bin", api.CheckFailed, "mariadb", bootLacks("log_bin"), "not set"},
	{"check.boot-log-replica-updates", api.CheckFailed, "mariadb", bootLacks("log_slave_updates"), "not set"},
	{"check.boot-binlog-format", api.CheckFailed, "mariadb", bootLacks("binlog_format"), "not set"},
	{"check.boot-sync-binlog", api.CheckFailed, "mariadb", bootLacks("sync_binlog"), "not set"},
	{"check.boot-server-id", api.CheckFailed, "", bootLacks("server_id"), "not set"},
	{"check.boot-acks", api.CheckFailed, "mariadb", func(f *api.CheckFacts) { f.Server.Boot["rpl_semi_sync_slave_enabled"] = "1" }, "1"},
	{"check.grants", api.CheckFailed, "", func(f *api.CheckFacts) { f.Server.MissingGrants = []string{"SUPER"} }, "SUPER"},
	{"check.events", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.Events, f.Server.MissingEventGrants = 3, []string{"SET USER"} }, "3, and after"},
	{"check.events", api.CheckWarning, "mysql", func(f *api.CheckFacts) { f.Server.MissingEventGrants = []string{"EVENT"} }, "cannot be seen"},
	{"check.replication-account", api.CheckFailed, "", func(f *api.CheckFacts) { f.Server.Replication = "no account repl" }, "no account repl"},
	{"check.bypass", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.Bypass = []string{"'boss'@'%'"} }, "in spite"},
	{"check.engine", api.CheckFailed, "", func(f *api.CheckFacts) { f.Server.OtherTables, f.Server.OtherCount = []string{"app.old (MyISAM)"}, 3 }, "app.old (MyISAM) and 2 more"},
	{"check.xa", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.XAStarts = 7 }, "7"},
	{"check.problems", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.Problems = []string{"Something."} }, "Something."},
	{"check.server-id", api.CheckFailed, "", variableIs("server_id", "1"), "as db1"},
	{"check.server-id", api.CheckFailed, "", variableIs("server_id", "0"), "0"},
	{"check.gtid-domain", api.CheckFailed, "mariadb", variableIs("gtid_domain_id", "5"), "5"},
	{"check.version", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.Version = "11.8.2-MariaDB" }, "11.8.2"},
	{"check.version", api.CheckFailed, "mariadb", func(f *api.CheckFacts) { f.Server.Dialect = "other" }, "other"},
	{"check.same", api.CheckFailed, "", variableIs("innodb_page_size", "4096"), "4096"},
	{"check.same", api.CheckWarning, "", variableIs("sql_mode", ""), ""},
	{"check.disk-free", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.FreeBytes = 1e9 }, "1.0 GB"},
	{"check.disk-free", api.CheckWarning, "", func(f *api.CheckFacts) { f.Server.DiskError = "no such directory" }, "no such directory"},
}

// TestEveryWrongIsNamed: exactly its row names each wrong, on its node, with what it saw and what to do.
func TestEveryWrongIsNamed(t *testing.T) {
	for _, c := range changes {
		for _, dialect := range []string{"mariadb", "mysql"} {
			if c.dialect != "" && c.dialect != dialect {
				continue
			}
			facts := cluster(dialect)
			c.do(&facts[1])
			got := Judge("db1", facts)
			hit := false
			var wrong []api.CheckRow
			for _, r := range got.Rows {
				if r.Result == api.CheckOK {
					continue
				}
				wrong = append(wrong, r)
				if r.Rule == c.code && r.Node == "db2" && r.Result == c.result && strings.Contains(r.Current, c.current) && r.Required != "" && r.Mend != "" {
					hit = true
				} else if r.Rule != c.code && !strings.HasPrefix(r.Rule, "check.boot-") { // a lost option file is lost to all its rows
					t.Errorf("%s %q also blames %+v", c.code, c.current, r)
				}
			}
			if !hit || got.OK == (c.result == api.CheckFailed) {
				t.Errorf("%s %q on %s is not named; ok %v, %+v", c.code, c.current, dialect, got.OK, wrong)
			}
		}
	}
}

func TestEveryRowHasACase(t *testing.T) {
	for _, code := range Codes() {
		if code != "check.lease-budget" && !slices.ContainsFunc(changes, func(c change) bool { return c.code == code }) {
			t.Errorf("%s has no case", code)
		}
	}
}

func TestListsAreLists(t *testing.T) {
	raw, err := json.Marshal(Judge("db1", nil))
	if err != nil || strings.Contains(string(raw), "null") {
		t.Errorf("%s, %v", raw, err)
	}
}
