package fsm

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// lead is the leader's part of a round: gather, decide, commit, order.
func (w *toy) lead(t testing.TB) {
	t.Helper()
	w.gather()
	for _, code := range w.c.acting() {
		w.acted[code] = true
	}
	d := w.c.decide()
	if len(d.Commands) > 0 {
		w.commit(t, d.Commands)
		return
	}
	for _, o := range d.Orders {
		w.acted["order "+string(o.Kind)] = true
		w.obey(o)
	}
}

func (w *toy) gather() {
	c := w.c
	c.caughtUp = nil
	for _, id := range c.s.DataNodes() {
		n := w.nodes[id]
		if n.Down > 0 {
			c.lose(id)
			continue
		}
		c.find(id)
		l, lag := w.local(id), 0.0
		o := &Observation{Node: id, Standing: StandingCatching, Server: l.Server, Incarnation: w.incarnation(id), Held: n.own(), ServedIndex: n.Served, FailedIndex: n.Failed,
			Prepared: n.Prepared, PreparedAt: "0-1-100", PortGated: n.PortGated, SyncOff: n.SyncOff}
		o.Server.LastEpoch = n.LastRow
		o.Server.Lag, o.Server.Received, o.Server.Executed = &lag, "0-1-100", "0-1-100"
		if n.WholeRun == n.Run {
			o.Whole = n.Whole
		}
		if n.Gate && w.barrierDone(id) && n.up() {
			o.Serving = c.s.Epoch
		}
		if l.FollowsRight && w.connected(id) {
			o.Standing = StandingReplica
			if p := c.s.Primary; p != "" && w.barrierDone(p) {
				c.caughtUp = append(c.caughtUp, SyncMember{Node: id, Incarnation: o.Incarnation})
			}
		}
		c.obs[id] = o
	}
}

func (w *toy) commit(t testing.TB, commands []Command) {
	t.Helper()
	c := w.c
	for _, cmd := range commands {
		index, epoch := opIndex(c.s), c.s.Epoch
		if cmd.Begin != nil {
			c.leaseClear = GrantClear(c.s.Settings, c.now, c.s.Settings.Lease)
		}
		if err := c.apply(cmd); err != nil && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		if opIndex(c.s) != index {
			c.fence, c.release, c.reached = nil, nil, false
		}
		if c.s.Epoch != epoch {
			c.answers = nil
		}
	}
}

// obey carries out an order at once, if the host is there.
func (w *toy) obey(o Order) {
	n, c := w.nodes[o.Node], w.c
	if n.Down > 0 || o.Index < n.AcceptedStep {
		return
	}
	n.AcceptedStep = o.Index
	a := Answer{Node: o.Node, Epoch: o.Epoch, Incarnation: w.incarnation(o.Node), Received: "0-1-100", LastEpoch: n.LastRow, Held: n.own()}
	if n.WholeRun == n.Run {
		a.Whole = n.Whole
	}
	switch o.Kind {
	case OrderFreeze:
		n.Frozen, n.IO = o.Epoch, false
		if o.From != o.Node && !slices.Contains(n.Blocked, o.From) {
			n.Blocked = append(n.Blocked, o.From)
		}
		if !n.up() {
			a.Incarnation, a.Received, a.LastEpoch, a.Whole = "", "", 0, 0
		}
		if n.up() || a.Held > 0 {
			c.answers = append(slices.DeleteFunc(c.answers, func(b Answer) bool { return b.Node == a.Node }), a)
		}
	case OrderFence:
		n.Gate, n.ReadOnly = false, true
		c.fence = &Evidence{Kind: EvidenceAgent, Node: o.Node}
	case OrderRelease:
		if n.up() && n.Held == o.Epoch {
			n.Gate, n.ReadOnly, n.ReleasedOp = false, true, o.OpID
			for _, id := range c.s.DataNodes() {
				if id != o.Node && id != o.To {
					n.Blocked = append(n.Blocked, id)
				}
			}
			c.release = &a
		}
	case OrderAwait:
		c.reached = n.up()
		if s := c.s; n.up() && s.Epoch == o.Epoch && s.Op != nil && s.Op.ID == o.OpID && s.Op.Step == StepReleasing {
			n.Blocked, n.IO = append(n.Blocked, s.Op.From), false
		}
	}
}

// healthy is the goal: one serves, all the others follow it and count.
func (w *toy) healthy() bool {
	s := w.c.s
	if s.Op != nil || s.Phase != PhaseSteady || !w.nodes[s.Primary].Gate {
		return false
	}
	return len(s.Sync.Members) == len(s.DataNodes())-1 && s.Sync.Acks == s.ackTarget() && !slices.ContainsFunc(s.Sync.Members, func(m SyncMember) bool {
		return w.nodes[m.Node].Source != s.Primary || !w.connected(m.Node) || m.Incarnation != w.incarnation(m.Node)
	})
}

// toyFault is one thing that happens between two rounds.
type toyFault struct {
	name string
	do   func(t testing.TB, w *toy)
}

func toyFaults(w *toy) []toyFault {
	out := []toyFault{
		{"nothing", func(testing.TB, *toy) {}},
		{"a new leader", func(_ testing.TB, w *toy) {
			w.c.answers, w.c.fence, w.c.release, w.c.reached = nil, nil, nil, false
			w.c.stepSince, w.c.leaseClear = w.c.now, OfficeClear(w.c.s, w.c.now)
		}},
	}
	for _, id := range w.c.s.DataNodes() {
		out = append(out,
			toyFault{string(id) + " off", func(_ testing.TB, w *toy) { w.off(id, 3) }},
			toyFault{string(id) + " off for long", func(_ testing.TB, w *toy) { w.off(id, 50) }},
			toyFault{string(id) + " mysqld dies", func(_ testing.TB, w *toy) { w.nodes[id].crash() }},
			toyFault{string(id) + " mysqld broken", func(_ testing.TB, w *toy) { w.nodes[id].crash(); w.nodes[id].Broken = 90 }},
			toyFault{string(id) + " mysqld hangs", func(_ testing.TB, w *toy) { w.nodes[id].Server = ServerHung }},
			toyFault{"switchover to " + string(id), func(t testing.TB, w *toy) {
				cmd := Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: w.c.s.Epoch, From: w.c.s.Primary, To: id}}
				if _, err := Apply(w.c.s, w.c.index+1, cmd); err == nil {
					w.commit(t, []Command{cmd})
				}
			}},
		)
	}
	return out
}

func (w *toy) off(id NodeID, rounds int) {
	n := w.nodes[id]
	n.crash()
	n.Down, n.Gate, n.VIP, n.Fresh, n.Blocked = rounds, false, false, false, nil
}

// heals runs a world without further faults. It is bounded by every timeout that a way back may wait for. If it does not come home it says where
// it stands.
func (e *explorer) heals(t testing.TB, w *toy) string {
	t.Helper()
	calm := w.clone()
	var path []string
	for range 250 {
		key := calm.key(t)
		path = append(path, key)
		if calm.healthy() || e.healed[key] {
			for _, k := range path {
				e.healed[k] = true
			}
			return ""
		}
		calm.round(t)
	}
	return fmt.Sprintf("sync %+v\nop %+v\nbase %+v\nnodes %+v\nanswers %+v\nverdicts %+v", calm.c.s.Sync, calm.c.s.Op, calm.c.s.Base, calm.locals(), calm.c.answers, calm.c.last.Verdicts)
}

func (w *toy) locals() map[NodeID]toyNode {
	out := map[NodeID]toyNode{}
	for id, n := range w.nodes {
		out[id] = *n
	}
	return out
}

// TestNoReachableStateIsStuck tries every fault at every round of every way back from every fault, and from each world met demands the way home.
// It is also where the tables must fit each other: each order is one a node can carry out, and each rule and row is needed by somebody.
func TestNoReachableStateIsStuck(t *testing.T) {
	acted := map[string]bool{}
	for _, shape := range []struct {
		members []Member
		faults  int
	}{
		{data("db1", "db2", "db3"), 2},
		// Of two data nodes one must be whole: with both hurt in one unsettled chain each keeps its bytes and waits for the other.
		{append(data("db1", "db2"), witness("w1")), 1},
	} {
		w := newToy(t, shape.members...)
		w.acted = acted
		w.settle(t)
		e := &explorer{seen: map[string]bool{}, healed: map[string]bool{}}
		if underRace {
			shape.faults = 1
		}
		if stuck := e.explore(t, w, shape.faults, nil); stuck != "" {
			t.Errorf("stuck with every node healthy, after %s", stuck)
		}
		t.Logf("%d data nodes, %d faults: %d worlds", len(w.c.s.DataNodes()), shape.faults, len(e.seen))
		if len(e.seen) < 50 {
			t.Error("hardly anything was reached")
		}
	}
	if !underRace {
		mustHaveActed(t, acted)
	}
}

// settle brings a new cluster to serve.
func (w *toy) settle(t testing.TB) {
	t.Helper()
	for range 20 {
		w.round(t)
	}
	if !w.healthy() {
		t.Fatalf("a new cluster does not come to serve: %+v %+v", w.c.s, w.locals())
	}
}

type explorer struct{ seen, healed map[string]bool }

// explore injects each fault, and then again at each of the rounds that follow. It gives the story of the first world that is stuck, "" for none.
func (e *explorer) explore(t testing.TB, w *toy, faults int, story []string) string {
	for _, f := range toyFaults(w) {
		next := w.clone()
		f.do(t, next)
		told := append(slices.Clone(story), f.name)
		for range 12 {
			key := fmt.Sprint(faults, next.key(t))
			if e.seen[key] {
				break
			}
			e.seen[key] = true
			if where := e.heals(t, next); where != "" {
				return fmt.Sprintf("%v:\n%s", told, where)
			}
			if faults > 1 {
				if stuck := e.explore(t, next, faults-1, told); stuck != "" {
					return stuck
				}
			}
			if next.healthy() && f.name != "nothing" {
				break
			}
			next.round(t)
			told = append(told, ".")
		}
	}
	return ""
}

// elsewhere lists what the toy world has no cause for; the tables' own tests and the simulation have.
var elsewhere = map[string]string{
	"primary.agent-lost":  "in the toy a host is there or not",
	"primary.not-serving": "whoever may serve can serve",
	"node.quarantined":    "nothing is errant",
	"node.not-fresh":      "a node hears from the leader at once",
	"primary.nudge":       "no acknowledgement is lost",
	"replica.reconnect":   "connections are made at once",
	"replica.unknown":     "mysqld is looked at at once",
	"replica.frozen":      "the log is applied at once",
	"replica.uncover":     "nobody is promoted while the port of the old primary is covered, unless a loss is accepted",

	// Data is always good in the toy.
	"rebuild.donor": "nothing is rebuilt", "rebuild.errant": "nothing is errant", "rebuild.purged": "nothing is purged",
	"rebuild.quarantined": "nothing is errant", "rebuild.empty": "nobody is new", "rebuild.running": "nothing is rebuilt",
	"rebuild.unfinished": "nothing is rebuilt", "rebuild.run": "nothing is rebuilt", "rebuild.half": "nothing is rebuilt", "rebuild.waits": "nothing is rebuilt", "rebuild.useless": "nothing is rebuilt", "rebuild.done": "nothing is rebuilt",
	"node.empty": "nobody is new",
}

func mustHaveActed(t *testing.T, acted map[string]bool) {
	t.Helper()
	var names []string
	for _, k := range OrderKinds() {
		names = append(names, "order "+string(k))
	}
	for _, r := range Rules() {
		names = append(names, r.Code)
	}
	for _, r := range Rows() {
		names = append(names, r.Code)
	}
	for _, n := range names {
		if IsCare(n) && n != "care.receiver-stopped" {
			continue // nobody damages a server behind hbd's back in the toy
		}
		if _, excused := elsewhere[n]; !acted[n] && !excused {
			t.Errorf("%s never came up", n)
		} else if acted[n] && excused {
			t.Errorf("%s came up: it needs no excuse", n)
		}
	}
}

// TestStuckIsSeen is the control: with one row a few places too low, as it once was, the search must find the world that never heals.
func TestStuckIsSeen(t *testing.T) {
	if underRace {
		t.Skip("the search is too slow under the race detector")
	}
	saved := rows
	defer func() { rows = saved }()
	at := func(code string) int { return slices.IndexFunc(rows, func(r Row) bool { return r.Code == code }) }
	block := rows[at("primary.block")]
	rows = slices.Delete(slices.Clone(rows), at("primary.block"), at("primary.block")+1)
	rows = slices.Insert(rows, at("primary.barrier")+1, block)
	w := newToy(t, data("db1", "db2", "db3")...)
	w.c.s.Settings.SyncMinReplicas = 1 // else the way out is to go on without acknowledgements
	w.settle(t)
	e := &explorer{seen: map[string]bool{}, healed: map[string]bool{}}
	if e.explore(t, w, 2, nil) == "" {
		t.Error("a primary that blocks those whose acknowledgement it waits for is not found")
	}
}
