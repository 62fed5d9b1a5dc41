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
	on := attentive(st, standing)
	if n.cfg.OnAttention != nil {
		n.cfg.OnAttention(on)
	}
	if n.calm.Swap(!on) && on {
		n.peers.kickAll() // the next one may be far away
	}
}

// turnPause is how long until the next look round at home. What changes is told at once, except that time goes by: a lease that ends is met.
func (n *Node) turnPause(st fsm.State) time.Duration {
	period := n.settings().Ping
	if n.calm.Load() {
		period *= calmTurns
	}
	pause := n.cfg.UntilBeat(period)
	if left := n.holder.left(st.Epoch); left > 0 {
		pause = min(pause, left+time.Millisecond)
	}
	return pause
}

// calmTurns is how many beats pass in plain service between two looks round at home.
const calmTurns = 4

// calmPings is how many beats pass in plain service between two pings of a peer. What changes at home is told at once all the same, and when one of
// them does not answer all are pinged at every beat.
const calmPings = 4

// longestCalm is the longest time between two contacts with a peer in plain service, when neither is late: who waits for the other's ping waits half a
// beat longer than that takes.
func longestCalm(set fsm.Settings) time.Duration { return calmPings*set.Ping + set.Ping/2 }

// pingsLess: in plain service, when all peers have answered, fewer pings do. Whether a host was lost must be known all the same before its lease has run
// out, which is waited for anyway: the tries that are evidence fit into a lease, and the age that they need, which counts from the first of them; no report
// grows too old, and no leader takes itself for blind. Settings that leave no room for that keep every ping.
func (n *Node) pingsLess(set fsm.Settings, allAnswer bool) bool {
	tries := lateAnswer(set) + enoughTries*tryTimeout(set) + (enoughTries-1)*set.Ping/10
	return allAnswer && n.calm.Load() && longestCalm(set)+max(tries, set.FailAfter) <= set.Lease && longestCalm(set) < set.Lease/2 &&
		2*longestCalm(set)+set.FailAfter <= set.ReportMaxAge
}

// tryTimeout is how long a peer may take to answer: a quarter of FailAfter is long for that, and short enough to have several tries before a node counts
// as failed.
func tryTimeout(set fsm.Settings) time.Duration { return max(set.FailAfter/4, set.Ping) }

// lateAnswer is after how long an answer is late: a peer that is there and not starved has answered by then.
func lateAnswer(set fsm.Settings) time.Duration { return tryTimeout(set) / 5 }

// pingPause is how long until the next ping of a peer, when all have answered the last one or not.
func (n *Node) pingPause(set fsm.Settings, allAnswer bool) time.Duration {
	period := set.Ping
	if n.pingsLess(set, allAnswer) {
		period *= calmPings
	}
	return n.cfg.UntilBeat(period)
}

// attentive: an operation or a rebuild is under way somewhere, or this node is not where it belongs.
func attentive(st fsm.State, standing fsm.Standing) bool {
	calm := standing == fsm.StandingServing || standing == fsm.StandingReplica
	return st.Op != nil || len(st.Rebuilds) > 0 || !calm
}
