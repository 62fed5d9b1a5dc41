package cluster

import (
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// enoughTries is how many completed tries must have failed before an age is evidence: a process that was starved itself has aged, not tried.
const enoughTries = 3

// tellLoss tells the others, the leader first of all, when what this node sees of a peer has become evidence that it is lost, and not at the next beat.
func (p *peers) tellLoss(pe *peer, set fsm.Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tried := pe.lost()
	news := tried && !pe.told
	pe.told = tried
	if !news {
		return
	}
	t := now()
	rest := set.FailAfter - min(pe.agentAge(t), t-pe.lastServer) // so long its age is none
	time.AfterFunc(max(0, rest)+time.Millisecond, func() {
		p.mu.Lock()
		still := pe.lost()
		p.mu.Unlock()
		if !still || p.n.ctx.Err() != nil {
			return // it is back, or this node has ended
		}
		p.kickAll()
		p.n.wakeLeading()
		p.cutLost(pe.member)
	})
}

// agentAge is how long its hbd has been silent for certain: pings are far from each other in plain service, so only what was asked of it in vain counts.
func (pe *peer) agentAge(t fsm.Instant) time.Duration {
	if pe.noAgent == 0 {
		return t - pe.lastAgent
	}
	return t - max(pe.lastAgent, pe.firstMiss)
}

// lost: enough tries have failed, at both where there are two. mu is held.
func (pe *peer) lost() bool {
	return pe.noAgent >= enoughTries && (pe.noServer >= enoughTries || pe.member.Role == fsm.RoleWitness)
}

// lostTo lists whom a node reports to have lost: neither hbd nor mysqld, if there is one, answers it.
func (p *peers) lostTo(obs fsm.Observation) []fsm.NodeID {
	limit := p.n.settings().FailAfter
	var out []fsm.NodeID
	for _, s := range obs.Sights {
		if s.AgentAge > limit && (s.ServerAge > limit || p.isWitness(s.Node)) {
			out = append(out, s.Node)
		}
	}
	return out
}

func (p *peers) isWitness(id fsm.NodeID) bool {
	return slices.ContainsFunc(p.n.cfg.Peers, func(m fsm.Member) bool { return m.ID == id && m.Role == fsm.RoleWitness })
}

// sights is what this node sees of the others, for its observation.
func (p *peers) sights() []fsm.Sight {
	set := p.n.settings()
	p.mu.Lock()
	defer p.mu.Unlock()
	t := now()
	var out []fsm.Sight
	for _, m := range p.n.cfg.Peers {
		if pe, ok := p.known[m.ID]; ok {
			out = append(out, fsm.Sight{Node: m.ID, AgentAge: evidence(pe.agentAge(t), pe.noAgent, set), ServerAge: evidence(t-pe.lastServer, pe.noServer, set)})
		}
	}
	return out
}

// evidence keeps an age from being one of failure until enough tries have failed.
func evidence(age time.Duration, tries int, set fsm.Settings) time.Duration {
	if tries < enoughTries {
		return min(age, set.FailAfter)
	}
	return age
}
