package fsm

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// chainedTo is a cluster of three at the moment at which the third is told to replicate from the candidate.
func chainedTo(t *testing.T) *scene {
	c := switching(t)
	c.leaves(t, "db3")
	c.must(t, chain(c))
	return c
}

func chain(c *scene) Command { return Command{Chain: &Chain{OpID: c.s.opID(), Epoch: c.s.Epoch}} }

func releaseOf(c *scene) Command {
	return Command{Release: &Release{OpID: c.s.opID(), Epoch: c.s.Epoch}}
}

func rollbackOf(c *scene) Command {
	return Command{Rollback: &Rollback{OpID: c.s.opID(), Epoch: c.s.Epoch, Reason: "asked for"}}
}

// connectedTo is a chain that is complete.
func connectedTo(t *testing.T) *scene {
	c := chainedTo(t)
	c.replicates("db2", "db3")
	return c
}

func switchingOf(make func(*testing.T) *scene) func(*testing.T) *scene {
	return edited(make, func(t *testing.T, c *scene) {
		c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}})
	})
}

func twoData(t *testing.T) *scene { return steady(t, append(data("db1", "db2"), witness("w1"))...) }

var chainCases = []ruleCase{
	{code: "switchover.prepare", name: "every gate passes: the others leave the set", acts: true, commands: []string{"intend"}, verdict: "switchover.shrink", make: switching},
	{code: "switchover.prepare", name: "they have left it", acts: true, commands: []string{"chain"}, verdict: "switchover.chain", make: edited(switching, func(t *testing.T, c *scene) { c.leaves(t, "db3") })},
	{code: "switchover.prepare", name: "two data nodes: there is nobody to chain", acts: true, commands: []string{"release"}, make: switchingOf(twoData)},
	{code: "switchover.prepare", name: "no acknowledgements: nobody is chained", acts: true, commands: []string{"release"}, make: switchingOf(unacknowledged)},
	{code: "switchover.prepare", name: "the third is down", acts: true, commands: []string{"release"}, make: edited(switching, func(_ *testing.T, c *scene) { c.obs["db3"].Server.State = ServerDown })},
	{code: "switchover.prepare", name: "the third is out of reach", acts: true, commands: []string{"release"}, make: edited(switching, func(_ *testing.T, c *scene) { c.lose("db3") })},
	{code: "switchover.prepare", name: "the third is kept out", acts: true, commands: []string{"release"}, make: edited(switching, func(_ *testing.T, c *scene) { c.obs["db3"].Standing = StandingQuarantined })},
	{code: "switchover.prepare", name: "nobody could acknowledge any more", acts: true, commands: []string{"rollback"}, make: func(t *testing.T) *scene {
		c := switching(t)
		c.leaves(t, "db3")
		c.obs["db2"].Server.IOConnecting = true
		c.decide()
		c.wait(c.s.Settings.FailAfter)
		return c
	}},

	{code: "switchover.chain", name: "the third replicates from the candidate", acts: true, commands: []string{"release"}, make: connectedTo},
	{code: "switchover.chain", name: "it does not yet", acts: true, commands: []string{}, verdict: "switchover.chain", make: chainedTo},
	{code: "switchover.chain", name: "it replicates from the old primary", acts: true, commands: []string{}, verdict: "switchover.chain", make: edited(chainedTo, func(_ *testing.T, c *scene) { c.replicates("db1", "db3") })},
	{code: "switchover.chain", name: "it is not connected yet", acts: true, commands: []string{}, verdict: "switchover.chain", make: edited(connectedTo, func(_ *testing.T, c *scene) { c.obs["db3"].Server.IOConnecting = true })},
	{code: "switchover.chain", name: "nothing has come over its new connection yet", acts: true, commands: []string{}, verdict: "switchover.chain", make: edited(connectedTo, func(_ *testing.T, c *scene) { c.untried = "db3" })},
	{code: "switchover.chain", name: "nothing comes over it, and it is waited for no longer", acts: true, commands: []string{"release"}, make: edited(connectedTo, func(_ *testing.T, c *scene) {
		c.untried = "db3"
		c.wait(c.s.Settings.PrepareTimeout / 2)
	})},
	{code: "switchover.chain", name: "it does not acknowledge yet", acts: true, commands: []string{}, verdict: "switchover.chain", make: edited(connectedTo, func(_ *testing.T, c *scene) { c.obs["db3"].Server.ReplicaSync = false })},
	{code: "switchover.chain", name: "it acknowledges, and does not call itself a replica yet: promote would leave it out", acts: true, commands: []string{}, verdict: "switchover.chain", make: edited(connectedTo, func(_ *testing.T, c *scene) { c.obs["db3"].Standing = StandingCatching })},
	{code: "switchover.chain", name: "it is waited for almost as long as may be", acts: true, commands: []string{}, make: edited(chainedTo, func(_ *testing.T, c *scene) { c.wait(c.s.Settings.PrepareTimeout/2 - 1) })},
	{code: "switchover.chain", name: "it is waited for no longer", acts: true, commands: []string{"release"}, make: edited(chainedTo, func(_ *testing.T, c *scene) { c.wait(c.s.Settings.PrepareTimeout / 2) })},
	{code: "switchover.chain", name: "it is down", acts: true, commands: []string{"release"}, make: edited(chainedTo, func(_ *testing.T, c *scene) { c.obs["db3"].Server.State = ServerDown })},
	{code: "switchover.chain", name: "it is out of reach", acts: true, commands: []string{"release"}, make: edited(chainedTo, func(_ *testing.T, c *scene) { c.lose("db3") })},
	{code: "switchover.chain", name: "the candidate lags", acts: true, commands: []string{}, verdict: "candidate.lag", make: edited(connectedTo, func(_ *testing.T, c *scene) {
		lag := 60.0
		c.obs["db2"].Server.Lag = &lag
	})},
	{code: "switchover.chain", name: "the candidate is lost", acts: true, commands: []string{"rollback"}, make: edited(connectedTo, func(_ *testing.T, c *scene) { c.lose("db2") })},
	{code: "switchover.chain", name: "the candidate's mysqld is gone for a moment", acts: true, commands: []string{}, make: edited(connectedTo, func(_ *testing.T, c *scene) {
		c.obs["db2"].Server.State = ServerDown
		c.decide()
		c.wait(c.s.Settings.FailAfter - 1)
	})},
	{code: "switchover.chain", name: "the candidate's mysqld is gone: writes wait", acts: true, commands: []string{"rollback"}, make: edited(connectedTo, func(_ *testing.T, c *scene) {
		c.obs["db2"].Server.State = ServerDown
		c.decide()
		c.wait(c.s.Settings.FailAfter)
	})},
	{code: "switchover.chain", name: "the old primary's mysqld is gone", acts: true, commands: []string{"rollback"}, make: edited(connectedTo, func(_ *testing.T, c *scene) { c.obs["db1"].Server.State = ServerDown })},
	{code: "switchover.chain", name: "paused: what was begun goes on", acts: true, commands: []string{"release"}, make: edited(connectedTo, func(t *testing.T, c *scene) {
		c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
	})},
	{code: "switchover.chain", name: "the old primary's host is gone", commands: []string{"begin"}, make: edited(connectedTo, func(_ *testing.T, c *scene) { c.lose("db1") })},
	{code: "switchover.chain", name: "the others have not left the set", make: switching},
	{code: "sync.set", name: "the others are chained: the set stays as it is", commands: []string{"release"}, make: edited(connectedTo, func(_ *testing.T, c *scene) {
		c.caughtUp = []SyncMember{member("db3")}
	})},
}

var chainRefusals = []refusal{
	{"chain: nothing is planned", steadyScene, chain, "running is none"},
	{"chain: chained already", chainedTo, chain, "at step chained"},
	{"chain: being released", releasingTo, chain, "at step releasing"},
	{"chain: another epoch", edited(switching, func(t *testing.T, c *scene) { c.leaves(t, "db3") }), func(c *scene) Command {
		cmd := chain(c)
		cmd.Chain.Epoch++
		return cmd
	}, "of epoch 2"},
	{"chain: another operation", edited(switching, func(t *testing.T, c *scene) { c.leaves(t, "db3") }), func(c *scene) Command {
		cmd := chain(c)
		cmd.Chain.OpID++
		return cmd
	}, "wants operation 3"},
	{"chain: the candidate is not in the set", edited(switching, func(t *testing.T, c *scene) { c.leaves(t, "db2") }), chain, "not in the sync set"},
	{"chain: more members than are needed", switching, chain, "2 members of whom 1 are needed"},
	{"chain: a change is prepared", switchingOf(leaving), chain, "is prepared"},
	{"chain: nobody is needed", switchingOf(unacknowledged), chain, "of whom 0 are needed"},

	{"release: of another epoch, while chained", chainedTo, func(c *scene) Command {
		cmd := releaseOf(c)
		cmd.Release.Epoch++
		return cmd
	}, "at step chained"},
	{"grow while chained", chainedTo, func(*scene) Command { return growBy("db3") }, "at step chained"},
	{"shrink while chained", chainedTo, intend(Intend{Kind: ChangeShrink, Node: "db2"}), "at step chained"},
	{"lower while chained", chainedTo, intend(Intend{Kind: ChangeAcks, Acks: 0}), "at step chained"},
	{"complete while chained", chainedTo, noChange, "at step chained"},
	{"promote while chained", chainedTo, released, "at step chained"},
	{"a second switchover while chained", chainedTo, func(*scene) Command {
		return Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db3"}}
	}, "is running"},
}

func TestChainRefusals(t *testing.T) {
	for _, r := range chainRefusals {
		t.Run(r.name, func(t *testing.T) {
			c := r.make(t)
			before := c.s.Clone()
			err := c.apply(r.cmd(c))
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), r.want) {
				t.Errorf("error is %v, want a refusal that says %q", err, r.want)
			}
			if !reflect.DeepEqual(before, c.s) {
				t.Error("a refused command changed the state")
			}
		})
	}
}

// TestChainedEndsOnce: from a chain the epoch is released or the change rolled back. Whoever is chained stays so through the release, and is told to
// come back by the rollback, without being in the set.
func TestChainedEndsOnce(t *testing.T) {
	c := chainedTo(t)
	c.must(t, releaseOf(c))
	if c.s.Op.Step != StepReleasing || c.s.SourceOf("db3") != "db2" || !c.s.MayAcknowledge("db3") {
		t.Errorf("released: step %s, db3 replicates from %s", c.s.Op.Step, c.s.SourceOf("db3"))
	}
	if err := c.apply(releaseOf(c)); !errors.Is(err, ErrRefused) {
		t.Errorf("released twice: %v", err)
	}
	for _, make := range []func(*testing.T) *scene{chainedTo, func(*testing.T) *scene { return c }} {
		c := make(t)
		since := c.s.OutsideSince("db3")
		late := releaseOf(c)
		c.must(t, rollbackOf(c))
		if c.s.Op != nil || c.s.Phase != PhaseSteady || c.s.SourceOf("db3") != "db1" || c.s.MayAcknowledge("db3") || c.s.OutsideSince("db3") <= since {
			t.Errorf("rolled back: %+v, phase %s, db3 replicates from %s, outside %+v", c.s.Op, c.s.Phase, c.s.SourceOf("db3"), c.s.Outside)
		}
		if err := c.apply(late); !errors.Is(err, ErrRefused) {
			t.Errorf("released after the rollback: %v", err)
		}
		c.must(t, growBy("db3"))
	}
}

// TestSourceOf: who replicates from whom, and whose acknowledgements count there.
func TestSourceOf(t *testing.T) {
	for _, x := range []struct {
		name   string
		make   func(*testing.T) *scene
		source []NodeID // of db1 to db3
		may    []bool
	}{
		{"steady", steadyScene, []NodeID{"db1", "db1", "db1"}, []bool{false, true, true}},
		{"one is outside", without, []NodeID{"db1", "db1", "db1"}, []bool{false, true, false}},
		{"a switchover prepares", edited(switching, func(t *testing.T, c *scene) { c.leaves(t, "db3") }), []NodeID{"db1", "db1", "db1"}, []bool{false, true, false}},
		{"chained", chainedTo, []NodeID{"db1", "db1", "db2"}, []bool{false, true, true}},
		{"released", edited(chainedTo, func(t *testing.T, c *scene) { c.must(t, releaseOf(c)) }), []NodeID{"db1", "db1", "db2"}, []bool{false, true, true}},
		{"promoted, without the one that did not come", func(t *testing.T) *scene {
			c := chainedTo(t)
			c.must(t, releaseOf(c))
			cmd := released(c)
			cmd.Promote.Members = []SyncMember{member("db1")}
			c.must(t, cmd)
			return c
		}, []NodeID{"db2", "db2", "db2"}, []bool{true, false, false}},
		{"the old primary is lost", edited(chainedTo, func(t *testing.T, c *scene) {
			c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1, OpID: c.s.opID()}})
		}), []NodeID{"", "", ""}, []bool{false, true, false}},
	} {
		s := x.make(t).s
		for i, id := range []NodeID{"db1", "db2", "db3"} {
			if s.SourceOf(id) != x.source[i] || s.MayAcknowledge(id) != x.may[i] {
				t.Errorf("%s: %s replicates from %q, may acknowledge: %v; want %q, %v", x.name, id, s.SourceOf(id), s.MayAcknowledge(id), x.source[i], x.may[i])
			}
		}
	}
}

func chainAll(t *testing.T, c *scene) {
	t.Helper()
	for range 10 {
		if c.s.Op.Step == StepChained {
			return
		}
		if c.s.Change != nil {
			c.prepared(c.obs["db2"].Server.Executed)
		}
		c.follow1(t)
	}
	t.Fatalf("not chained: step %s, set %+v, verdicts %v", c.s.Op.Step, c.s.Sync, c.last.Verdicts)
}

// TestFiveNodesChain: where commits wait for two, the set keeps the candidate and one, and the two others are chained.
func TestFiveNodesChain(t *testing.T) {
	c := switchingOf(fiveMySQL)(t)
	chainAll(t, c)
	if want := []SyncMember{member("db2"), member("db3")}; !slices.Equal(c.s.Sync.Members, want) || c.s.Sync.Acks != 2 {
		t.Fatalf("the set is %+v", c.s.Sync)
	}
	for id, want := range map[NodeID]NodeID{"db2": "db1", "db3": "db1", "db4": "db2", "db5": "db2"} {
		if c.s.SourceOf(id) != want {
			t.Errorf("%s replicates from %s, want %s", id, c.s.SourceOf(id), want)
		}
	}
	c.replicates("db2", "db4")
	if d := c.decide(); len(d.Commands) > 0 || !hasVerdict(d.Verdicts, "switchover.chain", "db5") {
		t.Fatalf("decides %v, verdicts %v", commandNames(d), d.Verdicts)
	}
	c.replicates("db2", "db5")
	c.follow1(t)
	a := c.answer("db1", c.obs["db2"].Server.Executed)
	c.release, c.reached = &a, true
	c.follow1(t)
	if want := []SyncMember{member("db1"), member("db3"), member("db4"), member("db5")}; !slices.Equal(c.s.Sync.Members, want) || c.s.Sync.Acks != 2 {
		t.Errorf("the new set is %+v", c.s.Sync)
	}
}

// TestSickMemberLeavesFirst: a set that kept it would have writes wait before the change has even begun.
func TestSickMemberLeavesFirst(t *testing.T) {
	c := switchingOf(fiveMySQL)(t)
	c.obs["db3"].Server.State = ServerDown
	chainAll(t, c)
	if want := []SyncMember{member("db2"), member("db4")}; !slices.Equal(c.s.Sync.Members, want) {
		t.Errorf("the set is %+v", c.s.Sync)
	}
}

// TestChainedSet: those that are chained and connected, the old primary as it released, and who counted before as far as there is room.
func TestChainedSet(t *testing.T) {
	releasedBy := func(make func(*testing.T) *scene, edit func(*scene)) []SyncMember {
		c := make(t)
		if c.s.Op.Step != StepReleasing {
			c.must(t, releaseOf(c))
		}
		a := c.answer("db1", "0-1-100")
		c.release, c.reached = &a, true
		edit(c)
		d := c.decide()
		if len(d.Commands) != 1 || d.Commands[0].Promote == nil {
			t.Fatalf("decides %v, verdicts %v", commandNames(d), d.Verdicts)
		}
		return d.Commands[0].Promote.Members
	}
	for _, x := range []struct {
		name string
		make func(*testing.T) *scene
		edit func(*scene)
		want []SyncMember
	}{
		{"chained", connectedTo, func(*scene) {}, []SyncMember{member("db1"), member("db3")}},
		{"chained, and forgot: as it is now", connectedTo, func(c *scene) { c.obs["db3"].Incarnation += "-again" }, []SyncMember{member("db1"), {"db3", "i-db3-again"}}},
		{"chained, not connected", chainedTo, func(*scene) {}, []SyncMember{member("db1")}},
		{"chained, and lost meanwhile", connectedTo, func(c *scene) { c.lose("db3") }, []SyncMember{member("db1")}},
		{"not chained: the member stays", releasingTo, func(*scene) {}, []SyncMember{member("db1"), member("db3")}},
		{"not chained: the member forgot", releasingTo, func(c *scene) { c.obs["db3"].Incarnation += "-again" }, []SyncMember{member("db1"), {Node: "db3"}}},
		{"not chained: the member is lost", releasingTo, func(c *scene) { c.lose("db3") }, []SyncMember{member("db1")}},
	} {
		if got := releasedBy(x.make, x.edit); !slices.Equal(got, x.want) {
			t.Errorf("%s: %+v, want %+v", x.name, got, x.want)
		}
	}
}

// TestChainedRows: who is chained turns to the candidate, and is not told to stop acknowledging there; who was primary is compared with the primary
// first. Rolled back it stops acknowledging before it comes back.
func TestChainedRows(t *testing.T) {
	replica := func(followsRight bool) Local {
		return Local{Fresh: true, Followed: 1, FollowsRight: followsRight, Server: ServerStatus{State: ServerUp, ReadOnly: true, HasReplication: true, IORunning: true,
			SQLRunning: true, ReplicaSync: true, ReplicaSyncSet: true}}
	}
	rolledBack := edited(chainedTo, func(t *testing.T, c *scene) { c.must(t, rollbackOf(c)) })
	for _, x := range []struct {
		name   string
		make   func(*testing.T) *scene
		local  Local
		rule   string
		target NodeID
	}{
		{"not there yet", chainedTo, replica(false), "replica.follow", "db2"},
		{"there", chainedTo, replica(true), "replica.following", "db2"},
		{"was primary", chainedTo, Local{Fresh: true, Held: 1, Server: ServerStatus{State: ServerUp, ReadOnly: true}}, "return.not-settled", "db2"},
		{"was primary of an older epoch", edited(chainedTo, func(_ *testing.T, c *scene) { c.s.Epochs[0].Epoch, c.s.Epoch = 2, 2 }),
			Local{Fresh: true, Held: 1, Server: ServerStatus{State: ServerUp, ReadOnly: true}}, "return.decide", "db1"},
		{"rolled back", rolledBack, replica(false), "replica.sync-off", "db1"},
		{"rolled back, does not acknowledge any more", rolledBack, func() Local {
			l := replica(false)
			l.Server.ReplicaSync, l.Server.ReplicaSyncSet, l.SyncOff = false, false, 1000
			return l
		}(), "care.source", "db1"},
	} {
		actions := Reconcile(x.make(t).s, "db3", x.local)
		if len(actions) != 1 || actions[0].Rule != x.rule || actions[0].Target != x.target {
			t.Errorf("%s: %+v, want %s towards %s", x.name, actions, x.rule, x.target)
		}
	}
}

// TestChainedConfirmsAnew: a chained node said that its acknowledgements are off, and then switched them on for the candidate. Whoever is primary
// after that must not go by what it said before: its acknowledgement would count there without its being in the set.
func TestChainedConfirmsAnew(t *testing.T) {
	for _, x := range []struct {
		name string
		end  func(*scene)
	}{
		{"promoted without it", func(c *scene) {
			c.must(t, releaseOf(c))
			cmd := released(c)
			cmd.Promote.Members = []SyncMember{member("db1")}
			c.must(t, cmd)
		}},
		{"rolled back", func(c *scene) { c.must(t, rollbackOf(c)) }},
		{"failed over", func(c *scene) {
			c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1, OpID: c.s.opID()}})
			c.must(t, Command{Fence: &Fence{OpID: c.s.opID(), Epoch: 2, Evidence: Evidence{Kind: EvidenceLease, Node: "db1"}}})
			c.must(t, Command{Promote: &Promote{OpID: c.s.opID(), Epoch: 2, To: "db2", Won: WonCount, Answers: []Answer{c.answer("db2", "0-1-100")}}})
		}},
	} {
		c := chainedTo(t)
		said := c.s.OutsideSince("db3")
		x.end(c)
		if since := c.s.OutsideSince("db3"); since <= said {
			t.Errorf("%s: what db3 said at index %d still stands, it is outside since %d", x.name, said, since)
		}
		if c.s.Primary == "db2" && !slices.Contains(WantBlocked(c.s, nil), NodeID("db3")) {
			t.Errorf("%s: db3 may connect to db2", x.name)
		}
	}
}

// TestCandidateKeepsItsEpoch when it cannot finish and all others may never be promoted: the epoch would be nobody's.
func TestCandidateKeepsItsEpoch(t *testing.T) {
	for _, never := range []bool{false, true} {
		c := promotedTakeover(t)
		c.s.Members[slices.IndexFunc(c.s.Members, func(m Member) bool { return m.ID == "db3" })].NeverPromote = never
		c.lose("db1")
		c.decide()
		c.wait(c.s.Settings.PromoteTimeout + time.Second)
		d := c.decide()
		begun := slices.ContainsFunc(d.Commands, func(cmd Command) bool { return cmd.Begin != nil })
		if begun == never || never != hasVerdict(d.Verdicts, "failover.unsettled", "db2") {
			t.Errorf("never_promote %v: began %v; verdicts %v", never, begun, d.Verdicts)
		}
	}
}
