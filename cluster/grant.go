package cluster

import (
	"context"
	"sync"

	"github.com/highbase/highbase/fsm"
)

// grantor is the leader's side of the lease. It answers only after a quorum round that began after the request arrived; it grants nothing
// before an entry of its own term is applied, and nothing for an epoch whose end it has proposed: what is applied here may lack that yet.
type grantor struct {
	n      *Node
	mu     sync.Mutex
	term   uint64      // 0 while this node does not lead or its first round is not done
	clear  fsm.Instant // when everything granted by this leader or before it has run out
	ending uint64      // epoch whose end was proposed
}

func newGrantor(n *Node) *grantor { return &grantor{n: n} }

// takeOffice begins a term: whatever earlier leaders granted is treated as granted now.
func (g *grantor) takeOffice(term uint64, st fsm.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.term, g.ending = term, 0
	g.clear = max(g.clear, fsm.OfficeClear(st, now()))
}

func (g *grantor) leaveOffice() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.term = 0
}

// end stops granting for an epoch, before its end is proposed.
func (g *grantor) end(epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = epoch
}

// resume is called when it is certain that the proposed end did not happen.
func (g *grantor) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = 0
}

func (g *grantor) clearAt() fsm.Instant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clear
}

func (g *grantor) grant(ctx context.Context, req leaseRequest) leaseReply {
	if why := g.refusal(req); why != "" {
		return leaseReply{Refusal: why}
	}
	term, err := g.n.raft().VerifyLeadership(ctx)
	if err != nil {
		return leaseReply{Refusal: "no quorum round: " + err.Error()}
	}
	// Between the round and here this process may have been frozen for long. That is safe: the holder counts from before it asked, and no
	// later leader counts from earlier than the round.
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != term {
		return leaseReply{Refusal: "leadership changed"}
	}
	if why := g.refusalLocked(req); why != "" {
		return leaseReply{Refusal: why}
	}
	set := g.n.store.State().Settings
	g.clear = max(g.clear, fsm.GrantClear(set, now(), set.Lease))
	return leaseReply{Granted: set.Lease}
}

func (g *grantor) refusal(req leaseRequest) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusalLocked(req)
}

func (g *grantor) refusalLocked(req leaseRequest) string {
	if g.term == 0 {
		return "not a leader in office"
	}
	if g.ending == req.Epoch {
		return "the end of this epoch is proposed"
	}
	return fsm.LeaseRefusal(g.n.store.State(), req.Node, req.Epoch)
}
