package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/highbase/highbase/cluster/gossip"
	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// Node is one hbd.
type Node struct {
	cfg      Config
	log      *slog.Logger
	self     fsm.Member
	instance string
	lock     *identity.Lock
	promises promises
	store    *store
	exec     executor
	server   *rpc.Server
	client   *rpc.Client
	peers    *peers
	holder   *holder
	grantor  *grantor
	stats    *stats
	endings  endings
	clients  *clients
	repairs  repairs

	joined     atomic.Pointer[membership] // nil until this node belongs to a cluster
	joinOnce   sync.Mutex
	leading    atomic.Pointer[leading] // nil while this node does not lead
	fresh      atomic.Bool             // a leader has confirmed that the applied state was recent
	calm       atomic.Bool             // nothing goes on here but service
	leaving    atomic.Bool             // hbd was asked to stop and is handing over
	stopping   atomic.Bool             // it has given up the role: it never serves again
	repointing atomic.Bool             // replication is being turned: what it is called meanwhile counts for nobody
	other      atomic.Uint64           // epoch in which another MAC was seen to claim the address
	local      atomic.Pointer[turn]

	reconnected atomic.Pointer[sourceRun] // to which run of its source the receiver was last made to connect

	nudges                    nudges
	readOnlyLimit, asideLimit time.Duration

	ownWrite ownWrite
	aside    aside
	fullSync fullSync
	barriers barriers
	sync     syncState

	strangers strangers
	cutting   cutting
	pauses    pauses

	rebuilds  *rebuilds
	donations *donations

	wake   chan struct{} // local loop
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// membership is what exists only once the node belongs to a cluster.
type membership struct {
	clusterID string
	raft      *raftnode.Node
	gossip    *gossip.Gossip
}

// Open prepares a node from what is on disk. Nothing runs yet but the RPC handler, which answers from the start.
func Open(cfg Config) (*Node, error) {
	lock, err := identity.LockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Logger, self: cfg.self(), lock: lock, wake: make(chan struct{}, 1), stats: newStats(), readOnlyLimit: readOnlyLimit, asideLimit: asideLimit}
	if err := n.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return n, nil
}

func (n *Node) open() error {
	if n.self.ID == "" {
		return fmt.Errorf("node %q is not among the peers", n.cfg.Node)
	}
	in, err := identity.OpenInstance(n.raftDir())
	if err != nil {
		return err
	}
	n.instance = in.ID
	if n.promises, err = openPromises(n.cfg.DataDir); err != nil {
		return err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.store = &store{log: n.log, fatal: n.cfg.OnStuck}
	n.peers = newPeers(n)
	n.holder = newHolder(n)
	n.grantor = newGrantor(n)
	n.clients = newClients(n)
	n.rebuilds, n.donations = newRebuilds(n), newDonations(n)
	n.strangers.look = make(chan struct{}, 1)
	n.client = rpc.NewClient(rpc.ClientConfig{Self: n.identity})
	n.server = rpc.NewServer(rpc.ServerConfig{Self: n.identity, Authorize: n.authorize, Log: n.log.With("part", "rpc")})
	n.register()
	if n.cfg.Addresser != nil {
		n.cfg.Addresser.OnForeignClaim(n.foreignClaim)
	}
	id, err := identity.ClusterID(n.cfg.DataDir)
	if err != nil {
		return err
	}
	if id != "" {
		return n.join(id)
	}
	n.log.Info("this node belongs to no cluster yet: run hbctl bootstrap on one node", "node", n.cfg.Node)
	return nil
}

func (n *Node) raftDir() string { return filepath.Join(n.cfg.DataDir, "raft") }

// RPCHandler serves the node RPC; cmd/hbd mounts it beside the API.
func (n *Node) RPCHandler() http.Handler { return n.server }

// join makes this node part of a cluster, for good. Joining the same cluster again is harmless.
func (n *Node) join(clusterID string) error {
	n.joinOnce.Lock()
	defer n.joinOnce.Unlock()
	if m := n.joined.Load(); m != nil {
		if m.clusterID != clusterID {
			return fmt.Errorf("%w: it belongs to %s", identity.ErrOtherCluster, m.clusterID)
		}
		return nil
	}
	if err := identity.SetClusterID(n.cfg.DataDir, clusterID); err != nil {
		return err
	}
	r, err := raftnode.Open(raftnode.Config{
		Dir: n.raftDir(), ClusterID: clusterID, Node: string(n.cfg.Node), Bind: n.cfg.BindRaft, Advertise: n.self.Raft,
		Timing: n.cfg.RaftTiming, FSM: n.store, Log: n.log.With("part", "raft"), OnStuck: n.cfg.OnStuck,
	})
	if err != nil {
		return err
	}
	g, err := n.openGossip(clusterID)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	n.joined.Store(&membership{clusterID: clusterID, raft: r, gossip: g})
	r.Subscribe(n.leadership)
	n.log.Info("member of a cluster", "cluster_id", clusterID, "node", n.cfg.Node, "instance", n.instance)
	wake(n.wake)
	return nil
}

// raft is the Raft node, nil before the node belongs to a cluster.
func (n *Node) raft() *raftnode.Node {
	if m := n.joined.Load(); m != nil {
		return m.raft
	}
	return nil
}

// Run works until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, n.cancel)
	defer stop()
	loops := []func(context.Context){n.peers.run, n.confirmFresh, n.followLoop}
	if n.cfg.Prober != nil {
		loops = append(loops, n.cfg.Prober.Run, n.holder.run, n.rebuilds.watch, n.donations.watch, n.watchStrangers, n.watchEvents)
	}
	if n.cfg.Clients != nil {
		loops = append(loops, n.clients.share)
	}
	for _, loop := range loops {
		n.wg.Go(func() { loop(n.ctx) })
	}
	<-n.ctx.Done()
	n.wg.Wait()
	return nil
}

// Close ends the loops and releases the store. It leaves mysqld, the gate and the addresses as they are: see Shutdown for a clean stop.
func (n *Node) Close() error {
	n.cancel()
	n.wg.Wait()
	var err error
	if m := n.joined.Load(); m != nil {
		err = errors.Join(m.gossip.Close(), m.raft.Close())
	}
	return errors.Join(err, n.lock.Close())
}

// confirmFresh asks until a leader has proven, by a quorum round that began after the question, which index this node must have applied to know
// where the cluster stands. Before that, a node that was away would act on an old state.
func (n *Node) confirmFresh(ctx context.Context) {
	for ctx.Err() == nil && !n.fresh.Load() {
		index, err := n.readIndex(ctx)
		if err == nil {
			err = n.awaitApplied(ctx, index)
		}
		if err == nil {
			n.adopt(ctx)
			n.fresh.Store(true)
			n.log.Info("applied state is confirmed recent", "index", index, "epoch", n.store.State().Epoch)
			wake(n.wake)
			n.holder.kick()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// adopt takes over what an earlier run of hbd left serving, before this node acts on its state: it looks at mysqld and, if the log names this
// node, gets a lease. Meanwhile the kernel ends the old one in time.
func (n *Node) adopt(ctx context.Context) {
	if n.cfg.Prober == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.settings().Lease)
	defer cancel()
	for n.cfg.Prober.Look(ctx).State == fsm.ServerUnknown && ctx.Err() == nil {
	}
	for ctx.Err() == nil && n.holder.wanted() && n.gateOpen() {
		n.holder.renew(ctx, n.settings())
		if _, ok := n.holder.valid(); ok {
			return
		}
	}
}

// readIndex gets from the leader an index that includes everything committed before the call.
func (n *Node) readIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r := n.raft()
	if r == nil {
		return 0, errors.New("not a member of a cluster yet")
	}
	if r.IsLeader() {
		round, err := r.VerifyQuorumRound(ctx)
		return round.Index, err
	}
	var out readIndexReply
	err := n.callLeader(ctx, "read_index", struct{}{}, &out)
	return out.Index, err
}

func (n *Node) awaitApplied(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for n.raft().Stats().Applied < index {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// foreignClaim: somebody else announced the address. The rightful holder defends by itself; one that lost its right may let go.
func (n *Node) foreignClaim(ip netip.Addr) {
	n.other.Store(n.store.State().Epoch)
	n.log.Info("another host claims the address", "address", ip, "epoch", n.store.State().Epoch)
	wake(n.wake)
}
