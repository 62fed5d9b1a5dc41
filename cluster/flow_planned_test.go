package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

func TestSwitchover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	c.switchOver("db3")
	in := c.awaitIncident(c.node("db2"), fsm.KindSwitchover)
	if in.Outcome != fsm.OutcomeDone || in.To != "db3" || in.Epoch != 2 || in.Fence == nil || in.Fence.Kind != fsm.EvidenceRelease {
		t.Errorf("incident %+v", in)
	}
	c.healthy("db3")
	c.wrote()
	db1 := c.node("db1")
	if db1.host.held || db1.host.count("Kill") != 0 || db1.host.run != 1 {
		t.Error("the old primary was not let go politely")
	}
	c.nothingLost()
}

// TestSwitchoverWaitsForACandidateThatConnects, for moments: one asked for while its candidate's receiver is being restarted is done and not refused.
func TestSwitchoverWaitsForACandidateThatConnects(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db2 := c.node("db2")
	db2.host.change(func() { db2.host.reachable = false })
	var reason string
	await(t, "db2 is known not to follow", func() bool {
		n := c.leader()
		l := n.leading.Load()
		if l == nil {
			return false
		}
		st := n.store.State()
		o := fsm.Classify(st, l.view(st)).Node("db2").Obs
		reason = o.Reason
		return o.Standing == fsm.StandingCatching
	})
	if strings.HasPrefix(reason, "follows") {
		t.Errorf("it does not follow, and its reason is %q", reason)
	}
	time.AfterFunc(300*time.Millisecond, func() { db2.host.change(func() { db2.host.reachable = true }) })
	r := c.onLeader("switchover", func(ctx context.Context, m *member) (api.Result, error) {
		return m.Switchover(ctx, api.SwitchoverRequest{To: string(db2.id), Actor: "test"})
	})
	if r.Outcome != api.OutcomeUnknown {
		t.Fatalf("refused although it was a matter of moments: %+v", r)
	}
	c.healthy("db2")
	c.nothingLost()
}

// TestSwitchoverIsRolledBack when its candidate never holds what the old primary released; the old one serves on.
func TestSwitchoverIsRolledBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(s *fsm.Settings) { s.ReleaseTimeout = 400 * time.Millisecond })
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	// It receives and acknowledges, and is never seen to have applied what it is asked for.
	db2 := c.node("db2")
	k := db2.host.holdCall("Drain")
	c.switchOver("db2")
	in := c.awaitIncident(c.node("db3"), fsm.KindSwitchover)
	if in.Outcome != fsm.OutcomeRolledBack || !strings.Contains(in.Reason, "candidate at the position=false") {
		t.Errorf("incident %+v", in)
	}
	if st := c.node("db3").store.State(); st.Epoch != 1 || st.Primary != "db1" {
		t.Errorf("epoch %d, primary %s", st.Epoch, st.Primary)
	}
	c.wrote()
	db2.host.change(func() { delete(db2.host.holds, "Drain") })
	close(k.released)
	c.healthy("db1")
	c.nothingLost()
}

func TestShutdownHandsOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db1 := c.node("db1")
	db1.shutdown()
	in := c.awaitIncident(c.node("db2"), fsm.KindHandover)
	if in.Outcome != fsm.OutcomeDone || in.From != "db1" {
		t.Errorf("incident %+v", in)
	}
	if h := db1.host; h.held || h.gate > now() || h.state != fsm.ServerUp || h.mode != modeReadOnly || h.count("Destroy") != 1 {
		t.Errorf("left behind: held %t, mysqld %s and %s", h.held, h.state, h.mode)
	}
	c.wrote()
	db1.start()
	c.healthy(in.To)
	c.nothingLost()
}

// TestShutdownWithoutSuccessorLetsGoAllTheSame.
func TestShutdownWithoutSuccessorLetsGoAllTheSame(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.bootstrap()
	for _, id := range []fsm.NodeID{"db2", "db3"} {
		c.w.hosts[id].change(func() { c.w.hosts[id].crash(); c.w.hosts[id].fails["Start"] = errors.New("no") })
	}
	await(t, "the primary knows that both are down", func() bool {
		two, _, _ := c.node("db1").peers.observed("db2")
		three, _, _ := c.node("db1").peers.observed("db3")
		return two.Server.State == fsm.ServerDown && three.Server.State == fsm.ServerDown
	})
	db1 := c.node("db1")
	db1.shutdown()
	if h := db1.host; h.held || h.gate > now() || h.mode == modeWritable {
		t.Errorf("left behind: held %t, %s", h.held, h.mode)
	}
}

// TestWitnessVotesAndHoldsNothing: it leads, as no primary does, and survives the hand-over between the other two.
func TestWitnessVotesAndHoldsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	c.witnesses = []fsm.NodeID{"db3"}
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	c.switchOver("db2")
	if in := c.awaitIncident(c.node("db3"), fsm.KindSwitchover); in.Outcome != fsm.OutcomeDone || in.To != "db2" {
		t.Errorf("incident %+v", in)
	}
	c.healthy("db2")
	c.wrote()
	db3 := c.node("db3")
	if st := db3.store.State(); len(st.Sync.Members) != 1 || st.Sync.Members[0].Node != "db1" {
		t.Errorf("sync set %+v", st.Sync)
	}
	if obs := db3.observation(); obs.Standing != fsm.StandingWitness {
		t.Errorf("it is %s", obs.Standing)
	}
	db3.shutdown()
	await(t, "somebody else leads", func() bool { return c.leader().id != "db3" })
	c.wrote()
	c.nothingLost()
}
