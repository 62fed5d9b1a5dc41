package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// rule is what the local table says on a node at this moment.
func (m *member) rule() string {
	if t := m.local.Load(); t != nil {
		return t.rule
	}
	return ""
}

// TestCloneThatFailsIsReportedAndMadeAgain: what was begun and fails is tried as often as any copy, the log hears why it failed, the node stays out and
// still, also when its hbd is restarted, and the next order goes on with what is there.
func TestCloneThatFailsIsReportedAndMadeAgain(t *testing.T) {
	c, _ := errantCluster(t, func(s *fsm.Settings) { s.Rebuild = fsm.RebuildManual })
	d, m := c.disks["db4"], c.node("db4")
	broken := errors.New("Error 3862: Clone Donor Error: 1045 : Access denied")
	d.mu.Lock()
	d.clones = true
	for range 2 * copyTries {
		d.fails["Place"] = append(d.fails["Place"], broken)
	}
	d.mu.Unlock()
	c.order(t, api.RebuildRequest{Node: "db4", Actor: "ann"})
	var end fsm.RebuildEnd
	await(t, "the log says that the rebuild has failed", func() bool {
		var ended bool
		end, ended = c.leader().store.State().RebuildEndOf("db4")
		return ended
	})
	if end.Outcome != fsm.OutcomeFailed || !strings.Contains(end.Reason, broken.Error()) || !strings.Contains(end.Reason, fmt.Sprint(copyTries, " tries")) {
		t.Errorf("ended %+v", end)
	}
	still := func() {
		t.Helper()
		await(t, "db4 waits for an order", func() bool { return m.rule() == "rebuild.waits" && !m.rebuilds.copy().Running })
		if n := count(d.did(), "Place"); n != copyTries {
			t.Errorf("tried %d times, %d are enough", n, copyTries)
		}
		need := m.observation().Rebuild
		if need.Cause != fsm.RebuildHalf || !strings.Contains(need.Reason, "never became whole") || !strings.Contains(need.Reason, broken.Error()) {
			t.Errorf("it says of itself %+v", need)
		}
	}
	still()
	m.crash()
	m.start()
	await(t, "db4 is back", func() bool { return m.fresh.Load() })
	still()
	if _, err := m.onRejoin(t.Context(), "db1", rejoinRequest{"ann"}); err == nil {
		t.Error("half a copy is let in as it is")
	}
	d.mu.Lock()
	d.fails["Place"] = nil
	d.mu.Unlock()
	c.order(t, api.RebuildRequest{Node: "db4", Actor: "ann"})
	c.rebuilt(t, "db4")
	if n := count(d.did(), "SaveErrant"); n != 2 { // found errant, and before the first byte went
		t.Errorf("%d times what only it had was looked for", n)
	}
	c.nothingLost()
}

// orderedUnit is db3 of three, of which db1 is to give a copy.
func orderedUnit(t *testing.T) (*unit, fsm.Rebuilding) {
	t.Helper()
	u := newUnitAs(t, "db3")
	u.steady("db1")
	u.leaves("db3")
	u.orders(0)
	order, _ := u.store.State().RebuildOf("db3")
	return u, order
}

// orders commits a rebuild of this node from db1, in the place of the one that was ordered at an index.
func (u *unit) orders(instead uint64) {
	u.t.Helper()
	u.apply(fsm.Command{Rebuild: &fsm.Rebuild{Node: u.cfg.Node, Donor: "db1", Epoch: 1, Replaces: instead, Cause: fsm.RebuildAsked}})
}

// TestOnlyFailuresCount: who gave way has not failed, and who failed because its donor was lost gave way.
func TestOnlyFailuresCount(t *testing.T) {
	u, order := orderedUnit(t)
	r := u.rebuilds
	if err := r.attempt(order.Index); err != nil {
		t.Fatal(err)
	}
	for _, way := range []error{errPreempted, errOtherDonor, errOvertaken, context.Canceled, fmt.Errorf("%w: %w", errKept, fsm.ErrRefused)} {
		r.failed(order, errors.Join(errBroken, way))
	}
	if r.tries != 0 {
		t.Fatalf("%d tries counted of none that failed", r.tries)
	}
	u.orders(order.Turn) // another turn: the donor of this one was lost
	r.failed(order, errBroken)
	if r.tries != 0 {
		t.Fatalf("the loss of a donor counts as %d tries", r.tries)
	}
	order, _ = u.store.State().RebuildOf("db3")
	for range copyTries {
		if err := r.attempt(order.Index); err != nil {
			t.Fatalf("after %d tries: %v", r.tries, err)
		}
		r.failed(order, errBroken)
	}
	for range 2 { // until the log has heard of it
		if err := r.attempt(order.Index); !errors.Is(err, errBroken) {
			t.Fatalf("after %d tries: %v", r.tries, err)
		}
	}
	if err := r.attempt(order.Index + 1); err != nil {
		t.Errorf("another rebuild: %v", err)
	}
}

// TestRestEndsWithItsReason: a pause lasts no longer than what it is for.
func TestRestEndsWithItsReason(t *testing.T) {
	nothing := func(*unit, fsm.Rebuilding) {}
	for name, x := range map[string]struct {
		pause       time.Duration
		err         error
		before, end func(u *unit, order fsm.Rebuilding)
	}{
		"it has gone by":         {0, errBroken, nothing, nothing},
		"only an order came":     {time.Hour, errPreempted, nothing, nothing},
		"another donor":          {time.Hour, errBroken, nothing, func(u *unit, order fsm.Rebuilding) { u.orders(order.Turn) }},
		"it is not ordered":      {time.Hour, errBroken, nothing, func(u *unit, order fsm.Rebuilding) { u.endsRebuild(order) }},
		"the data may go by now": {time.Hour, errKept, func(u *unit, _ fsm.Rebuilding) { u.begin() }, func(u *unit, _ fsm.Rebuilding) { u.fencedAndPromoted("db2"); u.settle() }},
	} {
		t.Run(name, func(t *testing.T) {
			u, order := orderedUnit(t)
			u.rebuilds.pause = x.pause
			x.before(u, order)
			changed := u.store.watch()
			defer u.store.unwatch(changed)
			ctx, over := u.short(), make(chan struct{})
			go func() {
				defer close(over)
				u.rebuilds.rest(ctx, order, x.err, changed)
			}()
			x.end(u, order)
			<-over
			if ctx.Err() != nil {
				t.Error("the pause went on without its reason")
			}
		})
	}
}

func (u *unit) endsRebuild(order fsm.Rebuilding) {
	u.t.Helper()
	u.apply(fsm.Command{Rebuilt: &fsm.Rebuilt{Node: order.Node, Index: order.Index, Outcome: fsm.OutcomeFailed}})
}

// TestDonorWaitsForTheOrder: whoever is to be rebuilt may have applied the order before its donor has.
func TestDonorWaitsForTheOrder(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.leaves("db3")
	next := u.store.State().Index + 1
	over := make(chan error, 1)
	go func() {
		u.donations.applied(u.short(), next)
		over <- u.donations.allowed("db3", next)
	}()
	u.apply(fsm.Command{Rebuild: &fsm.Rebuild{Node: "db3", Donor: "db1", Epoch: 1, Cause: fsm.RebuildAsked}})
	if err := <-over; err == nil || !strings.Contains(err.Error(), "cannot be copied from") { // it has no disk: the log was not what kept it
		t.Errorf("error %v", err)
	}
}

// TestReplacedDonorIsNotForgotten: as long as the copy could not be ended, because nobody knows yet how far it is, that is tried again.
func TestReplacedDonorIsNotForgotten(t *testing.T) {
	u, order := orderedUnit(t)
	u.rebuilds.pause = 4 * time.Millisecond
	order.Turn-- // the order that is carried out; the log has a newer one
	asked := 0
	u.rebuilds.whileOrdered(u.short(), order, func(cause error) bool {
		if !errors.Is(cause, errOtherDonor) {
			t.Errorf("because of %v", cause)
		}
		asked++
		return asked == 3
	})
	if asked != 3 {
		t.Errorf("asked %d times, want 3", asked)
	}
}
