package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// refusedByGate is the first gate that a request does not pass, nil when there is none. What the clients do is no reason for one that is to wait for
// them or to break them off.
func refusedByGate(st fsm.State, from, to fsm.NodeID, gates []fsm.Verdict, req api.SwitchoverRequest) *api.Result {
	if token := planToken(st, from, to, gates); req.IfPlan != "" && req.IfPlan != token {
		return &api.Result{Outcome: api.OutcomeRefused, Rule: "switchover.if-plan", Node: string(to), Value: token, Threshold: req.IfPlan,
			Message: "the cluster is not as it was when the plan was made: look at the plan again"}
	}
	for _, g := range gates {
		clients := fsm.GateOfClients(g.Rule)
		if g.OK || g.Rule == fsm.GateUnapplied || clients && (req.Kill || req.WaitSeconds > 0) {
			continue
		}
		r := &api.Result{Outcome: api.OutcomeRefused, Rule: g.Rule, Node: string(g.Node), Value: g.Value, Threshold: g.Threshold}
		r.Message = fmt.Sprintf("%s cannot become primary: %s", g.Node, g.Why)
		if clients {
			r.Message = fmt.Sprintf("clients of %s would be broken off: %s (--wait lets them finish, --kill ends them)", g.Node, g.Why)
		}
		return r
	}
	return nil
}

func policyOf(req api.SwitchoverRequest) fsm.BusyPolicy {
	if req.Kill {
		return fsm.BusyKill
	}
	return fsm.BusyRefuse
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// planToken stands for what a plan rests on: the epoch, the sync set and which gates pass. Values that always move, as a lag, are no part of it.
func planToken(st fsm.State, from, to fsm.NodeID, gates []fsm.Verdict) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %s %s %d", st.ClusterID, st.Epoch, from, to, st.Sync.Acks)
	for _, m := range st.Sync.Members {
		fmt.Fprintf(h, " %s", m.Node)
	}
	for _, g := range gates {
		fmt.Fprintf(h, " %s=%t", g.Rule, g.OK)
	}
	return fmt.Sprintf("%d-%s", st.Epoch, hex.EncodeToString(h.Sum(nil)[:6]))
}

// plan tells what a switchover would do. It changes nothing.
func (n *Node) plan(st fsm.State, v fsm.View, from, to fsm.NodeID, gates []fsm.Verdict, req api.SwitchoverRequest) api.Result {
	p := &api.Plan{From: string(from), To: string(to), Token: planToken(st, from, to, gates), Steps: planSteps(st, v, from, to, req)}
	p.PrepareMS, p.PauseMS, p.Phases = expected(st)
	for _, g := range gates {
		p.Gates = append(p.Gates, verdictOf(g))
	}
	return api.Result{Outcome: api.OutcomeDone, Message: "plan only: nothing was changed", Plan: p}
}

func planSteps(st fsm.State, v fsm.View, from, to fsm.NodeID, req api.SwitchoverRequest) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if !req.Kill {
		wait := st.Settings.PrepareTimeout
		if req.WaitSeconds > 0 {
			wait = seconds(req.WaitSeconds)
		}
		say("before the pause: clients of %s in the middle of something longer than %v, DDL and table locks are waited for, at most %v", from, st.Settings.MaxTransaction, wait)
	}
	shrunk, chained := fsm.ChangedBefore(st, v, from, to)
	if len(shrunk) > 0 {
		say("before the pause: %s no longer acknowledges to %s (leaves the sync set)", nodeNames(shrunk), from)
	}
	if len(chained) > 0 {
		say("before the pause: %s replicates from %s already", nodeNames(chained), to)
	}
	say("the pause begins: %s closes its gate to clients (they get resets) and becomes read-only; only %s still receives from it", from, to)
	if req.Kill {
		say("in the pause: whoever still runs a statement, has a transaction open or holds locks on %s is killed, but for commits", from)
	}
	say("in the pause: %s applies everything up to where %s stopped", to, from)
	say("in the pause: epoch %d is committed: %s is the primary", st.Epoch+1, to)
	first := from
	if len(chained) > 0 {
		first = chained[0]
	}
	say("in the pause: %s stops replicating and commits the first row of the epoch; %s acknowledges it", to, first)
	say("the pause ends: %s opens its gate, takes the address and announces it; %s lets go of it", to, from)
	say("afterwards: %s replicates from %s, and the sync set grows again", from, to)
	return out
}

func nodeNames(ids []fsm.NodeID) string {
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, ", ")
}

// beforePause are the phases during which the old primary serves.
var beforePause = map[string]bool{"prepare": true, "chain": true}

// typicalPause is expected, in milliseconds, before there was a planned change to go by.
const typicalPause = 60

// expected is what the last planned change took before its pause and in it, and its phases.
func expected(st fsm.State) (prepare, pause float64, phases []api.Phase) {
	for i := len(st.Incidents) - 1; i >= 0; i-- {
		in := st.Incidents[i]
		if !in.Kind.Planned() || in.Outcome != fsm.OutcomeDone {
			continue
		}
		for _, p := range in.Phases {
			if beforePause[p.Name] {
				prepare += ms(p.Took)
			} else {
				pause += ms(p.Took)
			}
		}
		return prepare, pause, phasesOf(in.Phases)
	}
	return 0, typicalPause, nil
}
