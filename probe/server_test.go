package probe

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/internal/porttest"
	"github.com/highbase/highbase/mysqld"
)

// patience bounds every wait of these tests; it is no expectation.
const patience = 20 * time.Second

const (
	managerName, managerPassword = "highbase", "manager-secret"
	replName, replPassword       = "highbase_repl", "replication-secret"
)

// host is one real server with its prober.
type host struct {
	dialect              string
	dir, socket, datadir string
	port                 uint16
	service              mysqld.Service
	server               *mysqld.Server
	prober               *Prober
}

// newHost starts a server and a prober. The data directory is below where, or below a directory of its own.
func newHost(t *testing.T, dialect, where string, change func(*Config), options ...string) *host {
	t.Helper()
	template := dataTemplate(t, dialect)
	dir, err := os.MkdirTemp("", "hb-probe-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, dir) })
	if where == "" {
		where = dir
	}
	h := &host{dialect: dialect, dir: dir, datadir: filepath.Join(where, "data"), socket: filepath.Join(dir, "s"), port: porttest.Free(t)}
	if out, err := exec.Command("cp", "-r", "--sparse=always", template, h.datadir).CombinedOutput(); err != nil {
		t.Fatalf("copying the data directory: %v: %s", err, out)
	}
	command := append(h.command(t), options...)
	h.service, err = mysqld.NewService(mysqld.ServiceConfig{Kind: "child", Dialect: dialect, Socket: h.socket, DataDir: h.datadir,
		Command: command, PIDFile: filepath.Join(dir, "pid"), Log: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.kill(t) })
	h.start(t)
	h.server, err = mysqld.Open(mysqld.Config{Dialect: dialect, Socket: h.socket, Host: "127.0.0.1", Port: h.port,
		ManagerUser: managerName, ManagerPassword: managerPassword, ReplicationUser: replName, ReplicationPassword: replPassword})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.server.Close() })
	h.probe(t, change)
	return h
}

// removeAll removes a directory in which the file of a disk's trial may still come and go: a prober that ends does not wait for a write.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		err := os.RemoveAll(dir)
		if err == nil {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline.C:
			t.Errorf("removing the server's directory: %v", err)
			return
		}
	}
}

// probe starts the prober of a host.
func (h *host) probe(t *testing.T, change func(*Config)) {
	t.Helper()
	cfg := Config{Database: h.server, Process: h.service, Login: Account{User: replName, Password: replPassword}, Socket: h.socket,
		Interval: 20 * time.Millisecond, HungAfter: 600 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.prober, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.prober.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	h.await(t, "up", func(st fsm.ServerStatus) bool { return st.State == fsm.ServerUp && st.Fault == "" })
}

func (h *host) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.service.Start(ctx, mysqld.StartOptions{}); err != nil {
		log, _ := os.ReadFile(filepath.Join(h.dir, "log"))
		t.Fatalf("%v\n%s", err, log)
	}
}

func (h *host) kill(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.service.Kill(ctx); err != nil {
		t.Error(err)
	}
}

// stop is a stop in good order by somebody else.
func (h *host) stop(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(h.pid(t), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// pid is the server's process.
func (h *host) pid(t *testing.T) int {
	t.Helper()
	pid, running, err := h.service.Running(context.Background())
	if err != nil || !running {
		t.Fatalf("no server: %v", err)
	}
	return pid
}

// await waits until the prober says what is wanted, woken by its changes and now and then by time.
func (h *host) await(t *testing.T, what string, want func(fsm.ServerStatus) bool) fsm.ServerStatus {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		if st := h.prober.Server(); want(st) {
			return st
		}
		select {
		case <-h.prober.Changed():
		case <-time.After(20 * time.Millisecond):
		case <-deadline.C:
			t.Fatalf("waiting for %s: still %+v", what, h.prober.Server())
		}
	}
}

func (h *host) awaitFault(t *testing.T, state fsm.ServerState, fault string) fsm.ServerStatus {
	t.Helper()
	return h.await(t, string(state)+" with "+fault, func(st fsm.ServerStatus) bool { return st.State == state && st.Fault == fault })
}

// connect opens a connection as somebody, over TCP.
func (h *host) connect(t *testing.T, user, password string) *sql.DB {
	t.Helper()
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = user, password, "tcp", fmt.Sprintf("127.0.0.1:%d", h.port)
	c.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	return db
}
