package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

func (s *State) applySwitchover(c Switchover, at time.Time) error {
	switch {
	case !c.Kind.Planned():
		return refuse("switchover of kind %q", c.Kind)
	case c.Epoch != s.Epoch || c.From != s.Primary:
		return refuse("switchover from %s at epoch %d, the primary is %s at epoch %d", c.From, c.Epoch, s.Primary, s.Epoch)
	case s.Op != nil || s.Phase != PhaseSteady:
		return refuse("operation %d is running", s.opID())
	case s.Paused != nil && c.Kind == KindSwitchover:
		return refuse("paused by %s: %s", s.Paused.By, s.Paused.Why)
	case c.To == c.From:
		return refuse("%s is the primary already", c.To)
	}
	if m, ok := s.Member(c.To); !ok || m.Role != RoleData {
		return refuse("%q is not a data node of the cluster", c.To)
	}
	s.newOperation(Operation{Kind: c.Kind, Step: StepPrepared, Epoch: s.Epoch, From: c.From, To: c.To, Actor: c.Actor, Cause: c.Cause, Busy: c.Busy, Wait: c.Wait}, at)
	return nil
}

// applyChain: who is in the set stays where its acknowledgements are needed, and no more than are needed may be in it.
func (s *State) applyChain(c Chain, at time.Time) error {
	if err := s.expect(c.OpID, c.Epoch, StepPrepared); err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	switch _, in := s.Sync.Member(s.Op.To); {
	case s.Change != nil:
		return refuse("chain while a change of the sync set is prepared since index %d", s.Change.Index)
	case !in:
		return refuse("chain under %s, which is not in the sync set", s.Op.To)
	case s.Sync.Acks < 1 || len(s.Sync.Members) != s.Sync.Acks:
		return refuse("chain with %d members of whom %d are needed", len(s.Sync.Members), s.Sync.Acks)
	}
	s.Op.Chained = true
	s.enter(StepChained, at, fmt.Sprintf("the others replicate from %s already", s.Op.To))
	return nil
}

func (s *State) applyRelease(c Release, at time.Time) error {
	from := StepPrepared
	if s.Op != nil && s.Op.Chained {
		from = StepChained
	}
	if err := s.expect(c.OpID, c.Epoch, from); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if s.Change != nil {
		return refuse("release while a change of the sync set is prepared since index %d", s.Change.Index)
	}
	s.Phase = PhaseFencing
	s.enter(StepReleasing, at, fmt.Sprintf("%s is asked to release epoch %d", s.Op.From, s.Epoch))
	return nil
}

// applyRollback and applyPromote are compare-and-swaps on the same step: exactly one of them can commit (I4).
func (s *State) applyRollback(c Rollback, at time.Time) error {
	if s.Op == nil || s.Op.ID != c.OpID || s.Epoch != c.Epoch || !slices.Contains([]Step{StepPrepared, StepChained, StepReleasing}, s.Op.Step) {
		return refuse("rollback of operation %d at epoch %d: running is operation %d at epoch %d", c.OpID, c.Epoch, s.opID(), s.Epoch)
	}
	s.endChain()
	s.Phase = PhaseSteady
	s.enter(s.Op.Step, at, "rolled back: "+c.Reason)
	s.closeOperation(OutcomeRolledBack, c.Reason, c.Phases, at)
	return nil
}

func (s *State) applyRecount(c Recount) error {
	if c.Epoch != s.Epoch || s.Primary == "" {
		return refuse("recount for epoch %d, the epoch is %d", c.Epoch, s.Epoch)
	}
	for i := range s.Sync.Members {
		if s.Sync.Members[i].Node == c.Node {
			s.Sync.Members[i].Incarnation = c.Incarnation
			return nil
		}
	}
	return refuse("recount of %s, which is not in the sync set", c.Node)
}

// mayPromote is invariants I1 to I4 at the moment of the promote.
func (s *State) mayPromote(c Promote) error {
	if s.Op == nil || s.Op.ID != c.OpID || s.Epoch != c.Epoch {
		return refuse("operation %d at epoch %d: running is operation %d at epoch %d", c.OpID, c.Epoch, s.opID(), s.Epoch)
	}
	m, ok := s.Member(c.To)
	if !ok || m.Role != RoleData {
		return refuse("%q is not a data node of the cluster", c.To)
	}
	if _, running := s.RebuildOf(c.To); running {
		return refuse("%s is being rebuilt", c.To)
	}
	if err := s.maySync(c); err != nil {
		return err
	}
	if s.Op.Kind.Planned() {
		return s.isReleased(c)
	}
	if s.Op.Step != StepFenced || s.Op.Fence == nil {
		return refuse("operation %d is at step %s: the old primary %s is not fenced", s.Op.ID, s.Op.Step, s.Op.From)
	}
	if c.Won == WonLossy {
		return s.mayLose(c)
	}
	if a, ok := answerOf(c.Answers, c.Fetch); c.Fetch != "" && (!ok || a.Epoch != s.Epoch || a.Received != cmp.Or(c.Extra, c.Position)) {
		return refuse("%s is to catch up from %s, which has not answered with %s", c.To, c.Fetch, cmp.Or(c.Extra, c.Position))
	}
	won, err := counted(*s, c.Answers, c.To)
	if err != nil {
		return err
	}
	if won != c.Won {
		return refuse("won by %s, not by %s", won, c.Won)
	}
	return nil
}

// isReleased: the old primary itself gave the service away, to this candidate.
func (s *State) isReleased(c Promote) error {
	switch {
	case s.Op.Step != StepReleasing:
		return refuse("switchover %d is at step %s", s.Op.ID, s.Op.Step)
	case c.To != s.Op.To:
		return refuse("switchover %d is to %s, not to %s", s.Op.ID, s.Op.To, c.To)
	case c.Release == nil || c.Release.Node != s.Op.From || c.Release.Epoch != s.Epoch:
		return refuse("no release of epoch %d by %s", s.Epoch, s.Op.From)
	}
	return nil
}

// maySync checks the set that a promote names.
func (s *State) maySync(c Promote) error {
	for i, sm := range c.Members {
		m, ok := s.Member(sm.Node)
		if !ok || m.Role != RoleData || sm.Node == c.To || s.beingRebuilt(sm.Node) || slices.ContainsFunc(c.Members[:i], func(o SyncMember) bool { return o.Node == sm.Node }) {
			return refuse("%q cannot be in the new sync set", sm.Node)
		}
	}
	switch {
	case c.Acks > len(c.Members) || c.Acks > s.ackTarget() || len(c.Members) > s.setLimit():
		return refuse("%d acknowledgements of %d members, at most %d of %d", c.Acks, len(c.Members), s.ackTarget(), s.setLimit())
	case c.Acks < s.floor():
		return refuse("%d acknowledgements, sync.min_replicas is %d", c.Acks, s.Settings.SyncMinReplicas)
	}
	return nil
}

func (s *State) expect(opID, epoch uint64, step Step) error {
	if s.Op == nil || s.Op.ID != opID || s.Op.Step != step || s.Epoch != epoch {
		have := "none"
		if s.Op != nil {
			have = fmt.Sprintf("operation %d at step %s", s.Op.ID, s.Op.Step)
		}
		return refuse("wants operation %d at step %s of epoch %d; running is %s, epoch %d", opID, step, epoch, have, s.Epoch)
	}
	return nil
}

func (s *State) opID() uint64 {
	if s.Op == nil {
		return 0
	}
	return s.Op.ID
}

func (s *State) newOperation(op Operation, at time.Time) {
	op.ID, op.Started = s.NextOperation, at
	s.NextOperation++
	op.Timeline = []TimelineEntry{{At: at, Step: op.Step, Text: op.Cause}}
	s.Op = &op
}

func (s *State) enter(step Step, at time.Time, text string) {
	s.Op.Step = step
	if len(s.Op.Timeline) < maxTimeline {
		s.Op.Timeline = append(s.Op.Timeline, TimelineEntry{At: at, Step: step, Text: text})
	}
}

func (s *State) closeOperation(outcome Outcome, reason string, phases []PhaseTime, at time.Time) {
	op := s.Op
	s.Incidents = append(s.Incidents, Incident{ID: op.ID, Kind: op.Kind, From: op.From, To: op.To, Epoch: op.Epoch, Cause: op.Cause, Actor: op.Actor,
		Started: op.Started, Ended: at, Outcome: outcome, Reason: reason, Fence: op.Fence, Phases: slices.Clone(phases), Timeline: op.Timeline})
	if len(s.Incidents) > maxIncidents {
		s.Incidents = slices.Clone(s.Incidents[len(s.Incidents)-maxIncidents:])
	}
	s.Op = nil
}

func orNone(s string) string {
	if s == "" {
		return "nothing yet"
	}
	return s
}
