package cluster

import (
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// UntilBeat is how long to wait for the next beat of what comes back every period on this node. Beats of all periods fall together as far as they
// can: a process that sleeps and is woken costs more than what it does then, so it does everything at once. Nodes differ in phase, for the sake of
// those that share a machine.
func (c Config) UntilBeat(period time.Duration) time.Duration {
	return untilBeat(now()-c.phase(), period)
}

// phase is this node's share of a ping's period.
func (c Config) phase() time.Duration {
	index := slices.IndexFunc(c.Peers, func(m fsm.Member) bool { return m.ID == c.Node })
	return c.Settings.Ping * time.Duration(max(index, 0)) / time.Duration(max(len(c.Peers), 1))
}

// untilBeat is never 0: who asks on the beat waits for the next one.
func untilBeat(at fsm.Instant, period time.Duration) time.Duration {
	if at %= period; at < 0 {
		at += period
	}
	return period - at
}

// attend tells the rest of the process whether more goes on than service.
func (n *Node) attend(st fsm.State, standing fsm.Standing) {
	if n.cfg.OnAttention != nil {
		n.cfg.OnAttention(attentive(st, standing))
	}
}

// attentive: an operation or a rebuild is under way somewhere, or this node is not where it belongs.
func attentive(st fsm.State, standing fsm.Standing) bool {
	calm := standing == fsm.StandingServing || standing == fsm.StandingReplica
	return st.Op != nil || len(st.Rebuilds) > 0 || !calm
}
