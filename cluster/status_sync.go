package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// syncOf is the sync set as the log has it.
func syncOf(st fsm.State) api.Sync {
	out := api.Sync{Acks: st.Sync.Acks, MinReplicas: st.Settings.SyncMinReplicas}
	for _, m := range st.Sync.Members {
		out.Set = append(out.Set, string(m.Node))
	}
	if c := st.Change; c != nil {
		out.Change = &api.SyncChange{Kind: string(c.Kind), Node: string(c.Node), Acks: c.Acks, Cause: c.Cause, Since: api.At(c.Since)}
	}
	return out
}

// syncRole is what a data node is to the set.
func syncRole(st fsm.State, m fsm.Member, obs fsm.Observation) string {
	_, in := st.Sync.Member(m.ID)
	since := st.OutsideSince(m.ID)
	switch {
	case m.Role != fsm.RoleData || m.ID == st.Primary || !st.Bootstrapped():
		return ""
	case in && st.Change != nil && st.Change.Kind == fsm.ChangeShrink && st.Change.Node == m.ID:
		return api.SyncLeaving
	case in:
		return api.SyncAck
	case since > 0 && obs.SyncOff < since:
		return api.SyncBlocked
	}
	return api.SyncReserve
}

// lossyEpoch is the newest epoch that was won by accepting a loss.
func lossyEpoch(st fsm.State) uint64 {
	for _, e := range slices.Backward(st.Epochs) {
		if e.Lossy {
			return e.Epoch
		}
	}
	return 0
}

// refusals are what the leader's last decision says no to, as it told it: on the leader itself or by the ping it answered last.
func (n *Node) refusals() []fsm.Verdict {
	if l := n.leading.Load(); l != nil {
		return l.refusals()
	}
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	for _, pe := range n.peers.known {
		if pe.leads && pe.agentOK {
			return slices.Clone(pe.refusals)
		}
	}
	return nil
}

func (l *leading) refusals() []fsm.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []fsm.Verdict
	for _, v := range l.verdicts {
		if !v.OK {
			out = append(out, v)
		}
	}
	return out
}

// concerns tells whether a refusal of the leader says why the cluster is not healthy. While the primary serves only what clients or the next failover
// feel; else all of it.
func concerns(v fsm.Verdict, serving bool) bool {
	switch {
	case strings.HasPrefix(v.Rule, "leader.") || v.Rule == "cluster.paused": // told elsewhere, or of no concern
		return false
	case serving:
		return v.Rule == "sync.lower" || v.Rule == "sync.min-replicas" || strings.HasPrefix(v.Rule, "primary.")
	}
	return true
}

// whyText is a refusal as one line.
func whyText(v fsm.Verdict) string {
	if v.Node == "" {
		return fmt.Sprintf("%s: %s", v.Rule, v.Why)
	}
	return fmt.Sprintf("%s %s: %s", v.Rule, v.Node, v.Why)
}

// pages names the runbook for a rule that may need a human.
var pages = []struct{ rule, next string }{
	{"sync.min-replicas", "bring a replica back, and writes go on: docs/runbooks/writes-wait.md"},
	{"sync.lower", "bring a replica back, and writes go on: docs/runbooks/writes-wait.md"},
	{"failover.degraded", "bring a replica back, it is taken in by itself: docs/runbooks/degraded.md"},
	{"failover.lossy-evidence", "docs/runbooks/accept-data-loss.md"},
	{"failover.", "docs/runbooks/no-failover.md"},
	{"candidate.incomparable", "docs/runbooks/no-failover.md"},
	{"candidate.", "docs/runbooks/stranded.md"},
}

// nextFor lists what to do about refusals, each once.
func nextFor(verdicts []fsm.Verdict) []string {
	var out []string
	for _, v := range verdicts {
		i := slices.IndexFunc(pages, func(p struct{ rule, next string }) bool { return strings.HasPrefix(v.Rule, p.rule) })
		if i >= 0 {
			out = appendNew(out, pages[i].next)
		}
	}
	return out
}

// The runbooks for what is wrong with one node.
const (
	pageQuarantined = "look at what it has before its data is replaced: docs/runbooks/quarantined.md"
	pageReplication = "find out what undoes the repairs: docs/runbooks/replication-broken.md"
	pageSettings    = "hbctl check says what to set: docs/runbooks/settings.md"
)

// pagesOfNodes lists what to do about single nodes. Damage that is being repaired for the first time needs nobody, and some problems name their own page.
func pagesOfNodes(st fsm.State, v fsm.View) []string {
	var out []string
	for _, m := range st.Members {
		nv := v.Node(m.ID)
		if m.Role != fsm.RoleData || !nv.Known {
			continue
		}
		if nv.Health != fsm.HealthFailed && m.ID != st.Primary { // what is lost said that long ago
			switch {
			case nv.Obs.Standing == fsm.StandingQuarantined:
				out = appendNew(out, pageQuarantined)
			case nv.Obs.Standing != fsm.StandingReplica && strings.Contains(nv.Obs.Reason, inVain):
				out = appendNew(out, pageReplication)
			}
		}
		ofSettings := func(problem string) bool { return !strings.Contains(problem, "docs/runbooks/") }
		if fsm.TwinOf(st, v, m.ID) != "" || !nv.Obs.KernelGate || slices.ContainsFunc(nv.Obs.Server.Problems, ofSettings) {
			out = appendNew(out, pageSettings)
		}
	}
	return out
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
