package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mysqlServer builds MySQL hosts; tried with 9.7.
type mysqlServer struct{}

// program is $PATH's only if that is MySQL: Debian's MariaDB has a mysqld too.
func (mysqlServer) program(p plan) (string, error) {
	if p.ServerPath != "" {
		return findServerProgram(p, "mysqld")
	}
	unpacked, err := unpackedServer("mysql")
	if err != nil {
		return "", err
	}
	p.ServerPath = unpacked
	program, missing := findServerProgram(p, "mysqld")
	if missing == nil {
		return program, nil
	}
	p.ServerPath = ""
	if program, err = findServerProgram(p, "mysqld"); err == nil {
		version, err := exec.Command(program, "--no-defaults", "--version").Output()
		if err == nil && !strings.Contains(string(version), "MariaDB") {
			return program, nil
		}
	}
	return "", fmt.Errorf("no MySQL: %w, and none in $PATH; scripts/unpack-server.sh mysql puts it there, or name its place with --server-path", missing)
}

// unpackedServer is where scripts/unpack-server.sh puts a server: $HIGHBASE_SERVERS/NAME.
func unpackedServer(name string) (string, error) {
	if dir := os.Getenv("HIGHBASE_SERVERS"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the directory of unpacked servers (name it in HIGHBASE_SERVERS): %w", err)
	}
	return filepath.Join(cache, "highbase", "servers", name), nil
}

// seed needs two runs: MySQL makes no accounts while it initialises. The second writes no binary log, so no history
// begins, and ends by a statement.
func (m mysqlServer) seed(ctx context.Context, p plan, datadir string) error {
	program, err := m.program(p)
	if err != nil {
		return err
	}
	tmp := p.path("seed.tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
	}
	accounts := filepath.Join(tmp, "accounts.sql")
	if err := os.WriteFile(accounts, []byte(m.accounts(p.Secrets)), 0o600); err != nil {
		return fmt.Errorf("writing the accounts: %w", err)
	}
	unlock, err := lockInstall()
	if err != nil {
		return err
	}
	defer unlock()
	common := []string{program, "--no-defaults", "--user=root", "--datadir=" + datadir, "--tmpdir=" + tmp,
		"--innodb-redo-log-capacity=" + redoLogSize, "--innodb-flush-method=fsync", "--loose-mysqlx=OFF"}
	if err := run(ctx, "", append(common, "--initialize-insecure")...); err != nil {
		return fmt.Errorf("initialising a data directory: %w", err)
	}
	if err := run(ctx, "", append(common, "--skip-networking", "--skip-log-bin", "--performance-schema=OFF",
		"--socket="+filepath.Join(tmp, "s"), "--pid-file="+filepath.Join(tmp, "pid"), "--init-file="+accounts)...); err != nil {
		return fmt.Errorf("creating the accounts: %w", err)
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("removing a temporary directory: %w", err)
	}
	return nil
}

// accounts is the SQL that creates the three accounts, one statement to a line as an init file wants it. root logs in
// over the socket only, whoever is root in the sandbox.
func (mysqlServer) accounts(s secrets) string {
	manager := "'" + managerUser + "'@'localhost'"
	return strings.Join([]string{
		"CREATE DATABASE app;",
		fmt.Sprintf("CREATE USER 'app'@'%%' IDENTIFIED BY '%s';", s.App),
		"GRANT ALL ON app.* TO 'app'@'%';",
		fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY '%s';", replicationUser, s.Replication),
		"GRANT REPLICATION SLAVE ON *.* TO '" + replicationUser + "'@'%';",
		"GRANT BACKUP_ADMIN ON *.* TO '" + replicationUser + "'@'%';",
		fmt.Sprintf("CREATE USER %s IDENTIFIED BY '%s';", manager, s.Manager),
		"GRANT REPLICATION CLIENT, REPLICATION SLAVE, PROCESS, RELOAD ON *.* TO " + manager + ";",
		"GRANT REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, PERSIST_RO_VARIABLES_ADMIN, CONNECTION_ADMIN, SYSTEM_USER, CLONE_ADMIN ON *.* TO " + manager + ";",
		"GRANT EVENT, SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER ON *.* TO " + manager + ";",
		"GRANT SELECT ON performance_schema.* TO " + manager + ";",
		"GRANT SELECT ON mysql.* TO " + manager + ";",
		"GRANT ALL ON highbase.* TO " + manager + ";",
		"INSTALL PLUGIN auth_socket SONAME 'auth_socket.so';",
		"ALTER USER 'root'@'localhost' IDENTIFIED WITH auth_socket;",
		"SHUTDOWN;",
	}, "\n") + "\n"
}

// individualise: each server draws a server_uuid of its own when it finds none.
func (mysqlServer) individualise(datadir string) error {
	return os.Remove(filepath.Join(datadir, "auto.cnf"))
}

// options gives a server that is safe until somebody decides, as mariadb.options does.
func (mysqlServer) options(p plan, h planHost) string {
	lines := []string{
		"[client]", // for tools run on the host
		"socket = " + p.socket(h.Name),
		"[mysqld]",
		"user = root",
		"datadir = " + p.datadir(h.Name),
		"tmpdir = " + p.path(h.Name, "tmp"),
		"socket = " + p.socket(h.Name),
		"pid_file = " + p.pidFile(h.Name),
		"log_error = " + p.serverLog(h.Name),
		fmt.Sprintf("port = %d", mysqlPort),
		"bind_address = *",
		"loose_mysqlx = OFF",
		"skip_name_resolve",
		"max_connections = 200",
		fmt.Sprintf("server_id = %d", h.ServerID),
		"report_host = " + h.Address,
		"log_bin = binlog",
		"relay_log = relay",
		"log_replica_updates = ON",
		"gtid_mode = ON",
		"enforce_gtid_consistency = ON",
		"sync_binlog = 1",
		"innodb_flush_log_at_trx_commit = 1",
		"read_only = ON",
		"super_read_only = ON",
		"skip_replica_start = ON",
		"relay_log_recovery = OFF",
		"replica_net_timeout = 60",
		"loose_rpl_semi_sync_source_enabled = OFF",
		"loose_rpl_semi_sync_replica_enabled = OFF",
		"loose_rpl_semi_sync_source_timeout = 4294967295",
		"loose_rpl_semi_sync_source_wait_point = AFTER_SYNC",
		"loose_rpl_semi_sync_source_wait_no_replica = ON",
		"innodb_buffer_pool_size = 64M",
		"innodb_redo_log_capacity = " + redoLogSize,
		"innodb_flush_method = fsync", // a memory disk knows no other
		"table_open_cache = 400",
		"performance_schema = ON", // where replication threads and open appliers are seen
		"character_set_server = utf8mb4",
	}
	if p.Bare { // hbd loads them itself, and the server complains of a second time
		lines = append(lines, "plugin_load_add = semisync_source.so", "plugin_load_add = semisync_replica.so")
	}
	lines = append(lines, "!include "+p.breakFile(h.Name)) // empty, unless the service is to fail
	return strings.Join(lines, "\n") + "\n"
}

// brokenOptions make it fail before it touches its data. An unknown option would be noticed only after the recovery: the
// tail committed, a new binary log begun.
func (mysqlServer) brokenOptions() string {
	return "[mysqld]\ndatadir = /highbase-sandbox-made-this-start-fail\n"
}

func (m mysqlServer) command(p plan, h planHost) ([]string, error) {
	program, err := m.program(p)
	if err != nil {
		return nil, err
	}
	return []string{program, "--defaults-file=" + p.optionFile(h.Name)}, nil
}
