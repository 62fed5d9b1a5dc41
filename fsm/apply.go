package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Apply runs a committed command. It is total and deterministic. A command that does not fit the state is ErrRefused and changes nothing;
// ErrUnknownCommand means that this program is too old and must stop.
func Apply(s State, index uint64, c Command) (State, error) { //nolint:gocyclo // a table: one case for each command
	next := s.Clone()
	var err error
	switch {
	case c.Bootstrap != nil:
		err = next.applyBootstrap(*c.Bootstrap, c.At)
	case !s.Bootstrapped():
		err = refuse("%s before bootstrap", c.Name())
	case c.Begin != nil:
		err = next.applyBegin(*c.Begin, c.At)
	case c.Fence != nil:
		err = next.applyFence(*c.Fence, c.At)
	case c.Promote != nil:
		err = next.applyPromote(*c.Promote, c.At)
	case c.Settle != nil:
		err = next.applySettle(*c.Settle, c.At)
	case c.Restart != nil:
		err = next.applyRestart(*c.Restart, c.At)
	case c.Restarted != nil:
		err = next.applyRestarted(*c.Restarted, c.At)
	case c.Switchover != nil:
		err = next.applySwitchover(*c.Switchover, c.At)
	case c.Chain != nil:
		err = next.applyChain(*c.Chain, c.At)
	case c.Release != nil:
		err = next.applyRelease(*c.Release, c.At)
	case c.Rollback != nil:
		err = next.applyRollback(*c.Rollback, c.At)
	case c.Recount != nil:
		err = next.applyRecount(*c.Recount)
	case c.Grow != nil:
		err = next.applyGrow(*c.Grow)
	case c.Intend != nil:
		err = next.applyIntend(*c.Intend, c.At, index)
	case c.Complete != nil:
		err = next.applyComplete(*c.Complete)
	case c.Abandon != nil:
		err = next.applyAbandon(*c.Abandon)
	case c.AcceptLoss != nil:
		err = next.applyAcceptLoss(*c.AcceptLoss, c.At)
	case c.Rebuild != nil:
		err = next.applyRebuild(*c.Rebuild, index, c.At)
	case c.Rebuilt != nil:
		err = next.applyRebuilt(*c.Rebuilt, c.At)
	case c.SetPause != nil:
		next.applyPause(*c.SetPause, c.At)
	default:
		return s, fmt.Errorf("%w: empty command", ErrUnknownCommand)
	}
	if err != nil {
		return s, err
	}
	next.Index = index
	next.noteOutside(index)
	next.noteDegraded(s, c, index)
	if next.Op != nil && (s.Op == nil || s.Op.ID != next.Op.ID || s.Op.Step != next.Op.Step || s.Op.Attempt != next.Op.Attempt) {
		next.Op.Index = index
	}
	return next, nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

func (s *State) applyBootstrap(c Bootstrap, at time.Time) error {
	if s.Bootstrapped() {
		return refuse("cluster %s exists already", s.ClusterID)
	}
	if err := c.Settings.Validate(); err != nil {
		return refuse("settings: %w", err)
	}
	if c.ClusterID == "" || len(c.Members) == 0 {
		return refuse("bootstrap needs a cluster id and members")
	}
	*s = State{Format: Format, ClusterID: c.ClusterID, Cluster: c.Cluster, Server: c.Server, Settings: c.Settings, LeaseMax: c.Settings.Lease,
		Members: slices.Clone(c.Members), Epoch: 1, NextOperation: 1}
	slices.SortFunc(s.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	m, ok := s.Member(c.Primary)
	if !ok || m.Role != RoleData {
		return refuse("primary %q is not a data node of the cluster", c.Primary)
	}
	s.newOperation(Operation{Kind: KindBootstrap, Step: StepPromoted, Epoch: 1, To: c.Primary, Actor: c.Actor, Cause: "cluster bootstrapped",
		Fence: &Evidence{Kind: EvidenceNone, Detail: "the first epoch"}}, at)
	s.Primary, s.Phase = c.Primary, PhasePromoting
	if most := s.ackTarget(); c.Settings.SyncMinReplicas > most {
		return refuse("sync.min_replicas is %d, and %s with %d data nodes can wait for %d at most", c.Settings.SyncMinReplicas, c.Server, len(s.DataNodes()), most)
	}
	s.Epochs = []EpochRecord{{Epoch: 1, Primary: c.Primary, Won: WonBootstrap, Since: at}}
	return nil
}

func (s *State) applyBegin(c Begin, at time.Time) error {
	if c.Kind != KindFailover && c.Kind != KindTakeover {
		return refuse("begin of a %q", c.Kind)
	}
	if c.Epoch != s.Epoch {
		return refuse("begin for epoch %d, the epoch is %d", c.Epoch, s.Epoch)
	}
	if c.OpID != s.opID() {
		return refuse("begin supersedes operation %d, operation %d is running", c.OpID, s.opID())
	}
	if s.Primary == "" {
		return refuse("epoch %d is fencing already", s.Epoch)
	}
	if err := s.mayStart("begin"); err != nil {
		return err
	}
	s.endChain()
	from := s.Primary
	op := Operation{Kind: c.Kind, Step: StepBegun, Epoch: s.Epoch + 1, From: from, Actor: c.Actor, Cause: c.Cause, Lossy: c.Lossy, To: c.To}
	if s.Op != nil {
		op.Attempt = s.Op.Attempt + 1
		op.Excluded = slices.Clone(s.Op.Excluded)
		if s.Op.Kind == KindRestart {
			op.Attempt = 0
		}
		s.closeOperation(OutcomeSuperseded, c.Cause, c.Phases, at)
	}
	if c.Exclude != "" && !slices.Contains(op.Excluded, c.Exclude) {
		op.Excluded = append(op.Excluded, c.Exclude)
	}
	s.Epoch++
	s.Primary, s.Phase = "", PhaseFencing
	s.Change = nil // whatever was prepared of it, the set as committed still tells who holds what
	s.newOperation(op, at)
	return nil
}

func (s *State) applyFence(c Fence, at time.Time) error {
	// Who accepts a loss needs better evidence than a lease that ran out, also after that was committed.
	better := s.Op != nil && s.Op.Lossy && s.Op.Step == StepFenced && s.Op.Fence != nil && !s.Op.Fence.Kind.positive()
	if err := s.expect(c.OpID, c.Epoch, StepBegun); err != nil && !(better && c.OpID == s.Op.ID && c.Epoch == s.Epoch) {
		return fmt.Errorf("fence: %w", err)
	}
	if c.Evidence.Node != s.Op.From {
		return refuse("fence evidence is of %s, the old primary is %s", c.Evidence.Node, s.Op.From)
	}
	switch c.Evidence.Kind {
	case EvidenceAgent, EvidenceHook, EvidenceHuman:
	case EvidenceLease:
		if s.Op.Lossy {
			return refuse("a lease that ran out is no evidence for a failover that accepts a loss")
		}
	default:
		return refuse("fence evidence of kind %q", c.Evidence.Kind)
	}
	ev := c.Evidence
	s.Op.Fence = &ev
	s.enter(StepFenced, at, fmt.Sprintf("%s is fenced (%s): %s", ev.Node, ev.Kind, ev.Detail))
	return nil
}

func (s *State) applyPromote(c Promote, at time.Time) error {
	if err := s.mayPromote(c); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	s.endChain()
	planned := s.Op.Kind.Planned()
	oldEpoch := s.Epoch
	if planned {
		s.Epoch++
	} else {
		oldEpoch--
	}
	if s.Base == nil {
		s.Base = &Base{Epoch: oldEpoch, Primary: s.Op.From, Sync: s.Sync}
	}
	s.Op.Epoch, s.Op.To, s.Op.Position, s.Op.Answers, s.Op.Fetch, s.Op.Extra = s.Epoch, c.To, c.Position, slices.Clone(c.Answers), c.Fetch, c.Extra
	if c.Release != nil {
		s.Op.Fence = &Evidence{Kind: EvidenceRelease, Node: c.Release.Node, Detail: fmt.Sprintf("released epoch %d at %s", c.Release.Epoch, c.Release.Received)}
	}
	s.Sync = SyncSet{Members: slices.Clone(c.Members), Acks: c.Acks}
	s.Primary, s.Phase = c.To, PhasePromoting
	s.Change = nil
	s.Epochs = append(s.Epochs, EpochRecord{Epoch: s.Epoch, Primary: c.To, Won: c.Won, Lossy: c.Won == WonLossy, Since: at})
	s.enter(StepPromoted, at, fmt.Sprintf("%s is primary of epoch %d, won by %s, must hold %s", c.To, s.Epoch, c.Won, orNone(c.Position)))
	return nil
}

func (s *State) applySettle(c Settle, at time.Time) error {
	if err := s.expect(c.OpID, c.Epoch, StepPromoted); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	for i := range s.Epochs {
		if s.Epochs[i].Epoch == c.Epoch {
			s.Epochs[i].Settled = true
		}
	}
	s.Base, s.Phase = nil, PhaseSteady
	s.enter(s.Op.Step, at, fmt.Sprintf("barrier of epoch %d is acknowledged, %s serves", c.Epoch, s.Primary))
	s.closeOperation(OutcomeDone, "", c.Phases, at)
	return nil
}

func (s *State) applyRestart(c Restart, at time.Time) error {
	if c.Epoch != s.Epoch || s.Primary == "" {
		return refuse("restart for epoch %d, the epoch is %d", c.Epoch, s.Epoch)
	}
	if c.OpID != s.opID() || (s.Op != nil && s.Op.Kind != KindRestart) {
		return refuse("restart continues operation %d, operation %d is running", c.OpID, s.opID())
	}
	if s.Op == nil {
		if err := s.mayStart("restart"); err != nil {
			return err
		}
	} else if c.Attempt != s.Op.Attempt+1 {
		return refuse("restart attempt %d, attempt %d is running", c.Attempt, s.Op.Attempt)
	}
	s.Phase = PhaseRestarting
	s.Restarts = append(slices.DeleteFunc(s.Restarts, func(t time.Time) bool { return at.Sub(t) > s.Settings.RestartWindow }), at)
	if s.Op == nil {
		s.newOperation(Operation{Kind: KindRestart, Step: StepRestart, Epoch: s.Epoch, From: s.Primary, To: s.Primary, Attempt: c.Attempt, Cause: c.Cause, Actor: c.Actor}, at)
		return nil
	}
	s.Op.Attempt = c.Attempt
	s.enter(StepRestart, at, fmt.Sprintf("attempt %d: %s", c.Attempt, c.Cause))
	return nil
}

func (s *State) applyRestarted(c Restarted, at time.Time) error {
	if err := s.expect(c.OpID, c.Epoch, StepRestart); err != nil {
		return fmt.Errorf("restarted: %w", err)
	}
	s.Phase = PhaseSteady
	s.closeOperation(OutcomeDone, "", c.Phases, at)
	return nil
}

// mayStart is invariant I6 where it counts: a pause that was committed before the operation wins, whatever its proposer knew. A failover that
// follows a restart in place is new; one that follows an unfinished change of primary is the end of that.
func (s *State) mayStart(what string) error {
	if s.Paused != nil && (s.Op == nil || s.Op.Kind == KindRestart) {
		return refuse("%s: paused by %s: %s", what, s.Paused.By, s.Paused.Why)
	}
	return nil
}

func (s *State) applyPause(c SetPause, at time.Time) {
	s.Paused = nil
	if c.Paused {
		s.Paused = &Pause{By: c.By, Why: c.Why, Since: at}
	}
}
