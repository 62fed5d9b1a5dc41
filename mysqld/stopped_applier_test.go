package mysqld

import "testing"

// TestStoppedApplierWaitsForNobody: the server was started with source semi-sync on, by an option file, and its replication stopped. What it received
// is applied all the same: nobody would acknowledge it here. On MySQL an applier that waits with an account statement would hang every session.
func TestStoppedApplierWaitsForNobody(t *testing.T) { eachServer(t, testStoppedApplierWaitsForNobody) }

func testStoppedApplierWaitsForNobody(t *testing.T, k *kind) {
	for _, step := range []string{"Freeze", "BecomeSource"} {
		t.Run(step, func(t *testing.T) {
			nodes := cluster(t, k, 2, true)
			source, replica := nodes[0], nodes[1]
			ctx := testContext(t)
			replica.must(replica.stopApplierNow(ctx))
			source.must(source.insert(ctx, 5))
			received := source.status().Executed
			replica.eventually("receiving", func() bool { return replica.status().Received == received })
			replica.must(replica.EnableSourceSemiSync(ctx, 1))
			replica.must(replica.stopReceiver(ctx, nil))
			if st := replica.status(); st.SQLRunning || st.Executed == received || st.IORunning != ThreadNo || !st.SourceSemiSyncEnabled {
				t.Fatalf("not as after such a start: %+v", st)
			}
			if step == "Freeze" {
				_, err := replica.Freeze(ctx, nil)
				replica.must(err)
				replica.must(replica.Drain(ctx, received))
				if st := replica.status(); st.SourceSemiSyncEnabled || st.Executed != received {
					t.Errorf("source semi-sync is %t, executed %s of %s", st.SourceSemiSyncEnabled, st.Executed, received)
				}
				return
			}
			_, err := replica.BecomeSource(ctx, Promotion{Position: received, Acks: 1})
			replica.must(err)
			if st := replica.status(); !st.SourceSemiSyncEnabled || st.HasReplication || st.Executed != received {
				t.Errorf("it is no source that waits for acknowledgements and holds %s: %+v", received, st)
			}
		})
	}
}

// TestStoppedApplierReleasesNobody: a server on which a commit waits was a primary a moment ago.
func TestStoppedApplierReleasesNobody(t *testing.T) { eachServer(t, testStoppedApplierReleasesNobody) }

func testStoppedApplierReleasesNobody(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	replica.must(replica.stopApplierNow(ctx))
	source.must(source.insert(ctx, 1))
	replica.must(replica.EnableSourceSemiSync(ctx, 1))
	replica.must(replica.stopReceiver(ctx, nil))
	replica.must(replica.SetBarrierWritable(ctx)) // MySQL lets nobody write otherwise
	told := make(chan error, 1)
	go func() {
		_, err := replica.boss.ExecContext(ctx, "CREATE DATABASE waits")
		told <- err
	}()
	replica.eventually("a commit waits", func() bool { return replica.status().WaitSessions > 0 })
	_, err := replica.Freeze(short(t), nil)
	select {
	case told := <-told:
		t.Fatalf("the freeze (%v) told a waiting commit %v", err, told)
	default:
	}
	if !replica.status().SourceSemiSyncEnabled {
		t.Errorf("the freeze (%v) has switched source semi-sync off", err)
	}
	replica.sql(replica.words().disableSource) // lets the test end
	<-told
}

// TestEndReceiving stops the receiver and nothing else: what follows finds everything applied, or goes on receiving as before.
func TestEndReceiving(t *testing.T) { eachServer(t, testEndReceiving) }

func testEndReceiving(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	ended := func() {
		t.Helper()
		source.must(source.insert(ctx, 1))
		replica.must(replica.Drain(ctx, source.status().Executed))
		before := replica.status()
		replica.must(replica.EndReceiving(ctx, nil))
		if st := replica.status(); st.IORunning != ThreadNo || !st.SQLRunning || st.Generation != before.Generation {
			t.Fatalf("receiver %s, applier runs %t, generation %s, before %s", st.IORunning, st.SQLRunning, st.Generation, before.Generation)
		}
	}
	ended()
	_, err := replica.Follow(ctx, source.source()) // taken back
	replica.must(err)
	replica.connected(true)
	ended()
	position := source.status().Executed
	_, err = replica.BecomeSource(ctx, Promotion{Position: position, Final: true, Acks: 1})
	replica.must(err)
	if st := replica.status(); st.HasReplication || !st.SourceSemiSyncEnabled || st.Executed != position {
		t.Errorf("it is no source that holds %s: %+v", position, st)
	}
}
