package mysqld

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// kind is a database server that the tests run on.
type kind struct {
	name, dialect string
	// unpacked: not the installed one, but one that scripts/unpack-server.sh NAME
	// has put into a folder.
	unpacked bool

	// A data directory, made once and copied for every server.
	once     sync.Once
	template string
	err      error
}

var kinds = []*kind{
	{name: "mariadb", dialect: "mariadb"},
	{name: "mysql", dialect: "mysql", unpacked: true},
	{name: "mariadb-11.8", dialect: "mariadb", unpacked: true},
}

// eachServer runs a test on every server that HIGHBASE_SERVER names, separated
// by commas; by default on MariaDB as installed and on MySQL.
func eachServer(t *testing.T, test func(*testing.T, *kind)) {
	t.Parallel()
	wanted := os.Getenv("HIGHBASE_SERVER")
	if wanted == "" {
		wanted = "mariadb,mysql"
	}
	for _, name := range strings.Split(wanted, ",") {
		i := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })
		if i < 0 {
			t.Fatalf("HIGHBASE_SERVER names %q, which no test knows", name)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, kinds[i])
		})
	}
}

// only skips a test on servers of another dialect, which have no such thing.
func (k *kind) only(t *testing.T, dialect, reason string) {
	if k.dialect != dialect {
		t.Skipf("skipping on %s: %s", k.name, reason)
	}
}

// program is the path of one of the server's programs.
func (k *kind) program(name string) (string, error) {
	if !k.unpacked {
		return exec.LookPath(name)
	}
	root, err := k.root()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"usr/sbin", "usr/bin"} {
		if path, err := exec.LookPath(filepath.Join(root, dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in %s: %w; scripts/unpack-server.sh %s puts it there", name, root, fs.ErrNotExist, k.name)
}

// root is where the script puts the server.
func (k *kind) root() (string, error) {
	if dir := os.Getenv("HIGHBASE_SERVERS"); dir != "" {
		return filepath.Join(dir, k.name), nil
	}
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "highbase", "servers", k.name), err
}

func (k *kind) daemon() (string, error) {
	return k.program(map[string]string{"mariadb": "mariadbd", "mysql": "mysqld"}[k.dialect])
}

// dataTemplate makes the template once. Where the server is not there the test
// is skipped, unless HIGHBASE_REQUIRE forbids that.
func (k *kind) dataTemplate(t *testing.T) string {
	t.Helper()
	if _, err := k.daemon(); err != nil {
		if os.Getenv("HIGHBASE_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skipf("skipping, no server: %v", err)
	}
	k.once.Do(func() { k.template, k.err = k.makeTemplate() })
	if k.err != nil {
		t.Fatal(k.err)
	}
	return filepath.Join(k.template, "data")
}

// makeTemplate initialises a data directory. Only one at a time on a machine:
// several at once starve each other.
func (k *kind) makeTemplate() (string, error) {
	const path = "/tmp/highbase-install-db.lock"
	lock, err := os.Open(path) // first without O_CREATE: another user's file is not opened with it in a directory like /tmp
	if os.IsNotExist(err) {
		lock, err = os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	}
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "hb-mysqld-")
	if err != nil {
		return "", err
	}
	grants, err := ManagerGrants(k.dialect, "'highbase'@'localhost'")
	if err != nil {
		return dir, err
	}
	grants = append(grants, "GRANT "+strings.Join(EventGrants(k.dialect, "10.11"), ", ")+" ON *.* TO 'highbase'@'localhost'")
	statements := accounts + strings.Join(append(grants, ReplicationGrants(k.dialect, "'highbase_repl'@'%'")...), ";\n") + ";\n"
	if k.dialect == "mysql" {
		return dir, k.initializeMySQL(dir, statements)
	}
	return dir, k.initializeMariaDB(dir, statements)
}

// accounts are created in the template: the manager and the replication account
// (their grants follow), an application and an all-powerful account. One
// statement stands on one line.
const accounts = `FLUSH PRIVILEGES;
CREATE USER 'highbase'@'localhost' IDENTIFIED BY 'manager secret';
CREATE USER 'highbase_repl'@'%' IDENTIFIED BY 'replication ''secret''';
CREATE USER 'app'@'localhost' IDENTIFIED BY 'app';
GRANT ALL ON app.* TO 'app'@'localhost';
CREATE USER 'boss'@'localhost' IDENTIFIED BY 'boss';
GRANT ALL ON *.* TO 'boss'@'localhost' WITH GRANT OPTION;
CREATE DATABASE app;
CREATE TABLE app.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v MEDIUMTEXT) ENGINE=InnoDB;
CREATE TABLE app.old (id BIGINT PRIMARY KEY) ENGINE=MyISAM;
`

func (k *kind) initializeMariaDB(dir, statements string) error {
	installer, errInstaller := k.program("mariadb-install-db")
	daemon, errDaemon := k.daemon()
	if err := errors.Join(errInstaller, errDaemon); err != nil {
		return err
	}
	// Never the machine's /tmp: a server that starts removes what it finds there of others' temporary tables.
	data, tmp := "--datadir="+filepath.Join(dir, "data"), "--tmpdir="+dir
	args := []string{"--no-defaults", data, tmp, "--user=" + currentUser(), "--auth-root-authentication-method=normal", "--skip-test-db"}
	if root, err := k.root(); k.unpacked {
		if err != nil {
			return err
		}
		args = append(args, "--basedir="+filepath.Join(root, "usr"))
	}
	if out, err := exec.Command(installer, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	boot := exec.Command(daemon, "--no-defaults", "--bootstrap", data, tmp, "--user="+currentUser())
	boot.Stdin = strings.NewReader(statements)
	if out, err := boot.CombinedOutput(); err != nil {
		return fmt.Errorf("creating accounts: %w: %s", err, out)
	}
	return nil
}

// initializeMySQL needs a second run for the accounts. Without auto.cnf each
// copy draws its own server_uuid.
func (k *kind) initializeMySQL(dir, statements string) error {
	daemon, err := k.daemon()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "accounts.sql")
	if err := os.WriteFile(file, []byte(statements+"SHUTDOWN;\n"), 0o600); err != nil {
		return err
	}
	common := []string{"--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--tmpdir=" + dir, "--user=" + currentUser(),
		"--innodb-redo-log-capacity=16M", "--innodb-flush-method=fsync", "--loose-mysqlx=OFF"}
	for _, more := range [][]string{{"--initialize-insecure"}, {"--skip-networking", "--skip-log-bin", "--performance-schema=OFF",
		"--socket=" + filepath.Join(dir, "s"), "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + file}} {
		if out, err := exec.Command(daemon, append(common, more...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("initialising MySQL: %w: %s", err, out)
		}
	}
	return os.Remove(filepath.Join(dir, "data", "auto.cnf"))
}

func currentUser() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

// command is the command line of a node's server.
func (n *node) command(extra ...string) []string {
	daemon, err := n.kind.daemon()
	n.must(err)
	options := []string{
		daemon, "--no-defaults", "--user=" + currentUser(), "--datadir=" + n.dataDir(), "--tmpdir=" + n.dir, "--socket=" + n.socket,
		"--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", n.port), fmt.Sprintf("--server-id=%d", n.id),
		"--log-bin=bin", "--relay-log=relay", "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1",
		"--innodb-buffer-pool-size=32M", "--innodb-flush-method=fsync", "--skip-name-resolve",
	}
	if n.kind.dialect == "mysql" {
		options = append(options, "--log-replica-updates=ON", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--loose-mysqlx=OFF",
			"--innodb-redo-log-capacity=16M", "--performance-schema=ON", "--max-connections=100", "--table-open-cache=200",
			"--loose-rpl-semi-sync-source-timeout=4294967295", "--loose-rpl-semi-sync-source-wait-point=AFTER_SYNC")
	} else {
		options = append(options, "--binlog-format=ROW", "--log-slave-updates", "--gtid-strict-mode", "--innodb-log-file-size=8M",
			"--performance-schema=OFF", "--rpl-semi-sync-master-timeout=4294967295", "--rpl-semi-sync-master-wait-point=AFTER_SYNC")
	}
	return append(options, extra...)
}
