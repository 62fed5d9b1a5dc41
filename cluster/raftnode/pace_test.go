package raftnode

import (
	"testing"
	"time"
)

// TestPaceGoesWithLeadership: only the leader works with it, and whoever has lost leadership suspects its successor as soon as every follower does.
func TestPaceGoesWithLeadership(t *testing.T) {
	_, ms := group(t, 3, func(c *Config) { c.Timing.Pace = 2 * c.Timing.Heartbeat })
	timeout := func(m *member) time.Duration { return m.raft.ReloadableConfig().HeartbeatTimeout }
	paced := func(l *member) func() bool {
		return func() bool {
			for _, m := range others(ms, l) {
				if timeout(m) != m.cfg.Timing.Heartbeat {
					return false
				}
			}
			return timeout(l) == l.cfg.Timing.Pace
		}
	}
	first := leader(t, ms)
	eventually(t, "the leader alone to have its pace", paced(first))
	to := others(ms, first)[0].ID()
	eventually(t, "a successor that answers", func() bool { return first.transport.answering(to) })
	if err := first.TransferTo(within(t, 5*time.Second), to); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its successor alone to have it", func() bool { return paced(leader(t, ms))() })
	if leader(t, ms) == first {
		t.Fatal("nobody took over")
	}
}

func TestPaceKeepsToItsBounds(t *testing.T) {
	for factor, fits := range map[float64]bool{0.5: false, 1: true, 3: true, 3.5: false} {
		c := Config{Timing: LANTiming(), Watchdog: Watchdog{Interval: time.Second, Stall: 3 * time.Second}}
		c.Timing.Pace = time.Duration(factor * float64(c.Timing.Heartbeat))
		if err := c.checkTimes(); (err == nil) != fits {
			t.Errorf("a pace of %v: %v", c.Timing.Pace, err)
		}
	}
}
