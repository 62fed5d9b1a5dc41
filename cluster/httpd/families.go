package httpd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/highbase/highbase/fsm"
)

const (
	asGauge   = prometheus.GaugeValue
	asCounter = prometheus.CounterValue
)

// stateMetrics come from the applied Raft state: they agree on all nodes that have applied as much.
func stateMetrics() []metric {
	return []metric{
		gauge("epoch", "Number of the current grant of the primary role; nodes that differ for long disagree.",
			func(l Local) float64 { return float64(l.Epoch) }),
		gauge("applied_index", "Last index of the Raft log applied on this node.",
			func(l Local) float64 { return float64(l.AppliedIndex) }),
		gauge("primary_since_timestamp_seconds", "When the current primary was promoted, 0 when there is none.",
			func(l Local) float64 { return timestamp(l.PrimarySince) }),
		stateSet("phase", "Phase of the replicated state, 1 for the current one.", "phase", phases,
			func(l Local) string { return l.Phase }),
		stateSet("mode", "What hbd does with its decisions, 1 for the current mode.", "mode", modes,
			func(l Local) string { return l.Mode }),
		gauge("sync_members", "Members of the committed sync set.", func(l Local) float64 { return float64(l.SyncMembers) }),
		gauge("sync_acks_required", "Acknowledgements a commit needs before its client hears of it.",
			func(l Local) float64 { return float64(l.SyncAcks) }),
		gauge("sync_degraded", "1 while writes are acknowledged that only the primary holds.",
			func(l Local) float64 { return bit(l.Degraded) }),
		gauge("sync_degraded_since_timestamp_seconds", "When writes began to be acknowledged that only the primary holds, 0 when they are not.",
			func(l Local) float64 { return timestamp(l.DegradedSince) }),
		gauge("sync_min_replicas", "Acknowledgements that are never given up: with fewer replicas writes wait.",
			func(l Local) float64 { return float64(l.SyncMinReplicas) }),
		gauge("sync_change_pending", "1 while the primary prepares a change of the sync set.", func(l Local) float64 { return bit(l.SyncChanging) }),
		family("lossy_epochs_total", "Epochs that were won by accepting the loss of acknowledged writes, since the cluster was made.", asCounter, nil,
			func(l Local, put func(float64, ...string)) { put(float64(l.LossyEpochs)) }),
		gauge("failures_tolerated", "How many more nodes may be lost, in the worst order, with the service staying up.",
			func(l Local) float64 { return float64(l.FailuresTolerated) }),
	}
}

// nodeMetrics are of this node alone.
func nodeMetrics() []metric {
	out := []metric{
		family("node_info", "Who this node is; the value is always 1.", asGauge, []string{"node", "cluster_id", "kind"},
			func(l Local, put func(float64, ...string)) { put(1, l.Node, l.ClusterID, l.Dialect) }),
		stateSet("node_role", "Role of this node, 1 for the current one.", "role", roles, func(l Local) string { return l.Role }),
		gauge("primary", "1 when this node has the primary role.", func(l Local) float64 { return bit(l.Role == roles[0]) }),
		gauge("ready", "1 when this node can do its part, as /readyz says.", func(l Local) float64 { return bit(ready(l)) }),
		gauge("view_age_seconds", "Age of this node's view of itself.", func(l Local) float64 { return l.Age.Seconds() }),
		gauge("lease_remaining_seconds", "What is left of this node's lease, 0 when it holds none.",
			func(l Local) float64 { return max(l.LeaseRemaining.Seconds(), 0) }),
		gauge("gate_open", "1 while the gate lets clients of the virtual addresses through.",
			func(l Local) float64 { return bit(l.GateOpen) }),
		gauge("gate_kernel", "1 when the kernel closes the gate by itself; 0 is a weaker guarantee.",
			func(l Local) float64 { return bit(l.GateKernel) }),
		stateSet("data_useless", "Why this node's data is of no use, 1 for the present cause; all 0 while it is good.", "cause", rebuildCauses,
			func(l Local) string { return l.Rebuild.Cause }),
		gauge("rebuild_active", "1 while this node's data is being replaced by a copy.", func(l Local) float64 { return bit(l.Rebuild.Active) }),
		gauge("rebuild_received_bytes", "Bytes of the copy that have arrived, 0 while none is under way.", func(l Local) float64 { return float64(l.Rebuild.Received) }),
		gauge("rebuild_size_bytes", "Size of the copy under way in bytes, about.", func(l Local) float64 { return float64(l.Rebuild.Size) }),
		perVIP("vip_held", "1 when the virtual address is on this node's interface.", asGauge, func(v VIP) float64 { return bit(v.Held) }),
		perVIP("vip_open", "1 when this node answers clients of the virtual address.", asGauge, func(v VIP) float64 { return bit(v.Open) }),
		perVIP("vip_conflicts_total", "Foreign claims of the virtual address seen.", asCounter, func(v VIP) float64 { return float64(v.Conflicts) }),
		perVIP("vip_repairs_total", "Times the virtual address was missing and was put back.", asCounter, func(v VIP) float64 { return float64(v.Repairs) }),
		perVIP("vip_announcements_total", "Announcements (ARP, NDP) sent for the virtual address.", asCounter, func(v VIP) float64 { return float64(v.Announcements) }),
		gauge("raft_leader", "1 when this node is the Raft leader.", func(l Local) float64 { return bit(l.Raft.Leader) }),
		gauge("raft_has_leader", "1 when this node knows a Raft leader.", func(l Local) float64 { return bit(l.Raft.HasLeader) }),
		gauge("raft_voters", "Voters in the Raft configuration.", func(l Local) float64 { return float64(l.Raft.Voters) }),
		family("raft_leader_changes_total", "Changes of the Raft leader seen since hbd started.", asCounter, nil,
			func(l Local, put func(float64, ...string)) { put(float64(l.Raft.LeaderChanges)) }),
		family("peer_reachable", "1 when the peer answers on the path.", asGauge, []string{"peer", "path"},
			func(l Local, put func(float64, ...string)) {
				for _, p := range l.Peers {
					for path, up := range p.Paths {
						put(bit(up), p.ID, path)
					}
				}
			}),
	}
	return append(append(out, clientMetrics()...), serverMetrics()...)
}

// clientMetrics are of the clients that a takeover must free.
func clientMetrics() []metric {
	return []metric{
		gauge("client_connections_shared", "Connections of clients that this node, as the primary, tells the others of, to be freed after a takeover.",
			func(l Local) float64 { return float64(l.Clients.Shared) }),
		gauge("client_connections_unshared", "Connections of clients beyond the bound of what is told: they would wait for their own time limits.",
			func(l Local) float64 { return float64(l.Clients.Unshared) }),
		gauge("client_connections_known", "Connections of the primary's clients that this node knows of.",
			func(l Local) float64 { return float64(l.Clients.Known) }),
		family("client_connections_tickled_total", "Connections of an old primary's clients that this node provoked after it took over.", asCounter, nil,
			func(l Local, put func(float64, ...string)) { put(float64(l.Clients.Tickled)) }),
	}
}

// ready is what /readyz says.
func ready(l Local) bool {
	ok, _, err := judgeReadyz(l, nil)
	return ok && err == nil
}

// serverMetrics are of this node's database server; a witness has none of them.
func serverMetrics() []metric {
	return []metric{
		ofServer("server_up", "1 when the database server answers.", asGauge, func(l Local) float64 { return bit(l.Server.Up) }),
		ofServer("server_restarts_total", "Starts of the database server by hbd since hbd started, the first one apart.", asCounter,
			func(l Local) float64 { return float64(l.Server.Restarts) }),
		ofServer("rewinds_total", "Returns of this node, a former primary, whose crashed server was started again by a rewind since hbd started.", asCounter,
			func(l Local) float64 { return float64(l.Server.Rewinds) }),
		ofServer("server_start_timestamp_seconds", "When the database server started, 0 while it is down.", asGauge,
			func(l Local) float64 { return timestamp(l.Server.Started) }),
		ofServer("commits_waiting", "Commits (groups of them) that wait for acknowledgements.", asGauge,
			func(l Local) float64 { return float64(l.CommitsWaiting) }),
		ofServer("replication_lag_seconds", "Age of the oldest transaction not applied here; NaN when unknown or not a replica.", asGauge,
			func(l Local) float64 { return secondsOrNaN(l.Replication.Lag) }),
		family("repairs_total", "Repairs of this node's server begun since hbd started, by the rule that named the damage.", asCounter, []string{"rule"},
			func(l Local, put func(float64, ...string)) {
				if l.Server.Present {
					for _, rule := range fsm.CareCodes() {
						put(float64(l.Repairs[rule]), rule)
					}
				}
			}),
		family("replication_running", "1 when the replication thread runs.", asGauge, []string{"thread"},
			func(l Local, put func(float64, ...string)) {
				if l.Server.Present {
					put(bit(l.Replication.IO), "io")
					put(bit(l.Replication.SQL), "sql")
				}
			}),
	}
}

// operationMetrics are of the operations of the whole cluster, as this node applied them.
func operationMetrics() []metric {
	return []metric{
		family("operations_total", "Operations of the cluster that ended while this hbd ran; every node counts all of them.", asCounter, []string{"kind", "result"},
			func(l Local, put func(float64, ...string)) {
				for _, k := range kinds {
					for _, e := range ends {
						put(float64(l.Operations[OperationKey{Kind: k, Result: e}]), k, e)
					}
				}
			}),
		family("last_operation_phase_seconds", "How long each phase of the last operation took.", asGauge, []string{"phase"},
			func(l Local, put func(float64, ...string)) {
				for phase, d := range l.LastPhases {
					put(d.Seconds(), phase)
				}
			}),
		gauge("last_write_gap_seconds", "Write gap of the last operation, 0 when none was measured.",
			func(l Local) float64 { return l.LastWriteGap.Seconds() }),
	}
}
