package mysqld

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	t.Parallel()
	got := parseOptions("/usr/sbin/mariadbd would have been started with the following arguments:\n" +
		"--user=mysql --read-only --sync_binlog=0 --skip-slave-start --skip-log-bin --loose-rpl-semi-sync-slave-enabled=1 --bind_address=* --sync-binlog=1 \n")
	want := map[string]string{"user": "mysql", "read_only": "ON", "sync_binlog": "1", "skip_slave_start": "ON", "log_bin": "OFF", "rpl_semi_sync_slave_enabled": "1", "bind_address": "*"}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := parseOptions("nothing"); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestDefaultsOf(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"mariadbd --defaults-file=/etc/my.cnf --user=x":                        "--defaults-file=/etc/my.cnf",
		"ld.so --library-path /l /usr/sbin/mysqld --defaults-file=/a --port=1": "--library-path /l /usr/sbin/mysqld --defaults-file=/a",
		"mysqld --user=mysql": "",
	} {
		if got, err := defaultsOf(strings.Split(command, " ")); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", command, got, err)
		}
	}
	if _, err := defaultsOf([]string{"mysqld", "--no-defaults"}); err == nil {
		t.Error("--no-defaults has option files")
	}
}

func TestGlobalPrivileges(t *testing.T) {
	t.Parallel()
	for grant, want := range map[string][]string{
		"GRANT RELOAD, PROCESS ON *.* TO `a`@`b` IDENTIFIED BY PASSWORD '*X'": {"RELOAD", "PROCESS"},
		"GRANT ALL PRIVILEGES ON *.* TO `a`@`b` WITH GRANT OPTION":            {"ALL PRIVILEGES"},
		"GRANT ALL PRIVILEGES ON `x`.* TO `a`@`b`":                            nil,
		"GRANT PROXY ON ''@'%' TO 'root'@'localhost'":                         nil,
	} {
		if got := globalPrivileges(grant); !slices.Equal(got, want) {
			t.Errorf("%q: %q", grant, got)
		}
	}
}

// TestFacts: on a real server, what it would boot with by itself, and what an account lacks.
func TestFacts(t *testing.T) { eachServer(t, testFacts) }

func testFacts(t *testing.T, k *kind) {
	n := newNode(t, k, 1)
	file := filepath.Join(n.dir, "my.cnf")
	if err := os.WriteFile(file, []byte("[mysqld]\nread_only\nsync-binlog=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := n.command()
	command[1] = "--defaults-file=" + file
	var err error
	n.service, err = NewService(ServiceConfig{Kind: "child", Dialect: k.dialect, Socket: n.socket, Command: command, PIDFile: filepath.Join(n.dir, "pid"), Log: filepath.Join(n.dir, "log")})
	n.must(err)
	n.start(StartOptions{})
	f, err := n.Facts(testContext(t))
	n.must(err)
	if f.BootError != nil || f.Boot["read_only"] != "ON" || f.Boot["sync_binlog"] != "1" || f.Boot["skip_slave_start"] != "" {
		t.Errorf("boot options %v, %v", f.Boot, f.BootError)
	}
	if len(f.MissingGrants) != 0 || f.Replication != "" || f.BypassError != nil || !slices.Contains(f.Bypass, "'boss'@'localhost'") {
		t.Errorf("accounts: %q, %q, %q, %v", f.MissingGrants, f.Replication, f.Bypass, f.BypassError)
	}
	if f.Variables["server_id"] != "1" || f.Variables["log_bin"] != "ON" {
		t.Errorf("variables: %v", f.Variables)
	}
	privilege := map[string]string{"mariadb": "BINLOG ADMIN", "mysql": "PERSIST_RO_VARIABLES_ADMIN"}[k.dialect]
	n.sql("SET GLOBAL read_only=0", "REVOKE "+privilege+" ON *.* FROM 'highbase'@'localhost'", "REVOKE REPLICATION SLAVE ON *.* FROM 'highbase_repl'@'%'")
	if f, err = n.Facts(testContext(t)); err != nil || !slices.Equal(f.MissingGrants, []string{privilege}) || !strings.Contains(f.Replication, "lacks") {
		t.Errorf("after revoking: %q, %q, %v", f.MissingGrants, f.Replication, err)
	}
}

// TestPersistedSettings: what MySQL must keep for its next start, and what of it is not.
func TestPersistedSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		persisted map[string]string
		weak      []string
	}{
		{nil, []string{"super_read_only", "skip_replica_start", "relay_log_recovery"}},
		{map[string]string{"super_read_only": "ON", "skip_replica_start": "1", "relay_log_recovery": "OFF"}, nil},
		{map[string]string{"super_read_only": "ON", "skip_replica_start": "ON", "relay_log_recovery": "0", "read_only": "OFF", "rpl_semi_sync_replica_enabled": "ON"},
			[]string{"read_only", "rpl_semi_sync_replica_enabled"}},
	} {
		var names []string
		for _, one := range weakened(unpersisted(c.persisted)) {
			names = append(names, strings.TrimPrefix(one.Name, persistedPrefix))
			if s := (mysqlDialect{}).mend(one); !strings.HasPrefix(s, "SET PERSIST_ONLY ") || strings.Contains(s, "read_only=OFF") {
				t.Errorf("mended with %q", s)
			}
		}
		if !slices.Equal(names, c.weak) {
			t.Errorf("of %v: %q", c.persisted, names)
		}
	}
}
