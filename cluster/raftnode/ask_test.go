package raftnode

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestQuestionWritesNothing: leadership is proved while nobody's disk takes a write, through which the log could prove nothing.
func TestQuestionWritesNothing(t *testing.T) {
	disks, ms := groupOnDisks(t, func(c *Config) { c.Watchdog.Stall, c.Timing = time.Minute, LANTiming() })
	l := leader(t, ms)
	eventually(t, "a heartbeat of this term", func() bool { c, ok := l.transport.claimed(); return ok && c.term == l.Term() })
	for _, d := range disks {
		release := d.hang()
		defer release()
	}
	before := l.Stats().LastIndex
	for range 20 {
		if term, err := l.VerifyLeadership(within(t, patience)); err != nil || term != l.Term() {
			t.Fatalf("term %d, %v; leads in %d", term, err, l.Term())
		}
	}
	if _, err := l.VerifyQuorumRound(within(t, 300*time.Millisecond)); err == nil || l.Stats().LastIndex != before {
		t.Errorf("the disks take writes: %v, index %d after %d", err, l.Stats().LastIndex, before)
	}
}

// TestDeposedLeaderIsToldSo: as soon as a quorum is in a later term no question proves anything, whether or not the old leader has heard. The library's
// own VerifyLeader may still say yes for as long as it credits answers to what was sent before.
func TestDeposedLeaderIsToldSo(t *testing.T) {
	w, ms := group(t, 3, func(c *Config) { c.Timing.LeaderLease = c.Timing.Heartbeat })
	old := leader(t, ms)
	term, err := old.VerifyLeadership(within(t, 5*time.Second))
	if err != nil {
		t.Fatalf("positive control: %v", err)
	}
	var was claim
	eventually(t, "a heartbeat of this term", func() (ok bool) { was, ok = old.transport.claimed(); return ok && was.term == term })
	w.setCut(old.cfg.Node, true)
	for old.IsLeader() {
		if term, err := old.VerifyLeadership(within(t, 50*time.Millisecond)); err == nil {
			t.Fatalf("alone it proved that it leads in term %d", term)
		}
	}
	rest := others(ms, old)
	apply(t, rest, "kept")
	w.setCut(old.cfg.Node, false)
	// What the old leader would ask, if it had not noticed: the others are in a later term.
	answers := make(chan bool, 2)
	for _, m := range rest {
		eventually(t, "a way to "+m.cfg.Node, func() bool {
			old.transport.attempt(raft.ServerID(m.ID()), &raft.AppendEntriesRequest{})
			return old.transport.ask(Server{ID: m.ID(), Address: m.Address()}, was, answers)
		})
		if <-answers {
			t.Errorf("%s takes a heartbeat of term %d", m.cfg.Node, term)
		}
	}
	if next := leader(t, ms); next.Term() <= term {
		t.Errorf("term %d after %d", next.Term(), term)
	}
}

// TestNonVotersAnswerForNobody: with the other voters gone, the answers of two members that have no vote make no quorum. Of all five they would.
func TestNonVotersAnswerForNobody(t *testing.T) {
	w, ms := group(t, 3, func(c *Config) { c.Timing.LeaderLease = c.Timing.Heartbeat })
	l := leader(t, ms)
	for _, name := range []string{"db4", "db5"} {
		extra := start(t, w, testConfig(t, w, name))
		if err := l.AddServer(within(t, patience), Server{ID: extra.ID(), Address: extra.Address()}); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" to answer", func() bool { return l.transport.answering(extra.ID()) })
	}
	for _, m := range others(ms, l) {
		w.setCut(m.cfg.Node, true)
	}
	for l.IsLeader() {
		if term, err := l.VerifyLeadership(within(t, 50*time.Millisecond)); err == nil {
			t.Fatalf("members without a vote proved leadership in term %d", term)
		}
	}
}

// TestQuestionThatHangsIsAskedAgain once the peer answers a heartbeat: the one before is on a connection that is dead.
func TestQuestionThatHangsIsAskedAgain(t *testing.T) {
	const heartbeat = 2 * time.Second // questions hang for four times that
	w, ms := group(t, 3, func(c *Config) {
		c.Timing = Timing{Heartbeat: heartbeat, Election: heartbeat, LeaderLease: heartbeat, CommitTimeout: heartbeat}
		c.Watchdog.Stall = time.Minute
	})
	l := leader(t, ms)
	peer := others(ms, l)[0]
	to := Server{ID: peer.ID(), Address: peer.Address()}
	answers := make(chan bool, 100)
	ask := func() bool {
		c, _ := l.transport.claimed()
		return l.transport.ask(to, c, answers)
	}
	eventually(t, "an answer", func() bool { return ask() && <-answers })
	w.setCut(peer.cfg.Node, true)
	eventually(t, "a question that hangs, and none beside it", func() bool { return ask() && !ask() })
	l.transport.outcome(raft.ServerID(peer.ID()), nil)
	if !ask() {
		t.Error("it does not ask again")
	}
	if len(answers) > 0 {
		t.Errorf("a question that hangs was answered: %v", <-answers)
	}
}
