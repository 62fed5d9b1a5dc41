package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// shape is a cluster on which a storm has its point.
type shape struct {
	data, witnesses int
	server          string
}

var (
	three     = shape{data: 3}
	five      = shape{data: 5}
	standIn   = shape{data: 5, witnesses: 2}                  // a set of two, and two replicas outside it
	witnessed = shape{data: 3, witnesses: 2}                  // the primary has a majority without its replicas
	large     = shape{data: 5, witnesses: 2, server: "mysql"} // commits wait for two
)

func (s shape) config(seed uint64, focus string) Config {
	return Config{Seed: seed, Data: s.data, Witnesses: s.witnesses, Server: s.server, Chaos: 20 * time.Second, Focus: focus}
}

// control is one guarantee broken on purpose, the storm in which that matters, and how it must show.
type control struct {
	name     string
	shape    shape
	focus    string
	controls Controls
	want     string
	seeds    uint64
}

const loses = "lacks"

var controls = []control{
	{"skip the fence", three, "isolate", Controls{SkipFence: true}, "two open gates", 40},
	{"skip the lease wait", three, "isolate", Controls{SkipLeaseWait: true}, "two open gates", 40},
	{"skip the epoch check of the executor", three, "late-repair", Controls{SkipEpochCheck: true}, loses, 80},
	{"a late action of the same epoch", witnessed, "regained", Controls{LateAsync: true}, loses, 80},
	{"count members that have forgotten", three, "power-loss", Controls{CountAnyIncarnation: true}, loses, 40},
	{"open before the barrier", three, "double-crash", Controls{SkipBarrier: true}, loses, 80},
	{"grow: acknowledgements count before the commit", five, "primary-host", Controls{AckOutside: true}, loses, 80},
	{"shrink: commit before its acknowledgements stop", witnessed, "shrink-and-die", Controls{ShrinkFirst: true}, loses, 80},
	{"shrink: no wait for the others", witnessed, "shrink-and-die", Controls{ShrinkNoWait: true}, loses, 80},
	{"shrink: the removed member connects again", three, "lonely", Controls{Unblocked: true}, loses, 80},
	{"raise from 0: commit before mysqld waits", witnessed, "regrown", Controls{RaiseFirst: true}, loses, 80},
	{"raise from 1: commit before mysqld waits for 2", large, "regrown", Controls{RaiseFirst: true}, loses, 80},
	{"lower to 0: mysqld stops waiting before the commit", witnessed, "replicas-cut", Controls{LowerFirst: true}, loses, 80},
	{"lower to 1: mysqld waits for 1 before the commit", large, "replicas-cut", Controls{LowerFirst: true}, loses, 80},
	{"promote on fewer answers", three, "holder-dies", Controls{FewerAnswers: true}, loses, 80},
	{"promote replaces the set at once", three, "candidate-dies", Controls{DropBase: true}, loses, 80},
	{"a repair undoes the freeze", witnessed, "reboot-frozen", Controls{FreezeUndone: true}, loses, 80},
	{"replication starts by itself after the freeze", witnessed, "reboot-frozen", Controls{AutoStart: true}, loses, 80},
	{"a rollback by a local deadline", three, "torn-switchover", Controls{LocalRollback: true}, "two open gates", 80},
	{"rewind before a newer epoch is settled", three, "holder-dies", Controls{RewindEarly: true}, loses, 80},
	{"rewind what was written while degraded", witnessed, "all-replicas", Controls{RewindDegraded: true}, loses, 80},
	{"chain: acknowledgements count before the old source is left", five, "chain-torn", Controls{AckTooEarly: true}, loses, 80},
	{"chain: whole without what was received in the chain", witnessed, "chain-forgets", Controls{ForgetChain: true}, loses, 80},
	{"semi-sync off in the fence", three, "isolate", Controls{SemiSyncOffInFence: true}, loses, 40},
}

// TestControls breaks one guarantee at a time. Each must be seen within a bounded number of worlds, by the check that it belongs to.
func TestControls(t *testing.T) {
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := range c.seeds {
				cfg := c.shape.config(seed, c.focus)
				cfg.Controls = c.controls
				if r := Run(cfg); r.Violation != "" && strings.Contains(r.Violation, c.want) {
					t.Logf("seed %d: %s", seed, r.Violation)
					return
				}
			}
			t.Errorf("not seen in %d worlds", c.seeds)
		})
	}
}

// TestFocusedWorldsHold plays the storms of the controls without the controls.
func TestFocusedWorldsHold(t *testing.T) {
	var played []control
	for _, c := range append(slices.Clone(controls), control{shape: standIn, focus: "members-die"}, control{shape: three, focus: "chain-dies"},
		control{shape: large, focus: "chain-dies"}, control{shape: large, focus: "chain-torn"}, control{shape: three, focus: "chain-torn"}) {
		if slices.ContainsFunc(played, func(o control) bool { return o.focus == c.focus && o.shape == c.shape }) {
			continue
		}
		played = append(played, c)
		t.Run(fmt.Sprintf("%s on %d+%d", c.focus, c.shape.data, c.shape.witnesses), func(t *testing.T) {
			t.Parallel()
			first, count := seeds(t, 10)
			cfg := c.shape.config(0, c.focus)
			cfg.Heal = time.Minute
			play(cfg, first, count, func(r Result) {
				if r.Violation != "" {
					t.Errorf("%+v seed %d: %s\n%s", c.shape, r.Seed, r.Violation, tail(r.Transcript, 120))
				}
			})
		})
	}
}
