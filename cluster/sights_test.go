package cluster

import (
	"testing"
	"time"
)

// kicked takes a kick, if there is one.
func kicked(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// TestLossIsToldWhenItBecomesEvidence: not at the next beat, not before, and once.
func TestLossIsToldWhenItBecomesEvidence(t *testing.T) {
	for _, c := range []struct {
		what    string
		reached time.Duration // ago
		young   bool          // its age is no evidence when enough tries have failed
	}{
		{"reached long ago", time.Hour, false},
		{"reached a moment ago", 0, true},
	} {
		u := newUnit(t)
		u.steady("db1")
		l := leadsOver(u)
		u.leading.Store(l)
		set := u.settings()
		set.FailAfter = 500 * time.Millisecond // longer than the tries take
		pe, other := u.peers.known["db2"], u.peers.known["db3"]
		tell := func(agent, server int) {
			u.peers.mu.Lock()
			pe.noAgent, pe.noServer = agent, server
			u.peers.mu.Unlock()
			u.peers.tellLoss(pe, set)
		}
		begun := now()
		pe.lastAgent, pe.lastServer = begun-c.reached, begun-c.reached
		tell(enoughTries, enoughTries-1)
		if pe.told {
			t.Fatalf("%s: told although its mysqld may be there", c.what)
		}
		tell(enoughTries, enoughTries)
		await(t, c.what+": the leader is told", func() bool { return kicked(l.wake) })
		if young := now()-begun < set.FailAfter; young && c.young {
			t.Errorf("%s: told after %v, its age is evidence after %v", c.what, now()-begun, set.FailAfter)
		}
		if !kicked(other.kick) {
			t.Errorf("%s: the others are not told", c.what)
		}
		tell(enoughTries+1, enoughTries+1)
		if !pe.told {
			t.Fatalf("%s: what was told is forgotten", c.what)
		}
		tell(0, 0)
		if pe.told {
			t.Errorf("%s: it is back, and its next loss would not be told", c.what)
		}
		u.leading.Store(nil)
	}
}

// TestLeaderMeetsTheEndOfTheLastLease, however far its next look is.
func TestLeaderMeetsTheEndOfTheLastLease(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	l := leadsOver(u)
	for _, c := range []struct {
		what   string
		clear  time.Duration // from now
		within time.Duration
	}{
		{"it ends before", time.Second, time.Second},
		{"it ends after", 2 * time.Hour, time.Hour},
		{"it has ended", -time.Second, time.Hour},
	} {
		u.grantor.clear = now() + c.clear
		if got := l.untilClear(time.Hour); got > c.within || got < c.within-500*time.Millisecond {
			t.Errorf("%s: it looks again after %v, want %v", c.what, got, c.within)
		}
	}
}
