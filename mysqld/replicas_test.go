package mysqld

import (
	"errors"
	"slices"
	"testing"
)

// twoAddresses is a source with a replica at each of two addresses of this host.
func twoAddresses(t *testing.T) (source, at4, at6 *node) {
	t.Helper()
	source, at4, at6 = newNode(t, kinds[0], 1, "--bind-address=127.0.0.1,::1"), newNode(t, kinds[0], 2), newNode(t, kinds[0], 3)
	for _, n := range []*node{source, at4, at6} {
		n.start(StartOptions{})
	}
	source.lead(false)
	at4.follow(source, true)
	_, err := at6.Follow(testContext(t), Source{Host: "::1", Port: source.port})
	at6.must(err)
	at6.connected(false)
	return source, at4, at6
}

// replicas lists those at an address.
func (n *node) replicas(host string) []Replica {
	n.t.Helper()
	all, err := n.Replicas(testContext(n.t))
	n.must(err)
	return slices.DeleteFunc(all, func(r Replica) bool { return r.Host != host })
}

func TestCutReplica(t *testing.T) {
	t.Parallel()
	source, at4, at6 := twoAddresses(t)
	ctx := testContext(t)
	cut, kept := source.replicas("127.0.0.1"), source.replicas("::1")
	if len(cut) != 1 || len(kept) != 1 || cut[0].Port == 0 || kept[0].Port == 0 {
		t.Fatalf("replicas %+v and %+v", cut, kept)
	}
	if clients := source.status().SemiSyncClients; clients != 1 {
		t.Fatalf("%d semi-sync clients", clients)
	}

	// A commit waits for the one that is cut, which may not return.
	at4.must(at4.StopAcknowledging(ctx, nil))
	source.must(source.EnableSourceSemiSync(ctx, 1))
	source.eventually("reconnecting", func() bool { return len(source.replicas("127.0.0.1")) == 1 })
	locked, err := source.boss.Conn(ctx)
	source.must(err)
	defer locked.Close()
	for _, s := range []string{"SET sql_log_bin=0", "ALTER USER 'highbase_repl'@'%' ACCOUNT LOCK"} {
		_, err := locked.ExecContext(ctx, s)
		source.must(err)
	}
	waiter := make(chan error, 1)
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting", func() bool { return source.status().WaitSessions > 0 })

	for i, want := range []int{1, 0} {
		n, err := source.CutReplica(ctx, "127.0.0.1")
		source.must(err)
		if left := source.replicas("127.0.0.1"); n != want || len(left) != 0 {
			t.Fatalf("cut %d in round %d, want %d; left are %+v", n, i, want, left)
		}
	}
	at4.eventually("being refused", func() bool { st := at4.status(); return st.IORunning != ThreadYes && st.IOErrno != 0 })
	if left := source.replicas("127.0.0.1"); len(left) != 0 {
		t.Fatalf("it is back: %+v", left)
	}
	if now := source.replicas("::1"); !slices.Equal(now, kept) {
		t.Fatalf("the replica at another address was cut too: %+v, before %+v", now, kept)
	}
	if n, err := source.CutReplica(ctx, "192.0.2.1"); n != 0 || err != nil {
		t.Fatalf("cut %d where nobody is: %v", n, err)
	}
	if _, err := source.CutReplica(ctx, "db2"); err == nil {
		t.Fatal("a name was taken for an address")
	}
	select {
	case err := <-waiter:
		t.Fatalf("the waiting commit ended: %v", err)
	default:
	}
	// What it waits for still releases it.
	_, err = locked.ExecContext(ctx, "ALTER USER 'highbase_repl'@'%' ACCOUNT UNLOCK")
	source.must(err)
	at6.must(at6.ReplicaSemiSync(ctx, true))
	at6.connected(true)
	source.must(source.Nudge(ctx))
	source.must(<-waiter)
}

// TestCutReplicaReturnsWhenNotBlocked is the control of the block that goes before.
// It ends one thread and no more: whoever goes on ending what comes back at once
// meets an error of MariaDB's (docs/SERVERS.md, cut while it connects).
func TestCutReplicaReturnsWhenNotBlocked(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, kinds[0], 2, true)
	source := nodes[0]
	var before []Replica
	source.eventually("its dump thread", func() bool {
		before = source.replicas("127.0.0.1")
		return len(before) == 1
	})
	source.must(source.CutThread(testContext(t), before[0].ID))
	source.eventually("its return", func() bool {
		now := source.replicas("127.0.0.1")
		return len(now) == 1 && now[0].ID != before[0].ID
	})
	nodes[1].connected(true) // and it acknowledges again
}

// TestCutThread ends one and no other.
func TestCutThread(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		nodes := cluster(t, k, 3, true)
		source := nodes[0]
		ctx := testContext(t)
		var before []Replica
		source.eventually("both dump threads: a replica is connected before its own shows as one", func() (ok bool) {
			var err error
			before, err = source.Replicas(ctx)
			source.must(err)
			return len(before) == 2
		})
		if before[0].Port == 0 || before[0].Port == before[1].Port {
			t.Fatalf("replicas %+v", before)
		}
		source.must(source.CutThread(ctx, before[0].ID))
		now, err := source.Replicas(ctx)
		source.must(err)
		if slices.ContainsFunc(now, func(r Replica) bool { return r.ID == before[0].ID }) || !slices.Contains(now, before[1]) {
			t.Fatalf("replicas %+v, before %+v", now, before)
		}
		source.must(source.CutThread(ctx, before[0].ID)) // again is harmless
	})
}

func TestCutReplicaKnownByName(t *testing.T) {
	t.Parallel()
	source, replica := newNode(t, kinds[0], 1, "--skip-name-resolve=OFF"), newNode(t, kinds[0], 2)
	source.start(StartOptions{})
	replica.start(StartOptions{})
	source.lead(false)
	replica.follow(source, true)
	if named := source.replicas("localhost"); len(named) != 1 {
		t.Fatalf("the test is not about a name: %+v", source.replicas("127.0.0.1"))
	}
	ctx := testContext(t)
	if n, err := source.CutReplica(ctx, "192.0.2.1"); n != 0 || err != nil {
		t.Fatalf("cut %d at another address: %v", n, err)
	}
	if n, err := source.CutReplica(ctx, "127.0.0.1"); n == 0 || err != nil {
		t.Fatalf("cut %d: %v", n, err)
	}
}

func TestStopAcknowledging(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, kinds[0], 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	off := func(what string, before Status) Status {
		t.Helper()
		replica.must(replica.StopAcknowledging(ctx, nil))
		st := replica.status()
		if st.ReplicaSemiSyncEnabled || st.ReplicaSemiSyncActive {
			t.Fatalf("%s: %+v", what, st)
		}
		if st.Generation != before.Generation || st.ApplierID != before.ApplierID {
			t.Fatalf("%s: more than the receiver was touched: before %+v, now %+v", what, before, st)
		}
		return st
	}
	// The control: the setting alone changes nothing.
	replica.sql("SET GLOBAL rpl_semi_sync_slave_enabled=0")
	before := replica.status()
	if before.ReplicaSemiSyncEnabled || !before.ReplicaSemiSyncActive {
		t.Fatalf("the setting alone sufficed: %+v", before)
	}
	first := off("connected", before)
	if first.ReceiverID == before.ReceiverID {
		t.Fatal("the receiver was not restarted")
	}
	replica.connected(false)
	if again := off("off already", first); again.ReceiverID != replica.status().ReceiverID || again.IORunning == ThreadNo {
		t.Fatalf("called again it did something: %+v", again)
	}

	replica.must(replica.ReplicaSemiSync(ctx, true))
	replica.connected(true)
	source.must(source.service.Kill(ctx))
	replica.eventually("losing its source", func() bool { return replica.status().IORunning == ThreadConnecting })
	lost := off("connecting", replica.status())
	if lost.IORunning == ThreadNo {
		t.Fatalf("the receiver is gone: %+v", lost)
	}

	replica.sql("SET GLOBAL rpl_semi_sync_slave_enabled=1")
	_, err := replica.Freeze(ctx, nil)
	replica.must(err)
	if stopped := off("receiver stopped", replica.status()); stopped.IORunning != ThreadNo {
		t.Fatalf("a stopped receiver was started: %+v", stopped)
	}
	replica.must(replica.StopReplication(ctx))
	replica.sql("SET GLOBAL rpl_semi_sync_slave_enabled=1")
	off("no replica", replica.status())
}

// TestStopAcknowledgingBesideABrokenApplier: a restart of the receiver alone would forget what was received.
func TestStopAcknowledgingBesideABrokenApplier(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, kinds[0], 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	conn, err := replica.boss.Conn(ctx)
	replica.must(err)
	defer conn.Close()
	for _, s := range []string{"SET sql_log_bin=0", "INSERT INTO app.t (id, v) VALUES (1, 'in the way')"} {
		_, err := conn.ExecContext(ctx, s)
		replica.must(err)
	}
	source.must(source.insert(ctx, 1))
	replica.eventually("stopping on an error", func() bool { return replica.status().SQLErrno != 0 })
	before := replica.status()
	if err := replica.StopAcknowledging(ctx, nil); !errors.Is(err, ErrApplierStopped) {
		t.Fatalf("not refused: %v", err)
	}
	if st := replica.status(); st.ReceiverID != before.ReceiverID || st.Received != before.Received {
		t.Fatalf("the receiver was touched: before %+v, now %+v", before, st)
	}
}

func TestDegrade(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, kinds[0], 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	if err := replica.Degrade(ctx); !errors.Is(err, ErrReplica) {
		t.Fatalf("a replica was degraded: %v", err)
	}
	replica.must(replica.StopAcknowledging(ctx, nil))
	waiter := make(chan error, 1)
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting", func() bool { return source.status().WaitSessions > 0 })
	if err := source.DisableSourceSemiSync(ctx); !errors.Is(err, ErrWritable) {
		t.Fatalf("the careful way on a writable server: %v", err)
	}
	if st := source.status(); !st.SourceSemiSyncEnabled || st.WaitSessions == 0 {
		t.Fatalf("a refusal did something: %+v", st)
	}
	for range 2 {
		source.must(source.Degrade(ctx))
	}
	source.must(<-waiter)
	source.must(source.insert(ctx, 1))
	if st := source.status(); st.SourceSemiSyncEnabled || st.ReadOnly {
		t.Fatalf("degraded: %+v", st)
	}
	// And back: commits wait again, for ever.
	source.must(source.EnableSourceSemiSync(ctx, 1))
	go func() { waiter <- source.insert(ctx, 1) }()
	source.eventually("waiting again", func() bool { return source.status().WaitSessions > 0 })
	replica.must(replica.ReplicaSemiSync(ctx, true))
	replica.connected(true)
	source.must(source.Nudge(ctx))
	source.must(<-waiter)
}

func TestSplitClient(t *testing.T) {
	t.Parallel()
	for client, want := range map[string]Replica{
		"10.0.0.2:51000": {Host: "10.0.0.2", Port: 51000}, "::1:51000": {Host: "::1", Port: 51000}, "db2.example:51000": {Host: "db2.example", Port: 51000},
		"localhost": {Host: "localhost"}, "": {}, "fd77::2": {Host: "fd77:", Port: 2}, // the servers always give the port of a TCP client
		"db2:99999": {Host: "db2:99999"},
	} {
		if host, port := splitClient(client); host != want.Host || port != want.Port {
			t.Errorf("%q: %q, %d", client, host, port)
		}
	}
}
