package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// nudged is a primary whose nudge has not reached its server yet: it is still waiting for a connection.
func nudged(t *testing.T) (*unit, context.Context) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	k := u.host.holdCall("Nudge")
	u.carryOut(u.short(), []fsm.Action{u.action(fsm.ActNudge)})
	ctx := <-k.entered
	if ctx.Err() != nil {
		t.Fatal("the nudge ended with the action that began it")
	}
	// Whoever comes later finds the way free.
	u.host.change(func() { delete(u.host.holds, "Nudge") })
	return u, ctx
}

// TestNudgeEndsBeforeTheRoleIsGivenUp: one that were written after it would be an errant transaction.
func TestNudgeEndsBeforeTheRoleIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name string
		by   string // the call before which it must have ended
		take func(u *unit) error
	}{
		{"release", "SetReadOnly", func(u *unit) error {
			_, err := u.obey(u.short(), u.releasing("db2"))
			return err
		}},
		{"fence", "SetReadOnly", func(u *unit) error {
			u.begin()
			_, err := u.obey(u.short(), u.order(fsm.OrderFence))
			return err
		}},
		{"return", "Position", func(u *unit) error {
			u.begin()
			u.host.change(func() { u.host.mode, u.host.gate = modeReadOnly, 0 })
			u.fencedAndPromoted("db2")
			u.settle()
			u.positions("db2", 2)
			return u.comesBack()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, nudge := nudged(t)
			k := u.host.holdCall(c.by)
			result := make(chan error, 1)
			go func() { result <- c.take(u) }()
			<-k.entered
			if nudge.Err() == nil {
				t.Errorf("a nudge may still be sent when %s is asked for", c.by)
			}
			close(k.released)
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFewNudgesWaitAtOnce: each keeps a connection of the server.
func TestFewNudgesWaitAtOnce(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	k := u.host.holdCall("Nudge")
	for range 3 {
		u.nudge()
	}
	<-k.entered
	if n := u.host.count("Nudge"); n != 1 {
		t.Errorf("%d nudges at once", n)
	}
	for range 3 * maxNudges {
		u.nudges.mu.Lock()
		u.nudges.last -= time.Hour // the pause is over
		u.nudges.mu.Unlock()
		u.nudge()
	}
	await(t, "all that may wait do", func() bool { return u.host.count("Nudge") == maxNudges })
	if u.nudges.waiting != maxNudges {
		t.Errorf("%d wait, at most %d may", u.nudges.waiting, maxNudges)
	}
	close(k.released)
	await(t, "they are acknowledged", func() bool {
		u.host.change(func() { u.host.ackedBy["db2"] = 99 })
		u.nudges.mu.Lock()
		defer u.nudges.mu.Unlock()
		return u.nudges.waiting == 0
	})
	if err := u.endNudges(u.short()); err != nil {
		t.Error(err)
	}
	u.nudge()
	await(t, "after them one may begin again", func() bool { return u.host.count("Nudge") == maxNudges+1 })
}
