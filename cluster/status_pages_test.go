package cluster

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// TestPagesOfNodes: what is wrong with a node leads to its runbook, and what passes by itself, or is told elsewhere, to none.
func TestPagesOfNodes(t *testing.T) {
	var care repairs
	for range 7 {
		care.begin("care.applier-error", 0)
	}
	held := care.heldBack("care.applier-error", 0)
	var odd strangers
	odd.heardFrom(netip.MustParseAddr("10.0.0.9"), 0, nil)
	for _, c := range []struct {
		name string
		edit func(*fsm.NodeView)
		want []string
	}{
		{"well", func(*fsm.NodeView) {}, nil},
		{"quarantined", func(n *fsm.NodeView) { n.Obs.Standing = fsm.StandingQuarantined }, []string{pageQuarantined}},
		{"quarantined without a mysqld", func(n *fsm.NodeView) { n.Obs.Standing, n.Health = fsm.StandingQuarantined, fsm.HealthSuspect }, []string{pageQuarantined}},
		{"quarantined and lost", func(n *fsm.NodeView) { n.Obs.Standing, n.Health = fsm.StandingQuarantined, fsm.HealthFailed }, nil},
		{"repaired in vain", func(n *fsm.NodeView) { n.Obs.Standing, n.Obs.Reason = fsm.StandingCatching, "applying: 1062; "+held }, []string{pageReplication}},
		{"repaired once", func(n *fsm.NodeView) { n.Obs.Standing, n.Obs.Reason = fsm.StandingCatching, "applying: 1062" }, nil},
		{"a setting", func(n *fsm.NodeView) { n.Obs.Server.Problems = []string{"sync_binlog is 0"} }, []string{pageSettings}},
		{"a stranger, which names its own page", func(n *fsm.NodeView) { n.Obs.Server.Problems = odd.problems(0) }, nil},
		{"no gate in the kernel", func(n *fsm.NodeView) { n.Obs.KernelGate = false }, []string{pageSettings}},
		{"all at once", func(n *fsm.NodeView) {
			n.Obs.Standing, n.Obs.KernelGate, n.Obs.Server.Problems = fsm.StandingQuarantined, false, []string{"sync_binlog is 0"}
		}, []string{pageQuarantined, pageSettings}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := fsm.State{Primary: "db1", Members: []fsm.Member{{ID: "db1", Role: fsm.RoleData}, {ID: "db2", Role: fsm.RoleData}, {ID: "w1", Role: fsm.RoleWitness}}}
			well := fsm.NodeView{ID: "db2", Known: true, Health: fsm.HealthOK, Obs: fsm.Observation{Standing: fsm.StandingReplica, KernelGate: true}}
			primary := well
			primary.ID, primary.Obs.Standing = "db1", fsm.StandingServing
			c.edit(&well)
			got := pagesOfNodes(st, fsm.View{Nodes: []fsm.NodeView{primary, well, {ID: "w1", Known: true, Health: fsm.HealthOK}}})
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
