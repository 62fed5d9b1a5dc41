package cluster

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// looks is a prober that tells how far the log was applied when it was asked to look last.
type looks struct {
	Prober
	u      *unit
	n      atomic.Int64
	newest atomic.Uint64
}

func (l *looks) Look(ctx context.Context) fsm.ServerStatus {
	l.newest.Store(l.u.store.State().Index)
	l.n.Add(1)
	return l.Prober.Look(ctx)
}

// silentUnit is db3, chained to the candidate of a planned change, whose server has been stopped from receiving and acknowledging.
func silentUnit(t *testing.T) (*unit, *looks) {
	t.Helper()
	u := chained(t)
	u.host.change(func() { u.host.io, u.host.ack = false, false })
	l := &looks{Prober: u.cfg.Prober, u: u}
	u.cfg.Prober = l
	return u, l
}

func (u *unit) off() uint64 {
	off, _, _ := u.sync.read()
	return off
}

// TestSilenceIsSaidOfEveryIndex: a planned change that ends has all that were chained say it anew, also who fetches a copy meanwhile, and it is said
// only after a look at mysqld that was taken when that index was applied.
func TestSilenceIsSaidOfEveryIndex(t *testing.T) {
	u, l := silentUnit(t)
	first := u.store.State().OutsideSince("db3")
	s := u.newSilence(u.short())
	s.begin()
	if u.off() != first {
		t.Fatalf("said of %d, outside since %d", u.off(), first)
	}
	u.rollBack()
	second := u.store.State().OutsideSince("db3")
	if second <= first {
		t.Fatalf("outside since %d after %d: this test is about nothing", second, first)
	}
	await(t, "it is said again", func() bool { return u.off() == second })
	if l.newest.Load() < second {
		t.Errorf("said of %d after a look at %d", second, l.newest.Load())
	}
	s.end()
	u.apply(fsm.Command{Switchover: &fsm.Switchover{Kind: fsm.KindSwitchover, Epoch: 1, From: "db1", To: "db2", Cause: "test"}})
	u.chain()
	u.rollBack()
	if third := u.store.State().OutsideSince("db3"); third <= second || u.off() != second {
		t.Errorf("after its end it is said of %d, outside since %d", u.off(), third)
	}
}

// TestSilenceIsTrueWhenItIsSaid: of a server that acknowledges, receives or gives no answer it is not said, and said as soon as it is true.
func TestSilenceIsTrueWhenItIsSaid(t *testing.T) {
	for name, x := range map[string]func(h *host){
		"acknowledges": func(h *host) { h.ack = true },
		"receives":     func(h *host) { h.io = true },
		"hangs":        func(h *host) { h.state = fsm.ServerHung },
	} {
		t.Run(name, func(t *testing.T) {
			u, l := silentUnit(t)
			first := u.store.State().OutsideSince("db3")
			s := u.newSilence(u.short())
			defer s.end()
			s.begin()
			u.host.change(func() { x(u.host) })
			u.rollBack()
			looked := l.n.Load()
			await(t, "it has looked again", func() bool { return l.n.Load() > looked+1 })
			if u.off() != first {
				t.Errorf("said of %d, and it %s", u.off(), name)
			}
			u.host.change(func() { u.host.io, u.host.ack, u.host.state = false, false, fsm.ServerUp })
			await(t, "it is said once it is true", func() bool { return u.off() == u.store.State().OutsideSince("db3") })
		})
	}
	u, _ := silentUnit(t)
	u.host.change(func() { u.host.crash() })
	s := u.newSilence(u.short())
	defer s.end()
	s.begin()
	if u.off() != u.store.State().OutsideSince("db3") {
		t.Error("a server that is down acknowledges nothing")
	}
}
