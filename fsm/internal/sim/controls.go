package sim

import (
	"slices"

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
		n.sv.readOnly = false // the gate opens by itself: the lease was kept
	})
}

// asyncLate carries out an action of an older state of the same epoch: nothing asks again whether commits still wait for nobody.
func (n *node) asyncLate() {
	n.w.after(n.w.between(1500*ms, 3500*ms), func() {
		if n.sv.up() && !n.sv.hasReplication && n.sv.sourceSync {
			n.w.say(n, "goes on without acknowledgements, as was decided long ago")
			n.sv.async()
		}
	})
}

// rewindAlone is a former primary that drops what another node lacks as soon as it hears of a newer epoch.
func (n *node) rewindAlone() {
	v := &n.sv
	if !n.w.cfg.Controls.RewindEarly || n.own() == 0 || n.state().Epoch <= n.held || v.state != fsm.ServerDown {
		return
	}
	for _, o := range n.w.nodes {
		if o != n && o.data && o.sv.up() && n.w.linked(n, o) {
			if same := common(v.log, o.sv.log); same < len(v.log) && same == len(o.sv.log) {
				n.w.say(n, "rewinds from %d to %d, like %s", len(v.log), same, o.id)
				v.log, v.done = slices.Clip(v.log[:same]), min(v.done, same)
			}
		}
	}
}

// rewindDegraded is the start of a primary that takes what no replica has for what nobody was told of. While commits wait for nobody that is wrong: it
// was acknowledged here alone.
func (n *node) rewindDegraded() {
	v := &n.sv
	if !n.w.cfg.Controls.RewindDegraded || n.state().Primary != n.id || n.state().SourceAcks() > 0 {
		return
	}
	same, asked := 0, false
	for _, o := range n.w.nodes {
		if o != n && o.data && o.sv.up() && n.w.linked(n, o) {
			same, asked = max(same, common(v.log, o.sv.log)), true
		}
	}
	if asked && same < len(v.log) {
		n.w.say(n, "rewinds from %d to %d: no replica has more", len(v.log), same)
		v.log, v.done = slices.Clip(v.log[:same]), min(v.done, same)
	}
}

// bootAlone starts mysqld with its host, and replication with mysqld, some time before hbd.
func (n *node) bootAlone() {
	v := &n.sv
	if !v.hasReplication || v.broken {
		return
	}
	v.start()
	v.io, v.syncSet, v.replicaSync = true, true, true
	v.ioRun++
}

// ackTooEarly is a repoint that switches semi-sync on first: until it has found its new source its acknowledgements count at the old one.
func (n *node) ackTooEarly(target *node) bool {
	v := &n.sv
	if !n.w.cfg.Controls.AckTooEarly || !n.state().MayAcknowledge(n.id) || !v.hasReplication || v.source == target {
		return false
	}
	if v.replicaSync {
		return !target.sv.up() || !n.w.linked(n, target)
	}
	n.w.say(n, "acknowledges to %s on its way to %s", v.source.id, target.id)
	n.syncOff, v.syncSet, v.replicaSync = 0, true, true
	v.ioRun++
	return true
}
