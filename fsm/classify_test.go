package fsm

import (
	"testing"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(c *scene)
		node NodeID
		want Health
		lost bool
		gone bool // only its hbd
	}{
		{"healthy", func(*scene) {}, "db1", HealthOK, false, false},
		{"a quorum reaches neither", func(c *scene) { c.lose("db1") }, "db1", HealthFailed, true, true},
		{"hbd only", func(c *scene) { c.noAgent["db1"], c.silent["db1"] = true, true }, "db1", HealthSuspect, false, true},
		{"hbd only, though it reports", func(c *scene) { c.noAgent["db1"] = true }, "db1", HealthSuspect, false, true},
		{"mysqld unreachable over the network, hbd says up", func(c *scene) { c.noServer["db1"] = true }, "db1", HealthOK, false, false},
		{"one voter alone is no quorum", func(c *scene) { c.lose("db1"); c.silent["db2"] = true }, "db1", HealthUnknown, false, false},
		{"no report and nobody misses it", func(c *scene) { c.silent["db1"] = true }, "db1", HealthUnknown, false, false},
		{"mysqld down", func(c *scene) { c.obs["db1"].Server.State = ServerDown }, "db1", HealthSuspect, false, false},
		{"mysqld hangs", func(c *scene) { c.obs["db1"].Server.State = ServerHung }, "db1", HealthSuspect, false, false},
		{"mysqld not looked at", func(c *scene) { c.obs["db1"].Server.State = ServerUnknown }, "db1", HealthUnknown, false, false},
		{"quarantined", func(c *scene) { c.obs["db2"].Standing, c.obs["db2"].Reason = StandingQuarantined, "errant" }, "db2", HealthSuspect, false, false},
		{"disk full", func(c *scene) { c.obs["db1"].Server.Fault = "disk full" }, "db1", HealthSuspect, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := steady(t)
			c.edit(sc)
			n := sc.view().Node(c.node)
			if n.Health != c.want || n.Lost != c.lost || n.AgentLost != c.gone {
				t.Errorf("health %s lost=%v agentLost=%v (%s), want %s lost=%v agentLost=%v", n.Health, n.Lost, n.AgentLost, n.Reason, c.want, c.lost, c.gone)
			}
			if n.Health != HealthOK && n.Reason == "" {
				t.Error("no reason is given")
			}
		})
	}
}

// TestFailedNeedsAQuorumOfDirectSights is I5, counted: of five voters three must miss a node themselves, and reports that are old do not count.
func TestFailedNeedsAQuorumOfDirectSights(t *testing.T) {
	members := append(data("db1", "db2", "db3"), witness("w1"), witness("w2"))
	others := []NodeID{"db2", "db3", "w1", "w2"}
	for mask := range 1 << len(others) {
		c := steady(t, members...)
		c.lose("db1")
		fresh := 0
		for i, id := range others {
			if mask&(1<<i) == 0 {
				c.silent[id] = true
			} else {
				fresh++
			}
		}
		n := c.view().Node("db1")
		if n.Lost != (fresh >= 3) {
			t.Errorf("%d of 5 voters miss it: lost is %v", fresh, n.Lost)
		}
		if c.decide(); (len(c.last.Commands) > 0) && fresh < 3 {
			t.Errorf("%d of 5 voters miss it, and %v is committed", fresh, commandNames(c.last))
		}
	}
}

func TestWitnessNeedsNoServer(t *testing.T) {
	c := steady(t, append(data("db1", "db2"), witness("w1"))...)
	c.noAgent["w1"] = true
	if n := c.view().Node("w1"); !n.Lost {
		t.Errorf("a witness without hbd is %s", n.Health)
	}
}

// TestNewLeaderKnowsNothing: a view starts empty, and an empty view starts nothing.
func TestNewLeaderKnowsNothing(t *testing.T) {
	c := steady(t)
	v := Classify(c.s, View{Self: "db2", Now: c.now, Wall: c.wall})
	for _, n := range v.Nodes {
		if n.Health != HealthUnknown || n.Lost || n.AgentLost {
			t.Errorf("%s is %s to a leader that has heard nothing", n.ID, n.Health)
		}
	}
	if d := Decide(c.s, v); len(d.Commands)+len(d.Orders) > 0 || d.Transfer != "" {
		t.Errorf("it decides %+v", d)
	}
}
