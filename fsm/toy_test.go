package fsm

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// toy is the smallest world in which the leader's table and the nodes' table must fit together: everything happens at once, positions do not
// matter, and one round is one second. What it lacks of reality the simulation has; what it has instead is that every order of a few faults can be
// tried.
type toy struct {
	c     *scene
	nodes map[NodeID]*toyNode
	acted map[string]bool // rules and rows that have matched, orders that were given
}

// toyNode is one host. Fields are exported for the key under which a world is remembered.
type toyNode struct {
	Down         int // rounds for which the host is off
	Broken       int // rounds for which its mysqld does not start
	Server       ServerState
	Run          int
	Fresh        bool
	Held         uint64
	Followed     uint64
	Frozen       uint64
	ReleasedOp   uint64
	Whole        uint64
	WholeRun     int
	ChainEpoch   uint64
	ChainRun     int
	Source       NodeID
	Leftover     NodeID // whom it replicated from before it became a source
	IO           bool
	SourceSync   bool
	ReadOnly     bool
	Blocked      []NodeID
	Gate         bool
	VIP          bool
	Barrier      uint64
	BarrierRun   int
	Served       uint64
	Failed       uint64
	AcceptedStep uint64
	SyncOff      uint64
	Prepared     uint64
	PortGated    bool
	Acking       bool
	LastRow      uint64 // newest epoch row it holds
}

func newToy(t testing.TB, members ...Member) *toy {
	w := &toy{c: bootstrapped(t, members...), nodes: map[NodeID]*toyNode{}, acted: map[string]bool{}}
	for _, m := range members {
		if m.Role == RoleWitness {
			continue
		}
		w.nodes[m.ID] = &toyNode{Server: ServerUp, Run: 1, Fresh: true, ReadOnly: true}
	}
	return w
}

func (w *toy) clone() *toy {
	c := *w.c
	c.obs = map[NodeID]*Observation{}
	for id := range w.c.obs {
		c.obs[id] = &Observation{Node: id}
	}
	c.answers, c.caughtUp = slices.Clone(c.answers), nil
	c.unable = maps.Clone(c.unable)
	c.silent, c.noAgent, c.noServer = map[NodeID]bool{}, map[NodeID]bool{}, map[NodeID]bool{}
	out := &toy{c: &c, nodes: map[NodeID]*toyNode{}, acted: w.acted}
	for id, n := range w.nodes {
		v := *n
		v.Blocked = slices.Clone(n.Blocked)
		out.nodes[id] = &v
	}
	return out
}

// key names a world up to what its future depends on: no history, log indexes only as far as they are compared, times only as they run out.
func (w *toy) key(t testing.TB) string {
	t.Helper()
	s := w.c.s.Clone()
	index := opIndex(s)
	restarts := len(s.Restarts)
	s.Incidents, s.Index, s.NextOperation, s.Restarts = nil, 0, 0, nil
	for i := range s.Epochs {
		s.Epochs[i].Since = time.Time{}
	}
	released := map[NodeID]bool{}
	nodes := map[NodeID]toyNode{}
	for id, n := range w.nodes {
		v := *n
		released[id] = s.Op != nil && n.ReleasedOp == s.Op.ID
		v.Served, v.Failed, v.AcceptedStep, v.ReleasedOp = flag01(n.Served >= index), flag01(n.Failed >= index), flag01(n.AcceptedStep > index), 0
		nodes[id] = v
	}
	if s.Op != nil {
		s.Op.Timeline, s.Op.Started, s.Op.Cause, s.Op.ID, s.Op.Index, s.Op.Fence, s.Op.Answers = nil, time.Time{}, "", 0, 0, nil, nil
	}
	waited := min((w.c.now-w.c.stepSince)/time.Second, 61)
	lease := max((w.c.leaseClear-w.c.now)/time.Millisecond, 0)
	data, err := json.Marshal([]any{s, index > 0, nodes, released, w.c.answers, w.c.fence != nil, w.c.release, w.c.reached, waited, lease, restarts})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// confirmed is whom every node knows to have switched off its acknowledgements, since it is outside.
func (w *toy) confirmed() []NodeID {
	var out []NodeID
	for id, n := range w.nodes {
		if since := w.c.s.OutsideSince(id); since > 0 && n.SyncOff >= since && n.Down == 0 {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func flag01(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (w *toy) incarnation(id NodeID) string { return fmt.Sprintf("%s.%d", id, w.nodes[id].Run) }

func (n *toyNode) up() bool { return n.Down == 0 && n.Server == ServerUp }

func (n *toyNode) own() uint64 {
	if n.Held > n.Followed {
		return n.Held
	}
	return 0
}

func (w *toy) lease(id NodeID) bool { return LeaseRefusal(w.c.s, id, w.c.s.Epoch) == "" }

// connected tells whether a node receives from its source at this moment.
func (w *toy) connected(id NodeID) bool {
	n := w.nodes[id]
	src := w.nodes[n.Source]
	return n.up() && n.IO && src != nil && src.up() && !slices.Contains(n.Blocked, n.Source) && !slices.Contains(src.Blocked, id)
}

func (w *toy) barrierDone(id NodeID) bool {
	n := w.nodes[id]
	return n.Barrier == w.c.s.Epoch && n.BarrierRun == n.Run
}

func (w *toy) local(id NodeID) Local {
	s, n := w.c.s, w.nodes[id]
	p := w.nodes[s.Primary]
	source, _ := s.Member(n.Source)
	return Local{Fresh: n.Fresh, Held: n.Held, Followed: n.Followed, Frozen: n.Frozen, ReleasedOp: n.ReleasedOp, LeaseEpoch: s.Epoch, LeaseValid: w.lease(id),
		GateOpen: n.Gate, VIPHeld: n.VIP, OtherServes: s.Primary != id && p != nil && p.Gate, BarrierDone: w.barrierDone(id), Announced: n.VIP, ServedIndex: n.Served,
		FailedIndex: n.Failed, FollowsRight: n.Source != "" && n.Source == s.SourceOf(id), Blocked: n.Blocked, Confirmed: w.confirmed(), SyncOff: n.SyncOff, Prepared: n.Prepared, PortGated: n.PortGated,
		Server: ServerStatus{State: n.Server, ReadOnly: n.ReadOnly, HasReplication: n.Source != "", Leftover: n.Leftover != "", IORunning: n.IO, SQLRunning: n.Source != "", ReplicaSync: n.IO && n.Acking, ReplicaSyncSet: n.Acking,
			SourceSync: n.SourceSync, Acks: int(flag01(n.SourceSync)), SourceHost: source.Address, SourcePort: source.MySQLPort}}
}

// round is one second of a world: the nodes do what their table says, the leader what its own says.
func (w *toy) round(t testing.TB) {
	t.Helper()
	w.c.wait(time.Second)
	for _, id := range w.c.s.DataNodes() {
		n := w.nodes[id]
		n.Broken = max(0, n.Broken-1)
		if n.Down > 0 {
			if n.Down--; n.Down > 0 {
				continue
			}
			n.Fresh = true
		}
		for _, a := range Reconcile(w.c.s, id, w.local(id)) {
			w.acted[a.Rule] = true
			w.do(id, a)
		}
	}
	for _, id := range w.c.s.DataNodes() {
		if n := w.nodes[id]; w.connected(id) {
			n.LastRow = w.nodes[n.Source].LastRow
		}
	}
	w.lead(t)
}

// do carries out one action at once.
func (w *toy) do(id NodeID, a Action) {
	n := w.nodes[id]
	switch a.Kind {
	case ActCloseGate:
		n.Gate = false
	case ActSelfFence:
		n.ReadOnly = true
	case ActReleaseVIP:
		n.VIP = false
	case ActKill:
		n.crash()
	case ActStart:
		if n.Broken > 0 {
			n.Failed = a.Index
		} else if n.Server == ServerDown {
			n.Server, n.Run = ServerUp, n.Run+1
		}
	case ActStopFollow:
		n.Source, n.Leftover, n.IO = "", n.Source, false
	case ActSourceSync:
		n.SourceSync = true
	case ActAsync:
		n.SourceSync = false
	case ActCoverPort:
		n.PortGated = true
	case ActUncover:
		n.PortGated = false
	case ActBlock:
		n.Blocked = WantBlocked(w.c.s, w.confirmed())
	case ActPrepare:
		n.Prepared = w.c.s.Change.Index
	case ActSyncOff:
		n.Acking, n.SyncOff = false, w.c.s.OutsideSince(id)
	case ActBarrier:
		n.Held, n.LastRow = max(n.Held, a.Epoch), a.Epoch
		if !n.SourceSync || slices.ContainsFunc(w.c.s.DataNodes(), func(o NodeID) bool { return w.nodes[o].Source == id && w.nodes[o].Acking && w.connected(o) }) {
			n.Barrier, n.BarrierRun = a.Epoch, n.Run
		}
	case ActOpen:
		n.Gate, n.VIP, n.ReadOnly, n.Served = true, true, false, a.Index
	case ActForget:
		n.Leftover = ""
	case ActFollow, ActReturn:
		w.follow(id, a)
	case ActUnblock:
		n.Blocked = nil
	case ActReconnect, ActNudge, ActMend, ActRebuild, ActNone:
	}
}

func (n *toyNode) crash() {
	n.Server, n.IO, n.SourceSync, n.ReadOnly = ServerDown, false, false, true
	if n.Leftover != "" { // its next run does not know that it is no replica any more
		n.Source, n.Leftover = n.Leftover, ""
	}
}

// follow turns a node towards the primary; one that was primary itself is rolled back on the way, and started if it must be.
func (w *toy) follow(id NodeID, a Action) {
	n, target := w.nodes[id], w.nodes[a.Target]
	if target == nil || !target.up() {
		return
	}
	if a.Kind == ActReturn && n.Server != ServerUp {
		n.Server, n.Run = ServerUp, n.Run+1
	}
	n.promise(w.c.s, a)
	n.Acking = w.c.s.MayAcknowledge(id) && (a.Target == w.c.s.Primary || n.Source == a.Target)
	n.Source, n.Leftover, n.IO, n.SourceSync, n.ReadOnly = a.Target, "", true, false, true
	if n.Acking {
		n.SyncOff = 0
	}
	n.Blocked = slices.DeleteFunc(n.Blocked, func(o NodeID) bool { return o == a.Target })
}

// promise: of the epoch to come a chained node may receive something from now on.
func (n *toyNode) promise(s State, a Action) {
	if n.Followed < a.Epoch {
		n.Followed, n.Whole, n.WholeRun = a.Epoch, a.Epoch, n.Run
		if n.ChainEpoch == a.Epoch {
			n.WholeRun = n.ChainRun
		}
	}
	if a.Target != s.Primary && n.ChainEpoch != s.Epoch+1 {
		n.ChainEpoch, n.ChainRun = s.Epoch+1, n.Run
	}
}
