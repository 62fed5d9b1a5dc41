package mysqld

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestFollowWithSemiSync(t *testing.T) { eachServer(t, testFollowWithSemiSync) }

func testFollowWithSemiSync(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)

	source.must(source.WriteBarrier(ctx, 7, "db1"))
	position := source.status().Executed
	source.must(source.insert(ctx, 3))
	replica.must(replica.Drain(ctx, source.status().Executed))
	if holds, err := replica.Contains(ctx, position); err != nil || !holds {
		t.Fatalf("the replica does not hold the barrier %s: %v", position, err)
	}
	epoch, node, err := replica.LastEpoch(ctx)
	if err != nil || epoch != 7 || node != "db1" {
		t.Fatalf("last epoch %d of %q: %v", epoch, node, err)
	}

	before := replica.status()
	result, err := replica.Follow(ctx, source.source())
	replica.must(err)
	after := replica.status()
	if result.Repointed || result.GenerationChanged || after.ReceiverID != before.ReceiverID || after.ApplierID != before.ApplierID {
		t.Fatalf("following the same source again did something: %+v", result)
	}
	if after.Generation == "" || after.Generation != before.Generation {
		t.Fatalf("generation %q became %q", before.Generation, after.Generation)
	}

	replica.must(replica.ReplicaSemiSync(ctx, false))
	replica.connected(false)
	if now := replica.status(); now.ApplierID != before.ApplierID || now.ReceiverID == before.ReceiverID || now.Generation != before.Generation {
		t.Fatalf("only the receiver should have been restarted: before %+v, now %+v", before, now)
	}
	if problems := replica.status().Problems; len(problems) != 0 {
		t.Fatalf("problems: %q", problems)
	}
}

// lagging holds a replica's applier up; release lets it go on.
func lagging(n *node) (release func()) {
	conn, err := n.boss.Conn(testContext(n.t))
	n.must(err)
	_, err = conn.ExecContext(testContext(n.t), "LOCK TABLES app.t READ")
	n.must(err)
	return func() {
		_, err := conn.ExecContext(testContext(n.t), "UNLOCK TABLES")
		n.must(err)
		n.must(conn.Close())
	}
}

func TestFreezeHoldsWhatWasAcknowledged(t *testing.T) {
	eachServer(t, testFreezeHoldsWhatWasAcknowledged)
}

func testFreezeHoldsWhatWasAcknowledged(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, true)
	source, replica, next := nodes[0], nodes[1], nodes[2]
	ctx := testContext(t)
	release := lagging(replica)
	source.must(source.insert(ctx, 5))
	acknowledged := source.status().Executed
	next.must(next.Drain(ctx, acknowledged))

	replica.eventually("receiving", func() bool { return replica.status().Received == acknowledged })
	before := replica.status()
	received, err := replica.Freeze(ctx, nil)
	replica.must(err)
	again, err := replica.Freeze(ctx, nil)
	replica.must(err)
	if received != acknowledged || again != received {
		t.Fatalf("frozen at %s, then %s; acknowledged %s", received, again, acknowledged)
	}
	st := replica.status()
	if st.Executed == received || st.IORunning != ThreadNo || !st.SQLRunning || st.Generation != before.Generation {
		t.Fatalf("the test is not about a lagging applier: %+v", st)
	}
	if err := replica.StopReplication(ctx); !errors.Is(err, ErrNotDrained) {
		t.Fatalf("stopping replication with unapplied transactions: %v", err)
	}

	source.must(source.service.Kill(ctx))
	next.must(next.StopReplication(ctx))
	done := make(chan error, 1)
	go func() {
		result, err := replica.Follow(ctx, next.source())
		if err == nil && (!result.Repointed || result.GenerationChanged == replica.Server.dialect.repointsWhileApplying()) {
			err = errors.New("a repoint was not reported")
		}
		done <- err
	}()
	if replica.dialect.repointsWhileApplying() {
		replica.must(<-done)
		if st := replica.status(); st.Received != acknowledged || st.Executed == acknowledged || st.Generation != before.Generation || st.SourcePort != next.source().Port {
			t.Fatalf("repointed while it lags: %+v, before %+v", st, before)
		}
		done <- nil
	}
	release()
	replica.must(<-done)
	next.lead(false)
	next.must(next.insert(ctx, 2))
	sameRows(t, next, replica)
	if replica.count() != 7 {
		t.Fatalf("%d rows", replica.count())
	}
}

// TestApplierThatStopsBeforeTheRepoint: an applier that ends by itself between two looks would leave both threads stopped, and the change of source
// drop what it has not applied. Seen before the change nothing is lost; after it that is said.
func TestApplierThatStopsBeforeTheRepoint(t *testing.T) {
	eachServer(t, testApplierThatStopsBeforeTheRepoint)
}

func testApplierThatStopsBeforeTheRepoint(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, true)
	source, replica, next := nodes[0], nodes[1], nodes[2]
	ctx := testContext(t)
	source.must(source.insert(ctx, 1))
	for _, n := range nodes[1:] {
		n.must(n.Drain(ctx, source.status().Executed))
	}
	before := replica.status()
	replica.sql(replica.words().stopApplier)
	source.must(source.insert(ctx, 5))
	acknowledged := source.status().Executed
	replica.eventually("receiving", func() bool { return replica.status().Received == acknowledged })
	if st := replica.status(); st.Received != acknowledged || st.Executed == acknowledged {
		t.Fatalf("the test is not about a lagging applier: %+v", st)
	}
	if _, err := replica.drainAndRepoint(ctx, next.source(), before, true); !errors.Is(err, ErrApplierStopped) {
		t.Fatalf("seen before the change: %v", err)
	}
	if st := replica.status(); st.SourcePort != source.source().Port {
		t.Fatalf("something was changed all the same: %+v", st)
	}
	if !replica.dialect.repointsWhileApplying() {
		return // it drains first
	}
	if st := replica.status(); st.Received != acknowledged {
		t.Fatalf("something was lost all the same: %+v", st)
	}
	result, err := replica.changeUnderApplier(ctx, next.source(), before)
	if !errors.Is(err, ErrForgotten) || !result.GenerationChanged {
		t.Fatalf("seen after the change: %+v, %v", result, err)
	}
	if st := replica.status(); st.Generation == before.Generation || st.Received == acknowledged {
		t.Fatalf("control: the change dropped nothing: %+v", st)
	}
}

// TestBothThreadsStopped is the control of the order kept by Freeze and Follow:
// both stopped and started again, acknowledged rows are gone, and the status
// shows it. Then the rescue, which needs no order.
func TestBothThreadsStopped(t *testing.T) { eachServer(t, testBothThreadsStopped) }

func testBothThreadsStopped(t *testing.T, k *kind) {
	prepare := func(t *testing.T) (replica, next *node, acknowledged string) {
		nodes := cluster(t, k, 3, true)
		ctx := testContext(t)
		nodes[0].must(nodes[0].insert(ctx, 1))
		for _, n := range nodes[1:] {
			n.must(n.Drain(ctx, nodes[0].status().Executed))
		}
		nodes[1].sql(nodes[1].words().stopApplier)
		nodes[0].must(nodes[0].insert(ctx, 5))
		acknowledged = nodes[0].status().Executed
		nodes[2].must(nodes[2].Drain(ctx, acknowledged))
		nodes[1].eventually("receiving", func() bool { return nodes[1].status().Received == acknowledged })
		nodes[0].must(nodes[0].service.Kill(ctx))
		nodes[2].must(nodes[2].StopReplication(ctx))
		return nodes[1], nodes[2], acknowledged
	}
	t.Run("control: both stopped then started", func(t *testing.T) {
		replica, _, acknowledged := prepare(t)
		generation := replica.status().Generation
		w := replica.words()
		replica.sql(w.stopReceiver, w.stopApplier, w.startApplier)
		st := replica.status()
		if k.dialect == "mysql" { // it keeps its relay log
			replica.eventually("applying what was received", func() bool { return replica.count() == 6 })
		} else if st.Received == acknowledged || replica.count() != 1 {
			t.Fatalf("nothing was lost, so this server needs no care: %+v", st)
		}
		if st.Generation == generation {
			t.Fatal("the generation did not change")
		}
	})
	t.Run("rescue while running", func(t *testing.T) {
		replica, next, acknowledged := prepare(t)
		replica.sql(replica.words().stopReceiver, replica.words().stopApplier)
		if !replica.status().BothThreadsStopped() || replica.status().Generation != "" {
			t.Fatal("both stopped is not shown")
		}
		_, err := replica.Follow(testContext(t), next.source())
		replica.must(err)
		if st := replica.status(); st.Received != acknowledged {
			t.Fatalf("received %s, acknowledged %s", st.Received, acknowledged)
		}
		// MySQL applies on while it turns.
		replica.eventually("applying what was received", func() bool { return replica.status().Executed == acknowledged && replica.count() == 6 })
		isItself(replica)
	})
	t.Run("rescue after a crash", func(t *testing.T) {
		replica, next, acknowledged := prepare(t)
		ctx := testContext(t)
		replica.must(replica.service.Kill(ctx))
		replica.start(StartOptions{})
		received, err := replica.Freeze(ctx, nil)
		replica.must(err)
		replica.must(replica.Drain(ctx, received))
		if received != acknowledged || replica.count() != 6 {
			t.Fatalf("frozen at %s, acknowledged %s, %d rows", received, acknowledged, replica.count())
		}
		isItself(replica)
		replica.follow(next, false)
		isItself(replica)
	})
}

// isItself: under another member's server_id a replica ends that one's dump thread at the source, its acknowledgements are taken for that one's, and it
// drops that one's transactions.
func isItself(n *node) {
	n.t.Helper()
	if id := n.status().ServerID; id != uint32(n.id) && id != otherID(uint32(n.id)) {
		n.t.Errorf("its server_id is %d, and was made %d", id, n.id)
	}
}

func TestFreezeSeversASlowStop(t *testing.T) { eachServer(t, testFreezeSeversASlowStop) }

func testFreezeSeversASlowStop(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	// A stopped source answers nothing: STOP waits for its dump thread's death. On
	// MySQL only a receiver that is connecting stops slowly.
	if k.dialect == "mysql" {
		replica.sql(replica.words().stopReceiver)
	}
	source.signal(sigStop)
	if k.dialect == "mysql" {
		replica.sql(replica.words().startReceiver)
		replica.eventually("connecting", func() bool { return replica.status().IORunning == ThreadConnecting })
	}
	severed := 0
	received, err := replica.Freeze(ctx, func() error {
		severed++
		if severed == 1 {
			source.signal(sigCont) // what destroying the socket would do: STOP goes on
		}
		return nil
	})
	replica.must(err)
	if severed == 0 || received != replica.status().Received {
		t.Fatalf("severed %d times, received %q", severed, received)
	}
}

func TestFreezeRefusesABrokenApplier(t *testing.T) { eachServer(t, testFreezeRefusesABrokenApplier) }

func testFreezeRefusesABrokenApplier(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	replica.must(replica.SetBarrierWritable(ctx)) // super_read_only would refuse the row
	conn, err := replica.boss.Conn(ctx)
	replica.must(err)
	defer conn.Close()
	for _, s := range []string{"SET sql_log_bin=0", "INSERT INTO app.t (id, v) VALUES (1, 'in the way')"} {
		_, err := conn.ExecContext(ctx, s)
		replica.must(err)
	}
	source.must(source.insert(ctx, 1))
	replica.eventually("stopping on an error", func() bool { st := replica.status(); return st.SQLErrno != 0 && !st.SQLRunning })
	if _, err := replica.Freeze(ctx, nil); !errors.Is(err, ErrApplierStopped) {
		t.Fatalf("freezing: %v", err)
	}
	if st := replica.status(); st.IORunning != ThreadYes {
		t.Fatalf("the receiver was touched: %+v", st)
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := replica.Drain(short, source.status().Executed); !errors.Is(err, ErrApplierStopped) {
		t.Fatalf("draining: %v", err)
	}
}

// TestSourceID: whom a replica received from is known by its name in positions, also when the connection is gone: it is asked for in a freeze.
func TestSourceID(t *testing.T) { eachServer(t, testSourceID) }

func testSourceID(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	var id string
	query := "SELECT @@server_id"
	if k.dialect == "mysql" {
		query = "SELECT @@server_uuid"
	}
	source.must(source.boss.QueryRowContext(ctx, query).Scan(&id))
	names := func(when string) {
		t.Helper()
		if st := replica.status(); st.SourceID != id {
			t.Errorf("%s: received from %q, it says %q", when, id, st.SourceID)
		}
	}
	names("connected")
	source.must(source.service.Kill(ctx))
	replica.eventually("connecting", func() bool { return replica.status().IORunning == ThreadConnecting })
	names("the source is gone")
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	names("frozen")
}
