package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

const (
	// demoPace is how often a condition about other processes is looked at.
	demoPace = 20 * time.Millisecond
	// demoLook bounds one look: a dead node costs a connect, a frozen one an answer.
	demoLook = 3 * time.Second
	// demoCalm is how many more writes are acknowledged between two faults: both sides of a gap belong to calm times.
	demoCalm = 100
)

// connect makes the client of the API, which starts from the client host.
func (d *demo) connect() error {
	var addrs []string
	for _, h := range d.facts.Hosts {
		if h.API != "" {
			addrs = append(addrs, h.API)
		}
	}
	var err error
	d.client, err = api.NewClient(addrs, api.ClientOptions{
		ConnectTimeout: 300 * time.Millisecond, ReadTimeout: time.Second,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return d.sb.Dial(ctx, "client", network, addr)
		},
	})
	return err
}

// await looks until cond holds. When ctx ends first the error says what was seen instead.
func await(ctx context.Context, what string, cond func(context.Context) (ok bool, saw string)) error {
	tick := time.NewTicker(demoPace)
	defer tick.Stop()
	saw := "nothing"
	for {
		look, cancel := context.WithTimeout(ctx, demoLook)
		ok, now := cond(look)
		cancel()
		if ok {
			return nil
		}
		if ctx.Err() == nil { // a look that was cut short saw nothing
			saw = now
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last seen: %s", what, context.Cause(ctx), saw)
		case <-tick.C:
		}
	}
}

// awaitStatus waits until a node's status satisfies cond.
func (d *demo) awaitStatus(ctx context.Context, what string, cond func(api.Status) bool) (api.Status, error) {
	var last api.Status
	err := await(ctx, what, func(ctx context.Context) (bool, string) {
		st, err := d.client.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		last = st
		return cond(st), statusLine(st)
	})
	return last, err
}

// awaitWhole waits until nothing is left to be done: healthy, steady, every data node in its place.
func (d *demo) awaitWhole(ctx context.Context, what string) (api.Status, error) {
	return d.awaitStatus(ctx, what, d.whole)
}

func (d *demo) whole(st api.Status) bool {
	return st.Verdict == api.StandingHealthy && settled(st) && d.following(st) == len(d.dataHosts())-1
}

// settled: one primary that takes writes and holds the address, and nothing under way.
func settled(st api.Status) bool {
	if st.Primary == "" || st.Leader == "" || st.Phase != api.PhaseSteady || st.Operation != nil {
		return false
	}
	for _, v := range st.VIPs {
		if v.Holder != st.Primary {
			return false
		}
	}
	i := slices.IndexFunc(st.Nodes, func(n api.Node) bool { return n.ID == st.Primary })
	return i >= 0 && st.Nodes[i].Writable
}

// reports tells whether the cluster has fresh word of a node.
func reports(st api.Status, id string) bool {
	i := slices.IndexFunc(st.Nodes, func(n api.Node) bool { return n.ID == id })
	return i >= 0 && st.Nodes[i].Server != api.ServerUnknown
}

// following counts the replicas that are well and follow.
func (d *demo) following(st api.Status) int {
	n := 0
	for _, node := range st.Nodes {
		if node.ID != st.Primary && node.Role == api.RoleReplica && node.Health == api.HealthOK && node.Server == api.ServerUp && !node.Writable {
			n++
		}
	}
	return n
}

func (d *demo) dataHosts() []string {
	var names []string
	for _, h := range d.facts.Hosts {
		if h.Role == sandbox.RoleData {
			names = append(names, h.Name)
		}
	}
	return names
}

// awaitIncident waits for incidents newer than those already told and for the cluster to satisfy cond after them.
func (d *demo) awaitIncident(ctx context.Context, what string, cond func(api.Status) bool) (api.Status, []api.Incident, error) {
	var last api.Status
	var fresh []api.Incident
	err := await(ctx, what, func(ctx context.Context) (bool, string) {
		var err error
		if last, err = d.client.Status(ctx); err != nil {
			return false, err.Error()
		}
		if fresh, err = d.newIncidents(ctx); err != nil {
			return false, err.Error()
		}
		return len(fresh) > 0 && cond(last), fmt.Sprintf("%d incidents; %s", len(fresh), statusLine(last))
	})
	return last, fresh, err
}

// newIncidents lists the closed incidents not told yet, oldest first.
func (d *demo) newIncidents(ctx context.Context) ([]api.Incident, error) {
	history, err := d.client.History(ctx)
	if err != nil {
		return nil, err
	}
	var fresh []api.Incident
	for _, in := range history.Incidents {
		if in.ID > d.last {
			fresh = append(fresh, in)
		}
	}
	slices.Reverse(fresh)
	return fresh, nil
}

func (d *demo) latestIncident(ctx context.Context) (uint64, error) {
	history, err := d.client.History(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking for the history: %w", err)
	}
	var latest uint64
	for _, in := range history.Incidents {
		latest = max(latest, in.ID)
	}
	return latest, nil
}

// moreWrites waits until demoCalm more writes are acknowledged.
func (d *demo) moreWrites(ctx context.Context) error {
	want := d.load.Counts().Acknowledged + demoCalm
	return await(ctx, fmt.Sprintf("%d more acknowledged writes", demoCalm), func(context.Context) (bool, string) {
		have := d.load.Counts().Acknowledged
		return have >= want, fmt.Sprintf("%d of them", have-want+demoCalm)
	})
}

// statusLine is a status in one line, for failures.
func statusLine(st api.Status) string {
	s := fmt.Sprintf("%s tells: %s, epoch %d, primary %q, leader %q, phase %s, vips %v", st.ToldBy, st.Verdict, st.Epoch, st.Primary, st.Leader, st.Phase, st.VIPs)
	for _, n := range st.Nodes {
		s += fmt.Sprintf("; %s %s, %s, server %s, writable %t %s", n.ID, n.Role, n.Health, n.Server, n.Writable, n.Note)
	}
	if st.Operation != nil {
		s += fmt.Sprintf("; operation %d %s at %s", st.Operation.ID, st.Operation.Kind, st.Operation.Step)
	}
	if len(st.Why) > 0 {
		s += fmt.Sprintf("; why %q", st.Why)
	}
	return s
}
