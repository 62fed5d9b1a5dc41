package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

func answersPing(obs fsm.Observation) map[string]rpc.Handler {
	return map[string]rpc.Handler{"ping": func(context.Context, string, json.RawMessage) (any, error) {
		return pingReply{Obs: obs}, nil
	}}
}

// positions answers for another host's server, which serves an epoch, or 0 while it does not.
func (u *unit) positions(id fsm.NodeID, serving uint64) {
	h := u.w.hosts[id]
	u.peer(id, map[string]rpc.Handler{"position": func(_ context.Context, _ string, body json.RawMessage) (any, error) {
		var in positionRequest
		if err := rpc.Decode(body, &in); err != nil {
			return nil, err
		}
		u.w.mu.Lock()
		defer u.w.mu.Unlock()
		return map[string]any{"position": place(h.log), "history": place(h.log), "contains": h.has(in.Position), "serving": serving, "barrier": serving}, nil
	}})
}

// returning is db1, which was primary of epoch 1, after db2 has taken over epoch 2 and gone on. extra transactions of db1 never left it.
func returning(t *testing.T, serving uint64, extra int) *unit {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.takenOver("db2")
	u.host.change(func() {
		h, src := u.host, u.w.hosts["db2"]
		h.gate, h.held, h.mode, h.acks, h.w.answers = 0, false, modeReadOnly, 0, nil
		src.log = append(slices.Clone(h.log), txn{server: 2, seq: 3, epoch: 2, serial: nextSerial()}, txn{server: 2, seq: 4, serial: nextSerial()})
		for i := range extra {
			h.log = append(h.log, txn{server: 1, seq: uint64(len(h.log) + 1), serial: nextSerial()})
			_ = i
		}
	})
	u.positions("db2", serving)
	return u
}

func (u *unit) comesBack() error {
	return u.comeBack(u.short(), u.action(fsm.ActReturn), u.store.State())
}

func TestContainedNodeFollows(t *testing.T) {
	u := returning(t, 2, 0)
	u.host.expect("Position", "FinishRewind", "Unblock", "Follow")
	if err := u.comesBack(); err != nil {
		t.Fatal(err)
	}
	if got, want := u.host.made(), []string{"Position", "FinishRewind", "Unblock", "Follow"}; !slices.Equal(got, want) {
		t.Errorf("it did %v, want %v", got, want)
	}
	if p := u.host.promised(); p.own() != 0 || p.Turned != 2 || p.Followed != 2 || p.Quarantine != "" {
		t.Errorf("promised %+v", p)
	}
	if got := place(u.host.log); got != "0-2-4" {
		t.Errorf("it is at %s", got)
	}
}

// TestNotContainedYetIsAskedAgain: before the new primary serves, its no may become a yes.
func TestNotContainedYetIsAskedAgain(t *testing.T) {
	u := returning(t, 0, 0)
	src := u.w.hosts["db2"]
	all := src.log
	u.host.change(func() { src.log = src.log[:1] })
	u.host.expect("Position")
	before := u.promises.get()
	if err := u.comesBack(); err == nil || !strings.Contains(err.Error(), "does not hold 0-1-2 yet") {
		t.Fatalf("error %v", err)
	}
	if p := u.promises.get(); p != before {
		t.Errorf("promised %+v, before %+v", p, before)
	}
	u.host.change(func() { src.log = all })
	u.host.expect("Position", "FinishRewind", "Unblock", "Follow")
	if err := u.comesBack(); err != nil {
		t.Errorf("asked again: %v", err)
	}
}

func TestRewindGoesStepByStep(t *testing.T) {
	u := returning(t, 2, 2)
	want := []string{"Position", "Kill", "PrepareRewind", "Start(rewind)", "Position", "FinishRewind", "Unblock", "Follow"}
	u.host.expect(want...)
	if err := u.comesBack(); err != nil {
		t.Fatal(err)
	}
	if got := u.host.made(); !slices.Equal(got, want) {
		t.Errorf("it did %v, want %v", got, want)
	}
	if got := place(u.host.log); got != "0-2-4" {
		t.Errorf("it is at %s", got)
	}
	if p := u.host.promised(); p.own() != 0 || p.Turned != 2 || p.Followed != 2 {
		t.Errorf("promised %+v", p)
	}
	if u.stats.rewinds != 1 {
		t.Errorf("%d rewinds counted", u.stats.rewinds)
	}
}

// TestTurnIsPromisedBeforeTheTailIsCut: after a crash half-way the node must not offer its data as its own. The fake itself looks at the disk when
// it starts with rewind; this is the control of that, and the case of a start that fails.
func TestTurnIsPromisedBeforeTheTailIsCut(t *testing.T) {
	u := returning(t, 2, 2)
	u.host.fail("Start(rewind)", errors.New("no"))
	if err := u.comesBack(); err == nil {
		t.Fatal("no error")
	}
	if p := u.host.promised(); p.own() != 0 || p.Followed != 0 || p.Quarantine != "" {
		t.Errorf("after a failed start it promised %+v", p)
	}
	if _, failed, _, _ := u.stats.progress(); failed != 0 {
		t.Error("the rewind's start is reported as a restart's")
	}
	// It goes on where it stopped.
	u.host.fail("Start(rewind)", nil)
	if err := u.comesBack(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeRewoundIsKept(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		kept  bool
		calls []string
	}{
		{"not rewindable", errors.Join(ErrNotRewindable, errors.New("DDL in the tail")), true, []string{"Position", "Kill", "PrepareRewind"}},
		{"another error", errors.New("disk full"), false, []string{"Position", "Kill", "PrepareRewind"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := returning(t, 2, 2)
			u.host.fail("PrepareRewind", c.err)
			u.host.expect(c.calls...)
			if err := u.comesBack(); err == nil {
				t.Fatal("no error")
			}
			p := u.host.promised()
			if kept := p.Quarantine != ""; kept != c.kept {
				t.Errorf("quarantine %q", p.Quarantine)
			}
			if p.Turned != 0 || p.Followed != 0 || p.own() != 1 {
				t.Errorf("promised %+v", p)
			}
			if n := len(u.host.log); n != 4 {
				t.Errorf("%d transactions are left of 4", n)
			}
		})
	}
}

func TestNothingIsRewoundAfterALossyEpoch(t *testing.T) {
	u := returning(t, 2, 2)
	u.store.mu.Lock()
	for i := range u.store.state.Epochs {
		u.store.state.Epochs[i].Lossy = u.store.state.Epochs[i].Epoch == 2
	}
	u.store.mu.Unlock()
	u.host.expect("Position")
	if err := u.comesBack(); err == nil || !strings.Contains(err.Error(), "quarantined") {
		t.Errorf("error %v", err)
	}
	if p := u.host.promised(); !strings.Contains(p.Quarantine, "may have been acknowledged") || p.own() != 1 {
		t.Errorf("promised %+v", p)
	}
}

func TestNothingIsRewoundBeforeAnybodyHasSettled(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.begin()
	u.fencedAndPromoted("db2")
	u.host.change(func() { u.host.gate = 0; u.host.crash() })
	u.positions("db2", 0)
	u.host.expect()
	if err := u.comesBack(); err == nil || !strings.Contains(err.Error(), "keeping them") {
		t.Errorf("error %v", err)
	}
	if p := u.promises.get(); p.own() != 1 || p.Quarantine != "" {
		t.Errorf("promised %+v", p)
	}
}

func TestTailThatWasCommittedAfterAllIsKept(t *testing.T) {
	u := returning(t, 2, 2)
	// Recovery does not cut what the engine had committed.
	k := u.host.holdCall("Start(rewind)")
	result := make(chan error, 1)
	go func() { result <- u.comesBack() }()
	<-k.entered
	u.host.change(func() { u.host.prepared = nil })
	u.w.report = func(string) {} // that nothing is prepared is this test's own doing
	close(k.released)
	if err := <-result; err == nil || !strings.Contains(err.Error(), "quarantined") {
		t.Errorf("error %v", err)
	}
	if p := u.host.promised(); !strings.Contains(p.Quarantine, "was committed before") || p.own() != 0 || p.Followed != 0 {
		t.Errorf("promised %+v", p)
	}
	if u.host.count("Follow") != 0 {
		t.Error("it follows all the same")
	}
}

// TestWaitingCommitsAreNotCompared: a position read beside waiting commits says nothing about them.
func TestWaitingCommitsAreNotCompared(t *testing.T) {
	u := returning(t, 2, 0)
	u.host.change(func() { u.host.acks = 1 })
	commitWaits(u)
	u.host.change(func() { u.host.mode = modeReadOnly })
	if err := u.comesBack(); err != nil {
		t.Fatal(err)
	}
	if got := u.host.made(); got[0] != "Kill" {
		t.Errorf("it did %v", got)
	}
}

// TestReplicaWithErrantTransactionsIsKeptOut: a node that was never primary is neither followed over nor rewound.
func TestReplicaWithErrantTransactionsIsKeptOut(t *testing.T) {
	for _, c := range []struct {
		name    string
		serving uint64
		kept    bool
	}{{"primary serves", 1, true}, {"primary does not serve yet", 0, false}} {
		t.Run(c.name, func(t *testing.T) {
			u := newUnitAs(t, "db3")
			u.steady("db2")
			u.host.change(func() { u.host.log = []txn{{server: 3, seq: 1, serial: nextSerial()}} })
			u.positions("db2", c.serving)
			u.host.expect("Position")
			err := u.follow(u.short(), u.action(fsm.ActFollow), u.store.State())
			if err == nil {
				t.Fatal("it follows")
			}
			if p := u.host.promised(); (p.Quarantine != "") != c.kept || p.Followed != 0 {
				t.Errorf("promised %+v, error %v", p, err)
			}
		})
	}
}

// TestReplicaWaitsForAPrimaryThatStillApplies: it turns to it only once that has applied everything that was received here.
func TestReplicaWaitsForAPrimaryThatStillApplies(t *testing.T) {
	u := newUnitAs(t, "db3")
	u.steady("db1")
	u.follower("db1")
	u.takenOver("db2")
	h, src := u.host, u.w.hosts["db2"]
	h.change(func() {
		all := slices.Clone(u.w.hosts["db1"].log)
		h.log, h.relay = all[:1], all[1:] // what is received and not applied counts as well
		src.log = all[:1]
		src.source, src.mode = netip.Addr{}, modeBarrier
	})
	asked := make(chan string, 1024)
	u.peer("db2", map[string]rpc.Handler{"position": func(_ context.Context, _ string, body json.RawMessage) (any, error) {
		var in positionRequest
		if err := rpc.Decode(body, &in); err != nil {
			return nil, err
		}
		asked <- in.Position
		u.w.mu.Lock()
		defer u.w.mu.Unlock()
		return map[string]any{"position": place(src.log), "contains": src.has(in.Position)}, nil
	}})
	h.expect("Freeze", "SeverPeer", "Unblock", "Follow")
	done := make(chan error, 1)
	go func() { done <- u.execute(u.short(), u.action(fsm.ActFollow)) }()
	for range 3 {
		if pos := <-asked; pos != "0-1-2" {
			t.Errorf("it asked for %q, what it received ends at 0-1-2", pos)
		}
	}
	if n := h.count("Follow"); n > 0 {
		t.Fatal("it follows a primary that is behind it")
	}
	h.change(func() { src.log = slices.Clone(u.w.hosts["db1"].log) })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, want := h.made(), []string{"Freeze", "SeverPeer", "Unblock", "Follow"}; !slices.Equal(got, want) {
		t.Errorf("it did %v, want %v", got, want)
	}
}

// TestReceivedBeyondThePrimaryIsErrant, applied or not: a replica that turns to a primary which will never have it would acknowledge as if it had.
func TestReceivedBeyondThePrimaryIsErrant(t *testing.T) {
	for _, server := range []string{"mariadb", "mysql"} {
		u := newUnitAs(t, "db3")
		u.server = server
		u.steady("db1")
		u.follower("db1")
		u.takenOver("db2")
		h := u.host
		h.change(func() {
			all := slices.Clone(u.w.hosts["db1"].log)
			u.w.hosts["db2"].log = all
			more := append(slices.Clone(all), txn{server: 1, seq: 3, serial: nextSerial()})
			u.w.hosts["db1"].log, h.log, h.relay = more, all[:1], slices.Clone(more[1:])
			h.stalled, h.applying = true, server == "mysql"
		})
		u.positions("db2", 2)
		if err := u.execute(u.short(), u.action(fsm.ActFollow)); err == nil || !strings.Contains(err.Error(), "received 0-1-3") {
			t.Errorf("%s: %v", server, err)
		}
		if p := u.host.promised(); p.Quarantine == "" || p.Cause != fsm.RebuildErrant || h.count("Follow") != 0 {
			t.Errorf("%s: promised %+v after %v", server, p, h.made())
		}
	}
}

// TestPrimaryThatWasKeptOutIsLetIn: what was the old primary for the freeze is chosen again, and is to catch up from this node before it serves. This
// node waits until it has: kept out, it would never.
func TestPrimaryThatWasKeptOutIsLetIn(t *testing.T) {
	u := newUnitAs(t, "db3")
	u.steady("db1")
	u.follower("db1")
	u.begin()
	u.fencedAndPromoted("db2")
	u.begin()
	if _, err := u.obey(u.short(), u.order(fsm.OrderFreeze)); err != nil {
		t.Fatal(err)
	}
	db2 := u.w.hosts["db2"]
	blocks := func() (is bool) {
		u.host.change(func() { is = u.host.blocked[db2.addr] })
		return is
	}
	if !blocks() {
		t.Fatal("the freeze did not keep the old primary out")
	}
	st := u.store.State()
	u.apply(fsm.Command{Fence: &fsm.Fence{OpID: st.Op.ID, Epoch: st.Epoch, Evidence: fsm.Evidence{Kind: fsm.EvidenceLease, Node: "db2"}}})
	answers := []fsm.Answer{{Node: "db2", Epoch: st.Epoch, Incarnation: "inc-db2", Received: "0-1-1"}, {Node: "db3", Epoch: st.Epoch, Incarnation: "inc-db3", Received: "0-1-2"}}
	u.apply(fsm.Command{Promote: &fsm.Promote{OpID: st.Op.ID, Epoch: st.Epoch, To: "db2", Won: fsm.WonCount, Answers: answers, Position: "0-1-2", Fetch: "db3",
		Members: []fsm.SyncMember{{Node: "db3", Incarnation: "inc-db3"}}, Acks: 1}})
	u.positions("db2", 0)
	u.host.change(func() { db2.log = slices.Clone(u.host.log[:1]) })
	ctx, cancel := context.WithTimeout(u.short(), time.Second)
	defer cancel()
	if err := u.follow(ctx, u.towards(), u.store.State()); err == nil || !strings.Contains(err.Error(), "yet (it is at 0-1-1)") {
		t.Errorf("error %v", err)
	}
	if p := u.host.promised(); blocks() || u.host.io || p.Followed >= 3 {
		t.Errorf("keeps it out %t, receives %t, promised %+v", blocks(), u.host.io, p)
	}
}
