package fsm

// ChangedBefore tells what a switchover would do while the old primary still serves: who leaves the sync set, and who would then replicate from the
// candidate already. Both are empty where there is nobody to do it with.
func ChangedBefore(s State, v View, from, to NodeID) (shrunk, chained []NodeID) {
	s = s.Clone()
	s.Op = &Operation{From: from, To: to}
	d := &deciding{s: s, v: v}
	others := d.others()
	if len(others) == 0 || s.Sync.Acks < 1 {
		return nil, nil
	}
	stay := map[NodeID]bool{}
	left := len(s.Sync.Members)
	for i := len(s.Sync.Members) - 1; i >= 0; i-- {
		if m := s.Sync.Members[i]; m.Node != to && left > s.Sync.Acks {
			shrunk = append(shrunk, m.Node)
			left--
		} else {
			stay[m.Node] = true
		}
	}
	for _, id := range others {
		if !stay[id] {
			chained = append(chained, id)
		}
	}
	return shrunk, chained
}
