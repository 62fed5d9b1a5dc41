package cluster

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// inItsPause is db1 in the pause of a change to db2, under which db3 replicates already: it has let go.
func inItsPause(t *testing.T) *unit {
	u := released(t)
	op := u.store.State().Op
	u.apply(fsm.Command{Release: &fsm.Release{OpID: op.ID, Epoch: 1}})
	u.pauses.note(u.store.State())
	return u
}

// stillAtFirst tells whether it holds still when the pause has just begun, however long the disk took.
func (u *unit) stillAtFirst() bool {
	st := u.store.State()
	for {
		u.pauses.newest.Store(&pause{st.Op.ID, now()})
		still := u.holdsStill(st)
		if left := u.pauses.left(st); left > 0 {
			return still > 0
		}
	}
}

// TestOldPrimaryHoldsStill while clients wait and it is not needed, and no longer.
func TestOldPrimaryHoldsStill(t *testing.T) {
	u := inItsPause(t)
	if !u.stillAtFirst() {
		t.Error("having let go it goes on by itself")
	}
	u.promise(func(p *Promises) { p.ReleasedOp-- })
	if u.stillAtFirst() {
		t.Error("only asked to let go, it does nothing")
	}
	u.promise(func(p *Promises) { p.ReleasedOp++ })
	u.switchedOver()
	if !u.stillAtFirst() {
		t.Error("another replica acknowledges for the new primary, and it goes on by itself")
	}
	u.pauses.newest.Store(&pause{u.store.State().Op.ID, now() - stillFor})
	if left := u.holdsStill(u.store.State()); left != 0 {
		t.Errorf("long after the pause began it does nothing for %v more", left)
	}
}

// TestOldPrimaryIsNeeded: the barrier waits for its acknowledgement.
func TestOldPrimaryIsNeeded(t *testing.T) {
	u := inItsPause(t)
	u.switchedTo([]fsm.SyncMember{{Node: "db1"}})
	if u.stillAtFirst() {
		t.Error("nobody else acknowledges, and it does nothing")
	}
}

// TestPausesOfPlannedChanges are told from everything else.
func TestPausesOfPlannedChanges(t *testing.T) {
	at := func(id uint64, k fsm.Kind, step fsm.Step) fsm.State {
		return fsm.State{Op: &fsm.Operation{ID: id, Kind: k, Step: step}}
	}
	for _, c := range []struct {
		what  string
		noted fsm.State
		st    fsm.State
		want  bool
	}{
		{"the old primary lets go", at(1, fsm.KindSwitchover, fsm.StepReleasing), at(1, fsm.KindSwitchover, fsm.StepReleasing), true},
		{"the new one is named", at(1, fsm.KindSwitchover, fsm.StepReleasing), at(1, fsm.KindSwitchover, fsm.StepPromoted), true},
		{"a host is stopped", at(1, fsm.KindHandover, fsm.StepReleasing), at(1, fsm.KindHandover, fsm.StepReleasing), true},
		{"the next change, of which nothing was noted", at(1, fsm.KindSwitchover, fsm.StepReleasing), at(2, fsm.KindSwitchover, fsm.StepReleasing), false},
		{"it is over", at(1, fsm.KindSwitchover, fsm.StepReleasing), fsm.State{}, false},
		{"it is being prepared", at(1, fsm.KindSwitchover, fsm.StepChained), at(1, fsm.KindSwitchover, fsm.StepChained), false},
		{"a failover", at(1, fsm.KindFailover, fsm.StepPromoted), at(1, fsm.KindFailover, fsm.StepPromoted), false},
	} {
		var p pauses
		p.note(c.noted)
		if left := p.left(c.st); left > 0 != c.want || left > stillFor {
			t.Errorf("%s: %v left", c.what, left)
		}
	}
	var p pauses
	p.note(at(1, fsm.KindSwitchover, fsm.StepReleasing))
	began := p.newest.Load()
	p.note(at(1, fsm.KindSwitchover, fsm.StepPromoted))
	if p.newest.Load() != began {
		t.Error("a pause begins once")
	}
}

// pauseBegan has the running change's pause have begun at some time.
func (u *unit) pauseBegan(at fsm.Instant) { u.pauses.newest.Store(&pause{u.store.State().Op.ID, at}) }

// TestHoldingStillClosesTheGate: what only takes away at the gate is never put off, everything else is.
func TestHoldingStillClosesTheGate(t *testing.T) {
	u := inItsPause(t)
	u.switchedOver()
	u.host.change(func() { u.host.gate, u.host.mode = now()+time.Hour, modeWritable })
	u.cfg.Prober.Look(u.short())
	u.pauseBegan(now() + time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.followLoop(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	await(t, "the gate is closed", func() bool { return u.host.count("Close") > 0 })
	for range 5 {
		before := u.local.Load()
		wake(u.wake)
		await(t, "another turn", func() bool { return u.local.Load() != before })
	}
	if u.host.count("SetReadOnly") > 0 {
		t.Error("it fenced itself while it should hold still")
	}
	u.pauseBegan(now() - stillFor)
	wake(u.wake)
	await(t, "it fences itself after that", func() bool { return u.host.count("SetReadOnly") > 0 })
}

// TestNewsOfAPauseWait: a peer is not pinged for what happens in one, and is again after it.
func TestNewsOfAPauseWait(t *testing.T) {
	u := inItsPause(t)
	var pings atomic.Int32
	u.peer("db2", map[string]rpc.Handler{"ping": func(context.Context, string, json.RawMessage) (any, error) {
		pings.Add(1)
		return pingReply{Obs: fsm.Observation{Node: "db2", Run: "r", Sequence: uint64(pings.Load())}}, nil
	}})
	pe := u.peers.known["db2"]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.peers.watch(ctx, pe)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	await(t, "a first ping", func() bool { return pings.Load() > 0 })
	u.pauseBegan(now() + time.Hour)
	kick := func() {
		wake(pe.kick)
		await(t, "the kick is taken", func() bool { return len(pe.kick) == 0 })
	}
	kick()
	before := pings.Load()
	for range 5 {
		kick()
	}
	if got := pings.Load(); got != before {
		t.Errorf("%d pings in the pause", got-before)
	}
	u.pauseBegan(now() - stillFor)
	kick()
	await(t, "a ping after it", func() bool { return pings.Load() > before })
}
