package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// fetchAt makes db2 the candidate of a takeover from db1 that must first catch up from db3: a member of the set, frozen like it, which alone received the
// newest transaction and may not be promoted.
func fetchAt(t *testing.T) *unit {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	r := u.frozenBehindDB3()
	st := u.store.State()
	answers := []fsm.Answer{{Node: "db2", Epoch: st.Epoch, Incarnation: "inc-db2", Received: r.Received}, {Node: "db3", Epoch: st.Epoch, Incarnation: "inc-db3", Received: "0-1-3"}}
	u.apply(fsm.Command{Promote: &fsm.Promote{OpID: st.Op.ID, Epoch: st.Epoch, To: "db2", Won: fsm.WonCount, Answers: answers, Position: "0-1-3", Fetch: "db3",
		Members: []fsm.SyncMember{{Node: "db3", Incarnation: "inc-db3"}}, Acks: 1}})
	return u
}

// own tells whether the server is nobody's replica any more, or this node says that its data may be its own.
func (u *unit) own() bool {
	return !u.host.Server().HasReplication || u.host.count("StopReplication") > 0 || u.promises.get().Held == u.store.State().Epoch
}

// mustHaveFetched checks that the candidate holds all that it must, and that nothing of it was acknowledged to whom it came from.
func (u *unit) mustHaveFetched() {
	u.t.Helper()
	if place(u.host.log) != "0-1-3" || u.host.source.IsValid() {
		u.t.Errorf("it is at %s, a replica of %v, after %v", place(u.host.log), u.host.source, u.host.made())
	}
	if acked := u.w.hosts["db3"].ackedBy; len(acked) > 0 || u.host.count("Discard") > 0 {
		u.t.Errorf("acknowledged %v, did %v", acked, u.host.made())
	}
	await(u.t, "its data is its own", func() bool { return u.promises.get().Held == u.store.State().Epoch })
}

// TestCandidateCatchesUpFirst with what it must hold, and only then is it a source. Done again it fetches nothing.
func TestCandidateCatchesUpFirst(t *testing.T) {
	u := fetchAt(t)
	for range 2 {
		if err := u.execute(u.short(), u.action(fsm.ActStopFollow)); err != nil {
			t.Fatal(err)
		}
		u.mustHaveFetched()
	}
	if u.host.count("Follow") != 1 {
		t.Errorf("it did %v", u.host.made())
	}
}

// TestCandidateThatCannotCatchUp is no source, whatever keeps it from that, and stays what it was counted as: it tries again, and so may another
// operation. What it holds then it holds all of.
func TestCandidateThatCannotCatchUp(t *testing.T) {
	for _, k := range []struct {
		name        string
		refused     bool // it is told at once, and does not wait
		gone, again func(u *unit)
	}{
		{"its holder is out of reach", false, func(u *unit) { u.w.hosts["db3"].reachable = false }, func(u *unit) { u.w.hosts["db3"].reachable = true }},
		{"the mysqld of its holder is down", false, func(u *unit) { u.w.hosts["db3"].state = fsm.ServerDown }, func(u *unit) { u.w.hosts["db3"].state = fsm.ServerUp }},
		{"its holder has not applied it", false, func(u *unit) {
			db3 := u.w.hosts["db3"]
			db3.relay, db3.log, db3.sql, db3.stalled = slices.Clone(db3.log[2:]), slices.Clip(db3.log[:2]), true, true
		}, func(u *unit) { u.w.hosts["db3"].stalled = false }},
		{"it cannot apply it itself", false, func(u *unit) { u.host.stalled, u.host.applying = true, true }, func(u *unit) { u.host.stalled = false }},
		{"its holder refuses", true, func(u *unit) { u.host.fails["Follow"] = errors.New("access denied") }, func(u *unit) { delete(u.host.fails, "Follow") }},
	} {
		t.Run(k.name, func(t *testing.T) {
			u := fetchAt(t)
			before, _ := u.incarnation(u.host.Server(), u.promises.get())
			u.host.change(func() { k.gone(u) })
			for try := range 2 {
				ctx, cancel := context.WithCancel(u.short())
				done := make(chan error, 1)
				go func() { done <- u.execute(ctx, u.action(fsm.ActStopFollow)) }()
				if !k.refused {
					await(t, "it waits for its holder", func() bool { return u.host.count("Drain") > try })
					cancel()
				}
				if err := <-done; err == nil {
					t.Fatal("it went on without what it must hold")
				}
				cancel()
				if u.own() || place(u.host.log) != "0-1-2" || u.host.count("Follow") != try+1 || u.host.count("Freeze") != 1 { // that of the order
					t.Fatalf("it is at %s and its own after %v", place(u.host.log), u.host.made())
				}
			}
			if after, _ := u.incarnation(u.host.Server(), u.promises.get()); after != before {
				t.Errorf("counted as %q, it is %q after its tries", before, after)
			}
			u.host.change(func() { k.again(u) })
			if err := u.execute(u.short(), u.action(fsm.ActStopFollow)); err != nil {
				t.Fatal(err)
			}
			u.mustHaveFetched()
		})
	}
}

// TestCandidateWaitsForItsHolder that is frozen and still applies what it received: nothing but that is received there any more.
func TestCandidateWaitsForItsHolder(t *testing.T) {
	u := fetchAt(t)
	db3 := u.w.hosts["db3"]
	u.host.change(func() {
		db3.relay, db3.log, db3.sql, db3.stalled = slices.Clone(db3.log[2:]), slices.Clip(db3.log[:2]), true, true
		db3.source, db3.blocked[u.w.hosts["db1"].addr] = u.w.hosts["db1"].addr, true
	})
	done := make(chan error, 1)
	go func() { done <- u.execute(u.short(), u.action(fsm.ActStopFollow)) }()
	await(t, "it waits", func() bool { return u.host.count("Drain") == 1 })
	if u.own() {
		t.Errorf("it is its own after %v", u.host.made())
	}
	u.host.change(func() { db3.stalled = false })
	u.host.change(func() {}) // what is applied there is sent from there after that
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	u.mustHaveFetched()
}

// TestTakeoverCatchesUp: the primary's host dies when nobody but db3 has received what was just acknowledged, and db3 may never be primary. Its hbd answers the
// freeze; its mysqld is out of reach for longer than a candidate is waited for. The candidate keeps its epoch, because nobody else could be promoted,
// serves nobody, and serves all of it when db3 is back.
func TestTakeoverCatchesUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, func(s *fsm.Settings) { s.PromoteTimeout = 2 * time.Second })
	c.neverPromoted = []fsm.NodeID{"db3"}
	stop := c.w.clients(t)
	c.bootstrap()
	c.wrote()
	stop()
	db1, db2, db3 := c.node("db1"), c.node("db2"), c.node("db3")
	await(t, "everybody has everything", func() bool {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		return db1.host.last() == db2.host.last() && db1.host.last() == db3.host.last()
	})
	db1.crash()
	db1.host.change(func() {
		last := txn{server: db1.host.server, seq: uint64(len(db1.host.log) + 1), serial: nextSerial()}
		db1.host.log, db3.host.log = append(db1.host.log, last), append(db3.host.log, last)
		c.w.acked = append(c.w.acked, last)
		db1.host.crash()
		db1.host.reachable, db3.host.reachable = false, false
	})
	await(t, "db2 is to catch up from db3", func() bool {
		op := c.leader().store.State().Op
		return op != nil && op.Step == fsm.StepPromoted && op.To == "db2" && op.Fetch == "db3" && op.Extra == ""
	})
	await(t, "db2 has had its time", func() bool {
		l := c.leader().leading.Load()
		if l == nil {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.verdicts, func(v fsm.Verdict) bool { return v.Rule == "failover.unsettled" })
	})
	if st := c.leader().store.State(); st.Epoch != 2 || st.Primary != "db2" || db2.observation().Serving != 0 {
		t.Errorf("%q is primary of epoch %d, db2 serves %d", st.Primary, st.Epoch, db2.observation().Serving)
	}
	db3.host.change(func() { db3.host.reachable = true })
	if in := c.awaitIncident(db2, fsm.KindTakeover); in.To != "db2" || in.Outcome != fsm.OutcomeDone {
		t.Errorf("incident %+v", in)
	}
	db1.host.change(func() { db1.host.reachable = true })
	db1.start()
	c.healthy("db2")
	c.nothingLost()
}
