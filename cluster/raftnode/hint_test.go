package raftnode

import (
	"testing"
	"time"
)

// TestFollowersLearnOfACommitWithoutAnotherEntry: the library's own word would come in an hour. Without the hints this test waits for that.
func TestFollowersLearnOfACommitWithoutAnotherEntry(t *testing.T) {
	_, ms := group(t, 3, func(c *Config) {
		c.Timing.CommitTimeout = time.Hour
		c.Watchdog = Watchdog{Interval: time.Hour, Stall: 2 * time.Hour}
	})
	first := leader(t, ms)
	for _, command := range []string{"a", "b", "c"} {
		_, index, err := first.Apply(within(t, 5*time.Second), []byte(command))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			eventually(t, m.ID().Node()+" to apply "+command, func() bool { return m.Stats().Applied >= index })
		}
		if last := first.raft.LastIndex(); last != index {
			t.Errorf("entries up to %d were sent to tell of %d", last, index)
		}
	}
	holds(t, ms, "a", "b", "c")
}

// TestFollowersLearnOfABarrier: what an earlier leader has stored is committed by one.
func TestFollowersLearnOfABarrier(t *testing.T) {
	_, ms := group(t, 3, func(c *Config) {
		c.Timing.CommitTimeout = time.Hour
		c.Watchdog = Watchdog{Interval: time.Hour, Stall: 2 * time.Hour}
	})
	first := leader(t, ms)
	for range 3 {
		round, err := first.Barrier(within(t, 5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			eventually(t, m.ID().Node()+" to apply the barrier", func() bool { return m.Stats().Applied >= round.Index })
		}
	}
}

// TestHintNeverGoesBeyondWhatIsShared: a follower may have more in its log than this leader gave it.
func TestHintNeverGoesBeyondWhatIsShared(t *testing.T) {
	tr := newTransport(nil)
	f := &follower{index: 7, told: 6}
	tr.followers["db2"], tr.commit = f, 9
	if !tr.hintDue("db2", f) {
		t.Error("no hint for 7, which is stored there and committed")
	}
	f.told = 7
	if tr.hintDue("db2", f) {
		t.Error("a hint beyond what is stored there")
	}
	f.told = 6
	tr.endEra()
	if tr.hintDue("db2", f) {
		t.Error("a hint of an ended leadership")
	}
}
