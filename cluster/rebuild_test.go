package cluster

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// noSource is the source of a server that is no replica.
var noSource netip.Addr

// errantCluster is four nodes with clients, of which db4 has executed something of its own, was found, and has left the sync set.
func errantCluster(t *testing.T, adjust func(*fsm.Settings)) (*testCluster, txn) {
	t.Helper()
	c := newCluster(t, 4, adjust)
	c.withDisks()
	c.bootstrap()
	c.w.clients(t)
	c.wrote()
	x := c.errantOn("db4")
	await(t, "db4 is found errant", func() bool { return c.node("db4").observation().Standing == fsm.StandingQuarantined })
	p := c.node("db4").promises.get()
	if p.Cause != fsm.RebuildErrant || !strings.Contains(p.Quarantine, x.String()) || !strings.Contains(p.Quarantine, "errant.binlog") {
		t.Fatalf("quarantined with %q: %s", p.Cause, p.Quarantine)
	}
	return c, x
}

// TestErrantReplicaIsFoundKeptAndRebuilt: written on a replica, seen within seconds, kept in a file, the node kept out, and back on a copy.
func TestErrantReplicaIsFoundKeptAndRebuilt(t *testing.T) {
	c, x := errantCluster(t, nil)
	c.rebuilt(t, "db4")
	if got := c.disks["db4"].did(); !slices.Equal(slices.Compact(got), []string{"SaveErrant", "Receive", "SaveErrant", "Place", "Adopt", "Finish"}) {
		t.Errorf("steps %v", got)
	}
	if saved := c.disks["db4"].kept(); !slices.Contains(saved, x.String()) {
		t.Errorf("kept are %v", saved)
	}
	if c.disks["db1"].gave() > 0 {
		t.Error("the primary was copied from although a replica could be")
	}
	end, _ := c.leader().store.State().RebuildEndOf("db4")
	if end.Outcome != fsm.OutcomeDone {
		t.Errorf("the rebuild ended %+v", end)
	}
	c.nothingLost()
}

// TestRebuildGoesOnAfterEachFailure: every step fails once, and hbd itself goes away in the middle.
func TestRebuildGoesOnAfterEachFailure(t *testing.T) { goesOnAfterEachFailure(t, false) }

// TestCloneGoesOnAfterEachFailure is the same of a server that fetches the copy by itself.
func TestCloneGoesOnAfterEachFailure(t *testing.T) { goesOnAfterEachFailure(t, true) }

func goesOnAfterEachFailure(t *testing.T, clones bool) {
	c, _ := errantCluster(t, func(s *fsm.Settings) { s.Rebuild = fsm.RebuildManual })
	d := c.disks["db4"]
	broken := errors.New("made so by the test")
	d.mu.Lock()
	d.clones = clones
	for _, step := range []string{"Receive", "SaveErrant", "Place", "Adopt", "Finish"} {
		d.fails[step] = []error{broken}
	}
	d.mu.Unlock()
	c.order(t, api.RebuildRequest{Node: "db4", Actor: "ann"})
	await(t, "the copy is half in its place", func() bool { s, _ := d.Stage(); return s.Copy == fsm.CopyPlacing || s.Copy == fsm.CopyHalf })
	c.node("db4").crash()
	c.node("db4").start()
	// Its state is that of the log, which has never heard of the shrink that this test made up.
	await(t, "db4 is back", func() bool { return c.node("db4").fresh.Load() })
	c.rebuilt(t, "db4")
	c.nothingLost()
	if n := count(d.did(), "Receive"); n != 2 {
		t.Errorf("asked for a copy %d times, and one time failed: it did not go on where it was", n)
	}
}

func count(steps []string, step string) (n int) {
	for _, s := range steps {
		if s == step {
			n++
		}
	}
	return n
}

// order asks the leader for a rebuild, once the node has left the sync set: of a member it is refused.
func (c *testCluster) order(t *testing.T, req api.RebuildRequest) {
	t.Helper()
	await(t, req.Node+" has left the sync set", func() bool {
		_, in := c.leader().store.State().Sync.Member(fsm.NodeID(req.Node))
		return !in
	})
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	r, err := c.leader().Rebuild(ctx, req)
	if err != nil || r.Outcome != api.OutcomeDone {
		t.Fatalf("%+v %v", r, err)
	}
}

// TestRebuildSurvivesTheLossOfItsDonor: another one goes on, by the right that was given.
func TestRebuildSurvivesTheLossOfItsDonor(t *testing.T) {
	c, _ := errantCluster(t, nil)
	held := make(chan struct{})
	for _, id := range []fsm.NodeID{"db2", "db3"} {
		d := c.disks[id]
		d.mu.Lock()
		d.gate = held
		d.mu.Unlock()
	}
	donor := func() fsm.NodeID {
		r, _ := c.leader().store.State().RebuildOf("db4")
		return r.Donor
	}
	await(t, "a copy is given", func() bool { d := donor(); return d != "" && c.disks[d].gave() > 0 })
	first := donor()
	other := map[fsm.NodeID]fsm.NodeID{"db2": "db3", "db3": "db2"}[first]
	c.ledBy(other)
	lost := c.node(first)
	lost.host.change(func() { lost.host.reachable = false })
	lost.crash()
	await(t, "another donor", func() bool { return donor() != first && donor() != "" })
	close(held)
	c.rebuilt(t, "db4")
}

// TestRebuildIsRefusedByName: the rules that keep data are told to whoever asks.
func TestRebuildIsRefusedByName(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.withDisks()
	c.bootstrap()
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	l := c.leader()
	for rule, req := range map[string]api.RebuildRequest{
		"rebuild.primary":  {Node: "db1", Confirmed: true},
		"rebuild.sync-set": {Node: "db3", Confirmed: true},
	} {
		if r, err := l.Rebuild(ctx, req); err != nil || r.Outcome != api.OutcomeRefused || r.Rule != rule {
			t.Errorf("%s: %+v %v", rule, r, err)
		}
	}
	if _, err := l.Rebuild(ctx, api.RebuildRequest{Node: "db9"}); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("a node nobody knows: %v", err)
	}
	r, err := l.Rebuild(ctx, api.RebuildRequest{Node: "db3", Plan: true})
	if err != nil || r.Plan == nil || len(r.Plan.Gates) == 0 {
		t.Errorf("plan: %+v %v", r, err)
	}
	if r, err := l.Rejoin(ctx, api.RejoinRequest{Node: "db3"}); err != nil || r.Rule != "rejoin.not-quarantined" {
		t.Errorf("rejoin of a good node: %+v %v", r, err)
	}
}

// TestRejoinTriesAgain: lifted by a person, and quarantined anew while what is wrong is still there.
func TestRejoinTriesAgain(t *testing.T) {
	c, _ := errantCluster(t, func(s *fsm.Settings) { s.Rebuild = fsm.RebuildManual })
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	found := c.disks["db4"].did()
	r, err := c.leader().Rejoin(ctx, api.RejoinRequest{Node: "db4", Actor: "ann"})
	if err != nil || r.Outcome != api.OutcomeDone {
		t.Fatalf("%+v %v", r, err)
	}
	await(t, "db4 is found errant again", func() bool {
		return len(c.disks["db4"].did()) > len(found) && c.node("db4").observation().Standing == fsm.StandingQuarantined
	})
}

// TestADonorGivesOnlyWhatTheLogOrders: data goes to nobody who merely asks.
func TestADonorGivesOnlyWhatTheLogOrders(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.withDisks()
	c.bootstrap()
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	var out donateReply
	err := c.node("db3").callNode(ctx, "db2", "copy_begin", donateRequest{Index: 3, Session: "s"}, &out)
	if err == nil || !strings.Contains(err.Error(), "orders no rebuild") || c.disks["db2"].gave() > 0 {
		t.Fatalf("a copy for the asking: %v", err)
	}
}

// TestADonorHasAppliedWhatThePrimaryHas before it gives anything: what the receiver itself wrote as a primary would never reach it again.
func TestADonorHasAppliedWhatThePrimaryHas(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.withDisks()
	c.bootstrap()
	c.w.clients(t)
	donor := c.node("db3")
	donor.host.change(func() { donor.host.stalled = true })
	c.wrote()
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := donor.donations.caughtUp(short); err == nil || !strings.Contains(err.Error(), "has not applied") {
		t.Fatalf("a donor that lags gives a copy: %v", err)
	}
	donor.host.change(func() { donor.host.stalled = false })
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	if err := donor.donations.caughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.node("db1").donations.caughtUp(ctx); err != nil {
		t.Fatalf("the primary: %v", err)
	}
}
