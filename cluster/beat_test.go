package cluster

import (
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// TestBeatsFallTogether: a long period's beat is one of each shorter period that divides it, and none is missed or met twice.
func TestBeatsFallTogether(t *testing.T) {
	const short, long = 100 * time.Millisecond, 200 * time.Millisecond
	for _, at := range []fsm.Instant{0, 1, short - 1, short, short + 1, long - 1, long, 7*long + 3, -1, -short} {
		a, b := untilBeat(at, short), untilBeat(at, long)
		if a <= 0 || a > short || b <= 0 || b > long {
			t.Errorf("at %v: %v and %v until the beats of %v and %v", at, a, b, short, long)
		}
		if (at+a)%short != 0 || (at+b)%long != 0 || (at+b)%short != 0 {
			t.Errorf("at %v: the beats are at %v and %v", at, at+a, at+b)
		}
	}
	if got := untilBeat(3*short, short); got != short {
		t.Errorf("on the beat: %v, want the next one", got)
	}
}

func TestPhasesOfNodesDiffer(t *testing.T) {
	c := Config{Settings: fsm.Settings{Ping: 90 * time.Millisecond}, Peers: []fsm.Member{{ID: "db1"}, {ID: "db2"}, {ID: "db3"}}}
	for i, want := range []time.Duration{0, 30 * time.Millisecond, 60 * time.Millisecond} {
		c.Node = c.Peers[i].ID
		if got := c.phase(); got != want {
			t.Errorf("%s: %v, want %v", c.Node, got, want)
		}
	}
}

func TestAttentive(t *testing.T) {
	for _, c := range []struct {
		what     string
		st       fsm.State
		standing fsm.Standing
		want     bool
	}{
		{"a primary in service", fsm.State{}, fsm.StandingServing, false},
		{"a replica in service", fsm.State{}, fsm.StandingReplica, false},
		{"an operation", fsm.State{Op: &fsm.Operation{}}, fsm.StandingServing, true},
		{"another node's rebuild", fsm.State{Rebuilds: []fsm.Rebuilding{{}}}, fsm.StandingReplica, true},
		{"a primary that does not serve", fsm.State{}, fsm.StandingPrimary, true},
		{"a start", fsm.State{}, fsm.StandingStarting, true},
		{"one on its way", fsm.State{}, fsm.StandingCatching, true},
	} {
		if got := attentive(c.st, c.standing); got != c.want {
			t.Errorf("%s: %t", c.what, got)
		}
	}
}

// TestPingsAreFewerInPlainService: only where the settings leave room for as many tries before a peer counts as lost, and only while all answer.
func TestPingsAreFewerInPlainService(t *testing.T) {
	u := newUnit(t)
	for _, profile := range []string{"lan", "fast"} {
		set, err := fsm.Profile(profile)
		if err != nil {
			t.Fatal(err)
		}
		narrow, stale, blind := set, set, set
		narrow.Lease = longestCalm(set) + set.FailAfter - 1
		stale.ReportMaxAge = 2*longestCalm(set) + set.FailAfter - 1
		blind.Lease, blind.Renew, blind.FailAfter = 2*longestCalm(set), set.Ping/10, set.Ping/10
		for _, c := range []struct {
			what   string
			set    fsm.Settings
			calm   bool
			answer bool
			want   time.Duration
		}{
			{"plain service", set, true, true, calmPings * set.Ping},
			{"something goes on", set, false, true, set.Ping},
			{"one does not answer", set, true, false, set.Ping},
			{"three tries would not fit into a lease", narrow, true, true, set.Ping},
			{"reports would be too old", stale, true, true, set.Ping},
			{"a leader would take itself for blind", blind, true, true, set.Ping},
		} {
			u.calm.Store(c.calm)
			longest := time.Duration(0)
			for range 40 { // wherever between two beats it is asked
				longest = max(longest, u.pingPause(c.set, c.answer))
				wait(t.Context(), set.Ping/13)
			}
			if longest > c.want || longest <= c.want/2 {
				t.Errorf("%s, %s: up to %v until the next ping, want up to %v", profile, c.what, longest, c.want)
			}
		}
	}
}

// TestTurnMeetsTheEndOfALease, however far the next beat is.
func TestTurnMeetsTheEndOfALease(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.calm.Store(true)
	longest := time.Duration(0)
	for range 40 {
		longest = max(longest, u.turnPause(u.store.State()))
		wait(t.Context(), u.settings().Ping/13)
	}
	if ping := u.settings().Ping; longest <= ping || longest > calmTurns*ping {
		t.Errorf("without a lease up to %v until the next turn, a ping is every %v", longest, ping)
	}
	const left = 5 * time.Millisecond
	await(t, "a look while the lease lasts", func() bool {
		u.lease(left)
		got := u.turnPause(u.store.State())
		lasted := u.holder.left(u.store.State().Epoch) > 0
		if lasted && got > left+time.Millisecond {
			t.Errorf("%v until the next turn, and the lease ends in %v", got, left)
		}
		return lasted
	})
}
