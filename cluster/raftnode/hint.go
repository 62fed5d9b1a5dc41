package raftnode

import (
	"github.com/hashicorp/raft"
)

// follower is what this leader knows that a peer has stored.
type follower struct {
	to          raft.ServerAddress
	header      raft.RPCHeader
	term        uint64 // of the leadership that it took entries from
	index, made uint64 // newest entry it is known to hold, and the term that entry was made in
	told        uint64 // commit index it was told
	busy        bool   // a hint is under way
}

// took notes what a peer has stored. The library tells a follower of a commit with the next entry it sends or after its commit timeout; whoever
// has to act on a command must apply it first, so that time is an outage. A hint is the message the library would send then: no entries, and a
// commit index that is no higher than the entry which the peer is known to share with this leader. It costs no fsync, and one that is lost is
// made up for by the library.
func (t *transport) took(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[id]
	if f == nil || f.term != args.Term {
		f = &follower{term: args.Term}
		t.followers[id] = f
	}
	f.to, f.header = to, args.RPCHeader
	f.index, f.made = args.PrevLogEntry, args.PrevLogTerm
	if n := len(args.Entries); n > 0 {
		f.index, f.made = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	f.told = max(f.told, args.LeaderCommitIndex)
	t.startHint(id, f)
}

// committed hints to every peer that holds it that an entry is committed; the others get the hint when they have stored it.
func (t *transport) committed(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.commit = max(t.commit, index)
	for id, f := range t.followers {
		t.startHint(id, f)
	}
}

// startHint is called with mu held.
func (t *transport) startHint(id raft.ServerID, f *follower) {
	if f.busy || !t.hintDue(id, f) {
		return
	}
	f.busy = true
	go t.hint(id, f)
}

// hintDue is called with mu held. A silent peer is left to the library.
func (t *transport) hintDue(id raft.ServerID, f *follower) bool {
	p := t.peers[id]
	return !t.closed && t.followers[id] == f && min(t.commit, f.index) > f.told && (p == nil || p.back == nil)
}

func (t *transport) hint(id raft.ServerID, f *follower) {
	for {
		t.mu.Lock()
		if !t.hintDue(id, f) {
			f.busy = false
			t.mu.Unlock()
			return
		}
		before := f.told
		f.told = min(t.commit, f.index)
		args := raft.AppendEntriesRequest{RPCHeader: f.header, Term: f.term,
			PrevLogEntry: f.index, PrevLogTerm: f.made, LeaderCommitIndex: f.told}
		to := f.to
		t.mu.Unlock()
		var resp raft.AppendEntriesResponse
		// Whatever is answered, the library finds out for itself with its next message.
		if t.NetworkTransport.AppendEntries(id, joinTarget(id, to), &args, &resp) != nil {
			t.mu.Lock()
			f.told, f.busy = min(f.told, before), false // not told: with the next message that arrives
			t.mu.Unlock()
			return
		}
	}
}
