package raftnode

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// hangingDisk is a log store whose writes can be made to wait, like a disk behind a lost controller.
type hangingDisk struct {
	raft.LogStore
	mu   sync.Mutex
	hung chan struct{}
}

func (d *hangingDisk) hang() (release func()) {
	ch := make(chan struct{})
	d.mu.Lock()
	d.hung = ch
	d.mu.Unlock()
	return func() {
		d.mu.Lock()
		d.hung = nil
		d.mu.Unlock()
		close(ch)
	}
}

func (d *hangingDisk) wait() {
	d.mu.Lock()
	hung := d.hung
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
}

func (d *hangingDisk) StoreLog(l *raft.Log) error {
	d.wait()
	return d.LogStore.StoreLog(l)
}

func (d *hangingDisk) StoreLogs(l []*raft.Log) error {
	d.wait()
	return d.LogStore.StoreLogs(l)
}

// groupOnDisks is a group of three whose disks can be made to hang, by node.
func groupOnDisks(t *testing.T, change func(*Config)) (map[string]*hangingDisk, []*member) {
	t.Helper()
	disks := map[string]*hangingDisk{}
	_, ms := group(t, 3, func(c *Config) {
		d := &hangingDisk{}
		disks[c.Node] = d
		c.wrapLogs = func(s raft.LogStore) raft.LogStore {
			d.LogStore = s
			return d
		}
		if change != nil {
			change(c)
		}
	})
	return disks, ms
}

// TestLeaderWithAHungDiskReportsItself also shows why: until it goes, its heartbeats keep the others
// from electing anybody.
func TestLeaderWithAHungDiskReportsItself(t *testing.T) {
	disks, ms := groupOnDisks(t, nil)
	l := leader(t, ms)
	rest := others(ms, l)
	term := l.Term()
	release := disks[l.cfg.Node].hang()
	var reason string
	select {
	case reason = <-l.stuck:
	case <-time.After(patience):
		release()
		t.Fatal("a leader that commits nothing was not reported")
	}
	if !strings.Contains(reason, "committed nothing") {
		t.Errorf("reason %q", reason)
	}
	if rest[0].Term() != term || rest[1].Term() != term {
		t.Errorf("terms %d and %d: the others elected although the leader heartbeats", rest[0].Term(), rest[1].Term())
	}
	// What hbd does now is exit, which the kernel turns into closed connections.
	if err := l.stream.Close(); err != nil {
		t.Error(err)
	}
	apply(t, rest, "after")
	release()
}

func TestHealthyLeaderIsNotReported(t *testing.T) {
	_, ms := group(t, 3, nil)
	l := leader(t, ms)
	before := l.Stats().Rounds
	eventually(t, "twenty rounds nobody asked for", func() bool { return l.Stats().Rounds >= before+20 })
	for _, m := range ms {
		select {
		case reason := <-m.stuck:
			t.Fatalf("%s: %s", m.cfg.Node, reason)
		default:
		}
	}
}

// TestTransferToAFrozenPeerLeavesTheLeaderUsable covers hashicorp/raft issue 696 from our side: the wait
// is bounded, and proposals work again afterwards.
func TestTransferToAFrozenPeerLeavesTheLeaderUsable(t *testing.T) {
	w, ms := group(t, 3, nil)
	l := leader(t, ms)
	target := others(ms, l)[0]
	eventually(t, "the target to answer", func() bool { return l.transport.answering(target.ID()) })
	w.setCut(target.cfg.Node, true)
	if err := l.TransferTo(within(t, 3*time.Second), target.ID()); err == nil {
		t.Fatal("leadership moved to a node that is cut off")
	}
	l = leader(t, others(ms, target)) // on a busy machine it may be another by now
	eventually(t, "the silence to be noticed", func() bool { return len(l.Stats().Silent) == 1 })
	if err := l.TransferTo(within(t, 3*time.Second), target.ID()); err == nil || !strings.Contains(err.Error(), ErrUnreachable.Error()) {
		t.Fatalf("transfer to a silent peer: %v", err)
	}
	apply(t, others(ms, target), "a")
	w.setCut(target.cfg.Node, false)
	holds(t, ms, "a")
}

func TestStallIsMeasuredByWhatWasObserved(t *testing.T) {
	at := time.Unix(0, 0)
	s := stall{limit: time.Second, maxStep: 200 * time.Millisecond, last: at}
	look := func(d time.Duration, isLeader bool, rounds uint64) stallVerdict {
		at = at.Add(d)
		v := s.step(at, isLeader, 7, rounds)
		s.due(true)
		return v
	}
	look(0, true, 1)
	if v := look(time.Hour, true, 1); v != stallNone {
		t.Fatalf("an hour slept through counted: %v", v)
	}
	for i := range 3 {
		if v := look(200*time.Millisecond, true, 1); v != stallNone {
			t.Fatalf("look %d: %v", i, v)
		}
	}
	if v := look(200*time.Millisecond, true, 1); v != stallYield {
		t.Fatalf("at the limit: %v", v)
	}
	for i := range 4 {
		if v := look(200*time.Millisecond, true, 1); v != stallNone {
			t.Fatalf("yield said again at look %d: %v", i, v)
		}
	}
	if v := look(200*time.Millisecond, true, 1); v != stallStuck {
		t.Fatalf("at twice the limit: %v", v)
	}
	if v := look(200*time.Millisecond, true, 2); v != stallNone || s.lasted != 0 {
		t.Fatalf("a round did not end the stall: %v after %s", v, s.lasted)
	}
	for range 20 {
		if v := look(200*time.Millisecond, false, 2); v != stallNone {
			t.Fatalf("a follower was judged: %v", v)
		}
	}
}

// TestRestingLeaderIsNotJudged: without a round that was asked for nothing tells that none would succeed. One is asked for after the rest, at every
// look until one succeeds, and at once where something is being proposed.
func TestRestingLeaderIsNotJudged(t *testing.T) {
	at := time.Unix(0, 0)
	s := stall{limit: time.Second, rest: time.Second, maxStep: 200 * time.Millisecond, last: at}
	look := func(rounds uint64, proposing, due bool, lasted time.Duration) {
		t.Helper()
		at = at.Add(200 * time.Millisecond)
		if v := s.step(at, true, 7, rounds); v != stallNone {
			t.Fatalf("verdict %v", v)
		}
		if got := s.due(proposing); got != due || s.lasted != lasted {
			t.Fatalf("a round is due: %t, want %t; stalled for %s, want %s", got, due, s.lasted, lasted)
		}
	}
	look(1, false, false, 0)
	for range 4 {
		look(1, false, false, 0)
	}
	look(1, false, true, 0)                    // rested
	look(1, false, true, 200*time.Millisecond) // not answered yet
	look(2, false, false, 0)                   // it was
	look(2, true, true, 0)
	look(2, false, true, 200*time.Millisecond) // given up, and still not known to work
	look(3, false, false, 0)
}

// TestLeaderRests: a leader that has nothing to commit writes to nobody's disk before its rest is over.
func TestLeaderRests(t *testing.T) {
	_, ms := group(t, 3, func(c *Config) { c.Watchdog.Rest = time.Hour })
	l := leader(t, ms)
	apply(t, ms, "a")
	const looks = 20
	before := l.Stats().Rounds
	time.Sleep(looks * l.cfg.Watchdog.Interval) //nolint:forbidigo // that nothing happens in a time is what is tested
	// One look may have met the entry above, and one the end of that round.
	if made := l.Stats().Rounds - before; made > 2 {
		t.Errorf("%d rounds in %d looks", made, looks)
	}
}

// TestRefusedProposalIsWatched: a leader whose proposals are refused at once, as by a transfer of leadership that got stuck, is in doubt although no
// look ever meets one, until something is committed.
func TestRefusedProposalIsWatched(t *testing.T) {
	w, ms := group(t, 3, func(c *Config) { c.Watchdog.Rest = time.Hour })
	l := leader(t, ms)
	target := others(ms, l)[0]
	apply(t, ms, "a")
	w.setCut(target.cfg.Node, true)
	transfer := func() raft.Future {
		return l.raft.LeadershipTransferToServer(raft.ServerID(target.ID()), raft.ServerAddress(target.cfg.Advertise))
	}
	moving := transfer()
	eventually(t, "a proposal to be refused", func() bool {
		if !l.IsLeader() { // on a busy machine it may be another by now
			l = leader(t, others(ms, target))
			moving = transfer()
		}
		_, _, err := l.Apply(within(t, patience), []byte("b"))
		return errors.Is(err, raft.ErrLeadershipTransferInProgress)
	})
	if !l.doubt.Load() {
		t.Error("it is not in doubt")
	}
	if moving.Error() == nil {
		t.Fatal("leadership moved to a node that is cut off")
	}
	w.setCut(target.cfg.Node, false)
	apply(t, ms, "c")
	if leads := leader(t, ms); leads.doubt.Load() {
		t.Error("it is in doubt after a commit")
	}
}

// TestProposalIsWatchedAtOnce: a leader that rests and proposes to a hung disk is found without waiting for its rest to end.
func TestProposalIsWatchedAtOnce(t *testing.T) {
	disks, ms := groupOnDisks(t, func(c *Config) { c.Watchdog.Rest = time.Hour })
	l := leader(t, ms)
	release := disks[l.cfg.Node].hang()
	defer release()
	fate := make(chan error, 1)
	ctx, giveUp := context.WithCancel(within(t, patience))
	go func() {
		_, _, err := l.Apply(ctx, []byte("lost"))
		fate <- err
	}()
	select {
	case <-l.stuck:
		giveUp()
		if err := <-fate; !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("an entry that cannot be stored: %v", err)
		}
	case <-time.After(patience):
		giveUp()
		t.Fatal("a leader that commits nothing was not reported")
	}
	if err := l.stream.Close(); err != nil {
		t.Error(err)
	}
}

// TestLongAbsentPeerIsServedAtOnce compares with the library's own backoff, which would have grown to
// several seconds here: the peer was away for at least ten failed exchanges.
func TestLongAbsentPeerIsServedAtOnce(t *testing.T) {
	w, ms := group(t, 3, nil)
	l := leader(t, ms)
	away := others(ms, l)[0]
	eventually(t, "the peer to answer", func() bool { return l.transport.answering(away.ID()) })
	addr := away.cfg
	if err := away.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the silence to be noticed", func() bool { return !l.transport.answering(away.ID()) })
	// A refused connection fails at once, so failures would mount quickly without the wait.
	time.Sleep(2 * time.Second) //nolint:forbidigo // the time itself is what is tested
	apply(t, others(ms, away), "a")
	back := start(t, w, addr)
	eventually(t, "the first heartbeat", func() bool { return l.transport.answering(back.ID()) })
	answered := time.Now()
	holds(t, []*member{back}, "a")
	t.Logf("entries %s after the first heartbeat", time.Since(answered).Round(time.Millisecond))
}
