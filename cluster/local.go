package cluster

import (
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// LocalStatus is this node alone, as plain data, for health checks and metrics. Making it asks nobody and waits for nothing.
type LocalStatus struct {
	Node        fsm.NodeID
	ClusterID   string
	Observation fsm.Observation
	State       fsm.State
	Age         time.Duration // since the last turn of the local loop
	NotReady    string        // why this node cannot do its part yet, "" when it can
	Addresses   []Address
	Clients     ClientStats
	Leader      bool
	HasLeader   bool
	Offices     uint64 // how often this node became Raft leader
	Applied     uint64 // last Raft index applied here
	Peers       []PeerStatus
	Starts      uint64 // starts of mysqld by this hbd
	Rewinds     uint64
	Tolerated   int               // how many more nodes may be lost, as this node judges
	Repairs     map[string]uint64 // attempts since this node runs, by rule
	Renewals    uint64
	RenewFailed uint64
	RenewLast   time.Duration
	Ended       map[Ending]uint64 // operations that ended since this node runs, counted by every node alike
	LastPhases  []fsm.PhaseTime
	AllPhases   []fsm.PhaseTime // every phase of every operation that ended since this node runs and was not taken yet
}

// Ending is how an operation ended.
type Ending struct {
	Kind    fsm.Kind
	Outcome fsm.Outcome
}

// PeerStatus is another member as reached from here.
type PeerStatus struct {
	ID            fsm.NodeID
	Agent, Server bool
	Gossip        bool // a hint only
}

// endings counts the operations that ended while this node ran, from the incidents of the applied state.
type endings struct {
	mu     sync.Mutex
	newest uint64
	primed bool
	count  map[Ending]uint64
	fresh  []fsm.PhaseTime
	last   []fsm.PhaseTime
}

// update takes in incidents not seen before. Those of before the start are not counted.
func (e *endings) update(st fsm.State, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == nil {
		e.count = map[Ending]uint64{}
	}
	for _, in := range st.Incidents {
		if in.ID <= e.newest {
			continue
		}
		e.newest = in.ID
		e.last = in.Phases
		if !e.primed {
			continue
		}
		e.count[Ending{in.Kind, in.Outcome}]++
		e.fresh = append(e.fresh, in.Phases...)
	}
	e.primed = e.primed || fresh
}

func (e *endings) read() (count map[Ending]uint64, last, fresh []fsm.PhaseTime) {
	e.mu.Lock()
	defer e.mu.Unlock()
	count = map[Ending]uint64{}
	for k, v := range e.count {
		count[k] = v
	}
	fresh, e.fresh = e.fresh, nil
	return count, e.last, fresh
}

// Local is this node alone. AllPhases is handed out once: there is one caller, the metrics.
func (n *Node) Local() LocalStatus {
	st := n.store.State()
	l := LocalStatus{Node: n.cfg.Node, Observation: n.observation(), State: st}
	if m := n.joined.Load(); m != nil {
		l.ClusterID = m.clusterID
		id, _ := m.raft.Leader()
		l.HasLeader, l.Leader, l.Applied = id != "", n.leading.Load() != nil, m.raft.Stats().Applied
	}
	switch {
	case l.ClusterID == "":
		l.NotReady = "this node belongs to no cluster yet"
	case !n.fresh.Load():
		l.NotReady = "no leader has confirmed yet that the applied state is recent"
	}
	if t := n.local.Load(); t != nil {
		l.Age = now() - t.at
	}
	l.Clients = n.clients.read()
	if n.cfg.Addresser != nil {
		l.Addresses = n.cfg.Addresser.Addresses()
	}
	alive := map[string]bool{}
	if m := n.joined.Load(); m != nil {
		alive = m.gossip.Alive()
	}
	for _, m := range n.cfg.Peers {
		if m.ID != n.cfg.Node {
			agent, server := n.peers.reachable(m.ID)
			l.Peers = append(l.Peers, PeerStatus{m.ID, agent, server, alive[string(m.ID)]})
		}
	}
	l.Tolerated = fsm.Tolerates(st, fsm.Classify(st, fsm.View{Self: n.cfg.Node, Now: now(), Wall: time.Now(), Nodes: n.peers.observations()}))
	n.endings.update(st, n.fresh.Load())
	l.Ended, l.LastPhases, l.AllPhases = n.endings.read()
	l.Repairs = n.repairs.counts()
	n.stats.mu.Lock()
	defer n.stats.mu.Unlock()
	l.Offices, l.Starts, l.Rewinds = n.stats.offices, n.stats.starts, n.stats.rewinds
	l.Renewals, l.RenewFailed, l.RenewLast = n.stats.renewals, n.stats.renewFailures, n.stats.renewLast
	return l
}
