package mysqld

import "testing"

// TestForgetSource: what a source has left of its time as a replica does not make it one, is removed when there is time, and is nothing that outlives its
// end: a restart, a start of its threads by hand, the next turn as a replica.
func TestForgetSource(t *testing.T) { eachServer(t, testForgetSource) }

// TestForgetSourceOfAnUnknownRun: where the server's process cannot be told (another pid namespace) nothing is left for later, or it would be a replica for ever.
func TestForgetSourceOfAnUnknownRun(t *testing.T) { eachServer(t, testForgetSourceOfAnUnknownRun) }

func testForgetSourceOfAnUnknownRun(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	source.must(source.insert(ctx, 1))
	at := source.status().Executed
	replica.must(replica.Drain(ctx, at))
	replica.peer.mu.Lock()
	replica.peer.last = process{}
	replica.peer.mu.Unlock()
	run, err := replica.BecomeSource(ctx, Promotion{Position: at, Acks: 1})
	replica.must(err)
	if st := replica.status(); run != "" || st.HasReplication || st.Leftover || !st.SourceSemiSyncEnabled {
		t.Fatalf("run %q, as a source: %+v", run, st)
	}
}

func testForgetSource(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	turn := func(final bool) {
		t.Helper()
		source.must(source.insert(ctx, 1))
		at := source.status().Executed
		replica.eventually("receiving", func() bool { return replica.status().Received == at })
		_, err := replica.BecomeSource(ctx, Promotion{Position: at, Final: final, Acks: 1})
		replica.must(err)
		if got, want := replica.applies(), final && k.dialect == "mysql"; got != want {
			t.Fatalf("its applier runs: %v, its source had let go: %v", got, final)
		}
		if st := replica.status(); st.HasReplication || !st.Leftover || st.SourceHost != "" || st.Received != st.Executed || st.BothThreadsStopped() {
			t.Fatalf("as a source: %+v", st)
		}
	}
	back := func() {
		t.Helper()
		replica.must(replica.DisableSourceSemiSync(ctx))
		_, err := replica.Follow(ctx, source.source())
		replica.must(err)
		replica.connected(true)
		if st := replica.status(); !st.HasReplication || st.Leftover {
			t.Fatalf("as a replica again: %+v", st)
		}
	}
	for _, final := range []bool{false, true} {
		turn(final)
		replica.must(replica.ForgetSource(ctx))
		replica.must(replica.ForgetSource(ctx))
		if st := replica.status(); st.HasReplication || st.Leftover || replica.applies() {
			t.Fatalf("forgotten: %+v", st)
		}
		back()
	}
	replica.must(replica.ForgetSource(ctx)) // it is none of BecomeSource's
	if st := replica.status(); !st.HasReplication || !st.SQLRunning {
		t.Fatalf("a replica was made to forget its source: %+v", st)
	}

	turn(true)
	back() // without having forgotten
	// A source that loses its role before it has forgotten: as it was left, and after a restart of this process, which does not know of that.
	for _, forgotten := range []bool{false, true} {
		turn(true)
		replica.lead(true)
		replica.must(replica.SetReadOnly(ctx))
		if forgotten {
			replica.retired.end()
		}
		replica.must(replica.FinishRewind(ctx))
		back()
	}
	replica.say(replica.words().stopReceiver, replica.words().stopApplier)
	if st := replica.status(); !st.HasReplication || st.Leftover || !st.BothThreadsStopped() {
		t.Fatalf("a replica that was stopped counts as a source: %+v", st)
	}
	_, err := replica.Follow(ctx, source.source())
	replica.must(err)
	replica.connected(true)

	turn(true)
	replica.say(replica.words().startReceiver)
	if st := replica.status(); !st.HasReplication || st.Leftover {
		t.Fatalf("it receives, and counts as a source: %+v", st)
	}
	back()
	turn(false)
	replica.say(replica.words().startApplier)
	replica.say(replica.words().stopApplier)
	turnedBySomebody := replica.status()
	replica.say(replica.words().startApplier)
	if st := replica.status(); !st.HasReplication || st.Leftover {
		t.Fatalf("its applier runs, and it counts as a source (%+v before): %+v", turnedBySomebody, st)
	}

	_, err = replica.BecomeSource(ctx, Promotion{Position: replica.status().Executed, Acks: 1})
	replica.must(err)
	replica.must(replica.service.Kill(ctx))
	replica.start(StartOptions{})
	if st := replica.status(); !st.HasReplication || st.Leftover {
		t.Fatalf("after a restart: %+v", st)
	}
	_, err = replica.BecomeSource(ctx, Promotion{Position: replica.status().Executed, Acks: 1})
	replica.must(err)
	replica.must(replica.ForgetSource(ctx))
	if st := replica.status(); st.HasReplication || st.Leftover || !st.SourceSemiSyncEnabled {
		t.Fatalf("in the end: %+v", st)
	}
}

// applies tells whether the applier runs, whatever the server counts as.
func (n *node) applies() bool {
	n.t.Helper()
	var st Status
	n.must(n.dialect.readReplication(testContext(n.t), n.db, &st))
	return st.SQLRunning
}
