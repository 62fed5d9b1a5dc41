package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// failOver asks the leader, as an operator does.
func (c *testCluster) failOver(req api.FailoverRequest) api.Result {
	c.t.Helper()
	req.Actor = "ann"
	return c.onLeader("failover", func(ctx context.Context, m *member) (api.Result, error) { return m.Failover(ctx, req) })
}

func TestFailoverAskedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	rest := c.w.clients(t)
	c.bootstrap()
	c.wrote()
	await(t, "leadership leaves the primary's host", func() bool { return c.leader().id != "db1" })
	if r := c.failOver(api.FailoverRequest{To: "db1"}); r.Outcome != api.OutcomeRefused || r.Rule != "candidate.is-primary" {
		t.Errorf("to the primary: %+v", r)
	}
	var plan api.Result
	await(t, "the new leader to have heard of everybody", func() bool {
		plan = c.failOver(api.FailoverRequest{To: "db3", Plan: true})
		return plan.Rule != "failover.count"
	})
	if plan.Outcome != api.OutcomeDone || plan.Risk != nil || c.leader().store.State().Epoch != 1 {
		t.Errorf("a plan: %+v, epoch %d", plan, c.leader().store.State().Epoch)
	}
	if _, err := c.leader().Failover(t.Context(), api.FailoverRequest{To: "db9"}); !errors.Is(err, ErrUnknownNode) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("to a stranger: %v", err)
	}
	// Whoever received more comes before whoever was asked for.
	rest()
	c.nothingLost()
	if r := c.failOver(api.FailoverRequest{To: "db3"}); r.Outcome != api.OutcomeUnknown || r.Operation == 0 {
		t.Fatalf("%+v", r)
	}
	in := c.awaitIncident(c.node("db2"), fsm.KindFailover)
	if in.Outcome != fsm.OutcomeDone || in.To != "db3" || in.Actor != "ann" || in.Fence == nil || in.Fence.Kind != fsm.EvidenceAgent {
		t.Errorf("incident %+v", in)
	}
	c.w.clients(t)
	c.wrote()
	c.nothingLost()
}

// TestEverybodyTellsTheLeadersRefusals: whichever node is asked names the rule by which writes wait, and what to do.
func TestEverybodyTellsTheLeadersRefusals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(s *fsm.Settings) { s.SyncMinReplicas = 1 })
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	for _, id := range []fsm.NodeID{"db2", "db3"} {
		h := c.node(id).host
		h.change(func() { h.fails["Start"], h.state = errors.New("broken by the test"), fsm.ServerDown })
	}
	for _, m := range c.nodes {
		await(t, string(m.id)+" tells why writes wait", func() bool {
			st := m.Status(context.Background())
			return slices.ContainsFunc(st.Why, func(w string) bool { return strings.HasPrefix(w, "sync.min-replicas db1: writes wait") }) && len(st.Next) > 0 && !st.Degraded
		})
	}
	if r := c.failOver(api.FailoverRequest{}); r.Outcome != api.OutcomeRefused || r.Rule != "failover.count" {
		t.Errorf("%+v", r)
	}
	r := c.failOver(api.FailoverRequest{AcceptDataLoss: true, Plan: true})
	if r.Outcome != api.OutcomeRefused || r.Rule != "failover.acknowledger" || r.Risk == nil || r.Risk.Primary != "db1" || len(r.Risk.Nodes) != 2 || !r.Risk.DegradedSince.IsZero() {
		t.Errorf("%+v, risk %+v", r, r.Risk)
	}
	for _, id := range []fsm.NodeID{"db2", "db3"} {
		h := c.node(id).host
		h.change(func() { delete(h.fails, "Start") })
	}
	c.wrote()
	c.nothingLost()
}
