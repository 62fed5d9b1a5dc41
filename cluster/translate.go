package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// History is the incidents kept, newest first.
func (n *Node) History(context.Context) []api.Incident {
	st := n.store.State()
	var out []api.Incident
	for i := len(st.Incidents) - 1; i >= 0; i-- {
		out = append(out, incidentOf(st, st.Incidents[i]))
	}
	return out
}

// Incident is one of them.
func (n *Node) Incident(_ context.Context, id uint64) (api.Incident, bool) {
	st := n.store.State()
	for _, in := range st.Incidents {
		if in.ID == id {
			return incidentOf(st, in), true
		}
	}
	return api.Incident{}, false
}

// WhyNot is every gate looked at for a node as a candidate.
func (n *Node) WhyNot(_ context.Context, node string) ([]api.Verdict, error) {
	st := n.store.State()
	if _, ok := st.Member(fsm.NodeID(node)); !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownNode, node)
	}
	v := fsm.Classify(st, fsm.View{Self: n.cfg.Node, Now: now(), Wall: time.Now(), Nodes: n.peers.observations()})
	var out []api.Verdict
	for _, g := range fsm.SwitchoverGates(st, v, fsm.NodeID(node)) {
		out = append(out, verdictOf(g))
	}
	if l := n.leading.Load(); l != nil {
		l.mu.Lock()
		recent := slices.Clone(l.verdicts)
		l.mu.Unlock()
		for _, g := range recent {
			if g.Node == fsm.NodeID(node) || g.Node == "" {
				out = append(out, verdictOf(g))
			}
		}
	}
	return out, nil
}

func verdictOf(v fsm.Verdict) api.Verdict {
	return api.Verdict{Rule: v.Rule, Node: string(v.Node), OK: v.OK, Value: v.Value, Threshold: v.Threshold, Why: v.Why}
}

func phasesOf(in []fsm.PhaseTime) []api.Phase {
	var out []api.Phase
	for _, p := range in {
		out = append(out, api.Phase{Name: p.Name, MS: ms(p.Took)})
	}
	return out
}

func incidentOf(st fsm.State, in fsm.Incident) api.Incident {
	out := api.Incident{ID: in.ID, Kind: string(in.Kind), From: string(in.From), To: string(in.To), Epoch: in.Epoch, Cause: in.Cause, Actor: in.Actor,
		Started: api.At(in.Started), Phases: phasesOf(in.Phases), Outcome: api.OutcomeDone}
	if in.Outcome != fsm.OutcomeDone {
		out.Outcome = api.OutcomeFailed
	}
	if e, ok := st.EpochOf(in.Epoch); ok && e.Lossy && e.Primary == in.To && (in.Kind == fsm.KindFailover || in.Kind == fsm.KindTakeover) {
		out.Lossy = true
	}
	for _, e := range in.Timeline {
		out.Timeline = append(out.Timeline, api.Event{MS: ms(e.At.Sub(in.Started)), Text: fmt.Sprintf("%s: %s", e.Step, e.Text)})
	}
	if in.Fence != nil {
		out.Timeline = append(out.Timeline, api.Event{MS: ms(in.Ended.Sub(in.Started)), Node: string(in.Fence.Node), Text: fmt.Sprintf("fence evidence (%s): %s", in.Fence.Kind, in.Fence.Detail)})
	}
	if in.Reason != "" {
		out.Timeline = append(out.Timeline, api.Event{MS: ms(in.Ended.Sub(in.Started)), Text: fmt.Sprintf("%s: %s", in.Outcome, in.Reason)})
	}
	return out
}

func operationOf(op fsm.Operation) *api.Operation {
	return &api.Operation{ID: op.ID, Kind: string(op.Kind), From: string(op.From), To: string(op.To), Step: string(op.Step), Actor: op.Actor,
		Started: api.At(op.Started), ElapsedMS: ms(time.Since(op.Started))}
}

func roleOf(st fsm.State, m fsm.Member, nv fsm.NodeView) string {
	switch {
	case m.Role == fsm.RoleWitness:
		return api.RoleWitness
	case nv.Obs.Standing == fsm.StandingQuarantined:
		return api.RoleQuarantined
	case m.ID == st.Primary:
		return api.RolePrimary
	case nv.Obs.Standing == fsm.StandingFenced:
		return api.RoleFenced
	case nv.Obs.Standing == fsm.StandingStarting || nv.Obs.Standing == fsm.StandingCatching:
		return api.RoleJoining
	}
	return api.RoleReplica
}

func healthOf(h fsm.Health) string {
	switch h {
	case fsm.HealthOK:
		return api.HealthOK
	case fsm.HealthSuspect:
		return api.HealthSuspect
	case fsm.HealthFailed:
		return api.HealthFailed
	case fsm.HealthUnknown:
	}
	return api.HealthUnknown
}

func serverOf(s fsm.ServerState) string {
	switch s {
	case fsm.ServerUp:
		return api.ServerUp
	case fsm.ServerDown, fsm.ServerHung:
		return api.ServerDown
	case fsm.ServerUnknown:
	}
	return api.ServerUnknown
}
