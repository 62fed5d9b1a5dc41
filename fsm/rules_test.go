package fsm

import (
	"slices"
	"testing"
	"time"
)

// ruleCase is one situation of one row of the decision table.
type ruleCase struct {
	code     string
	name     string
	acts     bool // the row acts here
	make     func(t *testing.T) *scene
	commands []string // what is committed, when it matters
	verdict  string   // a verdict that must be there
}

// bent is a steady cluster with one thing changed.
func bent(change func(t *testing.T, c *scene)) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := steady(t)
		change(t, c)
		return c
	}
}

func begunTakeover(t *testing.T) *scene {
	c := steady(t)
	c.lose("db1")
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1, Cause: "lost"}})
	c.leaseClear = c.now + time.Second
	return c
}

func fencedTakeover(t *testing.T) *scene {
	c := begunTakeover(t)
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceLease, Node: "db1"}}})
	return c
}

func promotedTakeover(t *testing.T) *scene {
	c := fencedTakeover(t)
	c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-90")}
	c.follow(t)
	if c.s.Primary != "db2" {
		t.Fatalf("primary is %q", c.s.Primary)
	}
	return c
}

func switching(t *testing.T) *scene {
	c := steady(t)
	c.must(t, Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2", Actor: "ann"}})
	return c
}

func releasingTo(t *testing.T) *scene {
	c := switching(t)
	c.must(t, Command{Release: &Release{OpID: c.s.Op.ID, Epoch: 1}})
	return c
}

func restartingPrimary(t *testing.T) *scene {
	c := steady(t)
	c.obs["db1"].Server.State, c.obs["db1"].Serving = ServerDown, 0
	c.follow(t)
	if c.s.Op == nil || c.s.Op.Kind != KindRestart {
		t.Fatalf("operation is %+v", c.s.Op)
	}
	return c
}

var operationCases = []ruleCase{
	{code: "promoting.settle", name: "the new primary serves", acts: true, commands: []string{"settle"}, make: func(t *testing.T) *scene {
		c := promotedTakeover(t)
		c.serve("db2")
		return c
	}},
	{code: "promoting.settle", name: "its clients are on their way", acts: true, verdict: "promoting.wait", make: func(t *testing.T) *scene {
		c := promotedTakeover(t)
		c.serve("db2")
		c.served = settlePause - 1
		return c
	}},
	{code: "promoting.settle", name: "its clients have had time", acts: true, commands: []string{"settle"}, make: func(t *testing.T) *scene {
		c := promotedTakeover(t)
		c.serve("db2")
		c.served = settlePause
		return c
	}},
	{code: "promoting.settle", name: "it does not serve yet", acts: true, verdict: "promoting.wait", make: promotedTakeover},
	{code: "promoting.settle", name: "it serves the epoch before", acts: true, verdict: "promoting.wait", make: func(t *testing.T) *scene {
		c := promotedTakeover(t)
		c.serve("db2")
		c.obs["db2"].Serving = 1
		return c
	}},
	{code: "promoting.settle", name: "nothing is promoted", make: func(t *testing.T) *scene { return steady(t) }},

	{code: "failover.fence", name: "lease still running", acts: true, verdict: "failover.fence", make: begunTakeover},
	{code: "failover.fence", name: "lease run out", acts: true, commands: []string{"fence"}, make: func(t *testing.T) *scene {
		c := begunTakeover(t)
		c.wait(time.Second)
		return c
	}},
	{code: "failover.fence", name: "hbd reported the fence", acts: true, commands: []string{"fence"}, make: func(t *testing.T) *scene {
		c := begunTakeover(t)
		c.fence = &Evidence{Kind: EvidenceAgent, Node: "db1"}
		return c
	}},
	{code: "failover.fence", name: "no operation", make: func(t *testing.T) *scene { return steady(t) }},

	{code: "failover.promote", name: "all have answered", acts: true, commands: []string{"promote"}, make: func(t *testing.T) *scene {
		c := fencedTakeover(t)
		c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")}
		return c
	}},
	{code: "failover.promote", name: "one has not answered", acts: true, verdict: "candidate.count", make: func(t *testing.T) *scene {
		c := fencedTakeover(t)
		c.answers = []Answer{c.answer("db2", "0-1-100")}
		return c
	}},
	{code: "failover.promote", name: "not fenced yet", make: begunTakeover},

	{code: "primary.lost", name: "host lost", acts: true, commands: []string{"begin"}, make: bent(func(_ *testing.T, c *scene) { c.lose("db1") })},
	{code: "primary.lost", name: "lost while a switchover prepares", acts: true, commands: []string{"begin"}, make: func(t *testing.T) *scene {
		c := switching(t)
		c.lose("db1")
		return c
	}},
	{code: "primary.lost", name: "paused", acts: true, verdict: "cluster.paused", commands: []string{}, make: bent(func(t *testing.T, c *scene) {
		c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
		c.lose("db1")
	})},
	{code: "primary.lost", name: "a sync member is gone too", acts: true, verdict: "failover.count", commands: []string{}, make: bent(func(_ *testing.T, c *scene) {
		c.lose("db1")
		c.obs["db2"].Incarnation = "i-db2-again"
	})},
	{code: "primary.lost", name: "no replica acknowledges", acts: true, verdict: "failover.degraded", commands: []string{}, make: func(t *testing.T) *scene {
		c := steady(t, append(data("db1"), witness("w1"), witness("w2"))...)
		c.lose("db1")
		return c
	}},
	{code: "primary.lost", name: "nobody is left to acknowledge a barrier: the last one goes on alone", acts: true, commands: []string{"begin"}, make: lastOfTwo(0)},
	{code: "primary.lost", name: "nobody is left to acknowledge a barrier, and one must", acts: true, verdict: "failover.acknowledger", commands: []string{}, make: lastOfTwo(1)},
	{code: "primary.lost", name: "the other one was primary and may not follow yet, and one must", acts: true, verdict: "failover.acknowledger", commands: []string{}, make: bent(func(_ *testing.T, c *scene) {
		c.s.Settings.SyncMinReplicas = 1
		c.lose("db1")
		c.obs["db3"].Held = 1
	})},
	{code: "primary.lost", name: "only one voter misses it", make: bent(func(_ *testing.T, c *scene) {
		c.lose("db1")
		c.silent["db2"] = true
	})},
	{code: "primary.lost", name: "a replica is lost", make: bent(func(_ *testing.T, c *scene) { c.lose("db2") })},

	{code: "primary.agent-lost", name: "hbd lost and the lease run out", acts: true, commands: []string{"begin"}, make: bent(func(_ *testing.T, c *scene) {
		c.silent["db1"], c.noAgent["db1"] = true, true
		c.leaseClear = c.now - c.s.Settings.AgentGrace
	})},
	{code: "primary.agent-lost", name: "its lease may live", verdict: "primary.agent-lost", make: bent(func(_ *testing.T, c *scene) {
		c.silent["db1"], c.noAgent["db1"] = true, true
		c.leaseClear = c.now - c.s.Settings.AgentGrace + 1
	})},

	{code: "switchover.prepare", name: "the candidate lags", acts: true, verdict: "candidate.lag", commands: []string{}, make: func(t *testing.T) *scene {
		c := switching(t)
		lag := 60.0
		c.obs["db2"].Server.Lag = &lag
		return c
	}},
	{code: "switchover.prepare", name: "the candidate lags for too long", acts: true, commands: []string{"rollback"}, make: func(t *testing.T) *scene {
		c := switching(t)
		c.obs["db2"].Server.Lag = nil
		c.wait(c.s.Settings.PrepareTimeout + 1)
		return c
	}},
	{code: "switchover.prepare", name: "nobody asked", make: func(t *testing.T) *scene { return steady(t) }},

	{code: "switchover.release", name: "asked", acts: true, commands: []string{}, make: releasingTo},
	{code: "switchover.finish", name: "released and caught up", acts: true, commands: []string{"promote"}, make: releasedAndCaughtUp},
	{code: "switchover.finish", name: "the old primary is lost after its release", acts: true, commands: []string{"promote"}, make: func(t *testing.T) *scene {
		c := releasedAndCaughtUp(t)
		c.lose("db1")
		return c
	}},
	{code: "switchover.finish", name: "the candidate is lost", commands: []string{"rollback"}, make: func(t *testing.T) *scene {
		c := releasedAndCaughtUp(t)
		c.lose("db2")
		return c
	}},
	{code: "switchover.finish", name: "not caught up", commands: []string{}, make: func(t *testing.T) *scene {
		c := releasedAndCaughtUp(t)
		c.reached = false
		return c
	}},

	{code: "switchover.release", name: "no answer in time", acts: true, commands: []string{"rollback"}, make: func(t *testing.T) *scene {
		c := releasingTo(t)
		c.wait(c.s.Settings.ReleaseTimeout + 1)
		return c
	}},
	{code: "switchover.release", name: "candidate lost", acts: true, commands: []string{"rollback"}, make: func(t *testing.T) *scene {
		c := releasingTo(t)
		c.lose("db2")
		return c
	}},
	{code: "switchover.release", name: "still preparing", make: switching},

	{code: "restart.running", name: "being started", acts: true, verdict: "restart.wait", commands: []string{}, make: restartingPrimary},
	{code: "restart.running", name: "serves again", acts: true, commands: []string{"restarted"}, make: func(t *testing.T) *scene {
		c := restartingPrimary(t)
		c.serve("db1")
		return c
	}},
	{code: "restart.running", name: "the start failed", acts: true, commands: []string{"restart"}, make: func(t *testing.T) *scene {
		c := restartingPrimary(t)
		c.obs["db1"].FailedIndex = c.s.Op.Index
		return c
	}},
	{code: "restart.running", name: "the budget is used up", acts: true, commands: []string{"begin"}, make: spent},
	{code: "restart.running", name: "nothing restarts", make: func(t *testing.T) *scene { return steady(t) }},

	{code: "service.down", name: "mysqld down", acts: true, commands: []string{"restart"}, make: bent(func(_ *testing.T, c *scene) { c.obs["db1"].Server.State = ServerDown })},
	{code: "service.down", name: "mysqld hangs", acts: true, commands: []string{"restart"}, make: bent(func(_ *testing.T, c *scene) { c.obs["db1"].Server.State = ServerHung })},
	{code: "service.down", name: "the policy is to fail over", acts: true, commands: []string{"begin"}, make: bent(func(_ *testing.T, c *scene) {
		c.s.Settings.OnServiceDown = OnServiceDownFailover
		c.obs["db1"].Server.State = ServerDown
	})},
	{code: "service.down", name: "stopped in good order: its own data first, whatever the policy and the budget", acts: true, commands: []string{"restart"}, make: bent(func(_ *testing.T, c *scene) {
		c.s.Settings.OnServiceDown = OnServiceDownFailover
		for range c.s.Settings.RestartAttempts {
			c.s.Restarts = append(c.s.Restarts, c.wall)
		}
		c.obs["db1"].Server.State, c.obs["db1"].Server.Stopped = ServerDown, true
	})},
	{code: "service.down", name: "to fail over cannot be won: restart all the same", acts: true, commands: []string{"restart"}, verdict: "failover.count", make: bent(func(_ *testing.T, c *scene) {
		c.s.Settings.OnServiceDown = OnServiceDownFailover
		c.obs["db1"].Server.State = ServerDown
		c.lose("db3")
	})},
	{code: "service.down", name: "paused", acts: true, commands: []string{}, verdict: "cluster.paused", make: bent(func(t *testing.T, c *scene) {
		c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
		c.obs["db1"].Server.State = ServerDown
	})},
	{code: "service.down", name: "unknown is not down", make: bent(func(_ *testing.T, c *scene) { c.obs["db1"].Server.State = ServerUnknown })},
	{code: "service.down", name: "the report is old", make: bent(func(_ *testing.T, c *scene) {
		c.obs["db1"].Server.State = ServerDown
		c.silent["db1"] = true
	})},
	{code: "service.down", name: "a replica's mysqld is down", make: bent(func(_ *testing.T, c *scene) { c.obs["db2"].Server.State = ServerDown })},

	{code: "primary.not-serving", name: "reports for long that it cannot", acts: true, commands: []string{"begin"}, make: bent(func(_ *testing.T, c *scene) {
		c.obs["db1"].Serving = 0
		c.idle = time.Minute
	})},
	{code: "primary.not-serving", name: "for a moment only", make: bent(func(_ *testing.T, c *scene) {
		c.obs["db1"].Serving = 0
		c.idle = time.Second
	})},
	{code: "primary.not-serving", name: "commits wait: nobody else could serve either", make: bent(func(_ *testing.T, c *scene) {
		c.obs["db1"].Serving, c.obs["db1"].Server.CommitsWait = 0, true
		c.idle = time.Minute
	})},

	{code: "sync.recount", name: "a member has caught up", acts: true, commands: []string{"recount"}, make: bent(func(_ *testing.T, c *scene) {
		c.caughtUp = []SyncMember{{Node: "db2", Incarnation: "i-db2-again"}}
	})},
	{code: "sync.recount", name: "it counts already", acts: true, commands: []string{}, make: bent(func(_ *testing.T, c *scene) {
		c.caughtUp = []SyncMember{{Node: "db2", Incarnation: "i-db2"}}
	})},
	{code: "sync.recount", name: "there is no primary", commands: []string{}, make: func(t *testing.T) *scene {
		c := begunTakeover(t)
		c.caughtUp = []SyncMember{{Node: "db2", Incarnation: "i-db2-again"}}
		return c
	}},

	{code: "leader.blind", name: "the leader alone does not reach the primary", acts: true, commands: []string{}, make: blindLeader},
	{code: "leader.blind", name: "everybody reaches it", make: func(t *testing.T) *scene { return steady(t) }},
	{code: "leader.blind", name: "the leader is on its host", make: func(t *testing.T) *scene {
		c := blindLeader(t)
		c.self = "db1"
		return c
	}},

	{code: "leader.placement", name: "leader on the primary's host", acts: true, make: bent(func(_ *testing.T, c *scene) {
		c.self = "db1"
		c.wait(placementPause)
	})},
	{code: "leader.placement", name: "leader on the host of a primary that has just begun to serve", make: bent(func(_ *testing.T, c *scene) { c.self = "db1" })},
	{code: "leader.placement", name: "leader elsewhere", make: func(t *testing.T) *scene { return steady(t) }},
	{code: "leader.placement", name: "an operation runs", make: func(t *testing.T) *scene {
		c := switching(t)
		c.self = "db1"
		return c
	}},
}

// lastOfTwo has lost the primary of two data nodes.
func lastOfTwo(minReplicas int) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := steady(t, append(data("db1", "db2"), witness("w1"))...)
		c.s.Settings.SyncMinReplicas = minReplicas
		c.lose("db1")
		return c
	}
}

func releasedAndCaughtUp(t *testing.T) *scene {
	c := releasingTo(t)
	a := c.answer("db1", "0-1-100")
	c.release, c.reached = &a, true
	return c
}

// blindLeader is a leader without a path to the primary, which the others reach.
func blindLeader(t *testing.T) *scene {
	c := steady(t)
	c.blind = "db1"
	return c
}

// spent is a restart whose last attempt inside the budget has failed.
func spent(t *testing.T) *scene {
	c := restartingPrimary(t)
	for c.s.Op.Attempt < c.s.Settings.RestartAttempts {
		c.obs["db1"].FailedIndex = c.s.Op.Index
		attempt := c.s.Op.Attempt
		c.follow1(t)
		if c.s.Op.Attempt != attempt+1 {
			t.Fatalf("attempt %d follows %d", c.s.Op.Attempt, attempt)
		}
	}
	c.obs["db1"].FailedIndex = c.s.Op.Index
	return c
}

// follow1 commits what is decided once.
func (c *scene) follow1(t *testing.T) {
	t.Helper()
	for _, cmd := range c.decide().Commands {
		c.must(t, cmd)
	}
}

func TestDecideRules(t *testing.T) {
	for _, rc := range ruleCases {
		t.Run(rc.code+"/"+rc.name, func(t *testing.T) {
			c := rc.make(t)
			acting := c.acting()
			if got := slices.Contains(acting, rc.code); got != rc.acts {
				t.Errorf("acts = %v, want %v; acting are %v", got, rc.acts, acting)
			}
			d := c.decide()
			if rc.commands != nil && !slices.Equal(commandNames(d), rc.commands) {
				t.Errorf("commits %v, want %v; verdicts %v", commandNames(d), rc.commands, d.Verdicts)
			}
			if rc.verdict != "" && !hasVerdict(d.Verdicts, rc.verdict, "") {
				t.Errorf("no verdict %q among %v", rc.verdict, d.Verdicts)
			}
			for _, cmd := range d.Commands {
				c.must(t, cmd)
			}
		})
	}
}

// TestEveryRuleHasCases is what keeps a new row from going untested.
func TestEveryRuleHasCases(t *testing.T) {
	for _, r := range Rules() {
		for _, want := range []bool{true, false} {
			if !slices.ContainsFunc(ruleCases, func(c ruleCase) bool { return c.code == r.Code && c.acts == want }) {
				t.Errorf("rule %s has no case with acts=%v", r.Code, want)
			}
		}
		if r.Why == "" {
			t.Errorf("rule %s does not say why", r.Code)
		}
	}
	for _, c := range ruleCases {
		if !slices.ContainsFunc(Rules(), func(r Rule) bool { return r.Code == c.code }) {
			t.Errorf("case of rule %q, which does not exist", c.code)
		}
	}
}

func TestTransferGoesToAHealthyNode(t *testing.T) {
	c := steady(t)
	c.self = "db1"
	c.lose("db2")
	c.wait(placementPause)
	if d := c.decide(); d.Transfer != "db3" {
		t.Errorf("leadership goes to %q, want db3", d.Transfer)
	}
}

func TestBlindLeaderGivesWay(t *testing.T) {
	c := blindLeader(t)
	if d := c.decide(); d.Transfer != "db2" {
		t.Errorf("leadership goes to %q, want db2, which reaches the primary", d.Transfer)
	}
	c.silent["db2"] = true
	if d := c.decide(); d.Transfer != "" {
		t.Errorf("leadership goes to %q, which is not known to reach the primary", d.Transfer)
	}
}

func TestNotBootstrapped(t *testing.T) {
	if d := Decide(State{}, View{}); len(d.Commands)+len(d.Orders) > 0 || !hasVerdict(d.Verdicts, "cluster.bootstrapped", "") {
		t.Errorf("decides %+v about nothing", d)
	}
}
