package raftnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestGroupElectsAppliesAndSurvivesItsLeader(t *testing.T) {
	_, ms := group(t, 3, nil)
	first := leader(t, ms)
	result, index, err := first.Apply(within(t, 5*time.Second), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if result != fmt.Sprintf("a@%d", index) {
		t.Fatalf("result %v for index %d", result, index)
	}
	holds(t, ms, "a")
	if err := first.Bootstrap([]Server{{ID: first.ID(), Address: first.Address(), Voter: true}}); !errors.Is(err, ErrAlreadyBootstrapped) {
		t.Fatalf("second bootstrap: %v, want ErrAlreadyBootstrapped", err)
	}
	term := first.Term()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.Apply(within(t, time.Second), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Fatalf("apply after close: %v", err)
	}
	rest := others(ms, first)
	apply(t, rest, "b")
	holds(t, rest, "a", "b")
	if got := leader(t, rest).Term(); got <= term {
		t.Fatalf("term %d after losing the leader of term %d", got, term)
	}
}

func TestFollowerRefusesProposals(t *testing.T) {
	_, ms := group(t, 3, nil)
	f := others(ms, leader(t, ms))[0]
	if _, _, err := f.Apply(within(t, time.Second), []byte("x")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("apply: %v", err)
	}
	if _, err := f.VerifyQuorumRound(within(t, time.Second)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("round: %v", err)
	}
	if err := f.TransferTo(within(t, time.Second), ms[0].ID()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("transfer: %v", err)
	}
	if _, _, err := f.Apply(context.Background(), []byte("x")); !errors.Is(err, ErrNoDeadline) {
		t.Errorf("no deadline: %v", err)
	}
	eventually(t, "the follower to name its leader with its plain address", func() bool {
		id, addr := f.Leader()
		return slices.ContainsFunc(ms, func(m *member) bool { return m.ID() == id && m.Address() == addr && m.IsLeader() })
	})
}

func TestRestartFromDiskAndSnapshot(t *testing.T) {
	w, ms := group(t, 3, nil)
	apply(t, ms, "a")
	for _, m := range ms {
		eventually(t, "a snapshot", func() bool { return m.raft.Snapshot().Error() == nil })
	}
	apply(t, ms, "b")
	holds(t, ms, "a", "b")
	for i, m := range ms {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		ms[i] = start(t, w, m.cfg)
		if ms[i].ID() != m.ID() {
			t.Fatalf("restarted as %s, was %s", ms[i].ID(), m.ID())
		}
	}
	apply(t, ms, "c")
	holds(t, ms, "a", "b", "c")
	for _, m := range ms {
		if m.fsm.restored == 0 {
			t.Errorf("%s restarted without restoring its snapshot", m.cfg.Node)
		}
	}
}

func TestNewMemberIsBroughtUpBySnapshot(t *testing.T) {
	w, ms := group(t, 1, nil)
	for i := range 5 {
		apply(t, ms, fmt.Sprint(i))
	}
	l := ms[0]
	rc := l.raft.ReloadableConfig()
	rc.TrailingLogs = 1
	if err := l.raft.ReloadConfig(rc); err != nil {
		t.Fatal(err)
	}
	if err := l.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	db2 := start(t, w, testConfig(t, w, "db2"))
	added := Server{ID: db2.ID(), Address: db2.Address()}
	if err := l.AddServer(within(t, 5*time.Second), added); err != nil {
		t.Fatal(err)
	}
	holds(t, []*member{db2}, "0", "1", "2", "3", "4")
	if db2.fsm.restored == 0 {
		t.Error("the new member got entries, not the snapshot")
	}
	if err := l.TransferTo(within(t, time.Second), db2.ID()); err == nil {
		t.Error("leadership went to a non-voter")
	}
	added.Voter = true
	if err := l.AddServer(within(t, 5*time.Second), added); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new voter to answer", func() bool { return l.transport.answering(db2.ID()) })
	if err := l.TransferTo(within(t, 5*time.Second), db2.ID()); err != nil {
		t.Fatal(err)
	}
	if err := leader(t, []*member{db2}).RemoveServer(within(t, 5*time.Second), l.ID()); err != nil {
		t.Fatal(err)
	}
	if got := db2.Servers(); len(got) != 1 || got[0] != added {
		t.Fatalf("members %v, want only %v", got, added)
	}
}

func TestWipedStoreBelongsToNobody(t *testing.T) {
	_, ms := group(t, 1, nil)
	cfg := ms[0].cfg
	if err := ms[0].Close(); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(cfg.Dir, storeFile)
	saved, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrStoreWiped) {
		t.Fatalf("database removed: %v, want ErrStoreWiped", err)
	}
	if err := os.WriteFile(db, saved, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.Dir, "instance.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrStoreWiped) {
		t.Fatalf("instance removed: %v, want ErrStoreWiped", err)
	}
}

func TestLogWithoutItsSnapshotIsRefused(t *testing.T) {
	_, ms := group(t, 1, nil)
	m := ms[0]
	rc := m.raft.ReloadableConfig()
	rc.TrailingLogs = 1
	if err := m.raft.ReloadConfig(rc); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		apply(t, ms, fmt.Sprint(i))
	}
	if err := m.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log to be cut", func() bool {
		first, err := m.store.bolt.FirstIndex()
		return err == nil && first > 1
	})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.cfg.Dir, "snapshots")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(m.cfg); !errors.Is(err, ErrStoreIncomplete) {
		t.Fatalf("opened a log without its beginning: %v", err)
	}
}

func TestSubscribersSeeChangesInOrder(t *testing.T) {
	_, ms := group(t, 3, nil)
	l := leader(t, ms)
	var mu sync.Mutex
	var seen []bool
	l.Subscribe(func(isLeader bool, _ uint64) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, isLeader)
	})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	eventually(t, "the present state", func() bool { return count() == 1 })
	target := others(ms, l)[0]
	eventually(t, "the target to answer", func() bool { return l.transport.answering(target.ID()) })
	if err := l.TransferTo(within(t, 5*time.Second), target.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss", func() bool { return count() == 2 })
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(seen, []bool{true, false}) {
		t.Fatalf("seen %v", seen)
	}
}

func TestConfigurationShowsBothValues(t *testing.T) {
	cfg := testConfig(t, newNetwork(), "db1")
	cfg.FSM, cfg.OnStuck = &listFSM{}, func(string) {}
	cfg.Timing.LeaderLease = 3 * cfg.Timing.Heartbeat
	_, err := Open(cfg)
	if err == nil || !strings.Contains(err.Error(), cfg.Timing.LeaderLease.String()) || !strings.Contains(err.Error(), cfg.Timing.Heartbeat.String()) {
		t.Fatalf("leader lease above heartbeat: %v", err)
	}
	cfg.Timing = FastTiming()
	cfg.Node = "db 1"
	if _, err := Open(cfg); err == nil {
		t.Fatal("a node id with a space was accepted")
	}
}
