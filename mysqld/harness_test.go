package mysqld

import (
	"context"
	"database/sql"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/internal/porttest"
)

// testTimeout bounds a test's waiting; it says nothing about speed.
const testTimeout = 60 * time.Second

const (
	managerUser, managerPassword         = "highbase", "manager secret"
	replicationUser, replicationPassword = "highbase_repl", "replication 'secret'"
)

func TestMain(m *testing.M) {
	// Connections die here on purpose.
	if err := mysql.SetLogger(log.New(io.Discard, "", 0)); err != nil {
		panic(err)
	}
	code := m.Run()
	for _, k := range kinds {
		if k.template != "" {
			_ = os.RemoveAll(k.template)
		}
	}
	os.Exit(code)
}

// node is one real server of a test.
type node struct {
	*Server
	kind    *kind
	t       *testing.T
	id      int
	dir     string
	port    uint16
	socket  string
	service Service
	boss    *sql.DB
	app     *sql.DB
}

// testContext ends with the test.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// newNode makes a server that is not started yet; extra are server options.
func newNode(t *testing.T, k *kind, id int, extra ...string) *node {
	t.Helper()
	template := k.dataTemplate(t)
	dir, err := os.MkdirTemp("", "hb-") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("cp", "-a", "--reflink=auto", "--sparse=always", template, dir).CombinedOutput(); err != nil {
		t.Fatalf("copying the template: %v: %s", err, out)
	}
	n := &node{kind: k, t: t, id: id, dir: dir, port: porttest.Free(t), socket: filepath.Join(dir, "s")}
	n.service = n.newService(extra...)
	n.Server, err = Open(Config{
		Dialect: k.dialect, Socket: n.socket, Host: "127.0.0.1", Port: n.port,
		ManagerUser: managerUser, ManagerPassword: managerPassword,
		ReplicationUser: replicationUser, ReplicationPassword: replicationPassword,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.boss, n.app = n.open("boss"), n.open("app")
	t.Cleanup(n.close)
	return n
}

// testWriter sends log lines to the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (n *node) open(account string) *sql.DB {
	db, err := sql.Open("mysql", account+":"+account+"@unix("+n.socket+")/app?interpolateParams=true")
	if err != nil {
		n.t.Fatal(err)
	}
	return db
}

func (n *node) close() {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := n.service.Kill(ctx); err != nil {
		n.t.Errorf("cleaning up node %d: %v", n.id, err)
	}
	if n.t.Failed() {
		if log, err := os.ReadFile(filepath.Join(n.dir, "log")); err == nil {
			n.t.Logf("log of node %d:\n%s", n.id, log)
		}
	}
	n.Server.Close()
	n.boss.Close()
	n.app.Close()
}

func (n *node) newService(extra ...string) Service {
	s, err := NewService(ServiceConfig{
		Kind: "child", Dialect: n.kind.dialect, Socket: n.socket, Command: n.command(extra...),
		PIDFile: filepath.Join(n.dir, "pid"), Log: filepath.Join(n.dir, "log"),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *node) dataDir() string { return filepath.Join(n.dir, "data") }

// start starts the server and fails the test if it does not come.
func (n *node) start(opts StartOptions) {
	n.t.Helper()
	if err := n.service.Start(testContext(n.t), opts); err != nil {
		log, _ := os.ReadFile(filepath.Join(n.dir, "log"))
		n.t.Fatalf("starting node %d: %v\n%s", n.id, err, log)
	}
}

// words are the server's.
func (n *node) words() words { return n.Server.dialect.words() }

func (n *node) source() Source { return Source{Host: "127.0.0.1", Port: n.port} }

func (n *node) pid() int {
	n.t.Helper()
	pid, running, err := n.service.Running(testContext(n.t))
	if err != nil || !running {
		n.t.Fatalf("node %d does not run: %v", n.id, err)
	}
	return pid
}

func (n *node) signal(sig syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(n.pid(), sig); err != nil {
		n.t.Fatal(err)
	}
	if sig == sigStop { // each thread goes on until it next leaves the kernel, and may give an answer meanwhile
		n.eventually("stopping every thread", n.stopped)
	}
}

// stopped tells whether every thread of the server is in the state T (proc(5)).
func (n *node) stopped() bool {
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(n.pid()) + "/task/*/stat")
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, t := range threads {
		raw, err := os.ReadFile(t)
		_, rest, found := strings.Cut(string(raw), ") ")
		if err != nil || !found || !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return true
}

func (n *node) status() Status {
	n.t.Helper()
	st, err := n.Status(testContext(n.t))
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

// must fails the test on an error.
func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("node %d: %v", n.id, err)
	}
}

// sql runs statements as the all-powerful account.
func (n *node) sql(statements ...string) {
	n.t.Helper()
	for _, s := range statements {
		if _, err := n.boss.ExecContext(testContext(n.t), s); err != nil {
			n.t.Fatalf("node %d: %s: %v", n.id, s, err)
		}
	}
}

// count is the number of rows in app.t.
func (n *node) count() int {
	n.t.Helper()
	var c int
	if err := n.boss.QueryRowContext(testContext(n.t), "SELECT COUNT(*) FROM app.t").Scan(&c); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// insert writes rows as the application and returns the first error.
func (n *node) insert(ctx context.Context, rows int) error {
	for i := range rows {
		if _, err := n.app.ExecContext(ctx, "INSERT INTO app.t (v) VALUES (?)", i); err != nil {
			return err
		}
	}
	return nil
}

// eventually waits for a condition.
func (n *node) eventually(what string, cond func() bool) {
	n.t.Helper()
	ctx := testContext(n.t)
	if err := poll(ctx, func() (bool, error) { return cond(), nil }); err != nil {
		n.t.Fatalf("node %d: %s: %v; status %+v", n.id, what, err, n.status())
	}
}

// lead makes n a writable source; semiSync says whether commits wait.
func (n *node) lead(semiSync bool) {
	n.t.Helper()
	ctx := testContext(n.t)
	n.must(n.SetBarrierWritable(ctx))
	n.must(n.EnsureEpochTable(ctx))
	if semiSync {
		n.must(n.EnableSourceSemiSync(ctx, 1))
	}
	n.must(n.SetWritable(ctx))
}

// follow makes n a replica of src and waits until it is connected.
func (n *node) follow(src *node, semiSync bool) {
	n.t.Helper()
	ctx := testContext(n.t)
	n.must(n.ReplicaSemiSync(ctx, semiSync))
	_, err := n.Follow(ctx, src.source())
	n.must(err)
	n.connected(semiSync)
}

func (n *node) connected(semiSync bool) {
	n.t.Helper()
	n.eventually("following", func() bool {
		st := n.status()
		return st.IORunning == ThreadYes && st.SQLRunning && st.ReplicaSemiSyncActive == semiSync
	})
}

// cluster starts n servers at once: the first leads, the others follow it.
func cluster(t *testing.T, k *kind, size int, semiSync bool) []*node {
	t.Helper()
	nodes := make([]*node, size)
	var wait sync.WaitGroup
	for i := range nodes {
		nodes[i] = newNode(t, k, i+1)
	}
	for _, n := range nodes {
		wait.Go(func() {
			if err := n.service.Start(testContext(t), StartOptions{}); err != nil {
				t.Errorf("starting node %d: %v", n.id, err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	nodes[0].lead(false)
	for _, n := range nodes[1:] {
		n.follow(nodes[0], semiSync)
	}
	if semiSync {
		nodes[0].must(nodes[0].EnableSourceSemiSync(testContext(t), 1))
	}
	return nodes
}

// sameRows compares the tables by checksum.
func sameRows(t *testing.T, a, b *node) {
	t.Helper()
	for _, n := range []*node{b} {
		n.eventually("catching up", func() bool {
			ok, err := n.Contains(testContext(t), a.status().Executed)
			return err == nil && ok && n.count() == a.count()
		})
	}
	sum := func(n *node) (sum int64) {
		var table string
		if err := n.boss.QueryRowContext(testContext(t), "CHECKSUM TABLE app.t EXTENDED").Scan(&table, &sum); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	if sum(a) != sum(b) {
		t.Fatalf("rows differ: node %d has %d, node %d has %d", a.id, a.count(), b.id, b.count())
	}
}

// address is where the server listens.
func (n *node) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(n.port))) }
