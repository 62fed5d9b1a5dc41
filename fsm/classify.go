package fsm

import (
	"fmt"
	"time"
)

// Classify turns the raw observations of a view into health, with reasons. Failed needs a quorum of voters that each directly failed to reach
// the node's hbd and its mysqld; what gossip says is not even an input.
func Classify(s State, v View) View {
	nodes := make([]NodeView, 0, len(s.Members))
	for _, m := range s.Members {
		nodes = append(nodes, classifyNode(s, v, m))
	}
	v.Nodes = nodes
	return v
}

func classifyNode(s State, v View, m Member) NodeView {
	n := v.Node(m.ID)
	n.ID = m.ID
	noAgent, noServer, both := 0, 0, 0
	for _, w := range s.Members {
		if w.ID == m.ID || !v.Fresh(s, w.ID) {
			continue
		}
		a, b := unreachable(s, v.Node(w.ID), v.Now, m)
		if a {
			noAgent++
		}
		if b {
			noServer++
		}
		if a && b {
			both++
		}
	}
	q := s.Quorum()
	n.AgentLost, n.Lost = noAgent >= q, both >= q
	switch {
	case n.Lost:
		n.Health, n.Reason = HealthFailed, fmt.Sprintf("%d of %d voters reach neither its hbd nor its mysqld", both, len(s.Members))
	case n.AgentLost:
		n.Health, n.Reason = HealthSuspect, fmt.Sprintf("%d of %d voters do not reach its hbd, %d of them reach its mysqld", noAgent, len(s.Members), noAgent-both)
	case !v.Fresh(s, m.ID):
		n.Health, n.Reason = HealthUnknown, "no fresh report"
	case m.Role == RoleWitness:
		n.Health, n.Reason = HealthOK, ""
	case n.Obs.Standing == StandingQuarantined:
		n.Health, n.Reason = HealthSuspect, n.Obs.Reason
	case n.Obs.Server.State == ServerDown:
		n.Health, n.Reason = HealthSuspect, "mysqld is down: "+n.Obs.Server.Fault
	case n.Obs.Server.State == ServerHung:
		n.Health, n.Reason = HealthSuspect, "mysqld hangs: "+n.Obs.Server.Fault
	case n.Obs.Server.State == ServerUnknown:
		n.Health, n.Reason = HealthUnknown, "mysqld not looked at yet"
	case n.Obs.Server.Fault != "":
		n.Health, n.Reason = HealthSuspect, n.Obs.Server.Fault
	default:
		n.Health, n.Reason = HealthOK, ""
	}
	return n
}

// unreachable says whether one reporting node has failed to reach the target's hbd, and its mysqld, for longer than FailAfter. The report's own
// age is not added: a report is evidence of what was true when it was made.
func unreachable(s State, reporter NodeView, _ Instant, target Member) (agent, server bool) {
	for _, sight := range reporter.Obs.Sights {
		if sight.Node != target.ID {
			continue
		}
		agent = sight.AgentAge > s.Settings.FailAfter
		server = target.Role == RoleWitness || sight.ServerAge > s.Settings.FailAfter
		return agent, server
	}
	return false, false
}

// recentRestarts counts the restarts inside the budget's window.
func recentRestarts(s State, wall time.Time) int {
	n := 0
	for _, t := range s.Restarts {
		if wall.Sub(t) < s.Settings.RestartWindow {
			n++
		}
	}
	return n
}
