package fsm

import (
	"cmp"
	"slices"
	"time"
)

// rebuildRules are the rows of the decision table about nodes whose data is of no use any more. They stand beside everything else: no other
// operation waits for them.
func rebuildRules() []Rule {
	why := map[RebuildCause]string{
		RebuildErrant:      "a replica executed what the primary never had: it takes a copy",
		RebuildPurged:      "a replica needs binary logs that the primary has purged: it takes a copy",
		RebuildQuarantined: "a former primary cannot roll its tail back: it takes a copy",
		RebuildEmpty:       "a host has no data yet: it takes a copy",
		RebuildHalf:        "a host gave its data up for a copy that never became whole: it takes another",
	}
	out := []Rule{{Code: "rebuild.donor", Why: "the donor of a rebuild is gone: another one goes on", Always: true,
		When: func(d *deciding) bool { return len(d.s.Rebuilds) > 0 }, Do: (*deciding).redonate}}
	for _, cause := range RebuildCauses() {
		out = append(out, Rule{Code: "rebuild." + string(cause), Why: why[cause], Always: true,
			When: func(d *deciding) bool { return d.troubled(cause) != "" }, Do: func(d *deciding) { d.rebuild(cause) }})
	}
	return out
}

// troubled is the first node that reports this cause and is not being rebuilt.
func (d *deciding) troubled(cause RebuildCause) NodeID {
	for _, id := range d.s.DataNodes() {
		if _, running := d.s.RebuildOf(id); !running && d.v.Fresh(d.s, id) && d.v.Node(id).Obs.Rebuild.Cause == cause {
			return id
		}
	}
	return ""
}

// rebuild orders one automatic rebuild at a time: each loads its donor.
func (d *deciding) rebuild(cause RebuildCause) {
	rule, node := "rebuild."+string(cause), d.troubled(cause)
	reason := d.v.Node(node).Obs.Rebuild.Reason
	switch hold := d.rebuildHold(node, cause); {
	case d.s.Settings.Rebuild == RebuildManual:
		d.say(rule, node, false, "%s; rebuild is manual: hbctl rebuild %s", reason, node)
	case d.paused(rule):
	case d.s.Op != nil || d.s.Phase != PhaseSteady:
	case len(d.s.Rebuilds) > 0 || d.ordersRebuild():
		d.say(rule, node, false, "%s; waits for the rebuild of another node to end", reason)
	case hold > 0:
		d.say(rule, node, false, "%s; its last rebuild ended a short while ago: held for %v more", reason, hold.Round(time.Second))
	default:
		d.orderRebuild(rule, node, cause, reason)
	}
}

func (d *deciding) ordersRebuild() bool {
	return slices.ContainsFunc(d.out.Commands, func(c Command) bool { return c.Rebuild != nil })
}

func (d *deciding) orderRebuild(rule string, node NodeID, cause RebuildCause, reason string) {
	if v := wipeRefusal(d.s, node, false); v.Rule != "" {
		d.say(rule, node, false, "%s; not rebuilt: %s", reason, v.Why)
		return
	}
	donor, refusals := BestDonor(d.s, d.v, node)
	if donor == "" {
		d.out.Verdicts = append(d.out.Verdicts, refusals...)
		d.say(rule, node, false, "%s; there is no donor", reason)
		return
	}
	d.say(rule, node, true, "%s; it takes a copy of %s", reason, donor)
	d.propose(Command{Rebuild: &Rebuild{Node: node, Donor: donor, Epoch: d.s.Epoch, Cause: cause, Reason: reason}})
}

// firstHold is how long after its end a node is not rebuilt again by itself; it doubles with every further end within a day.
const firstHold = time.Minute

// rebuildHold is for how long a node is not rebuilt again. A rebuild that failed holds every cause: it was the copying that did not work. After one
// that ended well another cause is other trouble, and held a step less: the first time not at all. A loop through several causes is still damped.
func (d *deciding) rebuildHold(node NodeID, cause RebuildCause) time.Duration {
	end, ok := d.s.RebuildEndOf(node)
	if !ok {
		return 0
	}
	steps := max(end.Times, 1)
	if end.Outcome == OutcomeDone && end.Cause != "" && end.Cause != cause {
		steps--
	}
	if steps == 0 {
		return 0
	}
	hold := firstHold << min(steps-1, 9)
	return max(0, hold-d.v.Wall.Sub(end.At))
}

// redonate gives a rebuild whose donor is gone another donor. The right to throw the data away stays what it was.
func (d *deciding) redonate() {
	if d.s.Primary == "" || d.s.Settled() != d.s.Epoch {
		return
	}
	for _, r := range d.s.Rebuilds {
		n := d.v.Node(r.Donor)
		if !n.Lost && !n.AgentLost && !(d.v.Fresh(d.s, r.Donor) && (n.Obs.Server.State == ServerDown || n.Obs.Standing == StandingQuarantined)) {
			continue
		}
		donor, _ := BestDonor(d.s, d.v, r.Node)
		if donor == "" || donor == r.Donor {
			d.say("rebuild.donor", r.Node, false, "its donor %s is gone, and there is no other", r.Donor)
			continue
		}
		d.say("rebuild.donor", r.Node, true, "its donor %s is gone; it takes a copy of %s", r.Donor, donor)
		d.propose(Command{Rebuild: &Rebuild{Node: r.Node, Donor: donor, Epoch: d.s.Epoch, Replaces: r.Turn, Cause: r.Cause, Reason: r.Reason, Actor: r.Actor, Confirmed: r.Confirmed}})
	}
}

// BestDonor chooses whom a node is copied from: a replica that follows closely and whose loss would stop nobody, the least preferred as a
// candidate first; else the primary. The refusals say why each other one was passed over.
func BestDonor(s State, v View, node NodeID) (NodeID, []Verdict) {
	ids := s.DataNodes()
	slices.SortStableFunc(ids, func(a, b NodeID) int {
		ma, _ := s.Member(a)
		mb, _ := s.Member(b)
		return cmp.Or(cmp.Compare(btoi(a == s.Primary), btoi(b == s.Primary)), cmp.Compare(ma.Priority, mb.Priority), cmp.Compare(a, b))
	})
	var refusals []Verdict
	for _, id := range ids {
		why := DonorGate(s, v, node, id)
		if why == "" {
			return id, refusals
		}
		if id != node {
			refusals = append(refusals, Verdict{Rule: "rebuild.no-donor", Node: id, Why: why})
		}
	}
	return "", refusals
}

// DonorGate is why a node cannot be the donor of another at the moment, "" when it can.
func DonorGate(s State, v View, node, donor NodeID) string {
	if why := donorRefusal(s, node, donor); why != "" {
		return why
	}
	n := v.Node(donor)
	sv := n.Obs.Server
	switch {
	case !v.Fresh(s, donor):
		return "does not report"
	case n.Lost || n.AgentLost:
		return "is out of reach"
	case sv.State != ServerUp:
		return "has no running mysqld"
	case donor == s.Primary && n.Obs.Serving != s.Epoch:
		return "does not serve"
	case donor != s.Primary && n.Obs.Standing != StandingReplica:
		return "is " + string(n.Obs.Standing)
	case donor != s.Primary && (sv.Lag == nil || *sv.Lag > s.Settings.MaxBehind.Seconds()):
		return "lags behind the primary"
	}
	return ""
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// RebuildGates is every rule that a rebuild of a node has to pass, and the donor: the one wanted, or the best.
func RebuildGates(s State, v View, node, wanted NodeID, confirmed bool) (donor NodeID, gates []Verdict) {
	refusal := wipeRefusal(s, node, confirmed)
	if refusal.OK = refusal.Rule == ""; refusal.OK {
		refusal = Verdict{Rule: "rebuild.data", Node: node, OK: true, Why: "nothing that counts would be lost with its data"}
	}
	gates = append(gates, refusal)
	if r, running := s.RebuildOf(node); running {
		gates = append(gates, Verdict{Rule: "rebuild.running", Node: node, Why: "it is being rebuilt from " + string(r.Donor)})
	}
	if donor = wanted; donor == "" {
		var refusals []Verdict
		if donor, refusals = BestDonor(s, v, node); donor == "" {
			return "", append(gates, append(refusals, Verdict{Rule: "rebuild.no-donor", Node: node, Why: "no node can be copied from"})...)
		}
	}
	why := DonorGate(s, v, node, donor)
	return donor, append(gates, Verdict{Rule: "rebuild.donor", Node: donor, OK: why == "", Why: orElse(why, "it can be copied from")})
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
