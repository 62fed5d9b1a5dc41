package raftnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// listFSM remembers every command in order.
type listFSM struct {
	mu       sync.Mutex
	commands []string
	restored int
}

func (f *listFSM) Apply(index, _ uint64, data []byte) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = append(f.commands, string(data))
	return fmt.Sprintf("%s@%d", data, index)
}

func (f *listFSM) Snapshot() ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return json.Marshal(f.commands)
}

func (f *listFSM) Restore(data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restored++
	f.commands = nil
	return json.Unmarshal(data, &f.commands)
}

func (f *listFSM) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

// network is loopback TCP whose links can be cut: packets vanish, nobody is told, as when a cable is
// pulled. A connection that lived through a cut stays dead, because its stream has lost bytes.
type network struct {
	mu    sync.Mutex
	cut   map[string]bool // by node id
	nodes map[string]string
	conns []*cuttable
}

func newNetwork() *network {
	return &network{cut: map[string]bool{}, nodes: map[string]string{}}
}

func (w *network) setCut(node string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[node] = cut
	for _, c := range w.conns {
		if cut && (c.from == node || c.to == node) {
			c.die()
		}
	}
}

// dialer returns the dial function of one node.
func (w *network) dialer(from string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, proto, addr string) (net.Conn, error) {
		w.mu.Lock()
		to := w.nodes[addr]
		lost := w.cut[from] || w.cut[to]
		w.mu.Unlock()
		if lost {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, proto, addr)
		if err != nil {
			return nil, err
		}
		c := &cuttable{Conn: conn, from: from, to: to, dead: make(chan struct{})}
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
		return c, nil
	}
}

// cuttable is a connection that can fall silent in both directions.
type cuttable struct {
	net.Conn
	from, to string
	once     sync.Once
	dead     chan struct{}
}

func (c *cuttable) die() { c.once.Do(func() { close(c.dead) }) }

func (c *cuttable) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

func (c *cuttable) Write(p []byte) (int, error) {
	if c.isDead() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cuttable) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.isDead() {
			return n, err
		}
	}
}

// member is one node of a test group, with what is needed to start it again.
type member struct {
	*Node
	fsm   *listFSM
	cfg   Config
	stuck chan string
}

func testConfig(t *testing.T, w *network, node string) Config {
	t.Helper()
	return Config{
		Dir: filepath.Join(t.TempDir(), node, "raft"), ClusterID: "c1", Node: node, Bind: "127.0.0.1:0",
		Timing:   FastTiming(),
		Watchdog: Watchdog{Interval: 100 * time.Millisecond, Rest: 100 * time.Millisecond, Stall: time.Second},
		Log:      testLog(t), dial: w.dialer(node),
	}
}

// testLog shows the log only when asked: t.Log would panic on lines written after a test ended.
func testLog(t testing.TB) *slog.Logger {
	t.Helper()
	if os.Getenv("HIGHBASE_TEST_LOG") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

func start(t *testing.T, w *network, cfg Config) *member {
	t.Helper()
	m := &member{fsm: &listFSM{}, stuck: make(chan string, 1)}
	cfg.FSM = m.fsm
	cfg.OnStuck = func(reason string) { m.stuck <- reason }
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Bind = n.Address()
	m.Node, m.cfg = n, cfg
	w.mu.Lock()
	w.nodes[n.Address()] = cfg.Node
	w.mu.Unlock()
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing %s: %v", cfg.Node, err)
		}
	})
	return m
}

// group starts and bootstraps db1 to dbN and waits for a leader. change may alter each config.
func group(t *testing.T, n int, change func(*Config)) (*network, []*member) {
	t.Helper()
	w := newNetwork()
	var ms []*member
	var servers []Server
	for i := range n {
		cfg := testConfig(t, w, fmt.Sprintf("db%d", i+1))
		if change != nil {
			change(&cfg)
		}
		m := start(t, w, cfg)
		ms = append(ms, m)
		servers = append(servers, Server{ID: m.ID(), Address: m.Address(), Voter: true})
	}
	if err := ms[0].Bootstrap(servers); err != nil {
		t.Fatal(err)
	}
	leader(t, ms)
	return w, ms
}

// leader waits until one of ms proves that it leads.
func leader(t *testing.T, ms []*member) *member {
	t.Helper()
	var found *member
	eventually(t, "a leader", func() bool {
		for _, m := range ms {
			if _, err := m.VerifyQuorumRound(within(t, time.Second)); err == nil {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func others(ms []*member, not *member) []*member {
	return slices.DeleteFunc(slices.Clone(ms), func(m *member) bool { return m == not })
}

// apply commits one command through whoever leads. It is the model of a careful proposer: it proposes
// again when the command certainly did not happen, and after an unknown outcome reads behind a round,
// which settles it: the entry is before the round's own in the log, or will never be.
func apply(t *testing.T, ms []*member, command string) {
	t.Helper()
	for {
		_, _, err := leader(t, ms).Apply(within(t, 5*time.Second), []byte(command))
		if err == nil || errors.Is(err, ErrUnknownOutcome) && slices.Contains(leader(t, ms).fsm.list(), command) {
			return
		}
	}
}

// holds waits until every member has applied exactly want.
func holds(t *testing.T, ms []*member, want ...string) {
	t.Helper()
	for _, m := range ms {
		eventually(t, fmt.Sprintf("%s to hold %v", m.cfg.Node, want), func() bool { return slices.Equal(m.fsm.list(), want) })
	}
}

// patience bounds every wait of the tests. It is long because the machine may be busy; nothing is
// measured against it.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // polls a condition
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
