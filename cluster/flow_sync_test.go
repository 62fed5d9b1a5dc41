package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// hasty gives members up soon.
func hasty(s *fsm.Settings) {
	s.ShrinkAfter, s.DegradeAfter = 700*time.Millisecond, 1200*time.Millisecond
}

// withWitnesses is three data nodes and two witnesses: the primary has a majority without its replicas.
func withWitnesses(t *testing.T) *testCluster {
	c := newCluster(t, 5, hasty)
	c.witnesses = []fsm.NodeID{"db4", "db5"}
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	return c
}

// off takes a host away, hbd and all.
func (m *member) off() {
	m.crash()
	m.host.change(func() {
		m.host.reachable, m.host.held, m.host.gate, m.host.portGated = false, false, 0, false
		clear(m.host.blocked)
		m.host.crash()
	})
}

// on brings it back.
func (m *member) on() {
	m.host.change(func() { m.host.reachable = true })
	m.start()
}

func (c *testCluster) awaitSet(at *member, what string, acks int, members ...fsm.NodeID) {
	c.t.Helper()
	await(c.t, what, func() bool {
		s := at.store.State()
		if s.Change != nil || s.Sync.Acks != acks || len(s.Sync.Members) != len(members) {
			return false
		}
		return !slices.ContainsFunc(members, func(id fsm.NodeID) bool { _, in := s.Sync.Member(id); return !in })
	})
}

// TestSetShrinksAndTheOtherTakesOver: a replica is away for long; when the primary dies the one that is left takes over, without an answer of it.
func TestSetShrinksAndTheOtherTakesOver(t *testing.T) {
	t.Parallel()
	c := withWitnesses(t)
	c.node("db3").off()
	c.awaitSet(c.node("db4"), "db3 has left the set", 1, "db2")
	c.wrote()
	c.node("db1").off()
	in := c.awaitIncident(c.node("db4"), fsm.KindTakeover)
	if in.To != "db2" || in.Outcome != fsm.OutcomeDone {
		t.Errorf("incident %+v", in)
	}
	c.wrote()
	c.node("db3").on()
	c.node("db1").on()
	c.healthy("db2")
	c.wrote()
	c.nothingLost()
}

// TestDegradedIsRecordedAndRefusesFailover: with both replicas away writes go on after a while, and that is in the log; then nobody is promoted.
func TestDegradedIsRecordedAndRefusesFailover(t *testing.T) {
	t.Parallel()
	c := withWitnesses(t)
	c.node("db2").off()
	c.node("db3").off()
	db1, w := c.node("db1"), c.node("db4")
	await(t, "nobody has to acknowledge", func() bool { return w.store.State().Sync.Acks == 0 })
	c.wrote()
	if !db1.observation().PortGated {
		t.Error("the gate does not cover its own port")
	}
	if !w.Status(t.Context()).Degraded {
		t.Error("status does not say that it is degraded")
	}
	db1.off()
	c.node("db2").on()
	c.node("db3").on()
	await(t, "the leader says why nobody is promoted", func() bool {
		why, err := c.leader().WhyNot(t.Context(), "db1")
		return err == nil && slices.ContainsFunc(why, func(v api.Verdict) bool { return v.Rule == "failover.degraded" })
	})
	if st := w.store.State(); st.Epoch != 1 || st.Primary != "db1" {
		t.Errorf("epoch %d, primary %s", st.Epoch, st.Primary)
	}
	db1.on()
	c.healthy("db1")
	await(t, "both are in the set again", func() bool { return len(w.store.State().Sync.Members) == 2 }) // the witness hears of it a little later than the leader
	if st := w.store.State(); st.Epoch != 1 {
		t.Errorf("epoch %d, set %+v", st.Epoch, st.Sync)
	}
	c.wrote()
	c.nothingLost()
}

// TestLastOfTwoGoesOnAlone: of two data nodes the one that is left takes over, and has nobody who acknowledges.
func TestLastOfTwoGoesOnAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(s *fsm.Settings) { s.OrderTimeout = time.Second })
	c.witnesses = []fsm.NodeID{"db3"}
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	c.node("db1").off()
	in := c.awaitIncident(c.node("db3"), fsm.KindTakeover)
	if st := c.node("db3").store.State(); in.To != "db2" || st.Sync.Acks != 0 || len(st.Sync.Members) != 0 {
		t.Errorf("incident %+v, set %+v", in, st.Sync)
	}
	c.wrote()
	c.node("db1").on()
	c.healthy("db2")
	c.wrote()
	c.nothingLost()
}

// TestRestartedPrimaryFindsAnotherMember: the only member is lost for good while the primary restarts in place. Its barrier waits for whoever
// counts; the replica that has come back meanwhile is counted by where the primary is, though this run of mysqld has written no barrier yet.
func TestRestartedPrimaryFindsAnotherMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5, func(s *fsm.Settings) { hasty(s); s.SyncMinReplicas = 1 })
	c.witnesses = []fsm.NodeID{"db4", "db5"}
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	c.ledBy("db4")
	db1, db4 := c.node("db1"), c.node("db4")
	c.node("db3").off()
	c.awaitSet(db4, "db3 has left the set", 1, "db2")
	c.wrote()
	c.node("db2").off()
	db1.host.change(db1.host.crash)
	c.node("db3").on()
	in := c.awaitIncident(db4, fsm.KindRestart)
	if in.Outcome != fsm.OutcomeDone || in.Epoch != 1 || db1.host.count("Start") < 1 {
		t.Errorf("incident %+v", in)
	}
	c.awaitSet(db4, "db3 is the set", 1, "db3")
	c.wrote()
	c.node("db2").on()
	c.healthy("db1")
	c.wrote()
	c.nothingLost()
}

// TestSwitchoverIsChained: before the primary is asked to let go the third replicates from the candidate, and acknowledges there.
func TestSwitchoverIsChained(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db1, db2, db3 := c.node("db1"), c.node("db2"), c.node("db3")
	pause := db1.host.holdCall("SetReadOnly")
	c.switchOver("db2")
	await(t, "the primary is asked to let go", func() bool {
		select {
		case <-pause.entered:
			return true
		default:
			return false
		}
	})
	c.w.mu.Lock()
	from, acks, connected := db3.host.source, db3.host.ack, c.w.connected(db3.host) == db2.host
	delete(db1.host.holds, "SetReadOnly")
	c.w.mu.Unlock()
	if from != db2.host.addr || !acks || !connected {
		t.Errorf("in the pause db3 replicates from %s (db2 is %s), connected %v, acknowledges %v", from, db2.host.addr, connected, acks)
	}
	close(pause.released)
	in := c.awaitIncident(db3, fsm.KindSwitchover)
	var steps []fsm.Step
	for _, e := range in.Timeline {
		if len(steps) == 0 || steps[len(steps)-1] != e.Step {
			steps = append(steps, e.Step)
		}
	}
	if want := []fsm.Step{fsm.StepPrepared, fsm.StepChained, fsm.StepReleasing, fsm.StepPromoted}; in.Outcome != fsm.OutcomeDone || !slices.Equal(steps, want) {
		t.Errorf("steps %v, incident %+v", steps, in)
	}
	c.healthy("db2")
	c.wrote()
	c.nothingLost()
}

// TestCandidateLostWhileChained: the third comes back under the old primary and is taken in, long before anything is given up.
func TestCandidateLostWhileChained(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(s *fsm.Settings) { s.DegradeAfter = time.Minute })
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db2, db3 := c.node("db2"), c.node("db3")
	c.ledBy("db3")
	// Whether db2 holds all that it has db3 cannot ask: so it waits.
	db2.drop(func(method, from string) bool { return method == "position" && from == "db3" })
	c.switchOver("db2")
	await(t, "the change is chained", func() bool { op := db3.store.State().Op; return op != nil && op.Step == fsm.StepChained })
	db2.off()
	in := c.awaitIncident(db3, fsm.KindSwitchover)
	if in.Outcome != fsm.OutcomeRolledBack {
		t.Errorf("incident %+v", in)
	}
	c.wrote()
	if st := db3.store.State(); st.Primary != "db1" || st.Sync.Acks != 1 {
		t.Errorf("primary %s, set %+v", st.Primary, st.Sync)
	}
	db2.on()
	c.healthy("db1")
	c.wrote()
	c.nothingLost()
}
