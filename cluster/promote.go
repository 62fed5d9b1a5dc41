package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// stopFollowing makes a server of its own of the replica that was named primary. From its end on Held is being made durable: it is drained and follows
// nobody, so its data may be its own; the barrier waits for what is left of that.
func (n *Node) stopFollowing(ctx context.Context, a fsm.Action, st fsm.State) error {
	begin := now()
	run := n.cfg.Prober.Server().Started
	var position string
	if st.Op != nil && st.Op.Position != "" && st.Op.To == n.cfg.Node {
		position = st.Op.Position
	} else {
		position = n.cfg.Prober.Look(ctx).Received
	}
	if err := n.fetch(ctx, st); err != nil {
		return err
	}
	if st.Op != nil && st.Op.From != "" && st.Op.From != n.cfg.Node {
		// As for a freeze: with traffic to the old source reset, STOP does not wait for it.
		if addr, err := n.sourceAddr(st.Op.From); err == nil {
			if err := n.cfg.Addresser.Block(addr); err != nil {
				return fmt.Errorf("blocking replication traffic from %s: %w", st.Op.From, err)
			}
		}
	}
	// After a restart of mysqld both threads are stopped: this starts the applier in the one way that forgets nothing.
	became, err := n.cfg.Database.BecomeSource(ctx, Promotion{Position: position, Final: letGo(st, n.cfg.Node), Acks: st.SourceAcks(), Sever: n.severSource(st)})
	if err != nil {
		return err
	}
	n.wg.Go(func() {
		if err := n.promiseHeld(a.Epoch); err != nil && !errors.Is(err, errOvertaken) {
			n.log.Warn("not promised yet: the barrier does not go without it", "epoch", a.Epoch, "error", err.Error())
		}
	})
	// What was just set need not be asked for.
	if became == run && n.cfg.Prober.BecameSource(run, st.SourceAcks()) || n.cfg.Prober.Look(ctx).Started == run {
		n.fullSync.set(run, st.SourceAcks())
	}
	n.stats.phase("drain", now()-begin)
	return nil
}

// letGo tells whether the old primary said by itself that the operation's position is all that there is: it was read-only by then, and let go.
func letGo(st fsm.State, to fsm.NodeID) bool {
	op := st.Op
	return op != nil && op.To == to && op.Position != "" && op.Fetch == "" && op.Fence != nil && op.Fence.Kind == fsm.EvidenceRelease
}

// endReceiving stops the receiver of a candidate that holds all that the old primary had, while its promotion is being committed: clients wait for that
// otherwise. The old primary has let go: nothing that counts is sent any more, and everything is applied. The applier runs on, so that the receive
// generation stays what it is (had it just ended by itself, this node would be counted anew after a roll-back), and nothing is promised.
// Should the log take the change back instead, the local loop lets the old primary's traffic pass and starts the receiver again.
func (n *Node) endReceiving(o fsm.Order) {
	ctx, cancel := context.WithTimeout(n.ctx, shortAction)
	defer cancel()
	err := n.exec.action(ctx, func(ctx context.Context) error {
		st := n.store.State()
		// Asked in its turn: a promotion does this itself, and what comes after that needs the traffic.
		if st.Op == nil || st.Epoch != o.Epoch || st.Op.ID != o.OpID || st.Op.Step != fsm.StepReleasing {
			return nil
		}
		source, err := n.sourceAddr(st.Op.From)
		if err != nil {
			return err
		}
		if err := n.cfg.Addresser.Block(source); err != nil { // as for a freeze: STOP does not wait for it then
			return err
		}
		sever := n.severFrom(source)
		if err = n.cfg.Database.EndReceiving(ctx, sever); err != nil {
			// A receiver that runs must not wait at a blocked source.
			err = errors.Join(err, sever(), n.cfg.Addresser.Unblock(source))
		}
		return err
	})
	if err != nil {
		n.log.Debug("the receiver is still to be stopped", "epoch", o.Epoch, "error", err.Error())
	}
}

// fetch catches up from the frozen member that holds everything, if the log says that this node lacks some of it. That member is read-only, has
// promised to receive nothing of an older epoch, and applies what it has: it is a source like any other, and nobody's acknowledgement counts.
func (n *Node) fetch(ctx context.Context, st fsm.State) error {
	if st.Op == nil || st.Op.Fetch == "" || st.Op.To != n.cfg.Node {
		return nil
	}
	from, ok := st.Member(st.Op.Fetch)
	if !ok {
		return fmt.Errorf("%s is not a member", st.Op.Fetch)
	}
	if st.Op.Extra == "" {
		return n.catchUp(ctx, from, st.Op.Position)
	}
	c, cancel := context.WithTimeout(ctx, extraLimit)
	err := n.catchUp(c, from, st.Op.Extra)
	cancel()
	if err == nil {
		return nil
	}
	n.log.Warn("what a replica outside the sync set received beyond this node is not taken over: it will be rebuilt", "node", from.ID, "position", st.Op.Extra, "error", err.Error())
	return n.dropExtra(ctx, from, st.Op.Position)
}

// dropExtra gives up what was fetched and is not applied, and perhaps cannot be: nothing may wait for it. Nothing that this node must hold may go with it:
// MySQL can be asking for the extra while it still applies what it received before.
func (n *Node) dropExtra(ctx context.Context, from fsm.Member, position string) error {
	held, err := n.cfg.Database.Contains(ctx, position)
	if err != nil {
		return err
	}
	if sv := n.cfg.Prober.Look(ctx); !held && (sv.SourceHost != from.Address || sv.SourcePort != from.MySQLPort) {
		return nil // it has not come to that
	}
	if !held {
		if err := n.cfg.Database.Drain(ctx, position); err != nil {
			return fmt.Errorf("applying what this node must hold, up to %s: %w", position, err)
		}
	}
	addr, err := netip.ParseAddr(from.Address)
	if err != nil {
		return err
	}
	return n.cfg.Database.Discard(ctx, n.severFrom(addr))
}

// extraLimit bounds the fetching of what is worth having and not needed: clients wait meanwhile.
const extraLimit = time.Second

// catchUp replicates from a frozen node until this one has applied a position.
func (n *Node) catchUp(ctx context.Context, from fsm.Member, position string) error {
	if held, err := n.cfg.Database.Contains(ctx, position); err != nil || held {
		return err
	}
	begin := now()
	old := n.cfg.Prober.Look(ctx)
	before, _ := n.incarnation(old, n.promises.get())
	if err := n.followFrozen(ctx, from); err != nil {
		return err
	}
	// It has forgotten nothing: if it cannot serve after all, its answer counts as before.
	if sv, generation := n.cfg.Prober.Look(ctx), n.cfg.Prober.Generation(); sv.Started == old.Started && generation != "" {
		if err := n.promiseIncarnation(sv.Started+"/"+generation, before, false); err != nil {
			return err
		}
	}
	if err := n.cfg.Database.Drain(ctx, position); err != nil {
		return fmt.Errorf("catching up from %s to %s: %w", from.ID, position, err)
	}
	n.log.Info("caught up from another frozen node", "source", from.ID, "position", position, "took", (now() - begin).Round(time.Millisecond).String())
	return nil
}

func (n *Node) followFrozen(ctx context.Context, from fsm.Member) error {
	n.repointing.Store(true)
	defer n.repointing.Store(false)
	if err := n.cfg.Database.Follow(ctx, Following{Host: from.Address, Port: from.MySQLPort}); err != nil {
		return fmt.Errorf("following %s: %w", from.ID, err)
	}
	return nil
}

// barrier writes the first transaction of the epoch. Held is durable before it: from here this node may have a tail of its own. Semi-sync is
// set in full first, whatever the option file made of it, and nobody but members may acknowledge.
func (n *Node) barrier(ctx context.Context, a fsm.Action) error {
	begin := now()
	// A run that has ended since it was looked at is not that of the barrier: it is written again then.
	sv, acks := n.cfg.Prober.Server(), n.store.State().SourceAcks()
	if sv.State != fsm.ServerUp || sv.Acks != acks || !n.fullSync.is(sv.Started, acks) {
		if err := n.sourceSync(ctx, acks); err != nil {
			return err
		}
		sv = n.cfg.Prober.Server()
	}
	if err := n.readyForBarrier(ctx, a); err != nil {
		return err
	}
	if err := n.writeBarrier(ctx, a.Epoch); err != nil {
		return fmt.Errorf("barrier of epoch %d: %w", a.Epoch, err)
	}
	n.stats.phase("barrier", now()-begin)
	n.barriers.note(a.Epoch, sv.Started)
	n.wg.Go(func() { n.keepBarrier(a.Epoch, sv.Started) })
	return nil
}

// readyForBarrier does beside each other what the barrier needs. Held is durable before even the manager may write.
func (n *Node) readyForBarrier(ctx context.Context, a fsm.Action) error {
	strangers := make(chan error, 1)
	go func() { strangers <- n.keepStrangersOut(ctx) }()
	err := n.promiseHeld(a.Epoch)
	if err == nil {
		err = n.cfg.Database.SetBarrierWritable(ctx)
	}
	known := <-strangers
	if errors.Is(known, errNotAsked) {
		// It must not hold up a takeover; it is looked again every second.
		n.log.Warn("barrier without knowing whether anybody outside the cluster acknowledges", "epoch", a.Epoch, "error", known.Error())
		known = nil
	}
	return errors.Join(err, known)
}

// nudgeAfter is how long the barrier's acknowledgement may take before one may have been lost: a lost one is made up for only by that of a
// later transaction.
const nudgeAfter = 300 * time.Millisecond

// writeBarrier writes the epoch's row and nudges while it waits.
func (n *Node) writeBarrier(ctx context.Context, epoch uint64) error {
	done := make(chan error, 1)
	go func() {
		done <- n.cfg.Database.WriteBarrier(ctx, epoch, string(n.cfg.Node))
	}()
	tick := time.NewTicker(nudgeAfter)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			n.nudge()
		}
	}
}

// promiseHeld says durably that this node may have been writable in an epoch, unless that was said before.
func (n *Node) promiseHeld(epoch uint64) error {
	if n.promises.get().Held >= epoch {
		return nil
	}
	return n.promises.hold(epoch)
}

// fullSync remembers for which run of mysqld this run of hbd has set semi-sync in full, and not only found it switched on.
type fullSync struct {
	mu   sync.Mutex
	run  string
	acks int
}

func (f *fullSync) set(run string, acks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.run, f.acks = run, acks
}

func (f *fullSync) is(run string, acks int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return run != "" && f.run == run && f.acks == acks
}

// sourceSync makes commits wait for acknowledgements. The run is remembered only if it is the same after it.
func (n *Node) sourceSync(ctx context.Context, acks int) error {
	run := n.cfg.Prober.Server().Started
	if err := n.cfg.Database.SourceSync(ctx, acks); err != nil {
		return err
	}
	if n.cfg.Prober.Look(ctx).Started == run {
		n.fullSync.set(run, acks)
	}
	return nil
}

// barriers is the newest barrier that this run of hbd has written. The disk is told after the service has opened: a hbd that dies in between writes
// the barrier again.
type barriers struct {
	mu    sync.Mutex
	epoch uint64
	run   string
}

func (b *barriers) note(epoch uint64, run string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.epoch, b.run = epoch, run
}

// barrierOf is the newest epoch whose barrier a run of mysqld has written, acknowledged; 0 for none.
func (n *Node) barrierOf(p Promises, run string) uint64 {
	b := &n.barriers
	b.mu.Lock()
	defer b.mu.Unlock()
	epoch := uint64(0)
	if run != "" && b.run == run {
		epoch = b.epoch
	}
	if run != "" && p.BarrierRun == run {
		epoch = max(epoch, p.BarrierEpoch)
	}
	return epoch
}

func (n *Node) keepBarrier(epoch uint64, run string) {
	err := n.promises.update(func(p *Promises) {
		if epoch >= p.BarrierEpoch {
			p.BarrierEpoch, p.BarrierRun = epoch, run
		}
	})
	if err != nil {
		n.log.Warn("barrier not remembered: a restarted hbd writes it again", "epoch", epoch, "error", err.Error())
	}
}
