package raftnode

import (
	"context"

	"github.com/hashicorp/raft"
)

// VerifyLeadership proves, as VerifyQuorumRound does, that this node led at a moment after the call, in the returned term, and says nothing of what is
// applied here. As long as a quorum answers it writes nothing and costs no fsync; else, and in a group of one, it is a round through the log. The
// context needs a deadline.
//
// What it sends is the library's own heartbeat, once more, after the call. A voter that takes it was in this term then, after the call; one that has
// voted in a later election is not, and refuses. So no quorum had elected a later leader at the moment of the first answer that counts. (Raft
// dissertation, 6.4: how a leader makes sure before a read that it has not been replaced.)
func (n *Node) VerifyLeadership(ctx context.Context) (term uint64, err error) {
	if err := n.mayAsk(ctx); err != nil {
		return 0, err
	}
	round, err := n.asks.wait(ctx)
	return round.Term, err
}

// askQuorum is one round. Where it finds no quorum an entry of our own has the last word: it waits for peers that are just coming back. The membership
// is read before it is looked whether this node leads: it is that of this term then.
func (n *Node) askQuorum(ctx context.Context) (Round, error) {
	servers := n.Servers()
	c, ok := n.transport.claimed()
	if !ok || c.term != n.Term() || !n.IsLeader() {
		return n.proposeNoop(ctx) // nobody was sent a heartbeat yet
	}
	answers := make(chan bool, len(servers))
	voters, have, asked := 0, 0, 0
	for _, s := range servers {
		switch {
		case !s.Voter:
			continue
		case s.ID == n.id:
			have++ // this node was in its term a moment ago, after the call
		case n.transport.ask(s, c, answers):
			asked++
		}
		voters++
	}
	for ; have <= voters/2 && asked > 0; asked-- {
		select {
		case yes := <-answers:
			if yes {
				have++
			}
		case <-ctx.Done():
			return Round{}, context.Cause(ctx)
		}
	}
	if have <= voters/2 {
		return n.proposeNoop(ctx)
	}
	return Round{Term: c.term}, nil
}

// claim is what the library's heartbeats of one term say. Only the leader of a term sends them.
type claim struct {
	header raft.RPCHeader
	term   uint64
}

// claims remembers the newest claim sent. It is called with mu held.
func (t *transport) claims(args *raft.AppendEntriesRequest) {
	if t.claim.term < args.Term {
		t.claim = claim{args.RPCHeader, args.Term}
	}
}

func (t *transport) claimed() (claim, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.claim, t.claim.term > 0 && !t.closed
}

// ask sends a heartbeat and passes on whether it was taken. It reports false and asks nothing while an earlier question hangs: until it has timed out,
// or a heartbeat of the library was answered since.
func (t *transport) ask(s Server, c claim, answers chan<- bool) bool {
	id, to := raft.ServerID(s.ID), raft.ServerAddress(s.Address)
	t.mu.Lock()
	p := t.peers[id]
	if p == nil || p.asking != nil || t.closed {
		t.mu.Unlock()
		return false
	}
	mine := new(struct{ _ byte })
	p.asking = mine
	t.mu.Unlock()
	go func() {
		args := raft.AppendEntriesRequest{RPCHeader: c.header, Term: c.term}
		var resp raft.AppendEntriesResponse
		err := t.NetworkTransport.AppendEntries(id, joinTarget(id, to), &args, &resp)
		t.mu.Lock()
		if p.asking == mine {
			p.asking = nil
		}
		t.mu.Unlock()
		answers <- err == nil && resp.Success && resp.Term == c.term
	}()
	return true
}
