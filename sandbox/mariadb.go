package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mariadb builds MariaDB hosts; tried with 10.11.
type mariadb struct{}

// redoLogSize is small so that copies are cheap; a seed made with it is started with it.
const redoLogSize = "16M"

func (mariadb) program(p plan) (string, error) { return findServerProgram(p, "mariadbd") }

func (m mariadb) seed(ctx context.Context, p plan, datadir string) error {
	installer, err := findServerProgram(p, "mariadb-install-db")
	if err != nil {
		return err
	}
	program, err := m.program(p)
	if err != nil {
		return err
	}
	// Never the machine's /tmp: temporary tables are named after the process, whose number is small and common in a
	// PID namespace, and a starting server removes those of its number.
	tmp := p.path("seed.tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
	}
	tmpdir := "--tmpdir=" + tmp
	unlock, err := lockInstall()
	if err != nil {
		return err
	}
	defer unlock()
	install := []string{installer, "--no-defaults", "--user=root", "--datadir=" + datadir, "--skip-test-db",
		"--auth-root-authentication-method=socket", "--skip-name-resolve", "--innodb-log-file-size=" + redoLogSize, tmpdir}
	if p.ServerPath != "" { // else it would look for the server where Debian installs one
		install = append(install, "--basedir="+filepath.Dir(filepath.Dir(program)))
	}
	if err := run(ctx, "", install...); err != nil {
		return fmt.Errorf("initialising a data directory: %w", err)
	}
	if err := run(ctx, m.accounts(p.Secrets), program, "--no-defaults", "--bootstrap", "--user=root", "--datadir="+datadir,
		"--skip-log-bin", "--innodb-log-file-size="+redoLogSize, tmpdir); err != nil {
		return fmt.Errorf("creating the accounts: %w", err)
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("removing a temporary directory: %w", err)
	}
	return nil
}

// accounts is the SQL that creates the three accounts, one statement to a line as bootstrap mode wants it. root stays
// as installed: over the socket only, for whoever is root in the sandbox.
func (mariadb) accounts(s secrets) string {
	return strings.Join([]string{
		"DELETE FROM mysql.global_priv WHERE User='';", // anonymous accounts would shadow 'app'@'%' on the socket
		"FLUSH PRIVILEGES;",                            // bootstrap mode starts without grant tables
		"CREATE DATABASE app;",
		fmt.Sprintf("CREATE USER 'app'@'%%' IDENTIFIED BY '%s';", s.App),
		"GRANT ALL ON app.* TO 'app'@'%';",
		fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY '%s';", replicationUser, s.Replication),
		"GRANT REPLICATION SLAVE ON *.* TO '" + replicationUser + "'@'%';",
		fmt.Sprintf("CREATE USER '%s'@'localhost' IDENTIFIED BY '%s';", managerUser, s.Manager),
		"GRANT SLAVE MONITOR, BINLOG MONITOR, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, READ_ONLY ADMIN, " +
			"CONNECTION ADMIN, PROCESS, BINLOG ADMIN, RELOAD, SUPER, EVENT, SET USER ON *.* TO '" + managerUser + "'@'localhost';",
		"GRANT SELECT ON mysql.* TO '" + managerUser + "'@'localhost';",
		"GRANT ALL ON highbase.* TO '" + managerUser + "'@'localhost';",
	}, "\n") + "\n"
}

func (mariadb) individualise(string) error { return nil }

// options gives a server that is safe until somebody decides: read-only, replication stopped, semi-sync off, and
// durable as the guarantees of a primary need it.
func (mariadb) options(p plan, h planHost) string {
	lines := []string{
		"[client]", // for tools run on the host
		"socket = " + p.socket(h.Name),
		"[mariadbd]",
		"user = root",
		"datadir = " + p.datadir(h.Name),
		"tmpdir = " + p.path(h.Name, "tmp"),
		"socket = " + p.socket(h.Name),
		"pid_file = " + p.pidFile(h.Name),
		"log_error = " + p.serverLog(h.Name),
		fmt.Sprintf("port = %d", mysqlPort),
		"bind_address = *",
		"skip_name_resolve",
		"max_connections = 200",
		fmt.Sprintf("server_id = %d", h.ServerID),
		"report_host = " + h.Address,
		"log_bin = binlog",
		"relay_log = relay",
		"log_slave_updates = ON",
		"gtid_strict_mode = ON",
		"binlog_format = ROW",
		"sync_binlog = 1",
		"innodb_flush_log_at_trx_commit = 1",
		"read_only = ON",
		"skip_slave_start",
		"slave_net_timeout = 60",
		"rpl_semi_sync_master_enabled = OFF",
		"rpl_semi_sync_slave_enabled = OFF",
		"rpl_semi_sync_master_timeout = 4294967295",
		"rpl_semi_sync_master_wait_point = AFTER_SYNC",
		"rpl_semi_sync_master_wait_no_slave = ON",
		"innodb_buffer_pool_size = 64M",
		"innodb_log_file_size = " + redoLogSize,
		"performance_schema = OFF",
		"event_scheduler = ON", // as it is on MySQL
		"character_set_server = utf8mb4",
		"!include " + p.breakFile(h.Name), // empty, unless the service is to fail
	}
	return strings.Join(lines, "\n") + "\n"
}

func (mariadb) brokenOptions() string {
	return "[mariadbd]\nhighbase_sandbox_made_this_start_fail = 1\n"
}

func (m mariadb) command(p plan, h planHost) ([]string, error) {
	program, err := m.program(p)
	if err != nil {
		return nil, err
	}
	return []string{program, "--defaults-file=" + p.optionFile(h.Name)}, nil
}
