package fsm

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// nodeOutside is a steady cluster of which db3 has left the sync set. Of four nodes: commits need one of db2 and db4.
func nodeOutside(t *testing.T) *scene {
	c := steady(t, data("db1", "db2", "db3", "db4")...)
	c.leaves(t, "db3")
	c.must(t, Command{Grow: &Grow{Epoch: 1, Node: "db4", Incarnation: "i-db4"}})
	return c
}

// outsideOfThree is the same of three nodes: db2 alone acknowledges.
func outsideOfThree(t *testing.T) *scene {
	c := steady(t)
	c.leaves(t, "db3")
	return c
}

// troubledBy makes db3 say that its data is of no use.
func troubledBy(cause RebuildCause, change func(c *scene)) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := nodeOutside(t)
		c.obs["db3"].Standing = StandingQuarantined
		c.obs["db3"].Rebuild = RebuildNeed{Cause: cause, Reason: "it has 0-3-101"}
		if change != nil {
			change(c)
		}
		return c
	}
}

func rebuild(c *scene) Command {
	return Command{Rebuild: &Rebuild{Node: "db3", Donor: "db2", Epoch: c.s.Epoch, Cause: RebuildErrant, Reason: "it has 0-3-101"}}
}

func rebuildingScene(t *testing.T) *scene {
	c := nodeOutside(t)
	c.must(t, rebuild(c))
	return c
}

func init() {
	for _, cause := range RebuildCauses() {
		code := "rebuild." + string(cause)
		ruleCases = append(ruleCases,
			ruleCase{code: code, name: "rebuilt from a replica", acts: true, commands: []string{"rebuild"}, make: troubledBy(cause, nil)},
			ruleCase{code: code, name: "manual", acts: true, commands: []string{}, verdict: code, make: troubledBy(cause, func(c *scene) { c.s.Settings.Rebuild = RebuildManual })},
			ruleCase{code: code, name: "all is well", make: nodeOutside},
			ruleCase{code: code, name: "runs already", make: func(t *testing.T) *scene {
				c := troubledBy(cause, nil)(t)
				c.must(t, rebuild(c))
				return c
			}},
		)
	}
	ruleCases = append(ruleCases, []ruleCase{
		{code: "rebuild.errant", name: "still in the sync set", acts: true, commands: []string{"intend"}, verdict: "rebuild.errant", make: func(t *testing.T) *scene {
			c := troubledBy(RebuildErrant, nil)(t)
			c.s.Sync.Members = append(slices.Clone(c.s.Sync.Members), SyncMember{Node: "db3"})
			return c
		}},
		{code: "rebuild.errant", name: "paused", acts: true, commands: []string{}, verdict: "cluster.paused", make: troubledBy(RebuildErrant, func(c *scene) { c.s.Paused = &Pause{By: "ann"} })},
		{code: "rebuild.errant", name: "an old report", make: troubledBy(RebuildErrant, func(c *scene) { c.silent["db3"] = true })},
		{code: "rebuild.errant", name: "another node is being rebuilt", acts: true, commands: []string{}, verdict: "rebuild.errant", make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilds = []Rebuilding{{Node: "db4", Donor: "db1", Index: 9, Turn: 9}}
		})},
		{code: "rebuild.errant", name: "its last rebuild ended just now", acts: true, commands: []string{}, verdict: "rebuild.errant", make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Outcome: OutcomeFailed, Times: 1}}
		})},
		{code: "rebuild.errant", name: "the hold is over", acts: true, commands: []string{"rebuild"}, make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-2 * firstHold), Outcome: OutcomeFailed, Times: 1}}
		})},
		{code: "rebuild.errant", name: "another cause after a rebuild that ended well is other trouble", acts: true, commands: []string{"rebuild"}, make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Cause: RebuildEmpty, Outcome: OutcomeDone, Times: 1}}
		})},
		{code: "rebuild.errant", name: "the same cause after a rebuild that ended well", acts: true, commands: []string{}, verdict: "rebuild.errant", make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Cause: RebuildErrant, Outcome: OutcomeDone, Times: 1}}
		})},
		{code: "rebuild.errant", name: "another cause after a rebuild that failed", acts: true, commands: []string{}, verdict: "rebuild.errant", make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Cause: RebuildEmpty, Outcome: OutcomeFailed, Times: 1}}
		})},
		{code: "rebuild.errant", name: "one cause after the other in turn", acts: true, commands: []string{}, verdict: "rebuild.errant", make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Cause: RebuildEmpty, Outcome: OutcomeDone, Times: 2}}
		})},
		{code: "rebuild.errant", name: "ended well under a version that did not keep the cause", acts: true, commands: []string{}, verdict: "rebuild.errant", make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Outcome: OutcomeDone, Times: 1}}
		})},
		{code: "rebuild.half", name: "its CLONE failed just now", acts: true, commands: []string{}, verdict: "rebuild.half", make: troubledBy(RebuildHalf, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-firstHold / 2), Cause: RebuildErrant, Outcome: OutcomeFailed, Times: 1}}
		})},
		{code: "rebuild.errant", name: "the hold has grown", acts: true, commands: []string{}, make: troubledBy(RebuildErrant, func(c *scene) {
			c.s.Rebuilt = []RebuildEnd{{Node: "db3", At: c.wall.Add(-2 * firstHold), Outcome: OutcomeFailed, Times: 3}}
		})},
		{code: "rebuild.quarantined", name: "it was primary before a lossy epoch", acts: true, commands: []string{}, verdict: "rebuild.quarantined", make: troubledBy(RebuildQuarantined, lossyAfterItsOwn)},
		{code: "rebuild.donor", name: "the donor lives", acts: true, commands: []string{}, make: rebuildingScene},
		{code: "rebuild.donor", name: "nothing is being rebuilt", make: nodeOutside},
		{code: "rebuild.donor", name: "the donor is lost", acts: true, commands: []string{"rebuild"}, make: func(t *testing.T) *scene {
			c := rebuildingScene(t)
			c.lose("db2")
			return c
		}},
		{code: "rebuild.donor", name: "the donor is out of order itself", acts: true, commands: []string{"intend", "rebuild"}, make: func(t *testing.T) *scene {
			c := rebuildingScene(t)
			c.obs["db2"].Standing = StandingQuarantined
			return c
		}},
		{code: "rebuild.donor", name: "nobody is left", acts: true, commands: []string{}, verdict: "rebuild.donor", make: func(t *testing.T) *scene {
			c := rebuildingScene(t)
			c.obs["db2"].Standing, c.obs["db4"].Standing, c.obs["db1"].Serving = StandingQuarantined, StandingCatching, 0
			return c
		}},
	}...)
	copying := func(stage CopyStage, of uint64) func(*scene, *Local) {
		return func(c *scene, l *Local) { l.Copy = Copy{Stage: stage, Of: of} }
	}
	rowCases = append(rowCases, []rowCase{
		{code: "rebuild.running", name: "at work", hits: true, node: "db3", edit: func(_ *scene, l *Local) { l.Copy = Copy{Stage: CopyPlacing, Running: true}; l.Quarantine = "errant" }, acts: []ActionKind{ActNone}},
		{code: "rebuild.running", name: "not", node: "db3"},
		{code: "rebuild.unfinished", name: "after a crash in the middle", hits: true, node: "db3", edit: func(c *scene, l *Local) { copying(CopyPlacing, 3)(c, l); l.Fresh = false; l.Server.State = ServerDown }, acts: []ActionKind{ActRebuild}},
		{code: "rebuild.unfinished", name: "a copy that only arrives is no reason", node: "db3", edit: copying(CopyArriving, 3)},
		{code: "rebuild.run", name: "ordered", hits: true, node: "db3", make: rebuildingScene, edit: func(_ *scene, l *Local) { l.Quarantine = "errant" }, acts: []ActionKind{ActRebuild}},
		{code: "rebuild.run", name: "ordered, with a copy of an older order in use", hits: true, node: "db3", make: rebuildingScene, edit: copying(CopyAdopted, 1)},
		{code: "rebuild.run", name: "another node", node: "db2", make: rebuildingScene},
		{code: "rebuild.run", name: "the state may be old", node: "db3", make: rebuildingScene, edit: func(_ *scene, l *Local) { l.Fresh = false }},
		{code: "rebuild.run", name: "the copy is in use", node: "db3", make: rebuildingScene, edit: func(c *scene, l *Local) { copying(CopyAdopted, c.s.Rebuilds[0].Index)(c, l) }},
		{code: "rebuild.run", name: "half fetched, and ordered", hits: true, node: "db3", make: rebuildingScene, edit: func(c *scene, l *Local) { copying(CopyHalf, c.s.Rebuilds[0].Index)(c, l); l.Quarantine = "half" }, acts: []ActionKind{ActRebuild}},
		{code: "rebuild.run", name: "half fetched for an order that failed, and ordered anew", hits: true, node: "db3", make: rebuildingScene, edit: func(c *scene, l *Local) { copying(CopyHalf, 1)(c, l); l.Quarantine = "half" }, acts: []ActionKind{ActRebuild}},
		{code: "rebuild.waits", name: "half fetched, and the rebuild has failed", hits: true, node: "db3", edit: func(c *scene, l *Local) {
			copying(CopyHalf, 3)(c, l)
			l.Quarantine = "half"
			l.Server.State = ServerDown
		}, acts: []ActionKind{ActNone}},
		{code: "rebuild.waits", name: "half fetched, and the state may be old", hits: true, node: "db3", make: rebuildingScene, edit: func(c *scene, l *Local) { copying(CopyHalf, 3)(c, l); l.Fresh = false }, acts: []ActionKind{ActNone}},
		{code: "rebuild.waits", name: "ordered", node: "db3", make: rebuildingScene, edit: copying(CopyHalf, 3)},
		{code: "rebuild.waits", name: "a whole copy waits for nothing", node: "db3", edit: copying(CopyPlacing, 3)},
		{code: "rebuild.useless", name: "found errant again", hits: true, node: "db3", edit: func(c *scene, l *Local) { copying(CopyAdopted, 3)(c, l); l.Quarantine = "errant" }, acts: []ActionKind{ActRebuild}},
		{code: "rebuild.useless", name: "good", node: "db3", edit: copying(CopyAdopted, 3)},
		{code: "node.empty", name: "a new host", hits: true, node: "db3", edit: func(_ *scene, l *Local) { l.Copy.Empty = true; l.Server.State = ServerDown }, acts: []ActionKind{ActNone}},
		{code: "node.empty", name: "while nobody is primary", hits: true, node: "db3", make: begunTakeover, edit: func(_ *scene, l *Local) { l.Copy.Empty = true; l.Server.State = ServerDown }, acts: []ActionKind{ActNone}},
		{code: "node.empty", name: "only down", node: "db3", edit: func(_ *scene, l *Local) { l.Server.State = ServerDown }},
		{code: "rebuild.done", name: "follows", hits: true, node: "db3", edit: copying(CopyAdopted, 3), acts: []ActionKind{ActRebuild}},
		{code: "rebuild.done", name: "does not follow yet", node: "db3", edit: func(c *scene, l *Local) { copying(CopyAdopted, 3)(c, l); l.Server.IORunning = false }},
	}...)
}

// lossyAfterItsOwn: db3 was primary of epoch 1, and epoch 2 was won by accepting a loss.
func lossyAfterItsOwn(c *scene) {
	c.s.Epoch = 2
	c.s.Epochs = []EpochRecord{{Epoch: 1, Primary: "db3", Won: WonBootstrap, Settled: true}, {Epoch: 2, Primary: "db1", Won: WonCount, Settled: true, Lossy: true}}
	c.obs["db1"].Serving = 2
}

func TestRebuildRefusals(t *testing.T) {
	for name, r := range map[string]struct {
		make func(t *testing.T) *scene
		edit func(c *scene, r *Rebuild)
		want string
	}{
		"of the primary":               {nodeOutside, func(_ *scene, r *Rebuild) { r.Node = "db1" }, "is the primary"},
		"of a member of the sync set":  {nodeOutside, func(_ *scene, r *Rebuild) { r.Node, r.Donor = "db4", "db2" }, "in the sync set"},
		"of nobody":                    {nodeOutside, func(_ *scene, r *Rebuild) { r.Node = "db9" }, "not a data node"},
		"of a witness":                 {func(t *testing.T) *scene { return steady(t, append(data("db1", "db2"), witness("w1"))...) }, func(_ *scene, r *Rebuild) { r.Node = "w1" }, "not a data node"},
		"in another epoch":             {nodeOutside, func(_ *scene, r *Rebuild) { r.Epoch = 2 }, "the epoch is 1"},
		"while nobody is primary":      {begunTakeover, func(_ *scene, r *Rebuild) { r.Node = "db1" }, "no primary of epoch 2 is settled"},
		"before the barrier":           {promotedTakeover, func(_ *scene, r *Rebuild) { r.Node = "db1" }, "no primary of epoch 2 is settled"},
		"of the base's only copy":      {nodeOutside, func(c *scene, _ *Rebuild) { c.s.Base = &Base{Epoch: 1, Primary: "db3"} }, "is settled"},
		"from itself":                  {nodeOutside, func(_ *scene, r *Rebuild) { r.Donor = "db3" }, "from itself"},
		"from the only good copy":      {outsideOfThree, func(*scene, *Rebuild) {}, "only good copy"},
		"from one being rebuilt":       {nodeOutside, func(c *scene, _ *Rebuild) { c.s.Rebuilds = []Rebuilding{{Node: "db2", Index: 1, Turn: 1}} }, "is being rebuilt itself"},
		"while paused":                 {nodeOutside, func(c *scene, _ *Rebuild) { c.s.Paused = &Pause{By: "ann"} }, "paused by ann"},
		"twice":                        {rebuildingScene, func(*scene, *Rebuild) {}, "running is that of"},
		"in place of one that is gone": {nodeOutside, func(_ *scene, r *Rebuild) { r.Replaces = 4 }, "running is that of 0"},
		"of what may be the only copy": {nodeOutside, func(c *scene, r *Rebuild) { lossyAfterItsOwn(c); r.Epoch = 2 }, "only a person"},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.make(t)
			cmd := rebuild(c)
			r.edit(c, cmd.Rebuild)
			before := c.s.Clone()
			if err := c.apply(cmd); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), r.want) {
				t.Fatalf("error %v, want a refusal with %q", err, r.want)
			}
			if !reflect.DeepEqual(before, c.s) {
				t.Fatal("a refused rebuild changed the state")
			}
		})
	}
}

// TestAPersonMayThrowItAway: after a lossy epoch only a confirmed rebuild is allowed, and the node is free again afterwards.
func TestAPersonMayThrowItAway(t *testing.T) {
	c := nodeOutside(t)
	lossyAfterItsOwn(c)
	cmd := rebuild(c)
	cmd.Rebuild.Confirmed, cmd.Rebuild.Actor, cmd.Rebuild.Cause = true, "ann", RebuildAsked
	c.must(t, cmd)
	r, _ := c.s.RebuildOf("db3")
	if err := MayWipe(c.s, "db3", r.Index); err != nil {
		t.Fatal(err)
	}
	c.must(t, Command{Rebuilt: &Rebuilt{Node: "db3", Index: r.Index, Outcome: OutcomeDone}})
	c.must(t, rebuild(c)) // not confirmed: its data is of after the loss now
}

// TestMayWipeIsAskedAnew: an order that was right when it was given is none once the node counts, or its rebuild has ended.
func TestMayWipeIsAskedAnew(t *testing.T) {
	order := func(t *testing.T) (*scene, uint64) {
		c := rebuildingScene(t)
		r, ok := c.s.RebuildOf("db3")
		if !ok {
			t.Fatal("nothing is being rebuilt")
		}
		return c, r.Index
	}
	c, index := order(t)
	if err := MayWipe(c.s, "db3", index); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *scene){
		"counts again":    func(c *scene) { c.s.Sync.Members = append(c.s.Sync.Members, SyncMember{Node: "db3"}) },
		"is primary":      func(c *scene) { c.s.Primary = "db3" },
		"epoch unsettled": func(c *scene) { c.s.Epochs[0].Settled = false },
		"a takeover":      func(c *scene) { c.lose("db1"); c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}}) },
		"has ended":       func(c *scene) { c.must(t, Command{Rebuilt: &Rebuilt{Node: "db3", Index: index, Outcome: OutcomeDone}}) },
	} {
		c, index := order(t)
		change(c)
		if err := MayWipe(c.s, "db3", index); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if MayWipe(c.s, "db3", index+1) == nil || MayWipe(c.s, "db2", index) == nil {
		t.Error("another order, or another node's, is taken for this one")
	}
}

// TestAnotherDonorGoesOnWithTheSameRight: a takeover in between, and the rebuild keeps its name.
func TestAnotherDonorGoesOnWithTheSameRight(t *testing.T) {
	c := rebuildingScene(t)
	was, _ := c.s.RebuildOf("db3")
	c.lose("db2")
	c.follow1(t)
	now, _ := c.s.RebuildOf("db3")
	if now.Donor == "db2" || now.Index != was.Index || now.Turn == was.Turn || !now.Since.Equal(was.Since) {
		t.Fatalf("%+v became %+v", was, now)
	}
	c.must(t, Command{Rebuilt: &Rebuilt{Node: "db3", Index: was.Index, Outcome: OutcomeDone}})
	if err := c.apply(Command{Rebuilt: &Rebuilt{Node: "db3", Index: was.Index, Outcome: OutcomeDone}}); !errors.Is(err, ErrRefused) {
		t.Fatalf("ended twice: %v", err)
	}
}

func TestNobodyBeingRebuiltIsPromoted(t *testing.T) {
	c := rebuildingScene(t)
	c.lose("db1")
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1, Cause: "lost"}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceLease, Node: "db1"}}})
	a := []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100"), c.answer("db4", "0-1-100")}
	if err := c.apply(promoteOf(c, "db3", WonCount, a...)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "being rebuilt") {
		t.Fatalf("promoted a node whose data is thrown away: %v", err)
	}
}

func TestBestDonor(t *testing.T) {
	lag := 60.0
	for name, r := range map[string]struct {
		make func(t *testing.T) *scene
		edit func(c *scene)
		want NodeID
	}{
		"a replica rather than the primary":             {nodeOutside, func(*scene) {}, "db2"},
		"not the next primary":                          {nodeOutside, func(c *scene) { c.s.Members[1].Priority = 200 }, "db4"},
		"not one that lags":                             {nodeOutside, func(c *scene) { c.obs["db2"].Server.Lag = &lag }, "db4"},
		"not one that does not follow":                  {nodeOutside, func(c *scene) { c.obs["db2"].Standing = StandingCatching }, "db4"},
		"the primary when the replica is all that acks": {outsideOfThree, func(*scene) {}, "db1"},
		"nobody": {outsideOfThree, func(c *scene) { c.obs["db1"].Serving = 0 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.make(t)
			r.edit(c)
			got, refusals := BestDonor(c.s, c.view(), "db3")
			if got != r.want {
				t.Fatalf("donor %q, want %q: %v", got, r.want, refusals)
			}
		})
	}
}

func TestRebuildsAreCountedWithinADay(t *testing.T) {
	c := nodeOutside(t)
	end := func() RebuildEnd {
		c.must(t, rebuild(c))
		r, _ := c.s.RebuildOf("db3")
		c.must(t, Command{Rebuilt: &Rebuilt{Node: "db3", Index: r.Index, Outcome: OutcomeFailed, Reason: "no space"}})
		e, _ := c.s.RebuildEndOf("db3")
		return e
	}
	if e := end(); e.Times != 1 {
		t.Fatalf("%+v", e)
	}
	if e := end(); e.Times != 2 {
		t.Fatalf("%+v", e)
	}
	c.wait(25 * time.Hour)
	if e := end(); e.Times != 1 {
		t.Fatalf("%+v", e)
	}
}
