package raftnode

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// errParked is returned to the library's replication loop when it was waiting for a silent peer and the
// wait has become pointless: leadership ended, the peer was removed, or the node closes.
var errParked = errors.New("peer stayed silent")

// transport is the library's TCP transport with four changes.
//
// It tells Dial which server is meant, not only where (joinTarget).
//
// And it keeps replication to a silent peer waiting until the peer answers a heartbeat. The library
// backs off after failed replication by up to 10 s, without end, so a node that was away for long would
// get its first entry up to 10 s after its return: long enough to fail a second time. Heartbeats back
// off by half their timeout at most; they run in a goroutine of their own and so tell when to go on.
//
// It hints to followers what is committed as soon as it is (took).
//
// And it asks voters whether they are still in this leader's term (ask).
type transport struct {
	*raft.NetworkTransport

	mu    sync.Mutex
	peers map[raft.ServerID]*peerLink
	// followers and commit are for the hints: see took.
	followers map[raft.ServerID]*follower
	commit    uint64
	// claim is for VerifyLeadership.
	claim claim
	// era is closed and replaced when leadership ends, which ends every wait.
	era    chan struct{}
	closed bool
}

// peerLink is what this leader's heartbeats say about one peer.
type peerLink struct {
	answered    bool
	lastAttempt time.Time
	// asking is a question of ours under way, nil if there is none.
	asking *struct{ _ byte }
	// back is closed when the peer answers again; nil while it answers.
	back chan struct{}
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
	_ raft.WithPeers   = (*transport)(nil)
)

func newTransport(inner *raft.NetworkTransport) *transport {
	return &transport{NetworkTransport: inner, peers: make(map[raft.ServerID]*peerLink), followers: make(map[raft.ServerID]*follower), era: make(chan struct{})}
}

// AppendEntries sends entries or a heartbeat. Entries for a silent peer wait for its next answer.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(args) {
		if err := t.waitAnswering(id); err != nil {
			return err
		}
		err := t.NetworkTransport.AppendEntries(id, joinTarget(id, to), args, resp)
		if err == nil && resp.Success {
			t.took(id, to, args)
		}
		return err
	}
	t.attempt(id, args)
	err := t.NetworkTransport.AppendEntries(id, joinTarget(id, to), args, resp)
	t.outcome(id, err)
	return err
}

// AppendEntriesPipeline is never entered with MaxRPCsInFlight at 1; it exists so that no path of the
// library dials without saying whom it wants.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.NetworkTransport.AppendEntriesPipeline(id, joinTarget(id, to))
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, joinTarget(id, to), args, resp)
}

// RequestPreVote asks whether a vote would be given.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, joinTarget(id, to), args, resp)
}

// InstallSnapshot sends a snapshot, to a silent peer once it answers again.
func (t *transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.waitAnswering(id); err != nil {
		return err
	}
	return t.NetworkTransport.InstallSnapshot(id, joinTarget(id, to), args, resp, data)
}

// TimeoutNow asks a peer to campaign at once.
func (t *transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, joinTarget(id, to), args, resp)
}

// Connect and Disconnect complete raft.WithPeers, as in the library: the pool needs neither.
func (t *transport) Connect(raft.ServerAddress, raft.Transport) {}

// Disconnect does nothing; see Connect.
func (t *transport) Disconnect(raft.ServerAddress) {}

// DisconnectAll cuts every pooled connection.
func (t *transport) DisconnectAll() { t.CloseStreams() }

// answering reports whether the peer answered this leader's latest heartbeat.
func (t *transport) answering(id ServerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[raft.ServerID(id)]
	return p != nil && p.answered
}

// endEra forgets what heartbeats said and ends every wait. The node calls it whenever leadership changes.
func (t *transport) endEra() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	close(t.era)
	t.era = make(chan struct{})
	clear(t.peers)
	clear(t.followers)
}

// release ends every wait for good; the node closes.
func (t *transport) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.era)
	}
}

func (t *transport) attempt(id raft.ServerID, heartbeat *raft.AppendEntriesRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.claims(heartbeat)
	p := t.peers[id]
	if p == nil {
		// Nothing is known yet: the first entries need not wait for the first heartbeat.
		p = &peerLink{}
		t.peers[id] = p
	}
	p.lastAttempt = time.Now()
}

func (t *transport) outcome(id raft.ServerID, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	if p == nil {
		return
	}
	p.answered = err == nil
	switch {
	case err == nil:
		p.asking = nil // what hangs all the same is on a connection that is dead
		if p.back != nil {
			close(p.back)
			p.back = nil
		}
	case p.back == nil:
		p.back = make(chan struct{})
	}
}

// abandoned is how long heartbeats may pause before the peer counts as removed: the library stops them
// when it removes a peer, and nothing else tells the transport.
const abandoned = 10 * time.Second

// waitAnswering returns at once for a peer whose last heartbeat was answered or is not yet known.
// Otherwise it waits for an answer, or fails when none will come.
func (t *transport) waitAnswering(id raft.ServerID) error {
	tick := time.NewTicker(abandoned / 4)
	defer tick.Stop()
	for {
		t.mu.Lock()
		p, era, closed := t.peers[id], t.era, t.closed
		var back chan struct{}
		if p != nil {
			back = p.back
		}
		gone := p != nil && time.Since(p.lastAttempt) > abandoned
		t.mu.Unlock()
		switch {
		case closed || back != nil && gone:
			return errParked
		case back == nil:
			return nil
		}
		select {
		case <-back:
		case <-era:
			return errParked
		case <-tick.C:
		}
	}
}

// isHeartbeat recognises the library's heartbeats the way its own transport does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.Term != 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}
