package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// overtaken are orders that were right when they were decided and arrive, or arrive again, when the log has left them behind.
var overtaken = []struct {
	name    string
	serves  bool // and goes on serving
	prepare func(t *testing.T) (*unit, fsm.Order)
}{
	{"release replayed after the rollback", true, func(t *testing.T) (*unit, fsm.Order) {
		u := newUnit(t)
		u.steady("db1")
		u.serving()
		o := u.releasing("db2")
		u.apply(fsm.Command{Rollback: &fsm.Rollback{OpID: o.OpID, Epoch: o.Epoch, Reason: "test"}})
		return u, o
	}},
	{"release obeyed, rolled back, replayed", true, func(t *testing.T) (*unit, fsm.Order) {
		u := newUnit(t)
		u.steady("db1")
		u.serving()
		o := u.releasing("db2")
		if _, err := u.obey(u.short(), o); err != nil {
			t.Fatal(err)
		}
		u.apply(fsm.Command{Rollback: &fsm.Rollback{OpID: o.OpID, Epoch: o.Epoch, Reason: "test"}})
		u.serving()
		return u, o
	}},
	{"fence of the same epoch after the node won it by its own right", true, func(t *testing.T) (*unit, fsm.Order) {
		u := newUnit(t)
		u.steady("db1")
		u.serving()
		u.begin()
		o := u.order(fsm.OrderFence)
		st := u.store.State()
		u.apply(fsm.Command{Fence: &fsm.Fence{OpID: st.Op.ID, Epoch: st.Epoch, Evidence: fsm.Evidence{Kind: fsm.EvidenceLease, Node: "db1"}}})
		own := []fsm.Answer{{Node: "db1", Epoch: st.Epoch, Held: 1}}
		u.apply(fsm.Command{Promote: &fsm.Promote{OpID: st.Op.ID, Epoch: st.Epoch, To: "db1", Won: fsm.WonOwn, Answers: own, Acks: 1,
			Members: []fsm.SyncMember{{Node: "db2"}, {Node: "db3"}}}})
		u.serving()
		return u, o
	}},
	{"fence after the fence step", false, func(t *testing.T) (*unit, fsm.Order) {
		u := newUnit(t)
		u.steady("db1")
		u.serving()
		u.begin()
		o := u.order(fsm.OrderFence)
		u.fencedAndPromoted("db2")
		return u, o
	}},
	{"freeze after the new primary was settled", false, func(t *testing.T) (*unit, fsm.Order) {
		u := newUnitAs(t, "db2")
		u.steady("db1")
		u.follower("db1")
		u.begin()
		o := u.order(fsm.OrderFreeze)
		u.fencedAndPromoted("db3")
		u.settle()
		return u, o
	}},
	{"freeze of an older epoch", false, func(t *testing.T) (*unit, fsm.Order) {
		u := newUnitAs(t, "db2")
		u.steady("db1")
		u.follower("db1")
		u.begin()
		o := u.order(fsm.OrderFreeze)
		u.fencedAndPromoted("db3")
		u.begin()
		return u, o
	}},
}

func TestReleaseGivesEverythingUpBeforeItAnswers(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	o := u.releasing("db2")
	u.host.expect("Close", "Sever", "SetReadOnly", "Block", "SeverPeer", "Position")
	reply, err := u.obey(u.short(), o)
	if err != nil {
		t.Fatal(err)
	}
	if a := reply.Answer; a == nil || a.Node != "db1" || a.Epoch != 1 || a.Received != "0-1-2" {
		t.Errorf("answer %+v", a)
	}
	// The candidate's acknowledgements stay, the other replica's end before the position is read. Its clients are told beside that.
	u.wg.Wait()
	want := []string{"Close", "SetReadOnly", "Block", "SeverPeer", "Position"}
	made := u.host.made()
	cut := slices.Index(made, "Sever")
	if got := slices.DeleteFunc(slices.Clone(made), func(s string) bool { return s == "Sever" }); !slices.Equal(got, want) || cut < 1 || len(made) != len(want)+1 {
		t.Errorf("it did %v, want %v, and Sever somewhere after Close", made, want)
	}
	if !u.host.blocked[u.w.hosts["db3"].addr] || u.host.blocked[u.w.hosts["db2"].addr] {
		t.Errorf("blocked are %v", u.host.blocked)
	}
	if got := u.host.promised().ReleasedOp; got != o.OpID {
		t.Errorf("on disk it has released operation %d, want %d", got, o.OpID)
	}
	if u.holder.deadline(1) != 0 {
		t.Error("it kept its lease")
	}
}

func TestReleaseIsRefusedByWhoHoldsNothing(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	o := u.releasing("db2")
	u.host.expect()
	if _, err := u.obey(u.short(), o); err == nil || !strings.Contains(err.Error(), "does not hold epoch 1") {
		t.Errorf("error %v", err)
	}
}

// TestReleaseIsPromisedBeforeTheGateCloses: the disk is waited for while clients are still served, and a release that dies half-way is one.
func TestReleaseIsPromisedBeforeTheGateCloses(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	o := u.releasing("db2")
	k := u.host.holdCall("Close")
	result := make(chan error, 1)
	go func() {
		_, err := u.obey(u.short(), o)
		result <- err
	}()
	<-k.entered
	if p := u.host.promised(); p.ReleasedOp != o.OpID {
		t.Errorf("when its gate closes the disk says that operation %d is released, want %d", p.ReleasedOp, o.OpID)
	}
	close(k.released)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestFailedReleaseIsNoAnswer: only the log gives the role back, and it does by a rollback.
func TestFailedReleaseIsNoAnswer(t *testing.T) {
	for _, step := range []string{"SetReadOnly", "Block", "SeverPeer", "Position"} {
		t.Run(step, func(t *testing.T) {
			u := newUnit(t)
			u.steady("db1")
			u.serving()
			o := u.releasing("db2")
			u.host.fail(step, errors.New("no"))
			if _, err := u.obey(u.short(), o); err == nil {
				t.Error("it answered")
			}
			if u.holder.wanted() {
				t.Error("it asks for a lease although it may have released")
			}
			st := u.store.State()
			u.apply(fsm.Command{Rollback: &fsm.Rollback{OpID: st.Op.ID, Epoch: st.Epoch, Reason: "not released"}})
			if !u.holder.wanted() {
				t.Error("rolled back, it does not ask for its lease")
			}
		})
	}
}

func TestRepeatedOrdersAnswerAgain(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.begin()
	o := u.order(fsm.OrderFreeze)
	first, err := u.obey(u.short(), o)
	if err != nil {
		t.Fatal(err)
	}
	second, err := u.obey(u.short(), o)
	if err != nil {
		t.Fatal(err)
	}
	if *first.Answer != *second.Answer || first.Answer.Received != "0-1-2" || first.Answer.Incarnation == "" {
		t.Errorf("answers %+v and %+v", first.Answer, second.Answer)
	}
}

// TestFreezePromisesBeforeItStops: after a crash at any moment of it the promise stands.
func TestFreezePromisesBeforeItStops(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.begin()
	k := u.host.holdCall("Block")
	done := make(chan error, 1)
	go func() {
		_, err := u.obey(u.short(), u.order(fsm.OrderFreeze))
		done <- err
	}()
	<-k.entered
	if p := u.host.promised(); p.Frozen != 2 || p.HighestEpoch != 2 {
		t.Errorf("before it does anything the disk says %+v", p)
	}
	close(k.released)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, want := u.host.made(), []string{"Block", "Freeze", "SeverPeer"}; !slices.Equal(got, want) {
		t.Errorf("it did %v, want %v", got, want)
	}
}

// TestFrozenNodeFollowsNoOlderSource: Reconcile's own follow, decided before the freeze, is refused right before its effect.
func TestFrozenNodeFollowsNoOlderSource(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	old := u.action(fsm.ActFollow)
	late := u.order0(fsm.OrderFreeze)
	if _, err := u.obey(u.short(), late); err != nil {
		t.Fatal(err)
	}
	u.host.expect()
	if err := u.mayStill(old); !errors.Is(err, errOvertaken) {
		t.Errorf("the old follow is judged %v", err)
	}
	u.carryOut(u.short(), []fsm.Action{old})
	if got := u.host.made(); len(got) > 0 {
		t.Errorf("it did %v", got)
	}
}

// order0 is a freeze of an epoch that this node has not heard of yet: orders may be ahead of the log.
func (u *unit) order0(kind fsm.OrderKind) fsm.Order {
	st := u.store.State()
	return fsm.Order{Kind: kind, Node: u.cfg.Node, Epoch: st.Epoch + 1, Index: st.Index + 5, OpID: 9, From: st.Primary}
}

func TestOldPrimaryAnswersWithItsOwnData(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.begin()
	u.host.change(u.host.crash)
	u.host.expect("Close", "Sever")
	reply, err := u.obey(u.short(), u.order(fsm.OrderFreeze))
	if err != nil {
		t.Fatal(err)
	}
	if a := reply.Answer; a.Held != 1 || a.Epoch != 2 {
		t.Errorf("answer %+v", a)
	}
	if u.holder.deadline(1) != 0 || u.gateOpen() {
		t.Error("it may still serve")
	}
}

// TestQuarantinedNodeAnswersNoFreeze: what it has is in nobody's history.
func TestQuarantinedNodeAnswersNoFreeze(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.promise(func(p *Promises) { p.Quarantine = "errant transactions" })
	u.begin()
	u.host.expect()
	if reply, err := u.obey(u.short(), u.order(fsm.OrderFreeze)); err == nil || reply.Answer != nil {
		t.Errorf("answer %+v, error %v", reply.Answer, err)
	}
}

// TestDataStaysOwnUntilSomethingWasReceived: a node that was stopped in the middle of turning round may still say what it has as its own.
func TestDataStaysOwnUntilSomethingWasReceived(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *host)
		held   uint64
	}{
		{"nothing happened since", func(*host) {}, 1},
		{"it received something", func(h *host) { h.log = append(h.log, txn{server: 2, seq: 3, serial: nextSerial()}) }, 0},
		{"another run of mysqld", func(h *host) { h.run++ }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := returning(t, 2, 0)
			u.host.fail("FinishRewind", errors.New("no"))
			if err := u.comesBack(); err == nil {
				t.Fatal("it came back")
			}
			u.host.fail("FinishRewind", nil)
			u.begin()
			u.host.change(func() { c.change(u.host) })
			reply, err := u.obey(u.short(), u.order(fsm.OrderFreeze))
			if err != nil || reply.Answer.Held != c.held {
				t.Errorf("answer %+v, error %v", reply.Answer, err)
			}
		})
	}
}

func TestFenceNeedsAClosedGate(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.begin()
	u.host.fail("Close", errors.New("netlink: busy"))
	if reply, err := u.obey(u.short(), u.order(fsm.OrderFence)); err == nil || reply.Evidence != nil {
		t.Errorf("evidence %+v with an open gate, error %v", reply.Evidence, err)
	}
	u.host.fail("Close", nil)
	reply, err := u.obey(u.short(), u.order(fsm.OrderFence))
	if err != nil || reply.Evidence == nil || reply.Evidence.Kind != fsm.EvidenceAgent || reply.Evidence.Node != "db1" {
		t.Errorf("evidence %+v, error %v", reply.Evidence, err)
	}
	if _, valid := u.holder.valid(); valid {
		t.Error("it kept its lease")
	}
}

func TestOrdersOfOthersAndUnknownOnesAreRefused(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.begin()
	u.host.expect()
	o := u.order(fsm.OrderFence)
	o.Node = "db2"
	if _, err := u.obey(u.short(), o); err == nil {
		t.Error("an order for db2 was obeyed")
	}
	if _, err := u.obey(u.short(), u.order("sing")); err == nil {
		t.Error("an unknown order was obeyed")
	}
}

func TestAwaitPromisesNothing(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	o := u.releasing("db2")
	o.Kind, o.Position, o.Node = fsm.OrderAwait, "0-1-2", "db2"
	before := u.promises.get()
	if _, err := u.obey(u.short(), o); err != nil {
		t.Fatal(err)
	}
	if got := u.promises.get(); got != before {
		t.Errorf("promises %+v, before %+v", got, before)
	}
}

// TestOrderNeverCancelsAnOrder: a newer one waits until the older is done.
func TestOrderNeverCancelsAnOrder(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	first := u.order0(fsm.OrderFreeze)
	second := first
	second.Index++
	k := u.host.holdCall("Freeze")
	results := make(chan error, 2)
	obey := func(o fsm.Order) { _, err := u.obey(u.short(), o); results <- err }
	go obey(first)
	held := <-k.entered
	go obey(second)
	await(t, "the second order is accepted", func() bool { return u.promises.get().HighestIndex == second.Index })
	if held.Err() != nil {
		t.Errorf("the first order was cancelled: %v", context.Cause(held))
	}
	select {
	case <-k.entered:
		t.Error("both orders are carried out at the same time")
	default:
	}
	close(k.released)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestOrderOvertakenInTheQueueIsRefused: what was right on arrival may be wrong when its turn comes.
func TestOrderOvertakenInTheQueueIsRefused(t *testing.T) {
	if breakEpoch {
		t.Skip("the epoch protects nothing in this build")
	}
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	u.begin()
	o := u.order(fsm.OrderFreeze)
	u.exec.turn.Lock()
	result := make(chan error, 1)
	go func() { _, err := u.obey(u.short(), o); result <- err }()
	await(t, "the order is accepted", func() bool { return u.promises.get().HighestIndex == o.Index })
	u.fencedAndPromoted("db3")
	u.settle()
	u.host.expect()
	u.exec.turn.Unlock()
	if err := <-result; err == nil {
		t.Error("it was carried out")
	}
}
