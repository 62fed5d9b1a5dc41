package mysqld

import "testing"

// TestDiscard ends replication whatever the applier does, and drops what it has not applied.
func TestDiscard(t *testing.T) { eachServer(t, testDiscard) }

func testDiscard(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	source.must(source.insert(ctx, 1))
	replica.must(replica.Drain(ctx, source.status().Executed))
	replica.must(replica.SetBarrierWritable(ctx)) // MySQL lets nobody write otherwise
	conn, err := replica.boss.Conn(ctx)
	replica.must(err)
	defer conn.Close()
	for _, statement := range []string{"SET SESSION sql_log_bin=0", "INSERT INTO app.t VALUES (2, 'in the way')"} {
		_, err := conn.ExecContext(ctx, statement)
		replica.must(err)
	}
	source.must(source.insert(ctx, 3))
	replica.eventually("stopped by a row in the way", func() bool { return replica.status().SQLErrno != 0 })
	for range 2 { // the second time there is nothing left
		replica.must(replica.Discard(ctx, nil))
		if st := replica.status(); st.HasReplication || st.Received != st.Executed && st.Received != "" {
			t.Fatalf("left: %+v", st)
		}
	}
	if n := replica.count(); n != 2 {
		t.Errorf("%d rows", n)
	}
	if _, err := replica.BecomeSource(ctx, Promotion{Position: replica.status().Executed, Acks: 1}); err != nil {
		t.Fatal(err)
	}
}

// TestBecomeSource: it forgets nothing that was received, refuses what it lacks, and may be repeated.
func TestBecomeSource(t *testing.T) { eachServer(t, testBecomeSource) }

func testBecomeSource(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	release := lagging(replica)
	source.must(source.insert(ctx, 5))
	acknowledged := source.status().Executed
	replica.eventually("receiving", func() bool { return replica.status().Received == acknowledged })
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	source.must(source.insert(ctx, 1)) // acknowledged by the third
	beyond := source.status().Executed

	refused := func(position, why string) {
		t.Helper()
		if _, err := replica.BecomeSource(short(t), Promotion{Position: position, Acks: 1}); err == nil {
			t.Errorf("it became a source %s", why)
		}
	}
	refused(acknowledged, "before it applied what it received")
	release()
	refused(beyond, "without what it must hold")
	if st := replica.status(); !st.HasReplication || st.SourceSemiSyncEnabled {
		t.Fatalf("refused, and yet: %+v", st)
	}
	for range 2 { // the second time as if it had died half-way
		run, err := replica.BecomeSource(ctx, Promotion{Position: acknowledged, Acks: 1})
		replica.must(err)
		st := replica.status()
		if run != st.Incarnation || !st.Leftover {
			t.Errorf("run %q of %q, leftover: %t", run, st.Incarnation, st.Leftover)
		}
		if st.HasReplication || !st.ReadOnly || !st.SourceSemiSyncEnabled || st.SemiSyncTimeoutMS != maxSemiSyncTimeout || st.Executed != acknowledged {
			t.Fatalf("as a source: %+v", st)
		}
	}
	if replica.count() != 5 {
		t.Errorf("%d rows of 5", replica.count())
	}
	refused(beyond, "a second time, without what it must hold")
}
