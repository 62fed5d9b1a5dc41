package fsm

import (
	"testing"
	"time"
)

// degradedScene is a cluster whose replicas have been gone for long: commits wait for nobody.
func degradedScene(t *testing.T) *scene {
	c := steady(t)
	c.acks(t, 0)
	return c
}

// lostDegraded is one whose primary is lost after that.
func lostDegraded(t *testing.T) *scene {
	c := degradedScene(t)
	c.lose("db1")
	return c
}

func TestAskFailover(t *testing.T) {
	for _, row := range []struct {
		name string
		make func(*testing.T) *scene
		ask  Asked
		want string // "begin", "begin lossy", "accept", "accept vouched", "nothing", or the refusing rule
	}{
		{"a living primary", steadyScene, Asked{}, "begin"},
		{"to a replica", steadyScene, Asked{To: "db3"}, "begin"},
		{"a loss need not be accepted", steadyScene, Asked{Lossy: true}, "begin"},
		{"to a stranger", steadyScene, Asked{To: "db9"}, "candidate.not-data"},
		{"to the primary", steadyScene, Asked{To: "db1"}, "candidate.is-primary"},
		{"to one that may not", edited(steadyScene, func(_ *testing.T, c *scene) { c.s.Members[1].NeverPromote = true }), Asked{To: "db2"}, "candidate.never-promote"},
		{"to one without a server", edited(steadyScene, func(_ *testing.T, c *scene) { c.obs["db2"].Server.State = ServerDown }), Asked{To: "db2"}, "candidate.silent"},
		{"paused", edited(steadyScene, func(t *testing.T, c *scene) { c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}}) }), Asked{}, "cluster.paused"},
		{"during a switchover", releasingTo, Asked{}, "failover.planned"},
		{"too few could answer", edited(steadyScene, func(_ *testing.T, c *scene) { c.lose("db2") }), Asked{}, "failover.count"},
		{"degraded", lostDegraded, Asked{}, "failover.degraded"},
		{"degraded and accepted", lostDegraded, Asked{Lossy: true}, "begin lossy"},
		{"degraded, accepted and vouched for", lostDegraded, Asked{Lossy: true, Fenced: "db1"}, "begin lossy"},
		{"vouched for another", lostDegraded, Asked{Lossy: true, Fenced: "db2"}, "failover.fenced-other"},
		{"vouched for, and it reports", degradedScene, Asked{Lossy: true, Fenced: "db1"}, "failover.not-off"},
		{"degraded and serving", degradedScene, Asked{Lossy: true}, "failover.primary-serves"},
		{"nobody to acknowledge", edited(lostDegraded, func(t *testing.T, c *scene) {
			minReplicas(1)(t, c)
			c.lose("db3")
		}), Asked{Lossy: true}, "failover.acknowledger"},
		{"one stands", begunTakeover, Asked{}, "failover.running"},
		{"one stands, accepted", begunTakeover, Asked{Lossy: true}, "accept"},
		{"one stands, vouched for", begunTakeover, Asked{Lossy: true, Fenced: "db1"}, "accept vouched"},
		{"accepted already", accepted(begunTakeover, nil), Asked{Lossy: true}, "nothing"},
		{"accepted already, another wanted", accepted(begunTakeover, nil), Asked{Lossy: true, To: "db3"}, "accept"},
		{"vouched for already", accepted(begunTakeover, vouched), Asked{Lossy: true, Fenced: "db1"}, "nothing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := row.make(t)
			row.ask.Actor = "ann"
			cmd, some, refused := AskFailover(c.s, c.view(), row.ask)
			got := "nothing"
			switch {
			case refused != nil:
				got = refused.Rule
				if refused.OK || refused.Why == "" || some {
					t.Errorf("refused by %+v, and something to propose: %t", refused, some)
				}
			case cmd.Begin != nil && cmd.Begin.Lossy:
				got = "begin lossy"
			case cmd.Begin != nil:
				got = "begin"
			case cmd.AcceptLoss != nil && cmd.AcceptLoss.Vouched:
				got = "accept vouched"
			case cmd.AcceptLoss != nil:
				got = "accept"
			}
			if got != row.want {
				t.Fatalf("%s, want %s: %+v", got, row.want, refused)
			}
			if some {
				c.must(t, cmd) // the log takes what is proposed
			}
		})
	}
}

// TestAskedForIsPreferred among those that hold everything, and never before one that holds more.
func TestAskedForIsPreferred(t *testing.T) {
	c := steady(t)
	cmd, _, refused := AskFailover(c.s, c.view(), Asked{To: "db3", Actor: "ann"})
	if refused != nil {
		t.Fatal(refused)
	}
	c.must(t, cmd)
	c.must(t, fenceBy(EvidenceAgent)(c))
	equal := []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")}
	if choice, ok, v := Elect(c.s, equal, false, false); !ok || choice.To != "db3" {
		t.Errorf("of equals %s was chosen: %v", choice.To, v)
	}
	more := []Answer{c.answer("db2", "0-1-101"), c.answer("db3", "0-1-100")}
	if choice, ok, v := Elect(c.s, more, false, false); !ok || choice.To != "db2" {
		t.Errorf("%s was chosen before one that holds more: %v", choice.To, v)
	}
}

// TestOldPrimaryBackBeforeALoss: it holds everything, so an accepted loss is not carried out; unless somebody was named, or it has failed already.
func TestOldPrimaryBackBeforeALoss(t *testing.T) {
	back := func(edit func(*AcceptLoss), op func(*Operation)) Decision {
		c := accepted(begunTakeover, edit)(t)
		if c.s.Op.Step == StepBegun {
			c.must(t, fenceBy(EvidenceAgent)(c))
		}
		if op != nil {
			op(c.s.Op)
		}
		c.find("db1")
		c.s.Sync.Members, c.s.Sync.Acks = nil, 0 // degraded: nobody can win by count
		c.answers = []Answer{c.answer("db2", "0-1-90"), c.answer("db3", "0-1-90"), {Node: "db1", Epoch: c.s.Epoch, Held: 1}}
		return c.decide()
	}
	for _, row := range []struct {
		name string
		d    Decision
		want Won
	}{
		{"back", back(nil, nil), WonOwn},
		{"another is named", back(wanted("db2"), nil), WonLossy},
		{"it has failed already", back(nil, func(op *Operation) { op.Excluded = []NodeID{"db1"} }), WonLossy},
	} {
		if len(row.d.Commands) != 1 || row.d.Commands[0].Promote == nil || row.d.Commands[0].Promote.Won != row.want {
			t.Errorf("%s: want won by %s, commits %+v; %v", row.name, row.want, row.d.Commands, row.d.Verdicts)
		}
	}
}

// TestNothingIsLostUnasked is the control: without the operator's word no command of this file lets a loss pass.
func TestNothingIsLostUnasked(t *testing.T) {
	for _, make := range []func(*testing.T) *scene{steadyScene, degradedScene, lostDegraded, begunTakeover, fencedTakeover} {
		c := make(t)
		cmd, some, _ := AskFailover(c.s, c.view(), Asked{Actor: "ann"})
		if some && (cmd.AcceptLoss != nil || cmd.Begin.Lossy) {
			t.Errorf("a loss was accepted by nobody: %+v", cmd)
		}
	}
}

func TestTolerates(t *testing.T) {
	lower := func(n int) func(*testing.T, *scene) {
		return func(t *testing.T, c *scene) { c.acks(t, n) }
	}
	fiveMariaDB := func(t *testing.T) *scene { return steady(t, data("db1", "db2", "db3", "db4", "db5")...) }
	twoAndWitness := func(t *testing.T) *scene { return steady(t, append(data("db1", "db2"), witness("w1"))...) }
	for _, row := range []struct {
		name string
		make func(*testing.T) *scene
		want int
	}{
		{"three", steadyScene, 1},
		{"three, degraded", edited(steadyScene, lower(0)), 0},
		{"three, one gone and still in the set", edited(steadyScene, func(_ *testing.T, c *scene) { c.lose("db3") }), 0},
		{"two", func(t *testing.T) *scene { return steady(t, data("db1", "db2")...) }, 0},
		{"two and a witness", twoAndWitness, 1},
		{"two and a witness, writes may not go on alone", edited(twoAndWitness, minReplicas(1)), 0},
		{"two and a lost witness", edited(twoAndWitness, func(_ *testing.T, c *scene) { c.lose("w1") }), 0},
		{"five on MariaDB", fiveMariaDB, 1},
		{"five on MySQL", fiveMySQL, 2},
		{"five on MySQL, one acknowledgement", edited(fiveMySQL, lower(1)), 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := row.make(t)
			if got := Tolerates(c.s, c.view()); got != row.want {
				t.Errorf("%d, want %d; set %+v, without the primary: %v", got, row.want, c.s.Sync, IfLost(c.s, c.view()))
			}
		})
	}
}

// TestDegradedIsNoted: since when and why, until somebody acknowledges again.
func TestDegradedIsNoted(t *testing.T) {
	c := bootstrapped(t, data("db1", "db2", "db3")...)
	if c.s.Degraded == nil || c.s.Degraded.Cause == "" {
		t.Errorf("a new cluster: %+v", c.s.Degraded)
	}
	c = steady(t)
	if c.s.Degraded != nil {
		t.Errorf("with acknowledgements: %+v", c.s.Degraded)
	}
	for _, id := range []NodeID{"db2", "db3"} {
		c.obs[id].Server.State = ServerDown
	}
	c.decide()
	c.wait(degradeAfter + time.Second)
	for _, cmd := range c.decide().Commands {
		c.must(t, cmd)
	}
	if c.s.Degraded != nil || c.s.Change == nil {
		t.Fatalf("only intended: %+v, %+v", c.s.Degraded, c.s.Change)
	}
	cause := c.s.Change.Cause
	c.prepared("0-1-100")
	c.obs["db1"].PortGated = true
	for _, cmd := range c.decide().Commands {
		c.must(t, cmd)
	}
	if d := c.s.Degraded; d == nil || d.Cause != cause || d.Position != "0-1-100" || d.Since.IsZero() || d.Index == 0 {
		t.Fatalf("%+v, want it to be since now because %q", d, cause)
	}
	since := *c.s.Degraded
	c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
	if *c.s.Degraded != since {
		t.Errorf("another command changed it: %+v", c.s.Degraded)
	}
	c.acks(t, 1)
	if c.s.Degraded != nil {
		t.Errorf("somebody acknowledges: %+v", c.s.Degraded)
	}
}
