package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Peer is a member of the cluster, this node too.
type Peer struct {
	ID string
	// Addr is where its gossip listens, TCP and UDP, as "ip:port". Names are not resolved.
	Addr string
}

// Timing holds memberlist's clocks.
type Timing struct {
	// ProbeInterval is how often some peer is probed, each in turn. A killed node is known in 3 to 5
	// intervals. At 50 ms a loaded machine reports deaths that are none; at 100 ms it did not.
	ProbeInterval time.Duration
	// ProbeTimeout is how long a direct answer may take before others are asked to try; below ProbeInterval.
	ProbeTimeout time.Duration
	// GossipInterval is how often news is sent on. It costs a timer and, without news, nothing else.
	GossipInterval time.Duration
	// ForgetDead is how long news still goes to a node thought dead, so that it can contradict.
	ForgetDead time.Duration
	// Rejoin is how often missing peers are asked directly: one TCP connection each.
	Rejoin time.Duration
}

// FastTiming knows of a killed node in 300 to 500 ms.
func FastTiming() Timing {
	return Timing{ProbeInterval: 100 * time.Millisecond, ProbeTimeout: 50 * time.Millisecond,
		GossipInterval: 20 * time.Millisecond, ForgetDead: 30 * time.Second, Rejoin: time.Second}
}

// LANTiming knows of a killed node in 1.5 to 2.5 s: by then the direct pings of the nodes have found it, and each packet wakes a process.
func LANTiming() Timing {
	return Timing{ProbeInterval: 500 * time.Millisecond, ProbeTimeout: 150 * time.Millisecond,
		GossipInterval: 500 * time.Millisecond, ForgetDead: 30 * time.Second, Rejoin: 2 * time.Second}
}

// Config is all a Gossip needs to know.
type Config struct {
	// ClusterID is the label on everything sent; what carries another is dropped.
	ClusterID string
	// Node is this node's id, Addr the "ip:port" it listens on and is known by.
	Node, Addr string
	// Peers are the members; SetPeers changes them.
	Peers  []Peer
	Timing Timing
	Log    *slog.Logger
	// OnSuspect is called when a peer did not answer a probe or is taken for dead, OnAlive when it
	// answers (again). They are called one at a time from a goroutine that does nothing else.
	OnSuspect, OnAlive func(node string)

	// wrap is a seam for tests: a network that can be cut.
	wrap func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
}

// streamTimeout bounds connecting and every read and write on a stream. A full state of a handful of
// members is a few hundred bytes.
const streamTimeout = time.Second

// leaveTimeout bounds telling the others that this node leaves on purpose.
const leaveTimeout = 200 * time.Millisecond

// Gossip is this node's part. All methods may be called from any goroutine.
type Gossip struct {
	cfg    Config
	log    *slog.Logger
	list   *memberlist.Memberlist
	events *events
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	peers   map[string]Peer
	joining map[string]bool

	closeOnce sync.Once
	closeErr  error
}

// Start listens and begins to look for the peers. It fails only for reasons of this node: absent peers
// are asked for as long as it runs.
func Start(cfg Config) (*Gossip, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gossip{cfg: cfg, log: cfg.Log.With("component", "gossip"), ctx: ctx, cancel: cancel, joining: make(map[string]bool)}
	g.events = newEvents(cfg.Node, cfg.OnSuspect, cfg.OnAlive, g.known)
	g.SetPeers(cfg.Peers)
	list, err := g.create()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("starting gossip: %w", err)
	}
	g.list = list
	g.wg.Go(func() { g.events.dispatch(ctx) })
	g.wg.Go(g.rejoin)
	return g, nil
}

// Close tells the others that this node leaves, and stops.
func (g *Gossip) Close() error {
	g.closeOnce.Do(func() {
		if err := g.list.Leave(leaveTimeout); err != nil {
			// The others find out by probing.
			g.log.Debug("gossip left without being heard", "error", err)
		}
		g.closeErr = g.stop()
	})
	return g.closeErr
}

// stop ends without a word, as a killed process would.
func (g *Gossip) stop() error {
	g.cancel()
	err := g.list.Shutdown()
	g.wg.Wait()
	return err
}

// Addr returns the address this node is known by.
func (g *Gossip) Addr() string {
	n := g.list.LocalNode()
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// SetPeers replaces the members. A peer that is new is looked for; one that is no member any more is
// neither looked for nor reported, whatever memberlist still thinks of it.
func (g *Gossip) SetPeers(peers []Peer) {
	next := make(map[string]Peer, len(peers))
	for _, p := range peers {
		if p.ID != g.cfg.Node {
			next[p.ID] = p
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peers = next
}

// Alive returns the peers that gossip thinks are alive, without this node.
func (g *Gossip) Alive() map[string]bool {
	alive := make(map[string]bool)
	for _, n := range g.list.Members() {
		if n.Name != g.cfg.Node && g.known(n.Name) {
			alive[n.Name] = true
		}
	}
	return alive
}

// Ping asks a peer directly over UDP and returns the round trip. It waits for at most ProbeTimeout and
// asks nobody else to try.
func (g *Gossip) Ping(node string) (time.Duration, error) {
	p, ok := g.peer(node)
	if !ok {
		return 0, fmt.Errorf("pinging %s: no such peer", node)
	}
	addr, err := net.ResolveUDPAddr("udp", p.Addr)
	if err != nil {
		return 0, fmt.Errorf("pinging %s: %w", node, err)
	}
	rtt, err := g.list.Ping(node, addr)
	if err != nil {
		return 0, fmt.Errorf("pinging %s: %w", node, err)
	}
	return rtt, nil
}

func (g *Gossip) peer(node string) (Peer, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.peers[node]
	return p, ok
}

// known reports whether a name may take part.
func (g *Gossip) known(node string) bool {
	_, ok := g.peer(node)
	return ok || node == g.cfg.Node
}

// create builds memberlist's configuration and starts it.
func (g *Gossip) create() (*memberlist.Memberlist, error) {
	addr, err := netip.ParseAddrPort(g.cfg.Addr)
	if err != nil {
		return nil, err
	}
	logger := newLogger(g.log, g.events.suspected)
	mt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{addr.Addr().String()}, BindPort: int(addr.Port()), Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	var transport memberlist.NodeAwareTransport = mt
	if g.cfg.wrap != nil {
		transport = g.cfg.wrap(mt)
	}
	t := g.cfg.Timing
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = g.cfg.Node, g.cfg.ClusterID
	c.Transport = transport
	c.BindAddr, c.BindPort = addr.Addr().String(), mt.GetAutoBindPort()
	c.AdvertiseAddr, c.AdvertisePort = addr.Addr().String(), mt.GetAutoBindPort()
	c.ProbeInterval, c.ProbeTimeout = t.ProbeInterval, t.ProbeTimeout
	c.GossipInterval, c.GossipToTheDeadTime = t.GossipInterval, t.ForgetDead
	c.TCPTimeout = streamTimeout
	// Short suspicion: being wrong costs a look, being late costs an outage.
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 2, 1
	c.PushPullInterval = 10 * time.Second
	// A node that comes back with another address may take its name at once.
	c.DeadNodeReclaimTime = time.Millisecond
	c.RequireNodeNames = true
	c.EnableCompression = false // messages of a few hundred bytes between neighbours
	c.Events, c.Alive, c.Ping = g.events, g.events, g.events
	c.LogOutput, c.Logger = nil, logger
	list, err := memberlist.Create(c)
	if err != nil {
		return nil, errors.Join(err, mt.Shutdown())
	}
	return list, nil
}

// rejoin asks missing peers for their view until Close, each in a goroutine of its own so that one that
// swallows packets does not delay the others.
func (g *Gossip) rejoin() {
	tick := time.NewTicker(g.cfg.Timing.Rejoin)
	defer tick.Stop()
	for {
		for _, p := range g.missing() {
			g.wg.Go(func() { g.join(p) })
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			return
		}
	}
}

// missing returns the peers that are not alive and not being asked, and marks them as being asked.
func (g *Gossip) missing() []Peer {
	alive := g.Alive()
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Peer
	for id, p := range g.peers {
		if !alive[id] && !g.joining[id] {
			g.joining[id] = true
			out = append(out, p)
		}
	}
	return out
}

func (g *Gossip) join(p Peer) {
	_, err := g.list.Join([]string{p.ID + "/" + p.Addr})
	g.mu.Lock()
	delete(g.joining, p.ID)
	g.mu.Unlock()
	if err != nil && g.ctx.Err() == nil {
		g.log.Debug("gossip peer not reached", "peer", p.ID, "error", err)
	}
}

// check refuses what cannot work.
func (c Config) check() error {
	t := c.Timing
	switch {
	case c.ClusterID == "" || len(c.ClusterID) > memberlist.LabelMaxSize:
		return fmt.Errorf("gossip configuration: cluster id %q must have 1 to %d bytes", c.ClusterID, memberlist.LabelMaxSize)
	case c.Node == "":
		return errors.New("gossip configuration: no node id")
	case c.Log == nil || c.OnSuspect == nil || c.OnAlive == nil:
		return errors.New("gossip configuration: Log, OnSuspect and OnAlive are required")
	case t.ProbeInterval <= 0 || t.GossipInterval <= 0 || t.ForgetDead <= 0 || t.Rejoin <= 0 || t.ProbeTimeout <= 0:
		return fmt.Errorf("gossip timing: every duration must be positive: %+v", t)
	case t.ProbeTimeout >= t.ProbeInterval:
		return fmt.Errorf("gossip timing: probe timeout %s must be below probe interval %s", t.ProbeTimeout, t.ProbeInterval)
	}
	return nil
}
