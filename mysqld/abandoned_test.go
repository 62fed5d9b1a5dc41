package mysqld

import (
	"context"
	"database/sql"
	"errors"
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

// holdThread stops the server's thread of a connection, as a busy machine may, until release. On MySQL it is of no use: who kills closes the socket there,
// and the thread, which was stopped in a read, takes that up again on whatever connection has the descriptor's number by then.
func (n *node) holdThread(number uint64) (release func()) {
	n.t.Helper()
	n.kind.only(n.t, "mariadb", "a stopped thread reads from another's connection after KILL")
	var tid int
	n.eventually("its thread resting, with no lock in hand", func() bool {
		return n.boss.QueryRowContext(testContext(n.t), "SELECT TID FROM information_schema.PROCESSLIST WHERE ID=? AND COMMAND='Sleep' AND INFO IS NULL", number).Scan(&tid) == nil
	})
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

// heldConnection is a connection of the manager's whose thread is stopped until release.
func (n *node) heldConnection() (conn *sql.Conn, name serverConnection, release func()) {
	n.t.Helper()
	ctx := testContext(n.t)
	conn, err := n.fresh.Conn(ctx)
	n.must(err)
	n.t.Cleanup(func() { _ = conn.Close() }) // the driver has closed it
	name, err = n.connection(ctx, conn)
	n.must(err)
	return conn, name, n.holdThread(name.number)
}

// TestUnreadStatementLeftBehind: of a statement that was given up the server may not have read anything yet. Nothing
// is said to be done before its connection is gone: the kill alone does not end it.
func TestUnreadStatementLeftBehind(t *testing.T) { eachServer(t, testUnreadStatementLeftBehind) }

func testUnreadStatementLeftBehind(t *testing.T, k *kind) {
	n := cluster(t, k, 1, false)[0]
	ctx := testContext(t)
	n.must(n.SetReadOnly(ctx))
	conn, one, release := n.heldConnection()
	if err := execute(short(t), conn, n.words().writable...); err == nil {
		t.Fatalf("a statement that the server does not read: %v", err)
	}
	n.abandoned.add(one)
	if err := n.SetReadOnly(short(t)); err == nil {
		t.Errorf("beside a statement that may still take effect: %v", err)
	}
	release()
	n.must(n.SetReadOnly(ctx))
	n.gone(map[uint64]serverConnection{one.number: one})
	if left := n.abandoned.all(); len(left) != 0 {
		t.Errorf("remembered for good: %v", left)
	}
	if !n.status().ReadOnly {
		t.Error("a statement that was given up had the last word")
	}
}

// TestLateStatementDoesNotEndSemiSync: a source that was asked to wait for acknowledgements waits, whatever was given up before and is still to be
// read by the server.
func TestLateStatementDoesNotEndSemiSync(t *testing.T) {
	eachServer(t, testLateStatementDoesNotEndSemiSync)
}

func testLateStatementDoesNotEndSemiSync(t *testing.T, k *kind) {
	n := cluster(t, k, 1, false)[0]
	ctx := testContext(t)
	n.must(n.EnableSourceSemiSync(ctx, 1))
	conn, one, release := n.heldConnection()
	if err := n.setGlobalsOn(short(t), conn, &n.abandonedSync, []string{n.words().disableSource}); err == nil {
		t.Errorf("a statement that the server does not read: %v", err)
	}
	if left := n.abandonedSync.all(); left[one.number] != one {
		t.Errorf("what was given up is not remembered: %v, it was on %v", left, one)
	}
	if st := n.status(); !st.SourceSemiSyncEnabled || st.Acks != 0 {
		t.Errorf("semi-sync %t, it says that commits wait for %d acknowledgements", st.SourceSemiSyncEnabled, st.Acks)
	}
	if err := n.EnableSourceSemiSync(short(t), 1); err == nil {
		t.Errorf("beside a statement that may still switch it off: %v", err)
	}
	if err := n.StopAcknowledging(short(t), nil); err == nil {
		t.Errorf("beside a statement that might be one to switch acknowledgements on: %v", err)
	}
	release()
	n.must(n.EnableSourceSemiSync(ctx, 1))
	if st := n.status(); st.Acks != 1 {
		t.Errorf("commits wait for %d acknowledgements", st.Acks)
	}
	n.gone(map[uint64]serverConnection{one.number: one})
	if !n.status().SourceSemiSyncEnabled {
		t.Error("a statement that was given up had the last word")
	}
}

// TestGivenUpBetweenStatements: the driver takes a connection for good on which it has sent nothing when ctx ends. Nothing else may run on it, for it
// is to be killed.
func TestGivenUpBetweenStatements(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := cluster(t, k, 1, false)[0]
		ctx, cancel := context.WithCancel(testContext(t))
		n.db.SetMaxOpenConns(1)
		conn, err := n.db.Conn(ctx)
		n.must(err)
		defer conn.Close()
		_, err = n.connection(ctx, conn)
		n.must(err)
		cancel()
		if err := n.setGlobalsOn(ctx, conn, &n.abandoned, n.words().readOnly); !errors.Is(err, context.Canceled) {
			t.Fatalf("given up before its statement: %v", err)
		}
		if err := conn.Close(); err != nil && !errors.Is(err, sql.ErrConnDone) { // as who has it does
			t.Fatal(err)
		}
		left := n.abandoned.all()
		if len(left) != 1 {
			t.Fatalf("remembered: %v", left)
		}
		next, err := n.db.Conn(testContext(t))
		n.must(err)
		defer next.Close()
		one, err := n.connection(testContext(t), next)
		n.must(err)
		if _, given := left[one.number]; given {
			t.Error("the next user has the connection that is to be killed")
		}
	})
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
