package fsm

import (
	"fmt"
	"time"
)

// AcceptLoss turns a failover that cannot be won into one that accepts the loss of acknowledged writes. Vouched: an operator says that the old
// primary is switched off.
type AcceptLoss struct {
	OpID    uint64 `json:"op_id"`
	Epoch   uint64 `json:"epoch"`
	To      NodeID `json:"to,omitempty"`
	Vouched bool   `json:"vouched"`
	Actor   string `json:"actor"`
}

// positive evidence was seen or given; that of a lease which ran out is an argument, and holds only as long as every clock is as good as assumed.
func (k EvidenceKind) positive() bool {
	return k == EvidenceAgent || k == EvidenceHook || k == EvidenceHuman
}

func (s *State) applyAcceptLoss(c AcceptLoss, at time.Time) error {
	op := s.Op
	if op == nil || op.ID != c.OpID || s.Epoch != c.Epoch || (op.Step != StepBegun && op.Step != StepFenced) {
		return refuse("accepting a loss in operation %d at epoch %d: running is operation %d at epoch %d", c.OpID, c.Epoch, s.opID(), s.Epoch)
	}
	if c.To != "" {
		if m, ok := s.Member(c.To); !ok || m.Role != RoleData {
			return refuse("%q is not a data node of the cluster", c.To)
		}
	}
	op.Lossy, op.To = true, c.To
	s.enter(op.Step, at, fmt.Sprintf("%s accepts that acknowledged writes may be lost", c.Actor))
	if c.Vouched && (op.Fence == nil || !op.Fence.Kind.positive()) {
		op.Fence = &Evidence{Kind: EvidenceHuman, Node: op.From, Detail: fmt.Sprintf("%s vouches that it is switched off", c.Actor)}
		s.enter(StepFenced, at, fmt.Sprintf("%s is fenced (%s): %s", op.From, op.Fence.Kind, op.Fence.Detail))
	}
	return nil
}

// mayLose is what is still demanded of a promote that accepts a loss.
func (s *State) mayLose(c Promote) error {
	switch a, ok := answerOf(c.Answers, c.To); {
	case !s.Op.Lossy:
		return refuse("nobody accepted a loss in operation %d", s.Op.ID)
	case !s.Op.Fence.Kind.positive():
		return refuse("%s is fenced by %s only: accepting a loss needs its own answer, the external fence or an operator's word", s.Op.From, s.Op.Fence.Kind)
	case s.Op.To != "" && s.Op.To != c.To:
		return refuse("the operator asked for %s, not for %s", s.Op.To, c.To)
	case !ok || a.Epoch != s.Epoch:
		return refuse("%s has not answered the freeze", c.To)
	}
	return nil
}

// ElectLossy chooses whom to promote when a loss is accepted: whom the operator named, else the most advanced of those that answered. What cannot
// be ordered stops and asks for a name.
func ElectLossy(s State, answers []Answer) (Choice, bool, []Verdict) {
	var able []Answer
	var verdicts []Verdict
	for _, a := range answers {
		v := refusedAsCandidate(s, a)
		switch {
		case v != nil && !(v.Rule == "candidate.never-promote" && s.Op.To == a.Node):
			verdicts = append(verdicts, *v)
		case s.Op.To != "" && s.Op.To != a.Node:
		default:
			able = append(able, a)
		}
	}
	best, v := mostAdvanced(s, able, able)
	verdicts = append(verdicts, v...)
	if best == nil {
		return Choice{}, false, append(verdicts, Verdict{Rule: "candidate.lossy", Node: s.Op.To, Why: "nobody that answered can be chosen: name one with --to"})
	}
	return Choice{To: best.Node, Position: best.Received, Won: WonLossy}, true, append(verdicts, Verdict{Rule: "candidate.lossy", Node: best.Node, OK: true,
		Value: best.Received, Why: "an operator accepted the loss of what it lacks"})
}
