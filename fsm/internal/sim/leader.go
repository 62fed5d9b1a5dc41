package sim

import (
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// leader is what a node keeps while it believes to lead. It begins empty with each term.
type leader struct {
	term    int
	office  time.Duration // on its clock
	granted time.Duration // when every lease it granted has run out, on its clock
	ending  bool          // it has proposed the end of the epoch: nothing more is granted
	heard   time.Duration // last true time it had a majority
	views   map[fsm.NodeID]fsm.NodeView
	op      uint64 // index of the step that the answers below belong to
	epoch   uint64
	since   time.Duration
	answers []fsm.Answer
	fence   *fsm.Evidence
	release *fsm.Answer
	reached bool
	fault   string
	asked   map[asked]time.Duration
	pending []*proposal
	until   time.Duration // true time after which the outcome of what is pending counts as unknown
	caught  map[fsm.NodeID]*catching
	unable  map[fsm.NodeID]time.Duration // since when a member cannot acknowledge
	change  uint64                       // index of the change of the set that is prepared ...
	changed time.Duration                // ... and since when it has been seen
}

type asked struct {
	kind  fsm.OrderKind
	node  fsm.NodeID
	index uint64
}

// catching is a member's incarnation that does not count yet, and what the primary had after it was first seen.
type catching struct {
	incarnation string
	epoch       uint64
	position    string
	known       bool
	done        bool
}

func (n *node) takeOffice(term int) {
	n.term = max(n.term, term)
	l := &leader{term: term, office: n.clock(), heard: n.w.now, views: map[fsm.NodeID]fsm.NodeView{}, asked: map[asked]time.Duration{}, caught: map[fsm.NodeID]*catching{}, unable: map[fsm.NodeID]time.Duration{}}
	n.lead, n.hint, n.fresh = l, n, true
	n.loopAsLeader(l)
}

func (n *node) loopAsLeader(l *leader) {
	if n.lead != l {
		return
	}
	if n.w.majority(n) {
		l.heard = n.w.now
	} else if n.w.now-l.heard > 500*ms {
		n.lead = nil
		n.w.say(n, "steps down: no majority")
		return
	}
	committed := n.applied
	if n.w.raft.leader == n {
		committed = n.w.raft.length()
	}
	for _, o := range n.w.nodes {
		n.w.send(n, o, func() { o.heartbeat(n, l.term, committed) })
	}
	n.leadOnce(l)
	n.hbd(n.w.between(15*ms, 35*ms), func() { n.loopAsLeader(l) })
}

// report takes in an observation, stamped on arrival. An answer of an incarnation that is gone is no answer any more.
func (n *node) report(o fsm.Observation) {
	l := n.lead
	if l == nil {
		return
	}
	l.views[o.Node] = fsm.NodeView{ID: o.Node, Obs: o, Known: true, At: n.clock()}
	l.answers = slices.DeleteFunc(l.answers, func(a fsm.Answer) bool {
		return a.Node == o.Node && a.Incarnation != o.Incarnation && a.Held == 0
	})
	if c := l.caught[o.Node]; c != nil && c.known && c.incarnation == o.Incarnation && o.Standing == fsm.StandingReplica {
		c.done = c.done || n.w.holds(o.Server.Received, c.position)
	}
}

// answered takes in what a node says to an order of the present step, or of the present epoch if it is a freeze.
func (n *node) answered(r reply) {
	l := n.lead
	if l == nil {
		return
	}
	l.turn(n)
	s := n.state()
	if s.Op == nil || r.order.Epoch != s.Epoch || r.order.OpID != s.Op.ID {
		return
	}
	switch {
	case r.order.Kind == fsm.OrderFreeze && r.answer != nil:
		l.answers = append(slices.DeleteFunc(l.answers, func(a fsm.Answer) bool { return a.Node == r.answer.Node }), *r.answer)
	case r.order.Kind == fsm.OrderFence && r.evidence != nil && s.Op.From == r.order.Node:
		l.fence = r.evidence
	case r.order.Kind == fsm.OrderRelease && r.order.Index == s.Op.Index:
		l.release, l.fault = r.answer, r.fault
	case r.order.Kind == fsm.OrderAwait && r.order.Index == s.Op.Index && l.release != nil && r.order.Position == l.release.Received:
		l.reached = r.reached
	}
}

// turn forgets what belonged to an earlier step.
func (l *leader) turn(n *node) {
	s := n.state()
	index := uint64(0)
	if s.Op != nil {
		index = s.Op.Index
	}
	if index != l.op {
		l.op, l.since, l.fence, l.release, l.reached, l.fault = index, n.clock(), nil, nil, false, ""
	}
	if s.Epoch != l.epoch {
		l.epoch, l.answers = s.Epoch, nil
		clear(l.caught)
	}
}

func (n *node) view(l *leader) fsm.View {
	s := n.state()
	v := fsm.View{Self: n.id, Now: n.clock(), Wall: time.Unix(0, 0).Add(n.w.now), StepSince: l.since, Answers: slices.Clone(l.answers), Fence: l.fence,
		Release: l.release, Reached: l.reached, ReleaseError: l.fault, LeaseClear: max(l.granted, fsm.OfficeClear(s, l.office))}
	for _, m := range s.Members {
		if nv, ok := l.views[m.ID]; ok {
			v.Nodes = append(v.Nodes, nv)
		}
		if c := l.caught[m.ID]; c != nil && c.done {
			v.CaughtUp = append(v.CaughtUp, fsm.SyncMember{Node: m.ID, Incarnation: c.incarnation})
		}
	}
	if n.w.cfg.Controls.SkipLeaseWait {
		v.LeaseClear = 0
	}
	if n.w.cfg.Controls.SkipFence && s.Op != nil && s.Op.Step == fsm.StepBegun {
		v.Fence = &fsm.Evidence{Kind: fsm.EvidenceAgent, Node: s.Op.From, Detail: "not true"}
	}
	return n.ageSet(l, s, fsm.Classify(s, v))
}

// ageSet adds how long members of the set have been unable, and a change of it under way.
func (n *node) ageSet(l *leader, s fsm.State, v fsm.View) fsm.View {
	for i := range v.Nodes {
		id := v.Nodes[i].ID
		if _, in := s.Sync.Member(id); !in || fsm.CannotAck(s, v, id) == "" {
			delete(l.unable, id)
		} else if l.unable[id] == 0 {
			l.unable[id] = n.clock()
		}
		v.Nodes[i].UnableSince = l.unable[id]
	}
	index := uint64(0)
	if s.Change != nil {
		index = s.Change.Index
	}
	if index != l.change {
		l.change, l.changed = index, n.clock()
	}
	v.ChangeSince = l.changed
	return v
}

// leadOnce gathers, decides, proposes and orders. With something proposed it waits for the outcome first.
func (n *node) leadOnce(l *leader) {
	open := slices.ContainsFunc(l.pending, func(p *proposal) bool { return !p.done })
	if open && n.w.now < l.until {
		return
	}
	l.pending, l.ending = nil, false
	l.turn(n)
	n.seeWhoCatchesUp(l)
	d := fsm.Decide(n.state(), n.view(l))
	n.w.cfg.Controls.breakDecision(n, &d)
	for _, c := range d.Commands {
		l.ending = l.ending || c.Begin != nil || c.Release != nil
		l.pending = append(l.pending, n.w.propose(n, l.term, c))
		l.until = n.w.now + n.w.between(50*ms, 500*ms)
	}
	for _, o := range d.Orders {
		key := asked{o.Kind, o.Node, o.Index}
		if at, ok := l.asked[key]; ok && n.w.now-at < 150*ms {
			continue
		}
		l.asked[key] = n.w.now
		to := n.w.node(o.Node)
		n.w.send(n, to, func() { to.obey(o, n) })
	}
	if d.Transfer != "" && n.w.raft.leader == n && n.w.chance(0.02) {
		if to := n.w.node(d.Transfer); n.w.majority(to) {
			n.w.elect(to)
		}
	}
}

// seeWhoCatchesUp asks the primary where it stands once a new incarnation has been seen: an earlier position could lack what the old
// incarnation had acknowledged.
func (n *node) seeWhoCatchesUp(l *leader) {
	s := n.state()
	for _, id := range s.DataNodes() {
		nv, ok := l.views[id]
		inc := nv.Obs.Incarnation
		if m, in := s.Sync.Member(id); !ok || s.Primary == "" || id == s.Primary || inc == "" || in && inc == m.Incarnation {
			delete(l.caught, id)
			continue
		}
		c := l.caught[id]
		if c == nil || c.incarnation != inc {
			c = &catching{incarnation: inc, epoch: s.Epoch}
			l.caught[id] = c
		}
		if c.known || !n.w.chance(0.3) {
			continue
		}
		primary := n.w.node(s.Primary)
		n.w.send(n, primary, func() {
			v := &primary.sv
			if !v.up() || v.hasReplication || primary.state().Epoch != c.epoch || primary.state().Primary != primary.id || !v.holdsBarrier(c.epoch) && !n.w.cfg.Controls.SkipBarrier {
				return
			}
			position := v.position(len(v.log))
			n.w.send(primary, n, func() { c.position, c.known = position, true })
		})
	}
}
