package cluster

import (
	"errors"
	"slices"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// frozenBehindDB3 freezes this node, a replica of db1, in a takeover from db1, which is fenced: db3 alone has received the newest transaction.
func (u *unit) frozenBehindDB3() *fsm.Answer {
	u.t.Helper()
	u.follower("db1")
	u.host.change(func() {
		db1, db3 := u.w.hosts["db1"], u.w.hosts["db3"]
		u.host.log = slices.Clone(db1.log)
		db3.log = append(slices.Clone(db1.log), txn{server: db1.server, seq: 3, serial: nextSerial()})
	})
	u.begin()
	r, err := u.obey(u.short(), u.order(fsm.OrderFreeze))
	if err != nil {
		u.t.Fatal(err)
	}
	st := u.store.State()
	u.apply(fsm.Command{Fence: &fsm.Fence{OpID: st.Op.ID, Epoch: st.Epoch, Evidence: fsm.Evidence{Kind: fsm.EvidenceLease, Node: "db1"}}})
	return r.Answer
}

// extraAt makes db2 the candidate of a takeover from db1 that may take over one transaction more from db3, outside the sync set and frozen like it.
func extraAt(t *testing.T) *unit {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.leaves("db3")
	r := u.frozenBehindDB3()
	if r.Source != "1" {
		t.Errorf("db2 received from db1, whose server_id is 1, and says %q", r.Source)
	}
	st := u.store.State()
	answers := []fsm.Answer{{Node: "db2", Epoch: st.Epoch, Incarnation: "inc-db2", Received: "0-1-2"}, {Node: "db3", Epoch: st.Epoch, Incarnation: "inc-db3", Received: "0-1-3", Source: "1"}}
	u.apply(fsm.Command{Promote: &fsm.Promote{OpID: st.Op.ID, Epoch: st.Epoch, To: "db2", Won: fsm.WonCount, Answers: answers, Position: "0-1-2", Fetch: "db3", Extra: "0-1-3",
		Members: []fsm.SyncMember{{Node: "db3", Incarnation: "inc-db3"}}, Acks: 1}})
	return u
}

// TestCandidateTakesOverTheExtra before it becomes a source: what db3 alone received would be errant there otherwise.
func TestCandidateTakesOverTheExtra(t *testing.T) {
	u := extraAt(t)
	if err := u.execute(u.short(), u.action(fsm.ActStopFollow)); err != nil {
		t.Fatal(err)
	}
	if place(u.host.log) != "0-1-3" || u.host.source.IsValid() || u.host.count("Follow") != 1 {
		t.Errorf("it is at %s after %v", place(u.host.log), u.host.made())
	}
}

// TestExtraIsNotNeeded: whoever holds it may be gone. The candidate goes on with what it has, and a replica of nobody it is not left.
func TestExtraIsNotNeeded(t *testing.T) {
	for _, k := range []struct {
		name string
		gone func(u *unit)
	}{
		{"its holder is out of reach", func(u *unit) { u.host.change(func() { u.w.hosts["db3"].reachable = false }) }},
		{"it cannot be applied", func(u *unit) { u.host.change(func() { u.host.stalled = true }) }},
		{"its holder refuses", func(u *unit) { u.host.fail("Follow", errors.New("access denied")) }},
	} {
		u := extraAt(t)
		k.gone(u)
		if err := u.execute(u.short(), u.action(fsm.ActStopFollow)); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		if place(u.host.log) != "0-1-2" || u.host.source.IsValid() || u.host.count("Discard") != 1 {
			t.Errorf("%s: it is at %s after %v", k.name, place(u.host.log), u.host.made())
		}
		await(t, "its data is its own", func() bool { return u.promises.get().Held == u.store.State().Epoch })
	}
}

// TestExtraIsDroppedAloneWhileItApplies: a server that asks for the extra while it still applies what it must hold drops the first and not the second.
func TestExtraIsDroppedAloneWhileItApplies(t *testing.T) {
	u := extraAt(t)
	u.host.change(func() {
		u.host.relay, u.host.log = slices.Clone(u.host.log[1:]), slices.Clone(u.host.log[:1])
		u.host.stalled, u.host.applying = true, true
	})
	done := make(chan error, 1)
	go func() { done <- u.execute(u.short(), u.action(fsm.ActStopFollow)) }()
	await(t, "it waits for what it must hold", func() bool { return u.host.count("Drain") == 2 })
	u.host.change(func() {
		if received := place(slices.Concat(u.host.log, u.host.relay)); received != "0-1-3" {
			t.Errorf("it has received up to %s, and not the extra", received)
		}
		u.host.log, u.host.relay = slices.Concat(u.host.log, u.host.relay[:1]), u.host.relay[1:]
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if place(u.host.log) != "0-1-2" || len(u.host.relay) != 0 || u.host.count("Discard") != 1 {
		t.Errorf("it is at %s with %d received after %v", place(u.host.log), len(u.host.relay), u.host.made())
	}
}

// TestExtraWithoutComparisonHasNoName: who did not receive from the old primary vouches for nothing, nor who has it for its source from an earlier
// epoch: what came then may be of a branch that was cut since.
func TestExtraWithoutComparisonHasNoName(t *testing.T) {
	for _, k := range []struct {
		source   fsm.NodeID
		followed uint64
		want     string
	}{{"db1", 1, "1"}, {"db3", 1, ""}, {"db1", 0, ""}} {
		u := newUnitAs(t, "db2")
		u.steady("db1")
		u.follower(k.source)
		u.promise(func(p *Promises) { p.Followed = k.followed })
		u.begin()
		r, err := u.obey(u.short(), u.order(fsm.OrderFreeze))
		if err != nil || r.Answer.Source != k.want {
			t.Errorf("%+v: %+v, %v", k, r.Answer, err)
		}
	}
}
