package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// leadsOver gives the unit a leadership that decides nothing by itself, and its picture of the present state.
func leadsOver(u *unit) *leading {
	l := &leading{n: u.Node, wake: make(chan struct{}, 1), cancel: func() {}, done: make(chan struct{}),
		inFlight: map[orderKey]bool{}, catching: map[fsm.NodeID]catching{}, chain: map[fsm.NodeID]chaining{}}
	l.view(u.store.State())
	return l
}

func (u *unit) orderTo(kind fsm.OrderKind, node fsm.NodeID) fsm.Order {
	o := u.order(kind)
	o.Node = node
	return o
}

func TestAnswersCountForTheirOwnStepOnly(t *testing.T) {
	u := newUnit(t)
	u.steady("db3")
	u.begin()
	l := leadsOver(u)
	answer := func(epoch uint64) orderReply {
		return orderReply{Answer: &fsm.Answer{Node: "db2", Epoch: epoch, Received: "0-1-2"}}
	}
	right := u.orderTo(fsm.OrderFreeze, "db2")
	for _, wrong := range []func(o *fsm.Order){func(o *fsm.Order) { o.OpID++ }, func(o *fsm.Order) { o.OpID-- }, func(o *fsm.Order) { o.Epoch-- }} {
		o := right
		wrong(&o)
		l.result(o, answer(o.Epoch), nil)
		if v := l.view(u.store.State()); len(v.Answers) != 0 {
			t.Errorf("the answer to %+v counts", o)
		}
	}
	l.result(right, answer(2), errors.New("and yet it failed"))
	if v := l.view(u.store.State()); len(v.Answers) != 0 {
		t.Error("a failed order's answer counts")
	}
	l.result(right, answer(2), nil)
	l.result(right, answer(2), nil)
	if v := l.view(u.store.State()); len(v.Answers) != 1 || v.Answers[0].Received != "0-1-2" {
		t.Errorf("answers %+v", v.Answers)
	}
	// The next step of the same epoch keeps them, another epoch forgets them.
	st := u.store.State()
	u.apply(fsm.Command{Fence: &fsm.Fence{OpID: st.Op.ID, Epoch: st.Epoch, Evidence: fsm.Evidence{Kind: fsm.EvidenceLease, Node: "db3"}}})
	if v := l.view(u.store.State()); len(v.Answers) != 1 {
		t.Error("the answers to the freeze were forgotten with its fence")
	}
	u.store.mu.Lock()
	u.store.state.Epoch++
	u.store.mu.Unlock()
	if v := l.view(u.store.State()); len(v.Answers) != 0 {
		t.Errorf("answers of an older epoch: %+v", v.Answers)
	}
}

// TestAnswerOfAnIncarnationThatHasGoneIsDropped: it has forgotten what it said it had.
func TestAnswerOfAnIncarnationThatHasGoneIsDropped(t *testing.T) {
	u := newUnit(t)
	u.steady("db3")
	u.begin()
	l := leadsOver(u)
	l.result(u.orderTo(fsm.OrderFreeze, "db2"), orderReply{Answer: &fsm.Answer{Node: "db2", Epoch: 2, Incarnation: "one"}}, nil)
	seen := func(seq uint64, incarnation string) int {
		u.peers.received("db2", fsm.Observation{Node: "db2", Run: "r", Sequence: seq, Incarnation: incarnation})
		return len(l.view(u.store.State()).Answers)
	}
	if seen(1, "one") != 1 {
		t.Error("dropped while its incarnation lives")
	}
	if seen(2, "") != 1 {
		t.Error("dropped because its incarnation is not known at the moment")
	}
	if seen(3, "two") != 0 {
		t.Error("an answer counts whose incarnation has gone")
	}
	if seen(4, "one") != 0 {
		t.Error("it came back without being asked again")
	}
}

// TestOwnDataNeedsNoIncarnation: what a former primary holds is not in its relay log.
func TestOwnDataNeedsNoIncarnation(t *testing.T) {
	u := newUnit(t)
	u.steady("db3")
	u.begin()
	l := leadsOver(u)
	l.result(u.orderTo(fsm.OrderFreeze, "db3"), orderReply{Answer: &fsm.Answer{Node: "db3", Epoch: 2, Held: 1}}, nil)
	u.peers.received("db3", fsm.Observation{Node: "db3", Run: "r", Sequence: 1, Incarnation: "new"})
	if n := len(l.view(u.store.State()).Answers); n != 1 {
		t.Errorf("%d answers", n)
	}
}

func TestOrderIsSentOnceAtATime(t *testing.T) {
	u := newUnit(t)
	u.steady("db3")
	u.begin()
	l := leadsOver(u)
	calls, release := make(chan struct{}, 16), make(chan struct{})
	u.peer("db2", map[string]rpc.Handler{"order": func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		calls <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return orderReply{Answer: &fsm.Answer{Node: "db2", Epoch: 2}}, nil
	}})
	o := u.orderTo(fsm.OrderFreeze, "db2")
	ctx := u.short()
	for range 5 {
		l.send(ctx, o)
	}
	<-calls
	close(release)
	await(t, "it is answered", func() bool { return len(l.view(u.store.State()).Answers) == 1 })
	await(t, "and in flight no more", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.inFlight) == 0 })
	if len(calls) != 0 {
		t.Errorf("sent %d times more", len(calls))
	}
	l.send(ctx, o)
	<-calls // answered or not, the next turn may ask again
	await(t, "the last answer", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.inFlight) == 0 })
}

// hook is an external fence.
type hook struct {
	calls atomic.Int32
	err   error
}

func (h *hook) Fence(context.Context, fsm.NodeID) error {
	h.calls.Add(1)
	return h.err
}

func TestHookIsForHostsThatDoNotAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers bool
		err     error
		calls   int32
		kind    fsm.EvidenceKind
	}{
		{"hbd answers", true, nil, 0, fsm.EvidenceAgent},
		{"nobody answers, the hook succeeds", false, nil, 1, fsm.EvidenceHook},
		{"nobody answers, the hook fails", false, errors.New("no power switch"), 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUnit(t)
			u.steady("db2")
			u.begin()
			h := &hook{err: c.err}
			u.cfg.Fencer = h
			if c.answers {
				u.peer("db2", map[string]rpc.Handler{"order": func(context.Context, string, json.RawMessage) (any, error) {
					return orderReply{Evidence: &fsm.Evidence{Kind: fsm.EvidenceAgent, Node: "db2"}}, nil
				}})
			}
			reply, err := u.Node.order(u.short(), u.orderTo(fsm.OrderFence, "db2"))
			var kind fsm.EvidenceKind
			if reply.Evidence != nil {
				kind = reply.Evidence.Kind
			}
			if kind != c.kind || h.calls.Load() != c.calls || (err == nil) != (c.kind != "") {
				t.Errorf("evidence %q after %d calls of the hook, error %v", kind, h.calls.Load(), err)
			}
			// Nothing but a fence is ever given to the hook.
			if _, err := u.Node.order(u.short(), u.orderTo(fsm.OrderRelease, "db3")); err == nil || h.calls.Load() != c.calls {
				t.Errorf("a release: error %v, hook called %d times", err, h.calls.Load())
			}
		})
	}
}

// TestIncarnationCountsOnlyAfterItHasCaughtUp with what the primary had after the incarnation was first seen.
func TestIncarnationCountsOnlyAfterItHasCaughtUp(t *testing.T) {
	u := newUnit(t)
	u.steady("db3")
	l := leadsOver(u)
	h := u.w.hosts["db3"]
	h.change(func() { h.log = []txn{{server: 3, seq: 1}, {server: 3, seq: 2}, {server: 3, seq: 3}} })
	u.positions("db3", 1)
	seq := uint64(0)
	look := func(incarnation, received string) []fsm.SyncMember {
		seq++
		u.peers.received("db2", fsm.Observation{Node: "db2", Run: "r", Sequence: seq, Epoch: 1, Incarnation: incarnation, Standing: fsm.StandingReplica,
			Server: fsm.ServerStatus{State: fsm.ServerUp, Received: received}})
		st := u.store.State()
		v := fsm.Classify(st, l.view(st))
		l.followCatching(u.short(), st, v)
		return l.view(st).CaughtUp
	}
	target := func() string { l.mu.Lock(); defer l.mu.Unlock(); return l.catching["db2"].target }
	// It held everything when it was first seen, as far as anybody knew then: the primary is asked only now.
	if got := look("new", "0-3-3"); len(got) != 0 {
		t.Errorf("counts at first sight: %v", got)
	}
	await(t, "the primary was asked", func() bool { return target() == "0-3-3" })
	if got := look("new", "0-3-2"); len(got) != 0 {
		t.Errorf("counts behind the target: %v", got)
	}
	// Another incarnation begins from the start.
	h.change(func() { h.log = append(h.log, txn{server: 3, seq: 4}) })
	if got := look("newer", "0-3-3"); len(got) != 0 {
		t.Errorf("counts by what an earlier incarnation was asked: %v", got)
	}
	await(t, "the primary was asked again", func() bool { return target() == "0-3-4" })
	if got := look("newer", "0-3-3"); len(got) != 0 {
		t.Errorf("counts behind its own target: %v", got)
	}
	if got := look("newer", "0-3-4"); !slices.Equal(got, []fsm.SyncMember{{Node: "db2", Incarnation: "newer"}}) {
		t.Errorf("caught up: %v", got)
	}
	// What the log counts already is not followed.
	if look("inc-db2", "0-3-4"); target() != "" {
		t.Error("an incarnation that counts is followed")
	}
}

func TestHoldsKnowsWhatItCannotTell(t *testing.T) {
	for _, c := range []struct {
		position, other string
		want            bool
	}{
		{"0-1-5", "0-1-5", true},
		{"0-1-6", "0-1-5", true},
		{"0-1-4", "0-1-5", false},
		{"0-1-4", "", true},
		{"", "0-1-5", false},
		{"rubbish", "0-1-5", false},
		{"0-1-5", "rubbish", false},
	} {
		if got := fsm.Holds("mariadb", c.position, c.other); got != c.want {
			t.Errorf("%q holds %q: %t", c.position, c.other, got)
		}
	}
}

// TestProposalThatWasNeverMadeDoesNotStopGrants.
func TestProposalThatWasNeverMadeDoesNotStopGrants(t *testing.T) {
	u := office(t)
	u.takeOffice()
	gone, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	<-gone.Done()
	if err := leadsOver(u).commit(gone, u.store.State(), fsm.Command{Begin: &fsm.Begin{Kind: fsm.KindTakeover, Epoch: 1}}); err == nil {
		t.Fatal("committed without time")
	}
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "" {
		t.Errorf("grants have stopped: %s", r.Refusal)
	}
}

func TestProposalRefusedByRaftDoesNotStopGrants(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	l := leadsOver(u)
	if err := l.commit(u.short(), u.store.State(), fsm.Command{Begin: &fsm.Begin{Kind: fsm.KindTakeover, Epoch: 1}}); !errors.Is(err, raftnode.ErrNotLeader) {
		t.Fatal(err)
	}
	if u.grantor.ending != 0 {
		t.Error("grants have stopped")
	}
}

// TestIdlePrimaryIsTimedFromItsFirstReport: a leader begins to count when it first hears of it, and starts anew after every good word.
func TestIdlePrimaryIsTimedFromItsFirstReport(t *testing.T) {
	u := newUnit(t)
	u.steady("db2")
	l := leadsOver(u)
	seq := uint64(0)
	hear := func(serving uint64) fsm.Instant {
		seq++
		u.peers.received("db2", fsm.Observation{Node: "db2", Run: "r", Sequence: seq, Serving: serving, Server: fsm.ServerStatus{State: fsm.ServerUp}})
		return l.view(u.store.State()).NotServing
	}
	if got := l.view(u.store.State()).NotServing; got != 0 {
		t.Errorf("counted from %v before any report", got)
	}
	if got := hear(1); got != 0 {
		t.Errorf("counted from %v while it serves", got)
	}
	first := hear(0)
	if first == 0 || hear(0) != first {
		t.Errorf("counted from %v, then %v", first, l.idle)
	}
	if got := hear(1); got != 0 {
		t.Errorf("counted from %v although it serves again", got)
	}
	if got := hear(0); got <= first {
		t.Errorf("the second time counts from %v, the first from %v", got, first)
	}
	u.begin()
	if got := l.view(u.store.State()).NotServing; got != 0 {
		t.Errorf("counted from %v while an operation is running", got)
	}
}

// TestStrangersAreNotHeard: a node that lost its data is another instance.
func TestStrangersAreNotHeard(t *testing.T) {
	u := office(t)
	if err := u.authorize(rpc.Handshake{From: "db1", FromInstance: u.instance}); err != nil {
		t.Errorf("a member: %v", err)
	}
	for _, h := range []rpc.Handshake{{From: "db1", FromInstance: "wiped"}, {From: "db9", FromInstance: u.instance}, {}} {
		if err := u.authorize(h); err == nil {
			t.Errorf("%+v is heard", h)
		}
	}
	u.joined.Store(nil)
	if err := u.authorize(rpc.Handshake{From: "db1", FromInstance: u.instance}); !errors.Is(err, errNotMember) {
		t.Errorf("without a cluster: %v", err)
	}
}

// TestChainIsTried: a replica that is connected to the candidate counts as chained once it has received what the candidate had afterwards. What the
// candidate had before it may have received from the old primary.
func TestChainIsTried(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
	u.leaves("db3")
	u.chain()
	l := leadsOver(u)
	to, _ := u.store.State().Member("db2")
	seq := uint64(0)
	says := func(id fsm.NodeID, sv fsm.ServerStatus) {
		seq++
		sv.State = fsm.ServerUp
		u.peers.received(id, fsm.Observation{Node: id, Run: "r", Sequence: seq, Epoch: 1, Server: sv})
	}
	untried := func() bool {
		st := u.store.State()
		return l.tryChain(st, l.view(st)).Node("db3").Untried
	}
	third := fsm.ServerStatus{SourceHost: to.Address, SourcePort: to.MySQLPort, IORunning: true, SQLRunning: true, ReplicaSync: true, Received: "0-1-5"}
	says("db2", fsm.ServerStatus{Executed: "0-1-5"})
	says("db3", third)
	if !untried() {
		t.Error("tried by what the candidate had before")
	}
	says("db2", fsm.ServerStatus{Executed: "0-1-6"})
	if !untried() {
		t.Error("tried by what it has not received")
	}
	third.IOConnecting = true
	says("db3", third)
	untried()
	third.IOConnecting, third.Received = false, "0-1-6"
	says("db3", third)
	if !untried() {
		t.Error("connected anew it is tried by what it was asked before")
	}
	says("db2", fsm.ServerStatus{Executed: "0-1-6"})
	if untried() {
		t.Error("it has received what the candidate has, and is not tried")
	}
}
