package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// awaitLimit is no measure of anything: a test that waits so long has failed.
const awaitLimit = 20 * time.Second

// await waits for a condition that this process makes true.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(awaitLimit)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-limit.C:
			t.Fatalf("waiting for: %s", what)
		case <-tick.C:
		}
	}
}

// logs keeps what the nodes of a test say, for a test that fails.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func newLogs(t testing.TB) *logs {
	l := &logs{}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.Failed() {
			t.Logf("what the nodes said:\n%s", l.buf.String())
		}
	})
	return l
}

// subnets gives each test a /24 of loopback of its own: nodes share port numbers as they do in a real cluster.
var subnets atomic.Uint32

func freeSubnet(t testing.TB) string {
	for range 200 {
		prefix := fmt.Sprintf("127.%d.%d.", 64+os.Getpid()%128, subnets.Add(1)%250+1)
		ln, err := net.Listen("tcp", prefix+"1:"+portAPI)
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return prefix
	}
	t.Fatal("no free loopback subnet")
	return ""
}

const (
	portAPI    = "17948"
	portRaft   = "17947"
	portGossip = 17946
)

// member is one node of a test: its hbd, which comes and goes, and its host, which stays.
type member struct {
	*Node
	c    *testCluster
	id   fsm.NodeID
	host *host
	dir  string
	srv  *http.Server
	end  context.CancelFunc
	done chan struct{}
	// cut decides for each call that arrives whether it is dropped unanswered.
	cut atomic.Pointer[func(method, from string) bool]
}

// testCluster is some nodes of one process, with real Raft, RPC and gossip between them, over fake hosts.
type testCluster struct {
	t        testing.TB
	w        *world
	log      *logs
	settings fsm.Settings
	prefix   string
	nodes    []*member
	fencer   Fencer
	clients  func(fsm.NodeID) Clients // nil: of no concern
	// timing is that of every node but those named in voters: they vote and never stand for election within a test.
	timing raftnode.Timing
	voters []fsm.NodeID
	// disks make rebuilds possible: what a host's disk holds of one, which survives its hbd.
	disks map[fsm.NodeID]*disk
	// witnesses have a vote and no database.
	witnesses []fsm.NodeID
	// neverPromoted are replicas that may not become primary.
	neverPromoted []fsm.NodeID
}

// calm is Raft timing for a machine on which much else runs: no test here is about how soon a leader is elected.
var calm = raftnode.Timing{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, LeaderLease: 400 * time.Millisecond, CommitTimeout: 50 * time.Millisecond}

// newCluster prepares nodes db1.. in the lan profile, as changed by adjust. None runs yet.
func newCluster(t testing.TB, size int, adjust func(*fsm.Settings)) *testCluster {
	t.Helper()
	set, err := fsm.Profile("lan")
	if err != nil {
		t.Fatal(err)
	}
	if adjust != nil {
		adjust(&set)
	}
	if err := set.Validate(); err != nil {
		t.Fatal(err)
	}
	c := &testCluster{t: t, w: newWorld(t, size), log: newLogs(t), settings: set, timing: calm, prefix: freeSubnet(t)}
	for i := range size {
		id := fsm.NodeID(fmt.Sprintf("db%d", i+1))
		m := &member{c: c, id: id, host: c.w.hosts[id], dir: t.TempDir()}
		c.nodes = append(c.nodes, m)
		// The fake mysqld of a host is found by the address in the node's peer list.
		if err := m.host.addr.UnmarshalText([]byte(c.address(i))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.crash()
		}
	})
	return c
}

func (c *testCluster) address(i int) string { return fmt.Sprintf("%s%d", c.prefix, i+1) }

func (c *testCluster) peers() []fsm.Member {
	var out []fsm.Member
	for i, m := range c.nodes {
		role := fsm.RoleData
		if slices.Contains(c.witnesses, m.id) {
			role = fsm.RoleWitness
		}
		out = append(out, fsm.Member{ID: m.id, Address: c.address(i), API: c.address(i) + ":" + portAPI, Raft: c.address(i) + ":" + portRaft,
			MySQLPort: 3306, Role: role, Priority: 100, NeverPromote: slices.Contains(c.neverPromoted, m.id)})
	}
	return out
}

func (c *testCluster) config(m *member) Config {
	i := int(m.host.server) - 1
	timing := c.timing
	if slices.Contains(c.voters, m.id) {
		timing.Heartbeat, timing.Election = time.Minute, time.Minute
	}
	cfg := Config{Cluster: "shop", Node: m.id, DataDir: m.dir, Peers: c.peers(), VIPs: []string{c.w.vip.String()}, Server: "mariadb",
		Settings: c.settings, RaftTiming: timing, BindAPI: c.address(i) + ":" + portAPI, BindRaft: c.address(i) + ":" + portRaft,
		BindGossip: fmt.Sprintf("%s:%d", c.address(i), portGossip), GossipPort: portGossip,
		Reach: m.host.Reach, Prober: m.host, Database: m.host, Service: service{m.host}, Addresser: address{m.host}, Fencer: c.fencer,
		HandoverTimeout: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(c.log, nil)).With("at", m.id),
		OnStuck: func(reason string) { c.t.Errorf("%s is stuck: %s", m.id, reason) }}
	if c.clients != nil {
		cfg.Clients = c.clients(m.id)
	}
	if c.disks != nil {
		cfg.Rebuilder, cfg.Database = c.disks[m.id], historian{m.host}
	}
	if slices.Contains(c.witnesses, m.id) {
		cfg.Prober, cfg.Database, cfg.Service, cfg.Addresser = nil, nil, nil, nil
	}
	return cfg
}

// open makes a node and lets others call it, but runs none of its loops.
func (m *member) open() {
	m.c.t.Helper()
	n, err := Open(m.c.config(m))
	if err != nil {
		m.c.t.Fatalf("opening %s: %v", m.id, err)
	}
	n.rebuilds.pause = 20 * time.Millisecond // what fails here fails because a test wants it: there is nothing to wait for
	m.Node = n
	m.host.change(func() { m.host.node = n })
	ln, err := net.Listen("tcp", n.cfg.BindAPI)
	if err != nil {
		m.c.t.Fatal(err)
	}
	m.srv = &http.Server{Handler: m.filtered(n.RPCHandler()), ReadHeaderTimeout: time.Second}
	go func(s *http.Server) {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			m.c.t.Errorf("%s: serving: %v", m.id, err)
		}
	}(m.srv)
}

// filtered drops what the test has cut, as a broken path does: without an answer.
func (m *member) filtered(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method, from := strings.TrimPrefix(r.URL.Path, rpc.Prefix), r.Header.Get("Highbase-From")
		if cut := m.cut.Load(); cut != nil && (*cut)(method, from) {
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	})
}

// drop decides from now on which calls to this node are dropped; nil: none.
func (m *member) drop(cut func(method, from string) bool) {
	if cut == nil {
		m.cut.Store(nil)
		return
	}
	m.cut.Store(&cut)
}

// start opens a node and runs it.
func (m *member) start() {
	m.c.t.Helper()
	m.open()
	ctx, cancel := context.WithCancel(context.Background())
	m.end, m.done = cancel, make(chan struct{})
	go func(n *Node, done chan struct{}) {
		defer close(done)
		if err := n.Run(ctx); err != nil {
			m.c.t.Errorf("running %s: %v", m.id, err)
		}
	}(m.Node, m.done)
}

// crash ends a node's hbd without asking it: its host keeps whatever it had.
func (m *member) crash() {
	if m.Node == nil {
		return
	}
	if err := m.srv.Close(); err != nil {
		m.c.t.Error(err)
	}
	if m.end != nil {
		m.end()
		<-m.done
	}
	if err := m.Close(); err != nil {
		m.c.t.Errorf("closing %s: %v", m.id, err)
	}
	m.Node, m.end = nil, nil
}

// shutdown ends a node's hbd in order.
func (m *member) shutdown() {
	m.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		m.c.t.Errorf("shutting down %s: %v", m.id, err)
	}
	if err := m.srv.Close(); err != nil {
		m.c.t.Error(err)
	}
	m.end()
	<-m.done
	m.Node, m.end = nil, nil
}

// bootstrap runs the nodes, makes them a cluster with db1 as its primary, and waits until every replica counts.
func (c *testCluster) bootstrap() {
	c.t.Helper()
	for _, m := range c.nodes {
		m.start()
	}
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	// The founder is the only one that can stand in the first election.
	founder := c.nodes[slices.IndexFunc(c.nodes, func(m *member) bool { return !slices.Contains(c.voters, m.id) })]
	r, err := founder.Bootstrap(ctx, api.BootstrapRequest{Primary: "db1"})
	if err != nil || r.Outcome == api.OutcomeRefused {
		c.t.Fatalf("bootstrap: %+v, %v", r, err)
	}
	c.healthy("db1")
}

// healthy waits until a node serves and every other follows it, counted.
func (c *testCluster) healthy(primary fsm.NodeID) {
	c.t.Helper()
	await(c.t, string(primary)+" serves and everybody else follows and counts", func() bool {
		return c.isHealthy(primary)
	})
}

func (c *testCluster) isHealthy(primary fsm.NodeID) bool {
	for _, m := range c.nodes {
		if m.Node == nil {
			return false
		}
		st := m.store.State()
		if st.Primary != primary || st.Phase != fsm.PhaseSteady || st.Op != nil || st.Sync.Acks != 1 || st.Change != nil {
			return false
		}
		obs := m.observation()
		if m.self.Role == fsm.RoleWitness {
			continue
		}
		if m.id == primary {
			if obs.Serving != st.Epoch {
				return false
			}
			continue
		}
		sm, ok := st.Sync.Member(m.id)
		if obs.Standing != fsm.StandingReplica || !ok && len(st.Sync.Members) < 2 || ok && (sm.Incarnation == "" || sm.Incarnation != obs.Incarnation) {
			return false
		}
	}
	return true
}

func (c *testCluster) node(id fsm.NodeID) *member {
	for _, m := range c.nodes {
		if m.id == id {
			return m
		}
	}
	c.t.Fatalf("no node %s", id)
	return nil
}

// leader waits for the node that leads.
func (c *testCluster) leader() *member {
	c.t.Helper()
	var found *member
	await(c.t, "a leader in office", func() bool {
		for _, m := range c.nodes {
			if m.Node != nil && m.leading.Load() != nil && m.grantor.clearAt() > 0 {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// wrote waits until clients have had some more writes acknowledged.
func (c *testCluster) wrote() {
	c.t.Helper()
	before := c.w.ackedCount()
	await(c.t, "clients write", func() bool { return c.w.ackedCount() >= before+5 })
}

// nothingLost is G2 and G3 at the end: the serving node holds every acknowledged write, and each follower gets all of them.
func (c *testCluster) nothingLost() {
	c.t.Helper()
	for _, m := range c.nodes {
		if slices.Contains(c.witnesses, m.id) {
			continue
		}
		await(c.t, fmt.Sprintf("%s holds every acknowledged write", m.id), func() bool { return len(c.w.lost(m.host)) == 0 })
	}
}
