package cluster

import (
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
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
	}{
		{"reached long ago", time.Hour},
		{"reached a moment ago", 0},
	} {
		u := newUnit(t)
		u.steady("db1")
		l := leadsOver(u)
		u.leading.Store(l)
		set := u.settings()
		set.FailAfter = 500 * time.Millisecond
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
		if took := now() - begun; c.reached == 0 && took < set.FailAfter {
			t.Errorf("%s: told after %v, its age is evidence after %v", c.what, took, set.FailAfter)
		}
		await(t, c.what+": the others are told", func() bool { return kicked(other.kick) })
		tell(enoughTries+1, enoughTries+1)
		wait(t.Context(), 20*time.Millisecond) // it would be told after one
		if kicked(l.wake) || kicked(other.kick) {
			t.Errorf("%s: told twice", c.what)
		}
		tell(0, 0)
		tell(enoughTries, enoughTries)
		await(t, c.what+": its next loss is told", func() bool { return kicked(l.wake) })
		u.leading.Store(nil)
	}
}

// TestLossOfOneThatIsBackIsNotTold, nor are its connections cut.
func TestLossOfOneThatIsBackIsNotTold(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	l := leadsOver(u)
	u.leading.Store(l)
	defer u.leading.Store(nil)
	set := u.settings()
	set.FailAfter = 50 * time.Millisecond
	pe := u.peers.known["db2"]
	pe.lastAgent, pe.lastServer = now(), now()
	pe.noAgent, pe.noServer = enoughTries, enoughTries
	u.peers.tellLoss(pe, set)
	u.peers.received("db2", fsm.Observation{}) // proves nothing
	u.peers.mu.Lock()
	u.peers.contact(pe, fsm.Observation{Node: "db2", Run: "r", Sequence: 1, Server: fsm.ServerStatus{State: fsm.ServerUp}})
	u.peers.mu.Unlock()
	kicked(l.wake) // that it is back is news
	wait(t.Context(), 2*set.FailAfter)
	if kicked(l.wake) || u.host.count("SeverPeer") != 0 {
		t.Error("told")
	}
}

// TestLostWitnessIsTold: it has no mysqld that could answer.
func TestLostWitnessIsTold(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	l := leadsOver(u)
	u.leading.Store(l)
	defer u.leading.Store(nil)
	pe := u.peers.known["db3"]
	pe.member.Role = fsm.RoleWitness
	pe.noAgent, pe.lastAgent, pe.lastServer = enoughTries, now()-time.Hour, now()-time.Hour
	u.peers.tellLoss(pe, u.settings())
	await(t, "the leader is told", func() bool { return kicked(l.wake) })
	for i := range u.cfg.Peers {
		if u.cfg.Peers[i].ID == "db3" {
			u.cfg.Peers[i].Role = fsm.RoleWitness
		}
	}
	obs := fsm.Observation{Sights: []fsm.Sight{{Node: "db3", AgentAge: time.Hour}}}
	if got := u.peers.lostTo(obs); len(got) != 1 {
		t.Errorf("lost to it: %v", got)
	}
}

// TestLookTellsALoss, when enough have failed.
func TestLookTellsALoss(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.silence("db2")
	pe := u.peers.known["db2"]
	u.lookUntilLost(pe)
	if !pe.told {
		t.Error("not told")
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
