package mysqld

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
)

func TestClassifyValues(t *testing.T) {
	t.Parallel()
	server := func(number uint16, message string) error {
		return fmt.Errorf("executing: %w", &mysql.MySQLError{Number: number, Message: message})
	}
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		err  error
		want Fault
	}{
		{nil, FaultNone},
		{context.DeadlineExceeded, FaultHung},
		{context.Canceled, FaultOther},
		{io.EOF, FaultDown},
		{mysql.ErrInvalidConn, FaultDown},
		{dial(syscall.ECONNREFUSED), FaultDown},
		{dial(syscall.ENOENT), FaultDown},
		{dial(syscall.EAGAIN), FaultHung},
		{server(1040, "Too many connections"), FaultTooManyConnections},
		{server(1053, "Server shutdown in progress"), FaultDown},
		{server(1021, "Disk full"), FaultDiskFull},
		{server(1114, "The table 't' is full"), FaultDiskFull},
		// A text is never read (it comes in the server's language): whether a disk is full package probe finds out by writing.
		{server(3, `Error writing file 'bin' (Errcode: 28 "No space left on device")`), FaultOther},
		{server(1030, `Got error 28 "No space left on device" from storage engine`), FaultOther},
		{server(1045, "Access denied"), FaultAuth},
		{server(1227, "Access denied; you need"), FaultAuth},
		{server(1290, "read-only"), FaultOther},
		{errors.New("odd"), FaultOther},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestClassifyRealFaults(t *testing.T) { eachServer(t, testClassifyRealFaults) }

func testClassifyRealFaults(t *testing.T, k *kind) {
	n := newNode(t, k, 1, "--max-connections=12")
	ctx := testContext(t)
	if err := n.Alive(ctx); n.Classify(err) != FaultDown {
		t.Fatalf("before the first start: %v", err)
	}
	n.start(StartOptions{})
	n.must(n.Alive(ctx))
	n.eventually("opening control connections", func() bool { return n.db.Stats().Idle == controlConnections })

	var held []*sql.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for {
		c, err := n.app.Conn(ctx)
		if err != nil {
			if n.Classify(err) != FaultTooManyConnections {
				t.Fatalf("the connection too many: %v", err)
			}
			break
		}
		held = append(held, c)
	}
	n.must(n.Alive(ctx)) // a kept connection needs no login
	_ = n.status()

	wrong, err := Open(Config{Dialect: k.dialect, Socket: n.socket, ManagerUser: managerUser, ManagerPassword: "wrong"})
	n.must(err)
	defer wrong.Close()
	for len(held) > 8-controlConnections {
		held[0].Close()
		held = held[1:]
	}
	n.app.SetMaxIdleConns(0)
	n.eventually("refusing a wrong password", func() bool { return wrong.Classify(wrong.Alive(ctx)) == FaultAuth })

	n.signal(sigStop)
	if err := n.Alive(short(t)); n.Classify(err) != FaultHung {
		t.Fatalf("a stopped process, on a kept connection: %v", err)
	}
	if err := wrong.Alive(short(t)); n.Classify(err) != FaultHung {
		t.Fatalf("a stopped process, on a new connection: %v", err)
	}
	n.signal(sigCont)
	n.must(n.Alive(ctx))
	n.signal(9)
	n.must(n.service.Kill(ctx))
	if err := n.Alive(ctx); n.Classify(err) != FaultDown {
		t.Fatalf("after SIGKILL: %v", err)
	}
}
