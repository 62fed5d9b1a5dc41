package fsm

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// scene is one leader's situation, built up by the tests of this package: a state, and a view whose raw reports go through Classify.
type scene struct {
	s           State
	self        NodeID
	now         Instant
	wall        time.Time
	index       uint64
	obs         map[NodeID]*Observation
	silent      map[NodeID]bool // its reports do not arrive
	noAgent     map[NodeID]bool // nobody reaches its hbd
	noServer    map[NodeID]bool // nobody reaches its mysqld
	blind       NodeID          // a node that the leader itself does not reach, and the others do
	leaseClear  Instant
	stepSince   Instant
	answers     []Answer
	fence       *Evidence
	release     *Answer
	reached     bool
	caughtUp    []SyncMember
	untried     NodeID        // chained, and nothing has come over that yet
	idle        time.Duration // how long the primary has said that it does not serve
	served      time.Duration // for so long the primary of the running operation has served; 0 when it does not, or nobody looked
	last        Decision
	unable      map[NodeID]Instant // since when a member cannot acknowledge
	changeIndex uint64
	changeSince Instant
}

var sceneWall = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func data(ids ...NodeID) []Member {
	var out []Member
	for _, id := range ids {
		out = append(out, Member{ID: id, Instance: "x-" + string(id), Address: address(id), MySQLPort: 3306, Role: RoleData, Priority: 100})
	}
	return out
}

func address(id NodeID) string {
	return "10.77.0." + strings.TrimLeft(string(id), "abcdefghijklmnopqrstuvwxyz-")
}

func witness(id NodeID) Member { return Member{ID: id, Instance: "x-" + string(id), Role: RoleWitness} }

// bootstrapped is a cluster right after its bootstrap: the first member is named primary and does not serve yet.
func bootstrapped(t testing.TB, members ...Member) *scene {
	t.Helper()
	settings, err := Profile("lan")
	if err != nil {
		t.Fatal(err)
	}
	c := &scene{now: time.Hour, wall: sceneWall, obs: map[NodeID]*Observation{}, silent: map[NodeID]bool{}, noAgent: map[NodeID]bool{}, noServer: map[NodeID]bool{}, unable: map[NodeID]Instant{}}
	c.must(t, Command{Bootstrap: &Bootstrap{ClusterID: "c1", Cluster: "shop", Server: "mariadb", Members: members, Settings: settings, Primary: members[0].ID}})
	c.self = members[len(members)-1].ID
	c.leaseClear, c.stepSince = c.now, c.now
	for _, m := range c.s.Members {
		c.obs[m.ID] = &Observation{Node: m.ID, Standing: StandingWitness}
		if m.Role == RoleData {
			c.obs[m.ID] = c.replica(m.ID)
		}
	}
	first := c.obs[members[0].ID]
	first.Standing, first.Server = StandingPrimary, ServerStatus{State: ServerUp, ReadOnly: true}
	return c
}

func (c *scene) replica(id NodeID) *Observation {
	lag := 0.0
	return &Observation{Node: id, Standing: StandingReplica, Incarnation: "i-" + string(id),
		Server: ServerStatus{State: ServerUp, ReadOnly: true, HasReplication: true, IORunning: true, SQLRunning: true, ReplicaSync: true, ReplicaSyncSet: true, Lag: &lag, Received: "0-1-100", Executed: "0-1-100"}}
}

// steady is a healthy cluster at epoch 1: db1 serves, every other data node counts. Without members: three data nodes.
func steady(t testing.TB, members ...Member) *scene {
	t.Helper()
	if len(members) == 0 {
		members = data("db1", "db2", "db3")
	}
	c := bootstrapped(t, members...)
	c.serve(members[0].ID)
	c.must(t, Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 1}})
	c.fillSet(t)
	return c
}

// fillSet makes every other data node a counted member that acknowledges, as far as the set may go, and W what it should be.
func (c *scene) fillSet(t testing.TB) {
	t.Helper()
	for _, id := range c.s.DataNodes() {
		if _, in := c.s.Sync.Member(id); !in && id != c.s.Primary && len(c.s.Sync.Members) < c.s.setLimit() {
			c.must(t, Command{Grow: &Grow{Epoch: c.s.Epoch, Node: id, Incarnation: "i-" + string(id)}})
		}
	}
	c.acks(t, c.s.ackTarget())
}

// acks commits a new W, prepared and held by all members.
func (c *scene) acks(t testing.TB, w int) {
	t.Helper()
	if w == c.s.Sync.Acks {
		return
	}
	c.must(t, Command{Intend: &Intend{Epoch: c.s.Epoch, Kind: ChangeAcks, Acks: w}})
	c.must(t, Command{Complete: &Complete{Epoch: c.s.Epoch, Index: c.s.Change.Index, Position: "0-1-100", Holders: c.s.Sync.Members, Gated: true}})
}

// leaves commits that a member leaves the set.
func (c *scene) leaves(t testing.TB, id NodeID) {
	t.Helper()
	c.must(t, Command{Intend: &Intend{Epoch: c.s.Epoch, Kind: ChangeShrink, Node: id}})
	c.must(t, Command{Complete: &Complete{Epoch: c.s.Epoch, Index: c.s.Change.Index, Position: "0-1-100", Holders: c.s.Sync.Members}})
}

// replicates has nodes report that they replicate from another, and acknowledge there.
func (c *scene) replicates(source NodeID, ids ...NodeID) {
	for _, id := range ids {
		sv := &c.obs[id].Server
		sv.SourceHost, sv.SourcePort, sv.IORunning, sv.SQLRunning, sv.ReplicaSync = address(source), 3306, true, true, true
	}
}

// serve makes a node report that it serves the present epoch, for the newest order.
func (c *scene) serve(id NodeID) {
	o := c.obs[id]
	o.Standing, o.Serving, o.Held, o.GateOpen, o.VIPHeld, o.Incarnation = StandingServing, c.s.Epoch, c.s.Epoch, true, true, "i-"+string(id)
	o.ServedIndex = c.index
	o.Server = ServerStatus{State: ServerUp, SourceSync: c.s.SourceAcks() > 0, Acks: c.s.SourceAcks(), Received: "0-1-100", Executed: "0-1-100"}
}

func (c *scene) apply(cmd Command) error {
	c.index++
	cmd.At = c.wall
	before := opIndex(c.s)
	next, err := Apply(c.s, c.index, cmd)
	if err == nil {
		c.s = next
		if opIndex(next) != before {
			c.stepSince = c.now
		}
	}
	return err
}

func opIndex(s State) uint64 {
	if s.Op == nil {
		return 0
	}
	return s.Op.Index
}

func (c *scene) must(t testing.TB, cmd Command) {
	t.Helper()
	if err := c.apply(cmd); err != nil {
		t.Fatalf("applying %s: %v", cmd.Name(), err)
	}
}

// lose puts a node out of everybody's reach.
func (c *scene) lose(id NodeID) { c.silent[id], c.noAgent[id], c.noServer[id] = true, true, true }

// find is the opposite of lose.
func (c *scene) find(id NodeID) {
	delete(c.silent, id)
	delete(c.noAgent, id)
	delete(c.noServer, id)
}

// answer is a freeze answer for the present epoch with the incarnation the node reports.
func (c *scene) answer(id NodeID, received string) Answer {
	return Answer{Node: id, Epoch: c.s.Epoch, Incarnation: c.obs[id].Incarnation, Received: received, LastEpoch: c.s.Settled()}
}

func (c *scene) view() View {
	v := View{Self: c.self, Now: c.now, Wall: c.wall, LeaseClear: c.leaseClear, StepSince: c.stepSince, Answers: c.answers, Fence: c.fence,
		Release: c.release, Reached: c.reached, CaughtUp: c.caughtUp}
	if c.idle > 0 {
		v.NotServing = max(1, c.now-c.idle)
	}
	if c.served > 0 {
		v.ServingSince = max(1, c.now-c.served)
	}
	for _, m := range c.s.Members {
		o := *c.obs[m.ID]
		o.Applied, o.Epoch = c.s.Index, c.s.Epoch
		for _, peer := range c.s.Members {
			if peer.ID != m.ID {
				o.Sights = append(o.Sights, Sight{Node: peer.ID, AgentAge: age(c.noAgent[peer.ID] || m.ID == c.self && peer.ID == c.blind), ServerAge: age(c.noServer[peer.ID])})
			}
		}
		v.Nodes = append(v.Nodes, NodeView{ID: m.ID, Obs: o, Known: true, At: c.now - age(c.silent[m.ID])})
	}
	v = Classify(c.s, v)
	for i := range v.Nodes {
		n := &v.Nodes[i]
		_, in := c.s.Sync.Member(n.ID)
		switch {
		case !in || CannotAck(c.s, v, n.ID) == "":
			delete(c.unable, n.ID)
		case c.unable[n.ID] == 0:
			c.unable[n.ID] = c.now
		}
		n.UnableSince, n.Untried = c.unable[n.ID], n.ID == c.untried
	}
	if c.s.Change == nil || c.s.Change.Index != c.changeIndex {
		c.changeIndex, c.changeSince = 0, c.now
		if c.s.Change != nil {
			c.changeIndex = c.s.Change.Index
		}
	}
	v.ChangeSince = c.changeSince
	return v
}

func age(gone bool) time.Duration {
	if gone {
		return 10 * time.Second
	}
	return 20 * time.Millisecond
}

func (c *scene) decide() Decision {
	c.last = Decide(c.s, c.view())
	return c.last
}

// follow decides and commits until the decision has no command, or the bound is reached.
func (c *scene) follow(t testing.TB) {
	t.Helper()
	for range 10 {
		d := c.decide()
		if len(d.Commands) == 0 {
			return
		}
		for _, cmd := range d.Commands {
			c.must(t, cmd)
		}
	}
	t.Fatal("the decision never comes to rest")
}

// wait lets time pass for a leader that keeps hearing its nodes.
func (c *scene) wait(d time.Duration) { c.now += d; c.wall = c.wall.Add(d) }

// acting lists the rules that act in this scene: what Decide would run, by name.
func (c *scene) acting() []string {
	d := &deciding{s: c.s, v: c.view()}
	var codes []string
	acted := false
	for _, r := range decideRules {
		if (!acted || r.Always) && r.When(d) {
			codes = append(codes, r.Code)
			acted = acted || !r.Always
		}
	}
	return codes
}

func commandNames(d Decision) []string {
	var out []string
	for _, c := range d.Commands {
		out = append(out, c.Name())
	}
	return out
}

func hasVerdict(verdicts []Verdict, rule string, node NodeID) bool {
	return slices.ContainsFunc(verdicts, func(v Verdict) bool { return v.Rule == rule && (node == "" || v.Node == node) })
}
