package mysqld

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// gone: nothing that was given up on these connections may take effect from now on.
func (n *node) gone(left map[uint64]serverConnection) {
	n.t.Helper()
	all, err := rows(testContext(n.t), n.boss, "SHOW FULL PROCESSLIST")
	n.must(err)
	for _, r := range all {
		if _, given := left[r.number("Id")]; given {
			n.t.Errorf("node %d: connection %s is still there: %s", n.id, r["Id"], r["Info"])
		}
	}
}

// holdThread stops the server's thread of a connection, as a busy machine may, until release.
func (n *node) holdThread(number uint64) (release func()) {
	n.t.Helper()
	query := "SELECT TID AS tid FROM information_schema.PROCESSLIST WHERE ID=?"
	if n.kind.dialect == "mysql" {
		query = "SELECT THREAD_OS_ID AS tid FROM performance_schema.threads WHERE PROCESSLIST_ID=?"
	}
	var tid int
	n.must(n.boss.QueryRowContext(testContext(n.t), query, number).Scan(&tid))
	held, done, free := make(chan error), make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // who traces is a thread; it ends with this
		err := unix.PtraceAttach(tid)
		if err == nil {
			_, err = unix.Wait4(tid, nil, unix.WALL, nil)
		}
		held <- err
		<-free
		if err == nil {
			err = unix.PtraceDetach(tid)
		}
		done <- err
	}()
	n.must(<-held)
	return func() { close(free); n.must(<-done) }
}

// TestUnreadStatementLeftBehind: of a statement that was given up the server may not have read anything yet. Nothing
// is said to be done before its connection is gone: the kill alone does not end it.
func TestUnreadStatementLeftBehind(t *testing.T) { eachServer(t, testUnreadStatementLeftBehind) }

func testUnreadStatementLeftBehind(t *testing.T, k *kind) {
	n := cluster(t, k, 1, false)[0]
	ctx := testContext(t)
	n.must(n.SetReadOnly(ctx))
	conn, err := n.fresh.Conn(ctx)
	n.must(err)
	defer conn.Close()
	one, err := n.connection(ctx, conn)
	n.must(err)
	release := n.holdThread(one.number)
	late := make(chan error, 1)
	go func() { late <- execute(ctx, conn, n.words().writable...) }()
	n.abandoned.add(one)
	if err := n.SetReadOnly(short(t)); n.Classify(err) != FaultHung {
		t.Errorf("beside a statement that may still take effect: %v", err)
	}
	release()
	n.must(n.SetReadOnly(ctx))
	n.gone(map[uint64]serverConnection{one.number: one})
	if left := n.abandoned.all(); len(left) != 0 {
		t.Errorf("remembered for good: %v", left)
	}
	t.Logf("the client of it heard: %v", <-late)
	if !n.status().ReadOnly {
		t.Error("a statement that was given up had the last word")
	}
}

// TestNumberOfAnotherRun: a server that was started anew gives its numbers again; what stands there is another's.
func TestNumberOfAnotherRun(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := cluster(t, k, 1, false)[0]
		ctx := testContext(t)
		conn, err := n.fresh.Conn(ctx)
		n.must(err)
		defer conn.Close()
		one, err := n.connection(ctx, conn)
		n.must(err)
		one.run.Start--
		n.abandoned.add(one)
		n.must(n.SetWritable(ctx))
		n.must(conn.PingContext(ctx))
		if left := n.abandoned.all(); len(left) != 0 {
			t.Errorf("remembered for good: %v", left)
		}
	})
}
