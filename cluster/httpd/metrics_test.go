package httpd

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/highbase/highbase/cluster/api"
)

// fullLocal has something in every field.
func fullLocal() Local {
	l := primaryLocal()
	l.ClusterID, l.Dialect, l.Mode, l.Phase = "c-1", "mariadb", "auto", api.PhaseSteady
	l.AppliedIndex, l.PrimarySince, l.GateKernel = 99, time.Unix(1700000000, 0), true
	l.VIPs = []VIP{{Address: "10.77.0.100", Held: true, Open: true, Repairs: 2}, {Address: "fd77::100"}}
	l.Clients = Clients{Shared: 12, Unshared: 1, Known: 7, Tickled: 34}
	l.Raft = Raft{Leader: true, HasLeader: true, Voters: 3, LeaderChanges: 4}
	l.Peers = []Peer{{ID: "db2", Paths: map[string]bool{"gossip": true, "rpc": false}}}
	l.Server.Restarts, l.Server.Rewinds, l.Server.Started = 1, 3, time.Unix(1700000001, 0)
	l.CommitsWaiting, l.SyncMembers, l.SyncAcks, l.FailuresTolerated = 3, 2, 1, 1
	l.SyncMinReplicas, l.SyncChanging, l.DegradedSince, l.LossyEpochs = 1, true, time.Unix(1700000002, 0), 1
	l.Operations = map[OperationKey]uint64{{Kind: api.KindFailover, Result: ResultDone}: 5}
	var h Histogram
	h.Observe(18 * time.Millisecond)
	h.Observe(90 * time.Second)
	l.Phases = map[string]Histogram{"fence": h, "homemade": h}
	l.WriteGaps = map[string]Histogram{api.KindSwitchover: h}
	l.LastPhases = map[string]time.Duration{"fence": 310 * time.Millisecond}
	l.LastWriteGap = 18 * time.Millisecond
	return l
}

func scrape(t *testing.T, l Local) string {
	t.Helper()
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t, local: l}, nil)
	do(t, s.Health(), "GET", "/healthz", "") // so that the request metrics have a series
	code, body := do(t, s.Health(), "GET", "/metrics", "")
	if code != 200 {
		t.Fatalf("status %d: %s", code, body)
	}
	return body
}

func TestMetricsPassTheLinter(t *testing.T) {
	for name, l := range map[string]Local{"full": fullLocal(), "empty": {}} {
		s, _ := newTestServer(t, "db1", &fakeBackend{t: t, local: l}, nil)
		families, err := s.registry.Gather()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", name, p.Metric, p.Text)
		}
	}
}

func TestMetricsValues(t *testing.T) {
	body := scrape(t, fullLocal())
	for _, want := range []string{
		`highbase_epoch 42`,
		`highbase_applied_index 99`,
		`highbase_primary 1`,
		`highbase_primary_since_timestamp_seconds 1.7e+09`,
		`highbase_node_role{role="primary"} 1`,
		`highbase_node_role{role="fenced"} 0`,
		`highbase_phase{phase="steady"} 1`,
		`highbase_phase{phase="fencing"} 0`,
		`highbase_mode{mode="auto"} 1`,
		`highbase_mode{mode="paused"} 0`,
		`highbase_vip_held{vip="10.77.0.100"} 1`,
		`highbase_vip_open{vip="fd77::100"} 0`,
		`highbase_vip_conflicts_total{vip="10.77.0.100"} 0`,
		`highbase_vip_repairs_total{vip="10.77.0.100"} 2`,
		`highbase_vip_announcements_total{vip="fd77::100"} 0`,
		`highbase_client_connections_shared 12`,
		`highbase_client_connections_unshared 1`,
		`highbase_client_connections_known 7`,
		`highbase_client_connections_tickled_total 34`,
		`highbase_lease_remaining_seconds 1`,
		`highbase_gate_open 1`,
		`highbase_gate_kernel 1`,
		`highbase_raft_leader 1`,
		`highbase_raft_has_leader 1`,
		`highbase_raft_voters 3`,
		`highbase_raft_leader_changes_total 4`,
		`highbase_peer_reachable{path="gossip",peer="db2"} 1`,
		`highbase_peer_reachable{path="rpc",peer="db2"} 0`,
		`highbase_operations_total{kind="failover",result="done"} 5`,
		`highbase_operations_total{kind="takeover",result="stuck"} 0`,
		`highbase_operation_phase_duration_seconds_bucket{phase="fence",le="0.02"} 1`,
		`highbase_operation_phase_duration_seconds_bucket{phase="fence",le="60"} 1`,
		`highbase_operation_phase_duration_seconds_bucket{phase="fence",le="+Inf"} 2`,
		`highbase_operation_phase_duration_seconds_count{phase="restart"} 0`,
		`highbase_operation_phase_duration_seconds_count{phase="homemade"} 2`,
		`highbase_write_gap_seconds_count{kind="switchover"} 2`,
		`highbase_write_gap_seconds_count{kind="restart"} 0`,
		`highbase_last_operation_phase_seconds{phase="fence"} 0.31`,
		`highbase_last_write_gap_seconds 0.018`,
		`highbase_server_up 1`,
		`highbase_server_restarts_total 1`,
		`highbase_rewinds_total 3`,
		`highbase_commits_waiting 3`,
		`highbase_replication_lag_seconds NaN`,
		`highbase_replication_running{thread="io"} 0`,
		`highbase_sync_members 2`,
		`highbase_sync_acks_required 1`,
		`highbase_sync_degraded 0`,
		`highbase_sync_degraded_since_timestamp_seconds 1.700000002e+09`,
		`highbase_sync_min_replicas 1`,
		`highbase_sync_change_pending 1`,
		`highbase_lossy_epochs_total 1`,
		`highbase_failures_tolerated 1`,
		`highbase_build_info{revision="abc",version="1.2.3"} 1`,
		`highbase_node_info{cluster_id="c-1",kind="mariadb",node="db1"} 1`,
		`highbase_http_requests_total{code="200",route="/healthz"} 1`,
		`go_goroutines `,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("the page has no line %q", want)
		}
	}
}

func TestAWitnessHasNoServerMetrics(t *testing.T) {
	body := scrape(t, Local{Node: "w1", Role: api.RoleWitness, Dialect: "none"})
	for _, name := range []string{"highbase_server_up", "highbase_replication_lag_seconds", "highbase_replication_running"} {
		if strings.Contains(body, name) {
			t.Errorf("a witness has %s, an alert on it would fire for ever", name)
		}
	}
}

func TestABrokenSeriesLosesNotThePage(t *testing.T) {
	l := fullLocal()
	l.VIPs = append(l.VIPs, VIP{Address: "\xff"})
	if body := scrape(t, l); !strings.Contains(body, "\nhighbase_epoch 42") {
		t.Error("one bad label lost the whole page")
	}
}

func TestStrangersCannotMakeSeries(t *testing.T) {
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t}, nil)
	do(t, s.API(), "GET", "/v1/made-up-by-a-stranger", "")
	if _, body := do(t, s.Health(), "GET", "/metrics", ""); strings.Contains(body, "stranger") {
		t.Error("a path became a label")
	}
}

func TestHistogramObserve(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-time.Second, 5 * time.Millisecond, 6 * time.Millisecond, time.Hour} {
		h.Observe(d)
	}
	if h.Count != 4 || math.Abs(h.Sum-3600.011) > 1e-9 || h.At[0] != 2 || h.At[1] != 3 || h.At[len(h.At)-1] != 3 {
		t.Errorf("got %+v", h)
	}
}
