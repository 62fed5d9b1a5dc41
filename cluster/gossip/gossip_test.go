package gossip

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// patience bounds every wait of the tests; nothing is measured against it.
const patience = 20 * time.Second

// cables is a network whose nodes can be unplugged: what they send is lost, and what is sent to them.
type cables struct {
	mu  sync.Mutex
	out map[string]bool // by "ip:port"
}

func newCables() *cables { return &cables{out: make(map[string]bool)} }

func (c *cables) unplug(addr string, out bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out[addr] = out
}

func (c *cables) lost(a, b string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out[a] || c.out[b]
}

// plugged is one node's end of the cables.
type plugged struct {
	memberlist.NodeAwareTransport
	c    *cables
	self string
}

var errUnplugged = errors.New("unplugged")

func (p *plugged) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if p.c.lost(p.self, to.Addr) {
		return time.Now(), nil
	}
	return p.NodeAwareTransport.WriteToAddress(b, to)
}

func (p *plugged) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if p.c.lost(p.self, to.Addr) {
		return nil, errUnplugged
	}
	return p.NodeAwareTransport.DialAddressTimeout(to, timeout)
}

// node is one member with what it was told.
type node struct {
	*Gossip
	mu     sync.Mutex
	events []string
}

func (n *node) note(what string) func(string) {
	return func(who string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.events = append(n.events, what+" "+who)
	}
}

func (n *node) saw(event string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.events, event)
}

func (n *node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = nil
}

func testTiming() Timing {
	t := FastTiming()
	t.Rejoin = 100 * time.Millisecond
	t.ForgetDead = 200 * time.Millisecond
	return t
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	if os.Getenv("HIGHBASE_TEST_LOG") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

func begin(t *testing.T, c *cables, cluster, id string, timing Timing) *node {
	t.Helper()
	n := &node{}
	g, err := Start(Config{
		ClusterID: cluster, Node: id, Addr: "127.0.0.1:0", Timing: timing, Log: testLog(t).With("node", id),
		OnSuspect: n.note("suspect"), OnAlive: n.note("alive"),
		wrap: func(inner memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
			mt, ok := inner.(*memberlist.NetTransport)
			if !ok {
				t.Fatalf("transport is %T", inner)
			}
			return &plugged{NodeAwareTransport: inner, c: c, self: fmt.Sprintf("127.0.0.1:%d", mt.GetAutoBindPort())}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Gossip = g
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("stopping %s: %v", id, err)
		}
	})
	return n
}

// ring starts n members of one cluster that know each other and waits until all are alive.
func ring(t *testing.T, n int, timing Timing) (*cables, []*node) {
	t.Helper()
	c := newCables()
	var nodes []*node
	var peers []Peer
	for i := range n {
		m := begin(t, c, "c1", fmt.Sprintf("db%d", i+1), timing)
		nodes = append(nodes, m)
		peers = append(peers, Peer{ID: m.cfg.Node, Addr: m.Addr()})
	}
	for _, m := range nodes {
		m.SetPeers(peers)
	}
	eventually(t, "all to be alive", func() bool { return allSee(nodes, n-1) })
	for _, m := range nodes {
		eventually(t, "all to be told", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.events) >= n-1
		})
		m.forget()
	}
	return c, nodes
}

func allSee(nodes []*node, n int) bool {
	return !slices.ContainsFunc(nodes, func(m *node) bool { return len(m.Alive()) != n })
}

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

func TestKilledNodeIsSuspectedByAll(t *testing.T) {
	_, nodes := ring(t, 3, testTiming())
	killed := time.Now()
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	for _, m := range nodes[:2] {
		eventually(t, "suspicion", func() bool { return m.saw("suspect db3") })
	}
	t.Logf("suspected by both after %s", time.Since(killed).Round(time.Millisecond))
	eventually(t, "death", func() bool { return !nodes[0].Alive()["db3"] && !nodes[1].Alive()["db3"] })
	t.Logf("dead to both after %s", time.Since(killed).Round(time.Millisecond))
	if _, err := nodes[0].Ping("db3"); err == nil {
		t.Error("a killed node answered a ping")
	}
	// The round trip is memberlist's own figure, by the wall clock: it may come out negative.
	if rtt, err := nodes[0].Ping("db2"); err != nil {
		t.Errorf("positive control: ping db2: %s, %v", rtt, err)
	}
	if _, err := nodes[0].Ping("db9"); err == nil {
		t.Error("pinged somebody who is no peer")
	}
}

// TestSuspicionIsToldBeforeDeath holds memberlist to the wording of a log line: if it changes, the hint
// comes one suspicion timeout later, and this test says so.
func TestSuspicionIsToldBeforeDeath(t *testing.T) {
	_, nodes := ring(t, 2, testTiming())
	if err := nodes[1].stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "suspicion", func() bool { return nodes[0].saw("suspect db2") })
	nodes[0].mu.Lock()
	defer nodes[0].mu.Unlock()
	if !nodes[0].Alive()["db2"] {
		t.Skip("the machine was too busy to see the suspicion before the death")
	}
}

func TestLongPartitionHeals(t *testing.T) {
	c, nodes := ring(t, 3, testTiming())
	c.unplug(nodes[2].Addr(), true)
	eventually(t, "both sides to give up", func() bool {
		return len(nodes[0].Alive()) == 1 && len(nodes[1].Alive()) == 1 && len(nodes[2].Alive()) == 0
	})
	time.Sleep(2 * testTiming().ForgetDead) //nolint:forbidigo // longer than memberlist goes on talking to the dead
	for _, m := range nodes {
		m.forget()
	}
	c.unplug(nodes[2].Addr(), false)
	eventually(t, "all to be alive again", func() bool { return allSee(nodes, 2) })
	eventually(t, "the return to be told", func() bool { return nodes[0].saw("alive db3") && nodes[2].saw("alive db1") })
}

// TestLongPartitionStaysWithoutRejoin is the positive control of the test above.
func TestLongPartitionStaysWithoutRejoin(t *testing.T) {
	timing := testTiming()
	c, nodes := ring(t, 2, timing)
	for _, m := range nodes {
		m.SetPeers([]Peer{{ID: "db1", Addr: "127.0.0.1:1"}, {ID: "db2", Addr: "127.0.0.1:1"}})
	}
	c.unplug(nodes[1].Addr(), true)
	eventually(t, "both to give up", func() bool { return allSee(nodes, 0) })
	time.Sleep(2 * timing.ForgetDead) //nolint:forbidigo // longer than memberlist goes on talking to the dead
	c.unplug(nodes[1].Addr(), false)
	time.Sleep(10 * timing.Rejoin) //nolint:forbidigo // the time itself is what is tested
	if !allSee(nodes, 0) {
		t.Fatal("memberlist healed by itself: the re-join is not what healed the other test")
	}
}

func TestClustersNeverMerge(t *testing.T) {
	c := newCables()
	a := begin(t, c, "c1", "db1", testTiming())
	b := begin(t, c, "c2", "db2", testTiming())
	same := begin(t, c, "c1", "db3", testTiming())
	everybody := []Peer{{ID: "db1", Addr: a.Addr()}, {ID: "db2", Addr: b.Addr()}, {ID: "db3", Addr: same.Addr()}}
	for _, m := range []*node{a, b, same} {
		m.SetPeers(everybody)
	}
	eventually(t, "positive control: the two of one cluster to meet", func() bool { return a.Alive()["db3"] && same.Alive()["db1"] })
	time.Sleep(10 * testTiming().Rejoin) //nolint:forbidigo // the time itself is what is tested
	if len(a.Alive()) != 1 || len(same.Alive()) != 1 || len(b.Alive()) != 0 {
		t.Fatalf("clusters merged: %v %v %v", a.Alive(), same.Alive(), b.Alive())
	}
	if _, err := a.Ping("db2"); err == nil {
		t.Fatal("a node of another cluster answered a ping")
	}
}

func TestStrangersAreIgnored(t *testing.T) {
	_, nodes := ring(t, 2, testTiming())
	stranger := begin(t, newCables(), "c1", "db9", testTiming())
	stranger.SetPeers([]Peer{{ID: "db1", Addr: nodes[0].Addr()}})
	eventually(t, "the stranger to see the members", func() bool { return len(stranger.Alive()) > 0 })
	time.Sleep(10 * testTiming().GossipInterval) //nolint:forbidigo // the time itself is what is tested
	if !allSee(nodes, 1) || nodes[0].saw("alive db9") || nodes[1].saw("alive db9") {
		t.Fatalf("a stranger became a member: %v", nodes[0].Alive())
	}
}

func TestRemovedMemberIsNotReported(t *testing.T) {
	_, nodes := ring(t, 3, testTiming())
	nodes[0].SetPeers([]Peer{{ID: "db1", Addr: nodes[0].Addr()}, {ID: "db2", Addr: nodes[1].Addr()}})
	if alive := nodes[0].Alive(); len(alive) != 1 || !alive["db2"] {
		t.Fatalf("alive after removing db3: %v", alive)
	}
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the one that still counts db3 to suspect it", func() bool { return nodes[1].saw("suspect db3") })
	eventually(t, "its death", func() bool { return !nodes[1].Alive()["db3"] })
	if nodes[0].saw("suspect db3") {
		t.Error("a removed member was reported")
	}
}

func TestAbsentPeersDoNotHoldUpStart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	g, err := Start(Config{ClusterID: "c1", Node: "db1", Addr: "127.0.0.1:0", Timing: testTiming(), Log: testLog(t),
		Peers:     []Peer{{ID: "db2", Addr: ln.Addr().String()}, {ID: "db3", Addr: "127.0.0.1:1"}},
		OnSuspect: func(string) {}, OnAlive: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(began).Round(time.Millisecond))
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatalf("closing twice: %v", err)
	}
}

func TestLinesOfMemberlist(t *testing.T) {
	for line, want := range map[string]struct {
		level slog.Level
		text  string
	}{
		"[WARN] memberlist: Refuting a suspect message": {slog.LevelWarn, "Refuting a suspect message"},
		"[ERR] memberlist: Failed to send":              {slog.LevelWarn, "Failed to send"},
		"[DEBUG] memberlist: Stream connection":         {slog.LevelDebug, "Stream connection"},
		"no level at all":                               {slog.LevelInfo, "no level at all"},
	} {
		if level, text := parse(line); level != want.level || text != want.text {
			t.Errorf("%q: %v %q", line, level, text)
		}
	}
	var out strings.Builder
	l := newLogger(slog.New(slog.NewTextHandler(&out, nil)), func(string) {})
	for range 5 {
		l.Print("[WARN] memberlist: again")
	}
	if n := strings.Count(out.String(), "again"); n != 1 {
		t.Errorf("%d equal warnings", n)
	}
}

func TestRefutedSuspicionEndsWithAlive(t *testing.T) {
	_, nodes := ring(t, 2, testTiming())
	// What memberlist would report if a probe had been lost; the peer goes on answering.
	nodes[0].Gossip.events.suspected("db2")
	eventually(t, "the withdrawal", func() bool { return nodes[0].saw("suspect db2") && nodes[0].saw("alive db2") })
}
