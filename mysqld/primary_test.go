package mysqld

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

// short is a deadline for what must not return.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestBarrierIsAcknowledgedOnlyByAReplica(t *testing.T) {
	eachServer(t, testBarrierIsAcknowledgedOnlyByAReplica)
}

func testBarrierIsAcknowledgedOnlyByAReplica(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	// A replica without semi-sync receives and does not count.
	replica.must(replica.ReplicaSemiSync(ctx, false))
	replica.connected(false)
	err := source.WriteBarrier(short(t), 1, "db1")
	if source.Classify(err) != FaultHung {
		t.Fatalf("a barrier nobody acknowledged: %v", err)
	}
	st := source.status()
	if st.WaitSessions == 0 || !st.SourceSemiSyncActive {
		t.Fatalf("nothing waits: %+v", st)
	}
	if err := source.DisableSourceSemiSync(ctx); !errors.Is(err, ErrWritable) {
		t.Fatalf("semi-sync off at a primary: %v", err)
	}
	if _, err := source.KillClients(ctx); !errors.Is(err, ErrWritable) {
		t.Fatalf("killing clients of a primary: %v", err)
	}
	// It holds the barrier already, so it will not release it (a lost
	// acknowledgement); the next transaction does.
	replica.must(replica.ReplicaSemiSync(ctx, true))
	replica.connected(true)
	source.must(source.Nudge(ctx))
	source.eventually("releasing the barrier", func() bool { return source.status().WaitSessions == 0 })
	epoch, _, err := source.LastEpoch(ctx)
	if err != nil || epoch != 1 {
		t.Fatalf("last epoch %d: %v", epoch, err)
	}
}

// TestFirstBarrierOfACluster: epochs that the data brings along from an earlier
// cluster are none of this one: when it comes that far, one would count as applied.
func TestFirstBarrierOfACluster(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		nodes := cluster(t, k, 2, true)
		source, replica := nodes[0], nodes[1]
		ctx := testContext(t)
		source.must(source.WriteBarrier(ctx, 50, "old"))
		source.must(source.WriteBarrier(ctx, 1, "db1"))
		replica.must(replica.Drain(ctx, source.status().Executed))
		for _, n := range nodes {
			if epoch, node, err := n.LastEpoch(ctx); err != nil || epoch != 1 || node != "db1" {
				t.Fatalf("node %d: last epoch %d of %q: %v", n.id, epoch, node, err)
			}
		}
		source.must(source.WriteBarrier(ctx, 1, "db1")) // once more, after a restart in place
	})
}

func TestReadOnlyBehindAWaiter(t *testing.T) { eachServer(t, testReadOnlyBehindAWaiter) }

func testReadOnlyBehindAWaiter(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	waiter := make(chan error, 1)
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting", func() bool { return source.status().WaitSessions > 0 })

	if err := source.SetReadOnly(short(t)); source.Classify(err) != FaultHung {
		t.Fatalf("read_only behind a waiter: %v", err)
	}
	source.must(source.Alive(ctx))
	if source.status().ReadOnly {
		t.Fatal("read_only took effect before the waiter was released")
	}
	// The way back ends the statement, and nothing closes the server later.
	source.must(source.SetWritable(ctx))
	replica.sql(replica.words().startReceiver)
	source.must(<-waiter)
	source.must(source.insert(ctx, 1))
	if source.status().ReadOnly {
		t.Fatal("the statement left behind closed the server")
	}
	source.must(source.SetReadOnly(ctx))
	if err := source.insert(ctx, 1); err == nil {
		t.Fatal("a client wrote to a read-only server")
	}
	source.must(source.SetBarrierWritable(ctx)) // super_read_only refuses the manager too
	if err := source.insert(ctx, 1); err == nil {
		t.Fatal("a client wrote before the barrier")
	}
	if err := source.WriteBarrier(ctx, 2, "db1"); err != nil {
		t.Fatalf("the manager cannot write the barrier on a read-only server: %v", err)
	}
}

// TestReadOnlyLeftBehind is the control of SetWritable: without ending the
// statement left behind, it closes the server as soon as the waiter is released.
func TestReadOnlyLeftBehind(t *testing.T) { eachServer(t, testReadOnlyLeftBehind) }

func testReadOnlyLeftBehind(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	waiter := make(chan error, 1)
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting", func() bool { return source.status().WaitSessions > 0 })
	if err := source.SetReadOnly(short(t)); err == nil {
		t.Fatal("read_only did not hang")
	}
	source.abandoned.forget(source.abandoned.all()) // broken on purpose: forgotten
	source.must(source.SetWritable(ctx))
	replica.sql(replica.words().startReceiver)
	source.must(<-waiter)
	source.eventually("being closed by the statement left behind", func() bool { return source.status().ReadOnly })
}

func TestKillClients(t *testing.T) { eachServer(t, testKillClients) }

func testKillClients(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source := nodes[0]
	ctx := testContext(t)
	client, err := source.app.Conn(ctx)
	source.must(err)
	defer client.Close()
	source.must(client.PingContext(ctx))
	source.must(source.SetReadOnly(ctx))
	killed, err := source.KillClients(ctx)
	source.must(err)
	if killed == 0 {
		t.Fatal("nobody was killed")
	}
	if err := client.PingContext(ctx); err == nil {
		t.Fatal("the client lives")
	}
	source.must(source.Alive(ctx))
	if st := nodes[1].status(); st.IORunning != ThreadYes {
		t.Fatalf("replication was killed too: %+v", st)
	}
}

func TestPromotion(t *testing.T) { eachServer(t, testPromotion) }

func testPromotion(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, true)
	old, candidate, third := nodes[0], nodes[1], nodes[2]
	ctx := testContext(t)
	old.must(old.insert(ctx, 4))
	// One of the two acknowledged each: here it is the candidate that holds everything, and not by chance.
	candidate.must(candidate.Drain(ctx, old.status().Executed))
	old.must(old.service.Kill(ctx))
	received, err := candidate.Freeze(ctx, nil)
	candidate.must(err)
	candidate.must(candidate.Drain(ctx, received))
	_, err = third.Freeze(ctx, nil)
	third.must(err)
	candidate.must(candidate.StopReplication(ctx))
	candidate.must(candidate.EnableSourceSemiSync(ctx, 1))
	candidate.must(candidate.SetBarrierWritable(ctx))
	if err := candidate.insert(ctx, 1); err == nil {
		t.Fatal("a client wrote before the barrier")
	}
	_, err = third.Follow(ctx, candidate.source())
	third.must(err)
	candidate.must(candidate.EnsureEpochTable(ctx))
	candidate.must(candidate.WriteBarrier(ctx, 2, "db2"))
	position := candidate.status().Executed
	candidate.must(candidate.SetWritable(ctx))
	candidate.must(candidate.insert(ctx, 3))
	origin := "-2-"
	if k.dialect == "mysql" {
		origin = candidate.status().ServerUUID
	}
	if !strings.Contains(position, origin) {
		t.Fatalf("the barrier %s was not written by node 2", position)
	}
	sameRows(t, candidate, third)
	if candidate.count() != 7 {
		t.Fatalf("%d rows", candidate.count())
	}
	if problems := candidate.Checks(ctx); !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, "'boss'") }) {
		t.Fatalf("problems: %q", problems)
	}
	candidate.sql("REVOKE SELECT ON mysql.* FROM 'highbase'@'localhost'")
	if problems := candidate.Checks(ctx); len(problems) != 1 || !strings.Contains(problems[0], "SELECT ON mysql.*") {
		t.Fatalf("problems of a manager that sees no accounts: %q", problems)
	}
	// Semi-sync goes off on a replica even though its applier waits. What waits is a
	// row: where it is an account statement, MySQL answers nobody.
	third.must(third.Drain(ctx, candidate.status().Executed))
	third.must(third.EnableSourceSemiSync(ctx, 1))
	candidate.must(candidate.insert(ctx, 1))
	third.must(third.DisableSourceSemiSync(ctx))
	sameRows(t, candidate, third)
}
