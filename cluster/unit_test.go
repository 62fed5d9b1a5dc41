package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// unit is one node without loops, whose state is applied by hand: what a test calls is all that happens.
type unit struct {
	*Node
	t     *testing.T
	w     *world
	host  *host
	index uint64

	server string // "" is mariadb
}

// newUnit makes db1 of a cluster of three data nodes that exist only as stubs, if at all.
func newUnit(t *testing.T) *unit { return newUnitAs(t, "db1") }

func newUnitAs(t *testing.T, id fsm.NodeID) *unit {
	t.Helper()
	c := newCluster(t, 3, nil)
	m := c.node(id)
	n, err := Open(c.config(m))
	if err != nil {
		t.Fatal(err)
	}
	m.host.change(func() { m.host.node = n })
	u := &unit{Node: n, t: t, w: c.w, host: m.host}
	t.Cleanup(func() {
		u.joined.Store(nil)
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// apply commits a command as far as this node is concerned.
func (u *unit) apply(c fsm.Command) uint64 {
	u.t.Helper()
	data, err := c.Encode()
	if err != nil {
		u.t.Fatal(err)
	}
	u.index++
	if res := u.store.Apply(u.index, 1, data); res != nil {
		u.t.Fatalf("%s: %v", c.Name(), res)
	}
	return u.index
}

// bootstrapped makes the cluster, with its first epoch begun and not settled.
func (u *unit) bootstrapped(primary fsm.NodeID) {
	u.t.Helper()
	u.apply(fsm.Command{At: time.Now(), Bootstrap: &fsm.Bootstrap{ClusterID: "c1", Cluster: "shop", Server: cmp.Or(u.server, "mariadb"), Members: u.cfg.Peers, Settings: u.cfg.Settings, Primary: primary}})
}

// steady is a cluster at rest in epoch 1.
func (u *unit) steady(primary fsm.NodeID) {
	u.t.Helper()
	u.bootstrapped(primary)
	u.apply(fsm.Command{Settle: &fsm.Settle{OpID: 1, Epoch: 1}})
	u.fresh.Store(true)
	for _, m := range u.cfg.Peers {
		if m.ID != primary && m.Role == fsm.RoleData {
			u.apply(fsm.Command{Grow: &fsm.Grow{Epoch: 1, Node: m.ID, Incarnation: "inc-" + string(m.ID)}})
		}
	}
	index := u.apply(fsm.Command{Intend: &fsm.Intend{Epoch: 1, Kind: fsm.ChangeAcks, Acks: 1}})
	u.apply(fsm.Command{Complete: &fsm.Complete{Epoch: 1, Index: index, Holders: u.store.State().Sync.Members}})
}

// promise changes what this node has promised before the test.
func (u *unit) promise(change func(*Promises)) {
	u.t.Helper()
	if err := u.promises.update(change); err != nil {
		u.t.Fatal(err)
	}
}

// begin ends the present epoch by a takeover and gives the index of its freeze and fence orders.
func (u *unit) begin() uint64 {
	u.t.Helper()
	st := u.store.State()
	c := fsm.Begin{Kind: fsm.KindTakeover, Epoch: st.Epoch, Cause: "test"}
	if st.Op != nil {
		c.OpID = st.Op.ID
	}
	return u.apply(fsm.Command{Begin: &c})
}

// order is what the leader would send to this node for the running operation.
func (u *unit) order(kind fsm.OrderKind) fsm.Order {
	u.t.Helper()
	st := u.store.State()
	if st.Op == nil {
		u.t.Fatal("no operation is running")
	}
	return fsm.Order{Kind: kind, Node: u.cfg.Node, Epoch: st.Epoch, Index: st.Op.Index, Step: st.Op.Step, OpID: st.Op.ID, From: st.Op.From, To: st.Op.To}
}

// fencedAndPromoted carries a begun takeover on to its promote.
func (u *unit) fencedAndPromoted(to fsm.NodeID) {
	u.t.Helper()
	st := u.store.State()
	u.apply(fsm.Command{Fence: &fsm.Fence{OpID: st.Op.ID, Epoch: st.Epoch, Evidence: fsm.Evidence{Kind: fsm.EvidenceLease, Node: st.Op.From}}})
	var answers []fsm.Answer
	for _, m := range st.Sync.Members {
		answers = append(answers, fsm.Answer{Node: m.Node, Epoch: st.Epoch, Incarnation: m.Incarnation})
	}
	var members []fsm.SyncMember
	for _, id := range st.DataNodes() {
		if _, rebuilt := st.RebuildOf(id); id != to && !rebuilt {
			members = append(members, fsm.SyncMember{Node: id, Incarnation: "inc-" + string(id)})
		}
	}
	u.apply(fsm.Command{Promote: &fsm.Promote{OpID: st.Op.ID, Epoch: st.Epoch, To: to, Won: fsm.WonCount, Answers: answers, Members: members, Acks: 1}})
}

// settle ends the running promotion.
func (u *unit) settle() {
	u.t.Helper()
	st := u.store.State()
	u.apply(fsm.Command{Settle: &fsm.Settle{OpID: st.Op.ID, Epoch: st.Epoch}})
}

// takenOver is a cluster in which `to` has taken over epoch 2, settled.
func (u *unit) takenOver(to fsm.NodeID) {
	u.t.Helper()
	u.begin()
	u.fencedAndPromoted(to)
	u.settle()
}

// releasing carries a switchover to its step "releasing" and gives the order of it.
func (u *unit) releasing(to fsm.NodeID) fsm.Order {
	u.t.Helper()
	st := u.store.State()
	u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: st.Epoch, From: st.Primary, To: to, Cause: "test"}})
	u.apply(fsm.Command{Release: &fsm.Release{OpID: u.store.State().Op.ID, Epoch: st.Epoch}})
	return u.order(fsm.OrderRelease)
}

// serving makes the host what it is on a primary at work: gate open, writable, some transactions.
func (u *unit) serving() {
	u.t.Helper()
	u.promise(func(p *Promises) { p.Held = u.store.State().Epoch })
	h := u.host
	h.change(func() {
		h.mode, h.acks, h.gate, h.held, h.opened = modeWritable, 1, now()+time.Hour, true, 1
		h.barrier, h.barrierIn = u.store.State().Epoch, h.run
		for _, o := range h.w.hosts {
			o.log = []txn{{server: h.server, seq: 1, epoch: 1, serial: 1}, {server: h.server, seq: 2, serial: 2}}
		}
		h.w.answers = h
	})
	u.lease(time.Hour)
}

// lease puts a lease of the present epoch into this node's hand.
func (u *unit) lease(left time.Duration) {
	u.holder.mu.Lock()
	defer u.holder.mu.Unlock()
	u.holder.epoch, u.holder.until = u.store.State().Epoch, now()+left
}

// follower makes the host a running replica of another.
func (u *unit) follower(of fsm.NodeID) {
	u.t.Helper()
	h := u.host
	h.change(func() {
		src := h.w.hosts[of]
		if len(src.log) == 0 {
			src.log = []txn{{server: src.server, seq: 1, epoch: 1, serial: 1}, {server: src.server, seq: 2, serial: 2}}
		}
		h.source, h.io, h.sql, h.ack = src.addr, true, true, true
	})
	u.promise(func(p *Promises) { p.Followed = u.store.State().Epoch })
}

// action is one that Reconcile would ask for now.
func (u *unit) action(kind fsm.ActionKind) fsm.Action {
	st := u.store.State()
	return fsm.Action{Kind: kind, Epoch: st.Epoch, Index: st.Index, Target: st.Primary, Rule: "test"}
}

// short is a context that ends long after the test would have.
func (u *unit) short() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	u.t.Cleanup(cancel)
	return ctx
}

// peer is a stub of another node: it answers what the test says and fails the test for everything else.
func (u *unit) peer(id fsm.NodeID, answers map[string]rpc.Handler) {
	u.t.Helper()
	srv := rpc.NewServer(rpc.ServerConfig{Log: slog.New(slog.DiscardHandler), Self: func() rpc.Self {
		return rpc.Self{Node: string(id), Instance: "x-" + string(id)}
	}})
	for _, method := range []string{"ping", "lease", "relay_lease", "read_index", "order", "position", "hand_over", "bootstrap"} {
		h := answers[method]
		if h == nil {
			h = func(context.Context, string, json.RawMessage) (any, error) {
				u.t.Errorf("%s: unexpected call of %s", id, method)
				return nil, errors.New("unexpected")
			}
		}
		srv.HandleOpen(method, h)
	}
	ts := httptest.NewServer(srv)
	u.t.Cleanup(ts.Close)
	pe := u.peers.known[id]
	pe.member.API, pe.member.Instance = strings.TrimPrefix(ts.URL, "http://"), "x-"+string(id)
}

// alone makes this node the only voter of a Raft group of its own, and waits until it leads. Nobody is told: no turn is taken, no office either.
func (u *unit) alone() *raftnode.Node {
	u.t.Helper()
	r, err := raftnode.Open(raftnode.Config{Dir: u.raftDir(), ClusterID: "c1", Node: string(u.cfg.Node), Bind: u.cfg.BindRaft, Timing: raftnode.FastTiming(),
		FSM: u.store, Log: u.log, OnStuck: u.cfg.OnStuck})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			u.t.Error(err)
		}
	})
	if err := r.Bootstrap([]raftnode.Server{{ID: r.ID(), Address: r.Address(), Voter: true}}); err != nil {
		u.t.Fatal(err)
	}
	await(u.t, "the only voter leads", r.IsLeader)
	u.joined.Store(&membership{clusterID: "c1", raft: r})
	return r
}
