package cluster

import (
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// TestRebuildProgress: what is told of a rebuild is worked out from how much came, how long that took and about how much it will be.
func TestRebuildProgress(t *testing.T) {
	t.Parallel()
	const mib = int64(1 << 20)
	left := func(s float64) *float64 { return &s }
	for _, c := range []struct {
		what    string
		need    fsm.RebuildNeed
		phase   string
		percent float64
		rate    float64
		left    *float64
		note    string
	}{
		{"ordered and not begun", fsm.RebuildNeed{}, "waiting", 0, 0, nil, "rebuilt from db2: waiting"},
		{"a quarter of it", fsm.RebuildNeed{Phase: "receiving", Received: 100 * mib, Size: 400 * mib, Elapsed: 50 * time.Second},
			"receiving", 25, float64(2 * mib), left(150), "rebuilt from db2: receiving 25 %, 2 MiB/s, 2m30s left"},
		{"nothing yet", fsm.RebuildNeed{Phase: "receiving", Size: 400 * mib, Elapsed: time.Second},
			"receiving", 0, 0, nil, "rebuilt from db2: receiving 0 %, 0 MiB/s"},
		{"no time has passed", fsm.RebuildNeed{Phase: "receiving", Received: mib, Size: 4 * mib},
			"receiving", 25, 0, nil, "rebuilt from db2: receiving 25 %, 0 MiB/s"},
		{"the size is not known", fsm.RebuildNeed{Phase: "receiving", Received: 4 * mib, Elapsed: 2 * time.Second},
			"receiving", 0, float64(2 * mib), nil, "rebuilt from db2: receiving"},
		{"all that was expected", fsm.RebuildNeed{Phase: "receiving", Received: 4 * mib, Size: 4 * mib, Elapsed: 2 * time.Second},
			"receiving", 99, float64(2 * mib), nil, "rebuilt from db2: receiving 99 %, 2 MiB/s"},
		{"more than the size", fsm.RebuildNeed{Phase: "receiving", Received: 8 * mib, Size: 4 * mib, Elapsed: 4 * time.Second},
			"receiving", 99, float64(2 * mib), nil, "rebuilt from db2: receiving 99 %, 2 MiB/s"},
		{"received", fsm.RebuildNeed{Phase: "preparing", Received: 3 * mib, Size: 4 * mib, Elapsed: 4 * time.Second},
			"preparing", 100, 0, nil, "rebuilt from db2: preparing"},
	} {
		st := fsm.State{Rebuilds: []fsm.Rebuilding{{Node: "db3", Donor: "db2"}}}
		got := rebuildOf(st, fsm.Observation{Node: "db3", Rebuild: c.need})
		if got == nil {
			t.Fatalf("%s: no rebuild", c.what)
		}
		if got.Phase != c.phase || got.Bytes != c.need.Received || got.Size != c.need.Size || got.Percent != c.percent || got.Rate != c.rate {
			t.Errorf("%s: %+v", c.what, *got)
		}
		switch {
		case (got.LeftSeconds == nil) != (c.left == nil):
			t.Errorf("%s: what is left is known: %t", c.what, got.LeftSeconds != nil)
		case c.left != nil && *got.LeftSeconds != *c.left:
			t.Errorf("%s: %v s are left, want %v", c.what, *got.LeftSeconds, *c.left)
		}
		if note := rebuildNote(*got); note != c.note {
			t.Errorf("%s: %q, want %q", c.what, note, c.note)
		}
	}
	if got := rebuildOf(fsm.State{}, fsm.Observation{Node: "db3"}); got != nil {
		t.Errorf("a rebuild that nobody ordered: %+v", *got)
	}
}
