package cluster

import (
	"errors"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// awaited is db2, the candidate of a change whose old primary has let go, and the order to hold its position.
func awaited(t *testing.T) (*unit, fsm.Order) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	o := u.releasing("db2")
	o.Kind, o.Position, o.Node = fsm.OrderAwait, "0-1-2", "db2"
	return u, o
}

// receives tells whether the receiver runs, and whether the old primary's traffic passes.
func (u *unit) receives() (runs, passes bool) {
	u.host.change(func() { runs, passes = u.host.io, !u.host.blocked[u.w.hosts["db1"].addr] })
	return runs, passes
}

// obeyed carries the order out, and what goes on after its answer.
func (u *unit) obeyed(o fsm.Order) {
	u.t.Helper()
	if _, err := u.obey(u.short(), o); err != nil {
		u.t.Fatal(err)
	}
	u.wg.Wait()
}

// TestCandidateStopsReceivingBeforeItIsNamed: taken back, the local table has it receive again.
func TestCandidateStopsReceivingBeforeItIsNamed(t *testing.T) {
	u, o := awaited(t)
	u.obeyed(o)
	if runs, passes := u.receives(); runs || passes {
		t.Fatalf("receiver runs %t, traffic passes %t", runs, passes)
	}
	u.cfg.Prober.Look(u.short())
	wants := func() fsm.Action {
		st := u.store.State()
		u.fresh.Store(true)
		actions := fsm.Reconcile(st, "db2", u.gather(st))
		return actions[len(actions)-1]
	}
	if a := wants(); a.Rule != "replica.candidate" || a.Kind != fsm.ActNone {
		t.Errorf("before the log has decided the table wants %+v", a)
	}
	u.rollBack()
	a := wants()
	if a.Kind != fsm.ActFollow {
		t.Fatalf("taken back, the table wants %+v", a)
	}
	if err := u.execute(u.short(), a); err != nil {
		t.Fatal(err)
	}
	if runs, passes := u.receives(); !runs || !passes {
		t.Errorf("after it: receiver runs %t, traffic passes %t", runs, passes)
	}
}

// TestLateEndOfReceivingTouchesNothing: the order's operation is over, or another of the same two nodes runs, or the old primary was not asked yet.
func TestLateEndOfReceivingTouchesNothing(t *testing.T) {
	for name, then := range map[string]func(u *unit){
		"taken back": func(u *unit) { u.rollBack() },
		"another": func(u *unit) {
			u.rollBack()
			u.releasing("db2")
		},
		"not released yet": func(u *unit) {
			u.rollBack()
			u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			u, o := awaited(t)
			then(u)
			u.endReceiving(o)
			if runs, passes := u.receives(); !runs || !passes {
				t.Errorf("receiver runs %t, traffic passes %t", runs, passes)
			}
		})
	}
}

// TestReceiverThatCannotBeStoppedIsLetOn: it must not wait at a source that is blocked.
func TestReceiverThatCannotBeStoppedIsLetOn(t *testing.T) {
	u, o := awaited(t)
	u.host.fail("EndReceiving", errors.New("STOP was refused"))
	u.obeyed(o)
	if runs, passes := u.receives(); !runs || !passes {
		t.Errorf("receiver runs %t, traffic passes %t", runs, passes)
	}
}

// TestUnblockedConnectionsAreCut: one side of each was answered by a reset, and the other would wait at it.
func TestUnblockedConnectionsAreCut(t *testing.T) {
	u, o := awaited(t)
	u.obeyed(o)
	before := u.host.count("SeverPeer")
	if err := u.execute(u.short(), u.action(fsm.ActUnblock)); err != nil {
		t.Fatal(err)
	}
	if _, passes := u.receives(); !passes || u.host.count("SeverPeer") != before+1 {
		t.Errorf("traffic passes %t, connections cut %d times, before %d", passes, u.host.count("SeverPeer"), before)
	}
}
