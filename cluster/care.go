package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// repairs counts the repairs of this node's server and holds back the same one after it did not help.
type repairs struct {
	mu    sync.Mutex
	rules map[string]*repair
}

// repair is one kind of damage, by the rule that names it.
type repair struct {
	count uint64      // attempts since this node runs
	times int         // attempts at the damage of now
	until fsm.Instant // not tried again before
	asked fsm.Instant // when the damage was seen last
}

// ask notes that the damage is seen now, and tells whether its repair is due.
func (r *repairs) ask(rule string, at fsm.Instant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return at >= r.seen(rule, at).until
}

// seen finds a repair; a damage that stayed away for a while and for longer than it was held back is a new one. The caller holds mu.
func (r *repairs) seen(rule string, at fsm.Instant) *repair {
	if r.rules == nil {
		r.rules = map[string]*repair{}
	}
	p := r.rules[rule]
	if p == nil {
		p = &repair{}
		r.rules[rule] = p
	}
	if at-p.asked > fsm.RepairForget && at > p.until+fsm.RepairForget {
		p.times = 0
	}
	p.asked = at
	return p
}

// begin counts an attempt and says which it is of this damage, and how long the next is held back.
func (r *repairs) begin(rule string, at fsm.Instant) (attempt int, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.seen(rule, at)
	p.count++
	p.times++
	pause = fsm.RepairPause(p.times)
	p.until = at + pause
	return p.times, pause
}

// inVain are the words for damage that comes back after each repair.
const inVain = "in vain"

// heldBack says in words that a repair waits, "" when it does not.
func (r *repairs) heldBack(rule string, at fsm.Instant) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.rules[rule]
	if p == nil || p.times < 2 || at >= p.until {
		return ""
	}
	return fmt.Sprintf("repaired %d times %s, again in %v", p.times, inVain, (p.until - at).Round(100*time.Millisecond))
}

// counts gives the attempts by rule.
func (r *repairs) counts() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]uint64, len(r.rules))
	for rule, p := range r.rules {
		out[rule] = p.count
	}
	return out
}

// dueRepairs leaves out the repairs that are held back, and counts and tells those that begin.
func (n *Node) dueRepairs(actions []fsm.Action) []fsm.Action {
	var out []fsm.Action
	for _, a := range actions {
		fence := a.Kind == fsm.ActSelfFence && n.cfg.Prober.Server().HasReplication // a writable replica is closed at once, always
		if !fence && !fsm.IsCare(a.Rule) {
			out = append(out, a)
			continue
		}
		if !fence && !n.repairs.ask(a.Rule, now()) {
			continue
		}
		attempt, pause := n.repairs.begin(a.Rule, now())
		n.log.Warn("repairing", "rule", a.Rule, "why", a.Why, "action", a.Kind, "epoch", a.Epoch, "attempt", attempt, "pause", pause)
		out = append(out, a)
	}
	return out
}
