package mysqld

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// loses makes a former source forget its last transactions, as a recovery that
// rolls back what was only prepared does, although the new source has them.
func (n *node) loses(keep int, position string) {
	n.t.Helper()
	conn, err := n.boss.Conn(testContext(n.t))
	n.must(err)
	defer conn.Close()
	for _, statement := range []string{
		"SET sql_log_bin=0", fmt.Sprintf("DELETE FROM app.t WHERE id > (SELECT id FROM (SELECT id FROM app.t ORDER BY id LIMIT %d, 1) x)", keep-1), "SET sql_log_bin=1",
		"RESET MASTER", "SET GLOBAL gtid_slave_pos='" + position + "'",
	} {
		_, err := conn.ExecContext(testContext(n.t), statement)
		n.must(err)
	}
}

// overtaken gives a former source with 7 rows, whoever has taken over from it with
// all of them, and where the former stood at its third.
func overtaken(t *testing.T, k *kind) (old, next *node, third string) {
	t.Helper()
	nodes := cluster(t, k, 2, true)
	old, next = nodes[0], nodes[1]
	ctx := testContext(t)
	old.must(old.insert(ctx, 3))
	third = old.status().Executed
	old.must(old.insert(ctx, 4))
	next.must(next.Drain(ctx, old.status().Executed))
	next.must(next.StopReplication(ctx))
	next.must(next.SetWritable(ctx))
	return old, next, third
}

// TestOwnTransactionsComeBack: a MariaDB replica without semi-sync drops its own
// transactions and says nothing. Outside the sync set it must have them all the same.
func TestOwnTransactionsComeBack(t *testing.T) { eachServer(t, testOwnTransactionsComeBack) }

func testOwnTransactionsComeBack(t *testing.T, k *kind) {
	k.only(t, "mariadb", "what the cluster has stays in MySQL's binary log at a rewind: nothing has to come back")
	for _, c := range []struct {
		name  string
		clear bool // control: the server keeps its own server_id
	}{{"under another id", false}, {"control: under its own", true}} {
		t.Run(c.name, func(t *testing.T) {
			old, next, keep := overtaken(t, k)
			ctx := testContext(t)
			next.must(next.insert(ctx, 1))
			old.must(old.SetReadOnly(ctx))
			old.must(old.DisableSourceSemiSync(ctx))
			old.loses(3, keep)

			old.must(old.StopAcknowledging(ctx, nil))
			if c.clear {
				old.sql(fmt.Sprintf("SET GLOBAL server_id=%d", otherID(old.status().ServerID)))
			}
			_, err := old.Follow(ctx, next.source())
			old.must(err)
			old.must(old.Drain(ctx, next.status().Executed))
			missing := next.count() - old.count()
			if c.clear {
				if missing != 4 {
					t.Fatalf("%d rows are missing, 4 of its own should be: the control controls nothing", missing)
				}
				return
			}
			if missing != 0 {
				t.Fatalf("%d of its own transactions did not come back", missing)
			}
			if !aliased(old.status().ServerID) {
				t.Fatal("it follows without semi-sync under its own server_id")
			}
			// In the sync set it is itself again, and so it is when it writes.
			old.must(old.ReplicaSemiSync(ctx, true))
			old.connected(true)
			if id := old.status().ServerID; aliased(id) {
				t.Fatalf("server_id %d with semi-sync on", id)
			}
			old.must(old.StopAcknowledging(ctx, nil))
			old.must(old.StopReplication(ctx))
			old.must(old.SetBarrierWritable(ctx))
			if id := old.status().ServerID; aliased(id) {
				t.Fatalf("it would write under server_id %d", id)
			}
		})
	}
}

// TestOwnTransactionsSurviveARestart: what a replica outside the sync set received of its own and has not applied is applied after a restart, when it
// has its own server_id again, also by one that was taken into the set meanwhile.
func TestOwnTransactionsSurviveARestart(t *testing.T) {
	eachServer(t, testOwnTransactionsSurviveARestart)
}

func testOwnTransactionsSurviveARestart(t *testing.T, k *kind) {
	k.only(t, "mariadb", "what the cluster has stays in MySQL's binary log at a rewind: nothing has to come back")
	for _, c := range []struct {
		name  string
		after func(old, next *node)
	}{
		{"taken into the set", func(old, next *node) {
			ctx := testContext(t)
			old.must(old.ReplicaSemiSync(ctx, true))
			_, err := old.Follow(ctx, next.source())
			old.must(err)
		}},
		{"frozen", func(old, _ *node) {
			ctx := testContext(t)
			received, err := old.Freeze(ctx, nil)
			old.must(err)
			old.must(old.Drain(ctx, received))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, next, keep := overtaken(t, k)
			ctx := testContext(t)
			old.must(old.SetReadOnly(ctx))
			old.must(old.DisableSourceSemiSync(ctx))
			old.loses(3, keep)

			old.must(old.StopAcknowledging(ctx, nil))
			lagging(old) // until it is killed
			_, err := old.Follow(ctx, next.source())
			old.must(err)
			all := next.status().Executed
			old.eventually("receiving", func() bool { return old.status().Received == all })
			if old.status().Executed == all {
				t.Fatal("it has applied what it should only have received")
			}
			old.must(old.service.Kill(ctx))
			old.start(StartOptions{})
			c.after(old, next)
			if missing := next.count() - old.count(); missing != 0 || old.status().Executed != all {
				t.Fatalf("%d of its own transactions are missing at %s", missing, old.status().Executed)
			}
			if id := old.status().ServerID; aliased(id) {
				t.Fatalf("server_id %d after what was stopped has been applied", id)
			}
		})
	}
}

// TestLaggingReplicaAcknowledges: a replica that is taken into the sync set while it lags is itself again at once if the barrier of the epoch is
// applied, and loses nothing of its own. If it is not, that must wait, and whoever gives up waiting finds it receiving in silence, as it was: left
// without a receiver it lagged more and more.
func TestLaggingReplicaAcknowledges(t *testing.T) { eachServer(t, testLaggingReplicaAcknowledges) }

func testLaggingReplicaAcknowledges(t *testing.T, k *kind) {
	k.only(t, "mariadb", "MySQL's replicas keep their server_id")
	old, next, keep := overtaken(t, k)
	ctx := testContext(t)
	next.must(next.WriteBarrier(ctx, 7, "db2"))
	old.must(old.SetReadOnly(ctx))
	old.must(old.DisableSourceSemiSync(ctx))
	old.loses(3, keep)
	old.must(old.StopAcknowledging(ctx, nil))
	_, err := old.Follow(ctx, next.source())
	old.must(err)
	old.must(old.Drain(ctx, next.status().Executed))

	release := lagging(old)
	next.must(next.insert(ctx, 5))
	all := next.status().Executed
	old.eventually("receiving", func() bool { return old.status().Received == all })
	if err := old.AcknowledgeIn(short(t), 8, nil); err == nil {
		t.Fatal("it is itself again before the barrier is applied")
	}
	old.eventually("receiving in silence", func() bool {
		st := old.status()
		return st.IORunning == ThreadYes && !st.ReplicaSemiSyncEnabled && !st.ReplicaSemiSyncActive && aliased(st.ServerID)
	})
	old.must(old.AcknowledgeIn(ctx, 7, nil))
	old.connected(true)
	if st := old.status(); aliased(st.ServerID) || st.Executed == all {
		t.Fatalf("server_id %d, at %s of %s", st.ServerID, st.Executed, all)
	}
	// An applier that ends while everything is to be applied: nothing that was received may go with it.
	old.must(old.StopAcknowledging(ctx, nil))
	old.eventually("following in silence", func() bool { return old.status().IORunning == ThreadYes && aliased(old.status().ServerID) })
	waits := func() bool {
		all, err := rows(ctx, old.boss, "SHOW PROCESSLIST")
		old.must(err)
		return slices.ContainsFunc(all, func(r record) bool { return strings.Contains(r["Info"], "MASTER_GTID_WAIT") })
	}
	old.eventually("the end of what was given up", func() bool { return !waits() })
	ended := make(chan error, 1)
	go func() { ended <- old.AcknowledgeIn(ctx, 8, nil) }()
	old.eventually("waiting for the applier", waits)
	old.sql(fmt.Sprintf("KILL %d", old.status().ApplierID))
	if err := <-ended; !errors.Is(err, ErrApplierStopped) {
		t.Fatalf("its applier was killed: %v", err)
	}
	if st := old.status(); st.IORunning != ThreadNo || st.Received != all || !aliased(st.ServerID) {
		t.Fatalf("beside a stopped applier: %+v", st)
	}
	release()
	received, err := old.Freeze(ctx, nil)
	old.must(err)
	old.must(old.Drain(ctx, received))
	_, err = old.Follow(ctx, next.source())
	old.must(err)
	old.must(old.Drain(ctx, all))
	sameRows(t, next, old)
}

// TestOwnServerID: what a server was given, also under its alias. A MySQL server has none.
func TestOwnServerID(t *testing.T) {
	for _, c := range []struct {
		st   Status
		want uint32
	}{{Status{ServerID: 2}, 2}, {Status{ServerID: otherID(2)}, 2}, {Status{ServerID: otherID(2), ServerUUID: "u"}, otherID(2)}} {
		if got := c.st.OwnServerID(); got != c.want {
			t.Errorf("%+v: %d, want %d", c.st, got, c.want)
		}
	}
}
