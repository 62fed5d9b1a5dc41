package sandbox_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/sandbox"
)

// TestLoad lets clients write to one server, compares their books with it, and sees a row that was taken away.
func TestLoad(t *testing.T) {
	needServer(t)
	// Not up: the runner warns of dials that the clients gave up, and giving up is what they do.
	sb, err := sandbox.Up(t.Context(), sandbox.Options{Name: "load", Dir: shortDir(t), Nodes: 2, Bare: true, TieToCaller: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	statement := func(sql string) {
		t.Helper()
		await(t, sql, func() bool { // a server that is starting refuses
			var out bytes.Buffer
			exit, err := sb.Exec(t.Context(), "db1", []string{"mariadb", "-e", sql}, nil, &out, &out)
			return err == nil && exit == 0
		})
	}
	statement("SET GLOBAL read_only=OFF")
	dsn, err := sb.HostDSN("db1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	load, err := sb.StartLoad(ctx, dsn, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Stop()
	fault(t, sb, "kill-mysqld", "db1")
	fault(t, sb, "start-mysqld", "db1")
	statement("SET GLOBAL read_only=OFF")
	if err := load.AwaitAck(ctx, load.Now()); err != nil {
		t.Fatal(err)
	}
	load.Stop()
	counts := load.Counts()
	if counts.Unknown == 0 || load.Acknowledged(0, load.Now()) != counts.Acknowledged {
		t.Errorf("after the server was killed: %+v, %d in all time", counts, load.Acknowledged(0, load.Now()))
	}
	copies, err := load.Check(ctx, []string{"db1"})
	if err != nil || len(copies) != 1 || len(copies[0].Lost) != 0 || copies[0].Rows < counts.Acknowledged {
		t.Errorf("check: %+v, %v; %+v", copies, err, counts)
	}

	// Positive controls: a row that is gone, and a server that holds something else.
	statement("DELETE FROM app.demo_ledger WHERE writer = 1") // any one row may be one whose answer was lost
	copies, err = load.Check(ctx, []string{"db1"})
	lost := sandbox.Lost(copies)
	if err != nil || len(lost) == 0 || lost[0].Writer != 1 || lost[len(lost)-1].Writer != 1 {
		t.Errorf("deleted rows: lost %+v, %v", lost, err)
	}
	short, cancelShort := context.WithTimeout(ctx, time.Second)
	defer cancelShort()
	if copies, err := load.Check(short, []string{"db1", "db2"}); err == nil || len(copies) != 1 {
		t.Errorf("servers that differ: %+v, %v", copies, err)
	}
	if tails, err := sb.LogTails(200); err != nil || len(tails) < 2 || len(tails[0].Text) > 200 || !strings.HasSuffix(tails[0].Path, ".log") {
		t.Errorf("log tails: %+v, %v", tails, err)
	}
}
