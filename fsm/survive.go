package fsm

import "fmt"

// IfLost runs the real judgement on a copy in which the primary and others are lost: nil when a failover would begin, else what refuses it.
func IfLost(s State, v View, others ...NodeID) []Verdict {
	if s.Primary == "" {
		return []Verdict{{Rule: "primary.none", Why: "there is no primary"}}
	}
	v = withLost(v, append(others[:len(others):len(others)], s.Primary)...)
	if n := len(aliveIn(s, v)); n < s.Quorum() {
		return []Verdict{{Rule: "raft.quorum", Value: fmt.Sprint(n), Threshold: fmt.Sprint(s.Quorum()), Why: fmt.Sprintf("%d of %d voters would be left, %d are needed to decide anything", n, len(s.Members), s.Quorum())}}
	}
	d := Decide(s, v)
	for _, c := range d.Commands {
		if c.Begin != nil {
			return nil
		}
	}
	var refused []Verdict
	for _, vd := range d.Verdicts {
		if !vd.OK {
			refused = append(refused, vd)
		}
	}
	if len(refused) == 0 && s.Op != nil {
		refused = append(refused, Verdict{Rule: "operation.running", Value: string(s.Op.Step), Why: "an operation is running"})
	}
	if len(refused) == 0 {
		refused = append(refused, Verdict{Rule: "failover.none", Why: "no rule would act"})
	}
	return refused
}

// withLost is a view in which nodes are lost for certain.
func withLost(v View, lost ...NodeID) View {
	nodes := make([]NodeView, len(v.Nodes))
	copy(nodes, v.Nodes)
	for i := range nodes {
		for _, id := range lost {
			if nodes[i].ID == id {
				nodes[i].Lost, nodes[i].AgentLost, nodes[i].Health = true, true, HealthFailed
			}
		}
	}
	v.Nodes = nodes
	return v
}

// Tolerates is how many more nodes may be lost at once, whichever they are, with the service coming back by itself: voters keep their majority; if
// the primary is among them a failover would begin; if not, the replicas left can give as many acknowledgements as are never given up.
func Tolerates(s State, v View) int {
	if !s.Bootstrapped() || s.Primary == "" {
		return 0
	}
	alive := aliveIn(s, v)
	for n := 1; n <= len(alive); n++ {
		if !eachOf(alive, n, func(lost []NodeID) bool { return survives(s, v, alive, lost) }) {
			return n - 1
		}
	}
	return len(alive)
}

// aliveIn lists the members that report.
func aliveIn(s State, v View) []NodeID {
	var alive []NodeID
	for _, m := range s.Members {
		if n := v.Node(m.ID); v.Fresh(s, m.ID) && !n.Lost && !n.AgentLost {
			alive = append(alive, m.ID)
		}
	}
	return alive
}

func survives(s State, v View, alive, lost []NodeID) bool {
	if len(alive)-len(lost) < s.Quorum() {
		return false
	}
	gone := map[NodeID]bool{}
	for _, id := range lost {
		gone[id] = true
	}
	if gone[s.Primary] {
		return IfLost(s, v, lost...) == nil
	}
	left := 0
	for _, id := range alive {
		if m, _ := s.Member(id); m.Role == RoleData && id != s.Primary && !gone[id] && CannotAck(s, v, id) == "" {
			left++
		}
	}
	return left >= s.floor()
}

// eachOf tells whether a condition holds for every choice of n out of ids.
func eachOf(ids []NodeID, n int, ok func([]NodeID) bool) bool {
	var choose func(from int, chosen []NodeID) bool
	choose = func(from int, chosen []NodeID) bool {
		if len(chosen) == n {
			return ok(chosen)
		}
		for i := from; i < len(ids); i++ {
			if !choose(i+1, append(chosen[:len(chosen):len(chosen)], ids[i])) {
				return false
			}
		}
		return true
	}
	return choose(0, nil)
}
