package fsm

import (
	"fmt"
	"slices"

	"github.com/highbase/highbase/fsm/gtid"
)

// valid keeps the answers that count for a set: given for the present epoch, by a member whose incarnation is the one the log knows.
func valid(s State, set SyncSet, answers []Answer) []Answer {
	var out []Answer
	for _, a := range answers {
		m, ok := set.Member(a.Node)
		if ok && a.Epoch == s.Epoch && m.Incarnation != "" && m.Incarnation == a.Incarnation {
			out = append(out, a)
		}
	}
	return out
}

func answerOf(answers []Answer, id NodeID) (Answer, bool) {
	i := slices.IndexFunc(answers, func(a Answer) bool { return a.Node == id })
	if i < 0 {
		return Answer{}, false
	}
	return answers[i], true
}

// lastGrant is the newest epoch that had a primary.
func lastGrant(s State) EpochRecord {
	if len(s.Epochs) == 0 {
		return EpochRecord{}
	}
	return s.Epochs[len(s.Epochs)-1]
}

// soleUnsettled tells whether the last grant is the only one since the base. In a longer chain a grant between them may have acknowledged writes
// that neither the base's primary nor a node that is whole since the last grant knows of: then only the incarnations that the log knows count.
func (s State) soleUnsettled() bool {
	if s.Base == nil {
		return false
	}
	since := slices.IndexFunc(s.Epochs, func(r EpochRecord) bool { return r.Epoch > s.Base.Epoch })
	return since >= 0 && since == len(s.Epochs)-1
}

// voices keeps the answers that count for the newest set. While its grant is unsettled nothing but what happened since can be at stake: so an
// incarnation that has forgotten nothing since that epoch began counts, and so does the base's primary with its own data, which never received
// anything of it.
func voices(s State, answers []Answer) []Answer {
	out := valid(s, s.Sync, answers)
	if !s.soleUnsettled() {
		return out
	}
	for _, a := range answers {
		_, member := s.Sync.Member(a.Node)
		_, already := answerOf(out, a.Node)
		if member && !already && a.Epoch == s.Epoch && (a.Whole == lastGrant(s).Epoch || baseOwn(s, a)) {
			out = append(out, a)
		}
	}
	return out
}

// baseOwn: the base's primary with all its data: as it was, or turned towards the unsettled epoch, which drops nothing.
func baseOwn(s State, a Answer) bool {
	return s.soleUnsettled() && a.Node == s.Base.Primary && a.Epoch == s.Epoch && (a.Held == s.Base.Epoch || a.Whole == lastGrant(s).Epoch)
}

// counted is invariant I3: whether `to` may be promoted on these answers, and by which right. It judges counts and epochs only; that the
// candidate holds the union of what was received is Elect's part.
//
// While the last grant is unsettled its set may have acknowledged nothing yet. So both sets must speak: enough of the new one, to know whether
// its barrier was ever acknowledged; and if it was not, enough of the base.
func counted(s State, answers []Answer, to NodeID) (Won, error) {
	last := lastGrant(s)
	if a, ok := answerOf(answers, to); ok && to == last.Primary && a.Held == last.Epoch && a.Epoch == s.Epoch {
		return WonOwn, nil
	}
	if neverHeld(s, answers) {
		return countedByBase(s, answers, to)
	}
	inSet := voices(s, answers)
	if len(inSet) < s.Sync.Needed() {
		return "", refuse("%d of %d sync members of epoch %d have answered, %d are needed", len(inSet), len(s.Sync.Members), last.Epoch, s.Sync.Needed())
	}
	if s.Base == nil {
		if _, ok := answerOf(inSet, to); !ok {
			return "", refuse("%s has not answered the freeze as a counted member", to)
		}
		return WonCount, nil
	}
	reached := slices.DeleteFunc(slices.Clone(inSet), func(a Answer) bool { return a.LastEpoch != last.Epoch })
	if len(reached) > 0 {
		if _, ok := answerOf(reached, to); !ok {
			return "", refuse("%s lacks the barrier of epoch %d, which others hold", to, last.Epoch)
		}
		return WonCount, nil
	}
	return countedByBase(s, answers, to)
}

// neverHeld: the last grant's own primary answers that it never took it up. It writes that down before it writes a barrier, and has now promised
// not to: so nothing was acknowledged in that epoch, whatever became of its set. In a longer chain that says nothing of the epochs between.
func neverHeld(s State, answers []Answer) bool {
	last := lastGrant(s)
	a, ok := answerOf(answers, last.Primary)
	return s.soleUnsettled() && ok && a.Epoch == s.Epoch && a.Held != last.Epoch &&
		!slices.ContainsFunc(answers, func(b Answer) bool { return b.LastEpoch == last.Epoch })
}

// countedByBase: nobody holds the unsettled epoch's barrier, so nothing was acknowledged in it: the base decides.
func countedByBase(s State, answers []Answer, to NodeID) (Won, error) {
	if a, ok := answerOf(answers, to); ok && baseOwn(s, a) {
		return WonOwn, nil
	}
	inBase := valid(s, s.Base.Sync, answers)
	if len(inBase) < s.Base.Sync.Needed() {
		return "", refuse("epoch %d is not settled: %d of %d sync members of epoch %d have answered, %d are needed",
			lastGrant(s).Epoch, len(inBase), len(s.Base.Sync.Members), s.Base.Epoch, s.Base.Sync.Needed())
	}
	if _, ok := answerOf(inBase, to); !ok {
		return "", refuse("%s has not answered the freeze as a counted member", to)
	}
	return WonCount, nil
}

// acknowledgeable tells whether another node than the candidate is ready to follow it. A former primary is not: it keeps every byte until a newer
// epoch is settled (I8), and the barrier by which it would be settled needs an acknowledgement first. To promote all the same would wait for ever,
// with the way back to the former primary cut off.
func acknowledgeable(s State, answers []Answer, to NodeID) bool {
	return s.ackTarget() == 0 || slices.ContainsFunc(answers, func(a Answer) bool {
		m, ok := s.Member(a.Node)
		return ok && m.Role == RoleData && a.Node != to && a.Epoch == s.Epoch && a.Held == 0
	})
}

// Choice is who may be promoted, and on what.
type Choice struct {
	To       NodeID
	Position string
	Won      Won
	Fetch    NodeID // who holds all of the position or of Extra, "" when the chosen one does itself
	Extra    string // what Fetch holds beyond the position, and nobody acknowledged
}

// Elect chooses the candidate among those that answered the freeze. Each refusal is a verdict with its name. It stops and asks when positions
// cannot be ordered. The old primary is chosen by its own right only when ownToo is set: its service or host has just failed, so the others
// come first. By that right even an excluded node may come back when nobody else can: it may be the only one left that holds everything.
//
// With nobody else to acknowledge its barrier a candidate is chosen only when alone is set, because nobody is waited for any more, and when
// min_replicas is 0: then it is promoted without acknowledgements, and that is in the log.
func Elect(s State, answers []Answer, ownToo, alone bool) (Choice, bool, []Verdict) {
	var verdicts []Verdict
	var able []Answer
	var won = map[NodeID]Won{}
	for _, a := range answers {
		if v := refusedAsCandidate(s, a); v != nil {
			verdicts = append(verdicts, *v)
			continue
		}
		w, err := counted(s, answers, a.Node)
		if err != nil {
			verdicts = append(verdicts, Verdict{Rule: "candidate.count", Node: a.Node, Why: err.Error()})
			continue
		}
		if s.Op != nil && slices.Contains(s.Op.Excluded, a.Node) && !(w == WonOwn && ownToo) {
			verdicts = append(verdicts, Verdict{Rule: "candidate.excluded", Node: a.Node, Why: "it could not finish an earlier promotion of this incident"})
			continue
		}
		if w == WonOwn && !ownToo {
			verdicts = append(verdicts, Verdict{Rule: "candidate.own-later", Node: a.Node, Why: "the old primary may come back with its own data, once the others have had their time to answer"})
			continue
		}
		if !(alone && s.Settings.SyncMinReplicas == 0) && w == WonCount && !acknowledgeable(s, answers, a.Node) {
			verdicts = append(verdicts, Verdict{Rule: "candidate.no-acknowledger", Node: a.Node, Why: "nobody could acknowledge its barrier: the others do not answer, or keep what they had as primary until somebody has settled"})
			continue
		}
		won[a.Node] = w
		able = append(able, a)
	}
	if len(able) == 0 {
		return Choice{}, false, verdicts
	}
	byCount := slices.DeleteFunc(slices.Clone(able), func(a Answer) bool { return won[a.Node] == WonOwn })
	rivals := comparable(s, answers, won)
	best, v := mostAdvanced(s, byCount, rivals)
	verdicts = append(verdicts, v...)
	if best == nil {
		if c, ok := fetching(s, byCount, rivals); ok {
			return c, true, append(verdicts, Verdict{Rule: "candidate.fetches", Node: c.To, OK: true, Value: c.Position,
				Why: fmt.Sprintf("it catches up from %s first, which holds everything and may not be promoted", c.Fetch)})
		}
	}
	if best == nil {
		// The old primary holds everything it ever acknowledged: its own right needs no comparison.
		i := slices.IndexFunc(able, func(a Answer) bool { return won[a.Node] == WonOwn })
		if i < 0 {
			return Choice{}, false, verdicts
		}
		return Choice{To: able[i].Node, Position: "", Won: WonOwn}, true, append(verdicts, Verdict{Rule: "candidate.chosen", Node: able[i].Node, OK: true, Why: "the old primary, with its own data"})
	}
	choice := Choice{To: best.Node, Position: best.Received, Won: WonCount}
	verdicts = append(verdicts, Verdict{Rule: "candidate.chosen", Node: best.Node, OK: true, Value: best.Received, Why: "holds everything that any counted member received"})
	if a, ok := extraOf(s, answers, *best); ok {
		choice.Fetch, choice.Extra = a.Node, a.Received
		verdicts = append(verdicts, Verdict{Rule: "candidate.takes-extra", Node: best.Node, OK: true, Value: choice.Extra,
			Why: fmt.Sprintf("it first takes over what %s received beyond it, or that one would have to be rebuilt", a.Node)})
	}
	return choice, true, verdicts
}

func refusedAsCandidate(s State, a Answer) *Verdict {
	m, ok := s.Member(a.Node)
	switch {
	case !ok || m.Role != RoleData:
		return &Verdict{Rule: "candidate.not-data", Node: a.Node, Why: "it has no database"}
	case m.NeverPromote:
		return &Verdict{Rule: "candidate.never-promote", Node: a.Node, Why: "never_promote is set"}
	case a.Epoch != s.Epoch:
		return &Verdict{Rule: "candidate.old-answer", Node: a.Node, Value: fmt.Sprint(a.Epoch), Threshold: fmt.Sprint(s.Epoch), Why: "its answer is of another epoch"}
	}
	return nil
}

// comparable lists the answers whose receipts must all be within the candidate's: every counted one, of the newest barrier held if the last
// grant is unsettled (an older branch may carry an unacknowledged tail).
func comparable(s State, answers []Answer, won map[NodeID]Won) []Answer {
	all := voices(s, answers)
	if s.Base != nil {
		all = append(all, valid(s, s.Base.Sync, answers)...)
	}
	newest := uint64(0)
	if s.Base != nil {
		for _, a := range all {
			newest = max(newest, a.LastEpoch)
		}
		if newest < lastGrant(s).Epoch {
			newest = 0
		}
	}
	return slices.DeleteFunc(all, func(a Answer) bool { return won[a.Node] == WonOwn || a.LastEpoch < newest })
}

func mostAdvanced(s State, able, all []Answer) (*Answer, []Verdict) {
	flavor := gtid.Flavor(s.Server)
	sets := map[NodeID]gtid.Set{}
	var verdicts []Verdict
	for _, a := range append(slices.Clone(able), all...) {
		set, err := gtid.Parse(flavor, a.Received)
		if err != nil {
			return nil, append(verdicts, Verdict{Rule: "candidate.position", Node: a.Node, Value: a.Received, Why: "its position cannot be read: " + err.Error()})
		}
		sets[a.Node] = set
	}
	var best *Answer
	for i := range able {
		a := &able[i]
		missing := slices.IndexFunc(all, func(o Answer) bool { return !sets[a.Node].Contains(sets[o.Node]) })
		if missing >= 0 {
			verdicts = append(verdicts, Verdict{Rule: "candidate.behind", Node: a.Node, Value: a.Received, Threshold: all[missing].Received,
				Why: fmt.Sprintf("%s received more", all[missing].Node)})
			continue
		}
		if best == nil || preferred(s, *a, *best) {
			best = a
		}
	}
	if best == nil && len(able) > 1 {
		verdicts = append(verdicts, Verdict{Rule: "candidate.incomparable", Why: "no candidate holds what all others received: a human must choose"})
	}
	return best, verdicts
}

// fetching chooses a candidate that lacks something which another frozen member holds, if one member holds everything: it catches up from that one
// before it serves. The holder itself may not be promoted, or it would have been chosen.
func fetching(s State, able, all []Answer) (Choice, bool) {
	holder, _ := mostAdvanced(s, all, all)
	if holder == nil || len(able) == 0 {
		return Choice{}, false
	}
	best := &able[0]
	for i := range able {
		if preferred(s, able[i], *best) {
			best = &able[i]
		}
	}
	return Choice{To: best.Node, Position: holder.Received, Won: WonCount, Fetch: holder.Node}, true
}

// preferred breaks ties among equally advanced candidates: who has less to apply before it may write, then priority, then the order of the ids.
// There are no ties left. Whom an operator asked for comes first among them.
func preferred(s State, a, b Answer) bool {
	if s.Op != nil && s.Op.To != "" && s.Op.Step != StepPromoted && (a.Node == s.Op.To) != (b.Node == s.Op.To) {
		return a.Node == s.Op.To
	}
	if lateA, lateB := lateness(s, a.Unapplied), lateness(s, b.Unapplied); lateA != lateB {
		return lateA < lateB
	}
	ma, _ := s.Member(a.Node)
	mb, _ := s.Member(b.Node)
	if ma.Priority != mb.Priority {
		return ma.Priority > mb.Priority
	}
	return a.Node < b.Node
}
