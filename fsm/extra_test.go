package fsm

import "testing"

// fourNodes is a takeover from db1 in a cluster whose set is {db2, db3}: db4 replicates outside it.
func fourNodes(t *testing.T) *scene {
	c := steady(t, data("db1", "db2", "db3", "db4")...)
	c.self = "db2"
	c.replicates("db1", "db2", "db3", "db4")
	if _, in := c.s.Sync.Member("db4"); in || len(c.s.Sync.Members) != 2 {
		t.Fatalf("sync set %+v", c.s.Sync)
	}
	c.silent["db1"], c.noAgent["db1"], c.noServer["db1"] = true, true, true
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceLease, Node: "db1"}}})
	return c
}

// TestElectTakesOverTheExtra: what a replica outside the sync set received beyond the candidate, from the old primary and from nobody else.
func TestElectTakesOverTheExtra(t *testing.T) {
	outside := func(c *scene, received string) Answer {
		return with(c.answer("db4", received), func(a *Answer) { a.Source = "1" })
	}
	for _, k := range []struct {
		name  string
		edit  func(c *scene, a *Answer)
		extra string
	}{
		{"more of the old primary's", func(*scene, *Answer) {}, "0-1-105"},
		{"more, in a domain of its own", func(_ *scene, a *Answer) { a.Received = "0-1-100,7-1-3" }, "0-1-100,7-1-3"},
		{"no more", func(_ *scene, a *Answer) { a.Received = "0-1-100" }, ""},
		{"less", func(_ *scene, a *Answer) { a.Received = "0-1-90" }, ""},
		{"an errant write of its own", func(_ *scene, a *Answer) { a.Received = "0-4-101" }, ""},
		{"an errant write in another domain beside more of the old primary's", func(_ *scene, a *Answer) { a.Received = "0-1-105,9-4-1" }, ""},
		{"more in one domain and less in another", func(_ *scene, a *Answer) { a.Received = "7-1-105" }, ""},
		{"it does not know whom it received from", func(_ *scene, a *Answer) { a.Source = "" }, ""},
		{"an answer to an older freeze", func(_ *scene, a *Answer) { a.Epoch = 1 }, ""},
		{"it was primary, and keeps its own", func(_ *scene, a *Answer) { a.Held = 1 }, ""},
		{"it cannot be read", func(_ *scene, a *Answer) { a.Received = "nonsense" }, ""},
		{"an earlier candidate could not finish", func(c *scene, _ *Answer) { c.s.Op.Excluded = []NodeID{"db3"} }, ""},
	} {
		c := fourNodes(t)
		more := outside(c, "0-1-105")
		k.edit(c, &more)
		answers := []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-95"), more}
		permute(answers, func(order []Answer) {
			choice, ok, verdicts := Elect(c.s, order, false, false)
			if !ok || choice.To != "db2" || choice.Position != "0-1-100" || choice.Extra != k.extra || (choice.Fetch != "") != (k.extra != "") {
				t.Errorf("%s: chose %+v; verdicts %v", k.name, choice, verdicts)
			}
		})
		if k.extra == "" {
			continue
		}
		cmd := promoteOf(c, "db2", WonCount, answers...)
		cmd.Promote.Fetch, cmd.Promote.Position, cmd.Promote.Extra = "db4", "0-1-100", "0-1-104"
		if err := c.apply(cmd); err == nil {
			t.Errorf("%s: an extra that nobody answered with is committed", k.name)
		}
		cmd.Promote.Extra = k.extra
		if err := c.apply(cmd); err != nil || c.s.Op.Extra != k.extra || c.s.Op.Position != "0-1-100" {
			t.Errorf("%s: %v, operation %+v", k.name, err, c.s.Op)
		}
	}
}

// TestTheMostIsTakenOver of two replicas outside the set.
func TestTheMostIsTakenOver(t *testing.T) {
	c := steady(t, data("db1", "db2", "db3", "db4", "db5")...)
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceLease, Node: "db1"}}})
	from := func(a *Answer) { a.Source = "1" }
	answers := []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100"), with(c.answer("db4", "0-1-103"), from), with(c.answer("db5", "0-1-101"), from)}
	permute(answers, func(order []Answer) {
		if choice, _, _ := Elect(c.s, order, false, false); choice.Fetch != "db4" || choice.Extra != "0-1-103" {
			t.Errorf("chose %+v", choice)
		}
	})
}

// TestOutsiderIsWaitedFor a moment, when it is there and followed the old primary, and no longer.
func TestOutsiderIsWaitedFor(t *testing.T) {
	for _, k := range []struct {
		name  string
		waits bool
		edit  func(c *scene)
	}{
		{"it is about to answer", true, func(*scene) {}},
		{"it has answered", false, func(c *scene) { c.answers = append(c.answers, c.answer("db4", "0-1-100")) }},
		{"its time is over", false, func(c *scene) { c.now += extraPatience + 1 }},
		{"its mysqld is down", false, func(c *scene) { c.obs["db4"].Server.State = ServerDown }},
		{"its hbd does not report", false, func(c *scene) { c.silent["db4"] = true }},
		{"it is quarantined", false, func(c *scene) { c.obs["db4"].Standing = StandingQuarantined }},
		{"it followed somebody else", false, func(c *scene) { c.replicates("db2", "db4") }},
	} {
		c := fourNodes(t)
		c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-95")}
		k.edit(c)
		d := c.decide()
		promotes := len(d.Commands) == 1 && d.Commands[0].Promote != nil
		if promotes == k.waits || hasVerdict(d.Verdicts, "failover.outsider", "db4") != k.waits {
			t.Errorf("%s: %+v", k.name, d)
		}
	}
}
