package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// Status is the whole cluster as this node knows it: the state it has applied, and what each node last said of itself. It asks nobody.
func (n *Node) Status(context.Context) api.Status {
	st := n.store.State()
	v := fsm.Classify(st, fsm.View{Self: n.cfg.Node, Now: now(), Wall: time.Now(), Nodes: n.peers.observations()})
	out := api.Status{Cluster: n.cfg.Cluster, Epoch: st.Epoch, Primary: string(st.Primary), Phase: string(st.Phase), Mode: "auto", Paused: st.Paused != nil,
		Degraded: st.Bootstrapped() && st.Sync.Acks == 0, ToldBy: string(n.cfg.Node), Sync: syncOf(st), GateKernel: true,
		DisksSurvived: st.Sync.Acks, LossyEpoch: lossyEpoch(st)}
	if out.Phase == "" {
		out.Phase = api.PhaseNone
	}
	if r := n.raft(); r != nil {
		id, _ := r.Leader()
		out.Leader = id.Node()
		if since := r.Stats().SinceLeader; since > 0 {
			out.AgeMS = since.Milliseconds()
		}
	}
	if e, ok := st.EpochOf(st.Epoch); ok && st.Primary != "" {
		out.PrimarySince = api.At(e.Since)
	}
	if d := st.Degraded; d != nil {
		out.DegradedSince, out.DegradedWhy = api.At(d.Since), d.Cause
	}
	if st.Paused != nil {
		out.Pause = &api.Pause{By: st.Paused.By, Why: st.Paused.Why, Since: api.At(st.Paused.Since)}
	}
	if st.Op != nil {
		out.Operation = operationOf(*st.Op)
	}
	if len(st.Incidents) > 0 {
		in := incidentOf(st, st.Incidents[len(st.Incidents)-1])
		out.LastIncident = &in
	}
	n.statusNodes(st, v, &out)
	n.verdict(st, v, &out)
	return out
}

func (n *Node) statusNodes(st fsm.State, v fsm.View, out *api.Status) {
	holder := ""
	for _, m := range n.cfg.Peers {
		nv := v.Node(m.ID)
		node := api.Node{ID: string(m.ID), Role: roleOf(st, m, nv), Health: healthOf(nv.Health), Server: api.ServerNone, Voter: true, Sync: syncRole(st, m, nv.Obs), Note: nv.Reason}
		if m.Role != fsm.RoleWitness {
			sv := nv.Obs.Server
			node.Server, node.Version, node.GTID = serverOf(sv.State), sv.Version, sv.Executed
			node.Writable = sv.State == fsm.ServerUp && !sv.ReadOnly
			if m.ID != st.Primary {
				node.LagSeconds = sv.Lag
			}
			node.LeaseMS = nv.Obs.LeaseLeft.Milliseconds()
			if nv.Known && v.Now-nv.At < st.Settings.ReportMaxAge && !nv.Obs.KernelGate {
				out.GateKernel = false
			}
		}
		if node.Rebuild = rebuildOf(st, nv.Obs); node.Rebuild != nil {
			node.Role, node.Note = api.RoleRebuilding, rebuildNote(*node.Rebuild)
		}
		if nv.Obs.VIPHeld && nv.Obs.GateOpen && v.Now-nv.At < 2*time.Second {
			holder = string(m.ID)
		}
		if !nv.Known || (st.Bootstrapped() && !v.Fresh(st, m.ID)) {
			node.Health, node.Server, node.Writable, node.LeaseMS = unknownUnlessFailed(nv.Health), api.ServerUnknown, false, 0
		}
		out.Nodes = append(out.Nodes, node)
	}
	for _, a := range n.cfg.VIPs {
		out.VIPs = append(out.VIPs, api.VIP{Address: a, Holder: holder})
	}
}

func unknownUnlessFailed(h fsm.Health) string {
	if h == fsm.HealthFailed {
		return api.HealthFailed
	}
	return api.HealthUnknown
}

// verdict is the first line: what the cluster amounts to, why, and what would happen if the primary died now.
func (n *Node) verdict(st fsm.State, v fsm.View, out *api.Status) {
	out.Verdict = api.StandingUnknown
	switch {
	case !st.Bootstrapped():
		out.Verdict, out.IfPrimaryDied = api.StandingNotBootstrapped, "there is no primary yet: run hbctl bootstrap"
		return
	case out.Leader == "":
		out.Verdict, out.IfPrimaryDied = api.StandingNoQuorum, "nothing can be decided without a Raft leader"
		out.Why = append(out.Why, "no Raft leader is known to "+string(n.cfg.Node))
		return
	}
	serving := st.Primary != "" && v.Fresh(st, st.Primary) && v.Node(st.Primary).Obs.Serving == st.Epoch
	why, said := n.whyNotHealthy(st, v), n.refusals()
	said = slices.DeleteFunc(said, func(vd fsm.Verdict) bool { return !concerns(vd, serving) })
	for _, vd := range said {
		why = append(why, whyText(vd))
	}
	blocked := fsm.IfLost(st, v)
	out.FailuresTolerated = fsm.Tolerates(st, v)
	switch {
	case !serving:
		out.Verdict = api.StandingNoPrimary
		if st.Op != nil {
			why = append([]string{fmt.Sprintf("%s is at step %s: %s", st.Op.Kind, st.Op.Step, st.Op.Cause)}, why...)
		} else if st.Primary != "" {
			why = append([]string{fmt.Sprintf("%s does not serve: %s", st.Primary, v.Node(st.Primary).Obs.Reason)}, why...)
		}
	case len(blocked) > 0 || len(why) > 0 || out.FailuresTolerated == 0:
		out.Verdict = api.StandingDegraded
	default:
		out.Verdict = api.StandingHealthy
	}
	if len(blocked) == 0 {
		out.IfPrimaryDied = fmt.Sprintf("another node takes over in about %v, 0 acknowledged writes lost", st.Settings.Drifted(st.Settings.Lease).Round(100*time.Millisecond))
	} else {
		out.IfPrimaryDied = "no automatic failover: " + blocked[0].Why
	}
	for _, vd := range blocked {
		if serving { // without a primary the leader says it better
			why, said = append(why, whyText(vd)), append(said, vd)
		}
	}
	out.Next = nextFor(said)
	for _, page := range pagesOfNodes(st, v) {
		out.Next = appendNew(out.Next, page)
	}
	out.Why = why
}

func (n *Node) whyNotHealthy(st fsm.State, v fsm.View) []string {
	var why []string
	if d := st.Degraded; d != nil {
		why = append(why, fmt.Sprintf("degraded since %s, commits wait for nobody: %s", d.Since.UTC().Format("2006-01-02 15:04:05Z"), d.Cause))
	}
	if st.Paused != nil {
		why = append(why, fmt.Sprintf("paused by %s: %s", st.Paused.By, orUnknown(st.Paused.Why)))
	}
	for _, m := range st.Members {
		nv := v.Node(m.ID)
		if nv.Health != fsm.HealthOK {
			why = append(why, fmt.Sprintf("%s is %s: %s", m.ID, nv.Health, nv.Reason))
		} else if m.Role == fsm.RoleData && m.ID != st.Primary && nv.Obs.Standing != fsm.StandingReplica {
			why = append(why, fmt.Sprintf("%s is %s: %s", m.ID, nv.Obs.Standing, nv.Obs.Reason))
		}
		if twin := fsm.TwinOf(st, v, m.ID); twin != "" {
			why = append(why, fmt.Sprintf("%s and %s have the same server_id, %d: give each its own and restart its mysqld", twin, m.ID, nv.Obs.Server.ServerID))
		}
		for _, p := range nv.Obs.Server.Problems {
			why = append(why, fmt.Sprintf("%s: %s", m.ID, p))
		}
		if m.Role == fsm.RoleData && nv.Known && !nv.Obs.KernelGate {
			why = append(why, fmt.Sprintf("%s has no kernel gate: a frozen hbd is not fenced by its kernel", m.ID))
		}
	}
	return why
}
