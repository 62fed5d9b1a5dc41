//go:build integration

package integration

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// pollInterval is how often a condition is looked at. Conditions are about other
// processes, so there is nothing to wait on; the bound is the caller's context.
const pollInterval = 20 * time.Millisecond

// Await looks at cond until it holds or ctx ends; then the error says what was last
// seen instead. Each look is bounded, so a host that answers nothing costs one look.
func Await(ctx context.Context, what string, cond func(context.Context) (ok bool, saw string)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	saw := "nothing yet"
	for {
		look, cancel := context.WithTimeout(ctx, 3*time.Second)
		ok, now := cond(look)
		cancel()
		if ok {
			return nil
		}
		if ctx.Err() == nil || saw == "" {
			saw = now
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last seen: %s", what, context.Cause(ctx), saw)
		case <-ticker.C:
		}
	}
}

// ClusterStatus asks any node. It prefers one that knows a leader: a cut-off node
// answers too, from an old state.
func (c *Cluster) ClusterStatus(ctx context.Context) (api.Status, error) {
	return c.api.Status(ctx)
}

// AwaitStatus waits until some node's status satisfies cond.
func (c *Cluster) AwaitStatus(ctx context.Context, what string, cond func(api.Status) bool) (api.Status, error) {
	var last api.Status
	err := Await(ctx, what, func(ctx context.Context) (bool, string) {
		st, err := c.ClusterStatus(ctx)
		if err != nil {
			return false, err.Error()
		}
		last = st
		return cond(st), Describe(st)
	})
	return last, err
}

// AwaitHealthy waits for the end of every story: one primary in phase steady that
// holds the address, every data node following, the sync set full, nothing pending.
func (c *Cluster) AwaitHealthy(ctx context.Context) (api.Status, error) {
	return c.AwaitStatus(ctx, "a healthy cluster with every node back", func(st api.Status) bool {
		if st.Verdict != api.StandingHealthy || st.Phase != api.PhaseSteady || st.Operation != nil || st.Leader == "" {
			return false
		}
		for _, v := range st.VIPs {
			if v.Holder != st.Primary {
				return false
			}
		}
		counts := 0
		for _, host := range c.DataHosts() {
			i := slices.IndexFunc(st.Nodes, func(n api.Node) bool { return n.ID == host })
			if i < 0 || !nodeWell(st, st.Nodes[i]) {
				return false
			}
			if st.Nodes[i].Sync == api.SyncAck {
				counts++
			}
		}
		return counts >= min(len(c.DataHosts())-1, 2) // as many as the set holds when one acknowledgement is waited for
	})
}

func nodeWell(st api.Status, n api.Node) bool {
	if n.Health != api.HealthOK || n.Server != api.ServerUp {
		return false
	}
	if n.ID == st.Primary {
		return n.Role == api.RolePrimary && n.Writable && n.LeaseMS > 0
	}
	return n.Role == api.RoleReplica && !n.Writable && (n.Sync == api.SyncAck || n.Sync == api.SyncReserve)
}

// Describe is a status in one line, for failures.
func Describe(st api.Status) string {
	s := fmt.Sprintf("told by %s: %s, epoch %d, primary %q, leader %q, phase %s, vips %v", st.ToldBy, st.Verdict, st.Epoch, st.Primary,
		st.Leader, st.Phase, st.VIPs)
	for _, n := range st.Nodes {
		s += fmt.Sprintf("; %s %s %s server %s writable %t lease %d ms %s", n.ID, n.Role, n.Health, n.Server, n.Writable, n.LeaseMS, n.Note)
	}
	if st.Operation != nil {
		s += fmt.Sprintf("; operation %d %s in %s", st.Operation.ID, st.Operation.Kind, st.Operation.Step)
	}
	if len(st.Why) > 0 {
		s += fmt.Sprintf("; why %v", st.Why)
	}
	return s
}
