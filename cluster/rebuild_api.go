package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// Rebuild orders a node's data replaced by a copy, or says which rule keeps it. It answers as soon as the order is committed.
func (n *Node) Rebuild(ctx context.Context, req api.RebuildRequest) (api.Result, error) {
	st := n.store.State()
	l := n.leading.Load()
	if l == nil {
		return api.Result{}, ErrNotLeader
	}
	node := fsm.NodeID(req.Node)
	for _, id := range []fsm.NodeID{node, fsm.NodeID(req.From)} {
		if _, ok := st.Member(id); !ok && id != "" {
			return api.Result{}, fmt.Errorf("%w: %q", ErrUnknownNode, id)
		}
	}
	if st.Paused != nil && !req.Plan {
		return refused("cluster.paused", "", "%s paused the cluster: %s", st.Paused.By, orUnknown(st.Paused.Why)), nil
	}
	donor, gates := fsm.RebuildGates(st, fsm.Classify(st, l.view(st)), node, fsm.NodeID(req.From), req.Confirmed)
	if req.Plan {
		return rebuildPlan(node, donor, gates), nil
	}
	for _, g := range gates {
		if !g.OK {
			return api.Result{Outcome: api.OutcomeRefused, Rule: g.Rule, Node: string(g.Node), Message: fmt.Sprintf("%s is not rebuilt: %s", node, g.Why)}, nil
		}
	}
	err := n.propose(ctx, fsm.Command{At: time.Now(), Rebuild: &fsm.Rebuild{Node: node, Donor: donor, Epoch: st.Epoch, Cause: fsm.RebuildAsked,
		Reason: "asked for by " + orUnknown(req.Actor), Actor: orUnknown(req.Actor), Confirmed: req.Confirmed}})
	if err != nil {
		return outcome(err)
	}
	return api.Result{Outcome: api.OutcomeDone, Node: string(node), Message: fmt.Sprintf("%s is being rebuilt from %s: hbctl status shows how far it is", node, donor)}, nil
}

func rebuildPlan(node, donor fsm.NodeID, gates []fsm.Verdict) api.Result {
	p := &api.Plan{From: string(donor), To: string(node), Steps: []string{
		fmt.Sprintf("%s takes a copy of %s, beside its own data, which stays in use meanwhile", node, donor),
		fmt.Sprintf("what only %s has is written to a file on its host", node),
		fmt.Sprintf("mysqld of %s is killed and started on the copy; it follows the primary", node),
		fmt.Sprintf("when it follows, the old data of %s is removed", node),
	}}
	for _, g := range gates {
		p.Gates = append(p.Gates, verdictOf(g))
	}
	return api.Result{Outcome: api.OutcomeDone, Message: "plan only: nothing was changed", Plan: p}
}

// Rejoin lifts a node's quarantine: it tries to come back as it is, and is quarantined anew if it still cannot.
func (n *Node) Rejoin(ctx context.Context, req api.RejoinRequest) (api.Result, error) {
	st := n.store.State()
	if n.leading.Load() == nil {
		return api.Result{}, ErrNotLeader
	}
	node := fsm.NodeID(req.Node)
	if m, ok := st.Member(node); !ok || m.Role != fsm.RoleData {
		return api.Result{}, fmt.Errorf("%w: %q", ErrUnknownNode, req.Node)
	}
	if r, ok := st.RebuildOf(node); ok {
		return refused("rejoin.rebuilding", node, "%s is being rebuilt from %s", node, r.Donor), nil
	}
	var was rejoinReply
	if err := n.rejoin(ctx, node, req.Actor, &was); err != nil {
		return api.Result{}, err
	}
	if was.Quarantine == "" {
		return refused("rejoin.not-quarantined", node, "%s is not quarantined", node), nil
	}
	return api.Result{Outcome: api.OutcomeDone, Node: string(node), Message: fmt.Sprintf("%s tries to come back as it is; it was kept out because: %s", node, was.Quarantine)}, nil
}

type rejoinRequest struct {
	Actor string `json:"actor"`
}

type rejoinReply struct {
	Quarantine string `json:"quarantine"` // what was lifted, "" for nothing
}

func (n *Node) rejoin(ctx context.Context, node fsm.NodeID, actor string, out *rejoinReply) error {
	if node != n.cfg.Node {
		return n.callNode(ctx, node, "rejoin", rejoinRequest{actor}, out)
	}
	var err error
	*out, err = n.onRejoin(ctx, string(n.cfg.Node), rejoinRequest{actor})
	return err
}

// onRejoin lifts the quarantine here. A copy that is half in its place is no matter of opinion.
func (n *Node) onRejoin(_ context.Context, from string, in rejoinRequest) (rejoinReply, error) {
	if c := n.rebuilds.copy(); c.Running || c.Stage == fsm.CopyPlacing || c.Stage == fsm.CopyHalf {
		return rejoinReply{}, errors.New("this node's data is being replaced by a copy: neither is whole, and only a rebuild helps (hbctl rebuild)")
	}
	var out rejoinReply
	err := n.promises.update(func(p *Promises) {
		out.Quarantine = p.Quarantine
		p.Quarantine, p.Cause = "", ""
	})
	if out.Quarantine != "" {
		n.log.Info("quarantine lifted", "by", in.Actor, "leader", from, "was", out.Quarantine)
	}
	wake(n.wake)
	return out, err
}

// rebuildOf is how far a node's rebuild is, nil when none is ordered.
func rebuildOf(st fsm.State, obs fsm.Observation) *api.Rebuild {
	r, ok := st.RebuildOf(obs.Node)
	if !ok {
		return nil
	}
	out := &api.Rebuild{From: string(r.Donor), Cause: string(r.Cause), Reason: r.Reason, Actor: r.Actor, Since: api.At(r.Since), Phase: "waiting"}
	if obs.Rebuild.Phase == "" {
		return out
	}
	out.Phase, out.Bytes, out.Size = obs.Rebuild.Phase, obs.Rebuild.Received, obs.Rebuild.Size
	if out.Size > 0 {
		out.Percent = min(99, float64(out.Bytes)/float64(out.Size)*100)
	}
	if out.Phase != "receiving" {
		out.Percent = 100
		return out
	}
	if s := obs.Rebuild.Elapsed.Seconds(); s > 0 && out.Bytes > 0 {
		out.Rate = float64(out.Bytes) / s
		if out.Size > out.Bytes { // else the size is not known, or was too low a guess: "0 s left" would be another
			left := float64(out.Size-out.Bytes) / out.Rate
			out.LeftSeconds = &left
		}
	}
	return out
}

// rebuildNote is the same in a few words.
func rebuildNote(r api.Rebuild) string {
	note := fmt.Sprintf("rebuilt from %s: %s", r.From, r.Phase)
	if r.Phase == "receiving" && r.Size > 0 {
		note += fmt.Sprintf(" %.0f %%, %.0f MiB/s", r.Percent, r.Rate/(1<<20))
	}
	if r.LeftSeconds != nil {
		note += fmt.Sprintf(", %v left", (time.Duration(*r.LeftSeconds) * time.Second))
	}
	return note
}
