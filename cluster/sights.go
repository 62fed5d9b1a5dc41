package cluster

import (
	"time"

	"github.com/highbase/highbase/fsm"
)

// enoughTries is how many completed tries must have failed before an age is evidence: a process that was starved itself has aged, not tried.
const enoughTries = 3

// tellLoss tells the others, the leader first of all, when what this node sees of a peer has become evidence that it is lost, and not at the next beat.
func (p *peers) tellLoss(pe *peer, set fsm.Settings) {
	p.mu.Lock()
	tried := pe.noAgent >= enoughTries && (pe.noServer >= enoughTries || pe.member.Role == fsm.RoleWitness)
	news := tried && !pe.told
	pe.told = tried
	rest := set.FailAfter - (now() - max(pe.lastAgent, pe.lastServer)) // so long its age is none
	p.mu.Unlock()
	if !news {
		return
	}
	time.AfterFunc(max(0, rest)+time.Millisecond, func() {
		p.kickAll()
		p.n.wakeLeading()
	})
}

// misses lists whom a node reports to have lost: neither hbd nor mysqld answers it.
func (p *peers) misses(obs fsm.Observation) []fsm.NodeID {
	limit := p.n.settings().FailAfter
	var out []fsm.NodeID
	for _, s := range obs.Sights {
		if s.AgentAge > limit && s.ServerAge > limit {
			out = append(out, s.Node)
		}
	}
	return out
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
			out = append(out, fsm.Sight{Node: m.ID, AgentAge: evidence(t-pe.lastAgent, pe.noAgent, set), ServerAge: evidence(t-pe.lastServer, pe.noServer, set)})
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
