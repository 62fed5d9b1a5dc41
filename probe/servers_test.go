package probe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/highbase/highbase/mysqld"
)

// template is a data directory with the accounts, made once for all tests of a server.
type template struct {
	once sync.Once
	dir  string
	err  error
}

var templates = map[string]*template{"mariadb": {}, "mysql": {}}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, t := range templates {
		if t.dir != "" {
			os.RemoveAll(t.dir)
		}
	}
	os.Exit(code)
}

// eachServer runs a test on every server, or on the one that HIGHBASE_SERVER names.
func eachServer(t *testing.T, test func(t *testing.T, dialect string)) {
	for _, dialect := range []string{"mariadb", "mysql"} {
		if only := os.Getenv("HIGHBASE_SERVER"); only == "" || only == dialect {
			t.Run(dialect, func(t *testing.T) { test(t, dialect) })
		}
	}
}

// daemon is the server's program: MariaDB as installed, MySQL from where scripts/unpack-server.sh puts it.
func daemon(dialect string) (string, error) {
	if dialect == "mariadb" {
		return exec.LookPath("mariadbd")
	}
	servers := os.Getenv("HIGHBASE_SERVERS")
	if servers == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		servers = filepath.Join(cache, "highbase", "servers")
	}
	return exec.LookPath(filepath.Join(servers, "mysql", "usr/sbin/mysqld"))
}

// dataTemplate makes the template once and skips the test where there is no server.
func dataTemplate(t *testing.T, dialect string) string {
	t.Helper()
	if _, err := daemon(dialect); err != nil {
		if os.Getenv("HIGHBASE_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skipf("skipping: %v", err)
	}
	made := templates[dialect]
	made.once.Do(func() { made.dir, made.err = makeTemplate(dialect) })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return filepath.Join(made.dir, "data")
}

// makeTemplate installs a database. Only one such program runs on this machine at a time.
func makeTemplate(dialect string) (string, error) {
	const path = "/tmp/highbase-install-db.lock"
	lock, err := os.Open(path) // first without O_CREATE: another user's file is not opened with it in a directory like /tmp
	if os.IsNotExist(err) {
		lock, err = os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	}
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "hb-probe-")
	if err != nil {
		return "", err
	}
	program, errProgram := daemon(dialect)
	manager, errManager := mysqld.ManagerGrants(dialect, "'"+managerName+"'@'localhost'")
	if err := errors.Join(errProgram, errManager); err != nil {
		return dir, err
	}
	statements := append([]string{
		"FLUSH PRIVILEGES", "CREATE DATABASE highbase", "CREATE DATABASE app",
		"CREATE USER '" + managerName + "'@'localhost' IDENTIFIED BY '" + managerPassword + "'",
		"CREATE USER '" + replName + "'@'%' IDENTIFIED BY '" + replPassword + "'",
		"CREATE USER 'app'@'%' IDENTIFIED BY 'app'", "GRANT ALL ON app.* TO 'app'@'%'",
	}, append(manager, mysqld.ReplicationGrants(dialect, "'"+replName+"'@'%'")...)...)
	// Never the machine's /tmp: a server that starts removes what it finds there of others' temporary tables.
	common := []string{"--no-defaults", "--user=root", "--datadir=" + filepath.Join(dir, "data"), "--tmpdir=" + dir}
	if dialect == "mysql" {
		return dir, initializeMySQL(program, dir, common, append(statements, "SHUTDOWN"))
	}
	if out, err := exec.Command("mariadb-install-db", append(common, "--skip-test-db",
		"--auth-root-authentication-method=socket", "--innodb-log-file-size=8M")...).CombinedOutput(); err != nil {
		return dir, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	boot := exec.Command(program, append(common, "--bootstrap", "--skip-log-bin", "--innodb-log-file-size=8M")...)
	boot.Stdin = strings.NewReader("DELETE FROM mysql.global_priv WHERE User='';\n" + strings.Join(statements, ";\n") + ";\n")
	if out, err := boot.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("creating accounts: %w: %s", err, out)
	}
	return dir, nil
}

// initializeMySQL needs a second run for the accounts.
func initializeMySQL(program, dir string, common, statements []string) error {
	file := filepath.Join(dir, "accounts.sql")
	if err := os.WriteFile(file, []byte(strings.Join(statements, ";\n")+";\n"), 0o600); err != nil {
		return err
	}
	common = append(common, "--innodb-redo-log-capacity=16M", "--innodb-flush-method=fsync", "--loose-mysqlx=OFF")
	for _, more := range [][]string{{"--initialize-insecure"}, {"--skip-networking", "--skip-log-bin",
		"--socket=" + filepath.Join(dir, "s"), "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + file}} {
		if out, err := exec.Command(program, append(common, more...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("initialising MySQL: %w: %s", err, out)
		}
	}
	return os.Remove(filepath.Join(dir, "data", "auto.cnf"))
}

// command is the command line of a host's server.
func (h *host) command(t *testing.T) []string {
	t.Helper()
	program, err := daemon(h.dialect)
	if err != nil {
		t.Fatal(err)
	}
	options := []string{program, "--no-defaults", "--user=root", "--datadir=" + h.datadir, "--tmpdir=" + h.dir, "--socket=" + h.socket,
		fmt.Sprintf("--port=%d", h.port), "--bind-address=127.0.0.1", "--skip-name-resolve", "--server-id=1", "--log-bin=binlog",
		"--sync-binlog=1", "--innodb-buffer-pool-size=16M", "--innodb-flush-method=fsync"}
	if h.dialect == "mysql" {
		return append(options, "--log-replica-updates=ON", "--gtid-mode=ON", "--enforce-gtid-consistency=ON",
			"--innodb-redo-log-capacity=16M", "--performance-schema=ON", "--table-open-cache=200", "--loose-mysqlx=OFF")
	}
	return append(options, "--log-slave-updates", "--gtid-strict-mode", "--binlog-format=ROW", "--innodb-log-file-size=8M", "--performance-schema=OFF",
		"--rpl-semi-sync-master-timeout=4294967295", "--rpl-semi-sync-master-wait-point=AFTER_SYNC", "--rpl-semi-sync-master-wait-no-slave=ON")
}
