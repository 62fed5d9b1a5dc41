package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/highbase/highbase/fsm"
)

// raft is one log and who may append to it. states[i] is the state after i entries: a node that has applied i entries has states[i].
type raft struct {
	states  []fsm.State
	term    int
	leader  *node
	lostAt  time.Duration // since when the leader has no majority, 0 when it has
	elected time.Duration // when the leader was
	patient time.Duration // after which another is elected
	pending []*proposal
}

type proposal struct {
	by   *node
	term int
	cmd  fsm.Command
	done bool
}

func (r *raft) state() fsm.State { return r.states[len(r.states)-1] }

func (r *raft) length() int { return len(r.states) - 1 }

// elections gives the cluster a leader when the last one has had no majority for a while.
func (w *World) elections() {
	r := &w.raft
	if n := r.leader; n != nil && w.majority(n) && (n.lead != nil && n.lead.term == r.term || w.now-r.elected < 100*ms) {
		r.lostAt = 0
		return
	}
	if r.lostAt == 0 {
		r.lostAt, r.patient = w.now, w.between(200*ms, 600*ms)
	}
	if w.now-r.lostAt < r.patient {
		return
	}
	var able []*node
	for _, n := range w.nodes {
		if w.majority(n) {
			able = append(able, n)
		}
	}
	if len(able) > 0 {
		w.elect(able[w.rng.IntN(len(able))])
	}
}

// elect makes a node leader. Of what the old one had in flight a prefix is in the new one's log, before its own barrier; the rest is gone.
func (w *World) elect(n *node) {
	r := &w.raft
	kept := w.rng.IntN(len(r.pending) + 1)
	pending := r.pending
	r.pending = nil
	for i, p := range pending {
		p.done = true
		if i < kept {
			w.commit(nil, p.cmd)
		}
	}
	r.term++
	r.leader, r.lostAt, r.elected = n, 0, w.now
	term := r.term
	w.say(n, "elected in term %d", term)
	n.hbd(w.between(2*ms, 15*ms), func() { // its barrier
		if r.term == term && w.majority(n) {
			n.applied = r.length()
			n.takeOffice(term)
		}
	})
}

// propose hands a command to Raft. The outcome may stay unknown.
func (w *World) propose(by *node, term int, cmd fsm.Command) *proposal {
	p := &proposal{by: by, term: term, cmd: cmd}
	if w.raft.term != term || w.raft.leader != by {
		p.done = true // deposed without knowing: this entry will never be in anybody's log
		return p
	}
	w.raft.pending = append(w.raft.pending, p)
	w.after(w.between(2*ms, 8*ms), func() { w.tryCommit(p) })
	return p
}

func (w *World) tryCommit(p *proposal) {
	r := &w.raft
	if p.done {
		return
	}
	if !w.majority(p.by) || r.pending[0] != p {
		w.after(10*ms, func() { w.tryCommit(p) })
		return
	}
	r.pending = r.pending[1:]
	p.done = true
	w.commit(p.by, p.cmd)
}

// commit applies one entry to the history of states and tells everybody, the leader first.
func (w *World) commit(by *node, cmd fsm.Command) {
	r := &w.raft
	before := r.state()
	next, err := fsm.Apply(before, uint64(len(r.states)), cmd)
	if err != nil && !errors.Is(err, fsm.ErrRefused) {
		w.fail("applying %s: %v", cmd.Name(), err)
		return
	}
	if w.cfg.Controls.DropBase && err == nil && cmd.Promote != nil {
		next.Base = nil
	}
	r.states = append(r.states, next)
	if err != nil {
		w.say(nil, "log %d: %s %v", r.length(), cmd.Name(), err)
	} else {
		op := ""
		if next.Op != nil {
			op = string(next.Op.Kind) + "/" + string(next.Op.Step)
		}
		w.say(nil, "log %d: %s -> epoch %d primary %q %s %s", r.length(), describe(cmd), next.Epoch, next.Primary, next.Phase, op)
		w.checkCommit(before, next, cmd)
	}
	index := r.length()
	if by != nil {
		by.applyUpTo(index)
	}
	for _, n := range w.nodes {
		if r.leader != nil && n != by {
			w.send(r.leader, n, func() { n.applyUpTo(index) })
		}
	}
}

func describe(c fsm.Command) string {
	switch {
	case c.Begin != nil:
		return "begin " + string(c.Begin.Kind) + " (" + c.Begin.Cause + ")"
	case c.Fence != nil:
		return "fence by " + string(c.Fence.Evidence.Kind)
	case c.Promote != nil:
		return "promote " + string(c.Promote.To) + " by " + string(c.Promote.Won) + " at " + c.Promote.Position
	case c.Grow != nil:
		return "grow " + string(c.Grow.Node)
	case c.Intend != nil:
		return fmt.Sprintf("intend %s %s acks %d: %s", c.Intend.Kind, c.Intend.Node, c.Intend.Acks, c.Intend.Cause)
	case c.Complete != nil:
		return fmt.Sprintf("complete %d at %s held by %v", c.Complete.Index, c.Complete.Position, c.Complete.Holders)
	case c.Abandon != nil:
		return "abandon: " + c.Abandon.Reason
	case c.Recount != nil:
		return "recount " + string(c.Recount.Node) + " " + c.Recount.Incarnation
	case c.Rollback != nil:
		return "rollback: " + c.Rollback.Reason
	case c.Switchover != nil:
		return "switchover to " + string(c.Switchover.To)
	}
	return c.Name()
}
