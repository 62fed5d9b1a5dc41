package raftnode

import (
	"context"
	"fmt"
	"time"
)

// watch looks, while this node leads, whether rounds still succeed. A leader whose disk hangs keeps
// heartbeating and so is never replaced by the others; so does one whose leadership transfer stuck
// (hashicorp/raft issue 696), which refuses every proposal. It hands leadership over, and when even that
// changes nothing it reports itself stuck, so that the process ends and the others elect.
func (n *Node) watch() {
	tick := time.NewTicker(n.cfg.Watchdog.Interval)
	defer tick.Stop()
	s := stall{limit: n.cfg.Watchdog.Stall, rest: n.cfg.Watchdog.Rest, maxStep: 2 * n.cfg.Watchdog.Interval, last: time.Now()}
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		switch s.step(time.Now(), n.IsLeader(), n.Term(), n.rounds.succeeded()) {
		case stallNone:
		case stallYield:
			n.log.Warn("raft leader commits nothing, giving leadership away", "term", s.term, "stalled", s.lasted)
			n.wg.Go(n.yield)
		case stallStuck:
			n.stuck(fmt.Sprintf("leader of term %d committed nothing for %s and could not give leadership away", s.term, s.lasted))
		}
		if n.IsLeader() && s.due(n.proposing.Load() > 0 || n.doubt.Load()) && n.rounds.idle() {
			// It may have just begun for somebody else, then the one after it is wasted, which harms nothing.
			n.rounds.join()
		}
	}
}

// yield hands leadership to any member that answers.
func (n *Node) yield() {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Watchdog.Stall)
	defer cancel()
	for _, m := range n.Servers() {
		if m.ID == n.id || !m.Voter || !n.transport.answering(m.ID) {
			continue
		}
		err := n.TransferTo(ctx, m.ID)
		if err == nil || !n.IsLeader() {
			return
		}
		n.log.Warn("raft leadership not taken over", "peer", m.ID, "error", err)
	}
}

// stallVerdict is what one look of the watchdog says.
type stallVerdict int

const (
	stallNone stallVerdict = iota
	// stallYield: nothing was committed for the limit; give leadership away. Said once per stall.
	stallYield
	// stallStuck: nothing for twice the limit, giving it away did not help.
	stallStuck
)

// stall measures how long a leader has gone without the success of a round that was asked for.
type stall struct {
	limit time.Duration
	// rest is how long after a successful round none is due.
	rest time.Duration
	// maxStep is the most one look may add: a process that was frozen or starved has not observed the
	// time it slept through, and must not condemn itself for it.
	maxStep time.Duration

	last    time.Time
	term    uint64
	rounds  uint64
	rested  time.Duration // since the last success
	asked   bool          // a round is due, and asked for at every look at which none is in flight
	lasted  time.Duration
	yielded bool
}

// due tells, after a look, whether a round is to be asked for: none succeeded for as long as it may rest, the one before
// did not, or it is in doubt whether what is being proposed, or was, can be committed.
func (s *stall) due(doubt bool) bool {
	s.asked = s.asked || doubt || s.rested >= s.rest
	return s.asked
}

// step takes one look.
func (s *stall) step(now time.Time, isLeader bool, term, rounds uint64) stallVerdict {
	passed := min(now.Sub(s.last), s.maxStep)
	s.last = now
	if !isLeader || term != s.term || rounds != s.rounds {
		s.term, s.rounds, s.rested, s.asked, s.lasted, s.yielded = term, rounds, 0, false, 0, false
		return stallNone
	}
	s.rested += passed
	if s.asked {
		s.lasted += passed
	}
	switch {
	case s.lasted >= 2*s.limit:
		return stallStuck
	case s.lasted >= s.limit && !s.yielded:
		s.yielded = true
		return stallYield
	}
	return stallNone
}
