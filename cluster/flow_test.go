package cluster

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/fsm"
)

// incident is the newest ended operation of a kind, as a node knows it.
func (m *member) incident(kind fsm.Kind) (fsm.Incident, bool) {
	for _, in := range slices.Backward(m.store.State().Incidents) {
		if in.Kind == kind {
			return in, true
		}
	}
	return fsm.Incident{}, false
}

// awaitIncident waits until an operation of a kind has ended.
func (c *testCluster) awaitIncident(at *member, kind fsm.Kind) fsm.Incident {
	c.t.Helper()
	var got fsm.Incident
	await(c.t, "a "+string(kind)+" has ended", func() bool {
		in, ok := at.incident(kind)
		got = in
		return ok
	})
	return got
}

// ledBy has leadership handed to a node, so that the loss of another costs no election: how long that takes goes by luck, and with it more is lost.
func (c *testCluster) ledBy(id fsm.NodeID) {
	c.t.Helper()
	await(c.t, string(id)+" leads", func() bool {
		l := c.leader()
		m, known := l.store.State().Member(id)
		if l.id == id || !known {
			return known
		}
		ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
		defer cancel()
		_ = l.raft().TransferTo(ctx, raftnode.MakeServerID(string(id), m.Instance)) // if it fails it is tried again
		return false
	})
}

// onLeader asks whoever leads until it is answered, again when leadership moves meanwhile: what is asked here may be asked twice.
func (c *testCluster) onLeader(what string, ask func(ctx context.Context, m *member) (api.Result, error)) api.Result {
	c.t.Helper()
	var r api.Result
	await(c.t, what, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
		defer cancel()
		var err error
		r, err = ask(ctx, c.leader())
		if err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknownOutcome) {
			c.t.Fatalf("%s: %v", what, err)
		}
		return err == nil
	})
	return r
}

// switchOver asks for a planned change until it has begun: a leader that has just taken office has not heard of everybody yet.
func (c *testCluster) switchOver(to fsm.NodeID) {
	c.t.Helper()
	await(c.t, "the switchover begins", func() bool {
		l := c.leader()
		if st := l.store.State(); st.Op != nil && st.Op.Kind == fsm.KindSwitchover {
			return true
		}
		if _, ended := l.incident(fsm.KindSwitchover); ended {
			return true
		}
		ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
		defer cancel()
		r, err := l.Switchover(ctx, api.SwitchoverRequest{To: string(to), Actor: "test"})
		if err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknownOutcome) {
			c.t.Fatal(err)
		}
		return err == nil && r.Outcome == api.OutcomeUnknown
	})
}

func TestBootstrapMakesEverybodyCount(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	st := c.node("db1").store.State()
	if st.Epoch != 1 || st.Primary != "db1" || st.Sync.Acks != 1 || len(st.Sync.Members) != 2 {
		t.Errorf("epoch %d, primary %s, sync set %+v", st.Epoch, st.Primary, st.Sync)
	}
	// Raft's leader gives way to a host that is not the primary's.
	await(t, "leadership leaves the primary's host", func() bool { return c.leader().id != "db1" })
	r := c.onLeader("bootstrap again", func(ctx context.Context, m *member) (api.Result, error) {
		return m.Bootstrap(ctx, api.BootstrapRequest{Primary: "db2"})
	})
	if r.Outcome != api.OutcomeRefused || r.Rule != "cluster.bootstrapped" {
		t.Errorf("a second bootstrap: %+v", r)
	}
	c.wrote()
	c.nothingLost()
}

// TestBootstrapThatFailedHalfWayIsRepeated: one peer has joined and the next did not answer.
func TestBootstrapThatFailedHalfWayIsRepeated(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	for _, m := range c.nodes {
		m.start()
	}
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	db1, db2, db3 := c.nodes[0], c.nodes[1], c.nodes[2]

	// Asked whether it could, db3 is not there: nobody is changed.
	db3.drop(func(string, string) bool { return true })
	r, err := db1.Bootstrap(ctx, api.BootstrapRequest{})
	if err != nil || r.Outcome != api.OutcomeRefused || r.Rule != "bootstrap.peer" || r.Node != "db3" {
		t.Errorf("without db3: %+v, %v", r, err)
	}
	for _, m := range c.nodes {
		if m.joined.Load() != nil {
			t.Errorf("%s belongs to a cluster", m.id)
		}
	}
	// It says that it could, and is gone when it is to do it.
	var asked atomic.Int32
	db3.drop(func(method, _ string) bool { return method == "adopt" && asked.Add(1) > 1 })
	r, err = db1.Bootstrap(ctx, api.BootstrapRequest{})
	if err != nil || r.Outcome != api.OutcomeRefused || r.Node != "db3" {
		t.Errorf("with half of db3: %+v, %v", r, err)
	}
	if db1.joined.Load() == nil || db2.joined.Load() == nil || db3.joined.Load() != nil {
		t.Fatal("it did not fail half-way: this test shows nothing")
	}
	id := db1.joined.Load().clusterID
	// Not even a restart between makes it another cluster.
	db1.crash()
	db1.start()
	db3.drop(nil)
	if r, err = db1.Bootstrap(ctx, api.BootstrapRequest{}); err != nil || r.Outcome == api.OutcomeRefused {
		t.Fatalf("again: %+v, %v", r, err)
	}
	c.healthy("db1")
	for _, m := range c.nodes {
		if got := m.joined.Load().clusterID; got != id {
			t.Errorf("%s belongs to %s, the first attempt made %s", m.id, got, id)
		}
	}
}

// TestBootstrapRefusesAStrangerAsPrimary.
func TestBootstrapRefusesAStrangerAsPrimary(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	c.nodes[0].start()
	r, err := c.nodes[0].Bootstrap(t.Context(), api.BootstrapRequest{Primary: "db9"})
	if err != nil || r.Outcome != api.OutcomeRefused || r.Rule != "bootstrap.primary" {
		t.Errorf("%+v, %v", r, err)
	}
	if c.nodes[0].joined.Load() != nil {
		t.Error("it belongs to a cluster")
	}
}

// TestTakeover: the primary's hbd can be called no more and its mysqld cannot be reached. It comes back afterwards, by itself.
func TestTakeover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	// Its Raft is not cut off: as a leader that nobody can ask for a lease it would be another test.
	c.voters = []fsm.NodeID{"db1"}
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db1 := c.node("db1")
	db1.drop(func(string, string) bool { return true })
	db1.host.change(func() { db1.host.reachable = false })
	in := c.awaitIncident(c.node("db2"), fsm.KindTakeover)
	if in.From != "db1" || in.To == "db1" || in.Epoch != 2 || in.Outcome != fsm.OutcomeDone || in.Fence == nil {
		t.Errorf("incident %+v", in)
	}
	c.wrote()
	if lost := c.w.lost(c.w.hosts[in.To]); len(lost) > 0 {
		t.Errorf("%s lacks acknowledged writes: %v", in.To, lost)
	}
	db1.drop(nil)
	db1.host.change(func() { db1.host.reachable = true })
	c.healthy(in.To)
	c.wrote()
	c.nothingLost()
}

// TestTakeoverOfAHost: hbd is gone with everything, so nobody fences the old primary but its kernel and the leader's wait.
func TestTakeoverOfAHost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db1 := c.node("db1")
	db1.crash()
	db1.host.change(func() { db1.host.reachable = false })
	in := c.awaitIncident(c.node("db2"), fsm.KindTakeover)
	if in.Fence == nil || in.Fence.Kind != fsm.EvidenceLease {
		t.Errorf("fenced by %+v", in.Fence)
	}
	c.wrote()
	// Its mysqld lived on, cut off, with a commit that nobody acknowledged: that is rolled back, not followed.
	db1.host.change(func() {
		db1.host.log = append(db1.host.log, txn{server: 1, seq: uint64(len(db1.host.log) + 1), serial: nextSerial()})
		db1.host.crash()
		db1.host.reachable = true
	})
	db1.start()
	c.healthy(in.To)
	if n := db1.host.count("Start(rewind)"); n != 1 {
		t.Errorf("rewound %d times", n)
	}
	c.wrote()
	c.nothingLost()
}

// TestServiceDownIsRestartedInPlace, and nobody reads what recovery committed before it is replicated.
func TestServiceDownIsRestartedInPlace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db1 := c.node("db1")
	db1.host.change(db1.host.crash)
	in := c.awaitIncident(c.node("db2"), fsm.KindRestart)
	if in.Outcome != fsm.OutcomeDone || in.Epoch != 1 || db1.host.count("Start") != 1 || db1.host.count("Start(rewind)") != 0 {
		t.Errorf("incident %+v", in)
	}
	c.healthy("db1")
	c.wrote()
	c.nothingLost()
}

// TestMinorityStopsServing: without a quorum nobody is promoted, and the primary ends when its lease does.
func TestMinorityStopsServing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	c.node("db2").crash()
	c.node("db3").crash()
	db1 := c.node("db1")
	await(t, "the gate is closed", func() bool { return !db1.gateOpen() })
	await(t, "it takes no writes", func() bool { return db1.host.Server().ReadOnly || db1.host.Server().State != fsm.ServerUp })
	if st := db1.store.State(); st.Epoch != 1 || st.Primary != "db1" {
		t.Errorf("epoch %d, primary %s", st.Epoch, st.Primary)
	}
	c.node("db2").start()
	c.node("db3").start()
	c.healthy("db1")
	c.wrote()
	c.nothingLost()
}

// TestPausedClusterFailsOverForNobody.
func TestPausedClusterFailsOverForNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.bootstrap()
	c.onLeader("pause", func(ctx context.Context, m *member) (api.Result, error) {
		return m.Pause(ctx, api.PauseRequest{Actor: "test", Why: "test"})
	})
	db1 := c.node("db1")
	db1.host.change(db1.host.crash)
	await(t, "the leader says that it is paused", func() bool {
		why, err := c.leader().WhyNot(t.Context(), "db1")
		return err == nil && slices.ContainsFunc(why, func(v api.Verdict) bool { return v.Rule == "cluster.paused" })
	})
	if st := c.leader().store.State(); st.Op != nil || st.Epoch != 1 {
		t.Errorf("operation %+v, epoch %d", st.Op, st.Epoch)
	}
	c.onLeader("resume", func(ctx context.Context, m *member) (api.Result, error) {
		return m.Resume(ctx, api.ResumeRequest{Actor: "test"})
	})
	c.awaitIncident(c.node("db2"), fsm.KindRestart)
	c.healthy("db1")
}
