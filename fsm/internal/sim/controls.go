package sim

import (
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// breakDecision has the leader do what the controls ask for.
func (c Controls) breakDecision(n *node, d *fsm.Decision) {
	s := n.state()
	if ch := s.Change; ch != nil && len(d.Commands) == 0 {
		up := ch.Kind == fsm.ChangeAcks && ch.Acks > s.Sync.Acks
		shrink := ch.Kind == fsm.ChangeShrink
		prepared := n.lead.views[s.Primary].Obs.Prepared == ch.Index
		if c.ShrinkFirst && shrink || c.ShrinkNoWait && shrink && prepared || c.RaiseFirst && up {
			d.Commands = append(d.Commands, fsm.Command{Complete: &fsm.Complete{Epoch: s.Epoch, Index: ch.Index, Holders: s.Sync.Members, Gated: true}})
		}
	}
	if c.FewerAnswers && s.Op != nil && s.Op.Step == fsm.StepFenced {
		n.makeUpAnAnswer(s)
	}
}

// makeUpAnAnswer lets a member that is silent agree with one that has answered.
func (n *node) makeUpAnAnswer(s fsm.State) {
	l := n.lead
	if len(l.answers) == 0 {
		return
	}
	for _, m := range s.Sync.Members {
		if !slices.ContainsFunc(l.answers, func(a fsm.Answer) bool { return a.Node == m.Node }) {
			a := l.answers[0]
			a.Node, a.Incarnation, a.Held = m.Node, m.Incarnation, 0
			l.answers = append(l.answers, a)
			return
		}
	}
}

// undoFreeze is a repair that does not know of the promise: it starts replication from the old primary again.
func (n *node) undoFreeze(o fsm.Order) {
	if !n.w.cfg.Controls.FreezeUndone || !n.sv.hasReplication || n.sv.source == nil || n.sv.source.id != o.From {
		return
	}
	n.hbd(n.w.between(ms, 20*ms), func() {
		if n.sv.hasReplication && n.sv.source.id == o.From {
			n.sv.blocked = map[*node]bool{}
			n.sv.io = true
			n.sv.ioRun++
		}
	})
}

// rollBackAlone is a released primary that loses patience and serves again, on the lease it had.
func (n *node) rollBackAlone(o fsm.Order) {
	if !n.w.cfg.Controls.LocalRollback {
		return
	}
	n.hbd(n.w.between(20*ms, 200*ms), func() {
		s := n.state()
		if s.Op == nil || s.Op.ID != o.OpID || s.Op.Step != fsm.StepReleasing || !n.sv.up() {
			return
		}
		n.w.say(n, "takes its role back by itself")
		n.releasedOp = 0
		clear(n.sv.blocked)
		n.sv.readOnly = false
		n.gateOpen, n.gateEnd = true, n.clock()+500*time.Millisecond
	})
}
