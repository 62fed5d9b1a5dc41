package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/fsm/gtid"
)

// follow makes this node replicate from the primary. Data that the serving primary lacks is never thrown away: the node keeps out and says why.
func (n *Node) follow(ctx context.Context, a fsm.Action, st fsm.State) error {
	src, ok := st.Member(a.Target)
	if !ok {
		return fmt.Errorf("%s is not a member", a.Target)
	}
	if err := n.letPrimaryIn(ctx, src, st); err != nil {
		return err
	}
	if err := n.standAside(ctx, a, st); err != nil {
		return err
	}
	if err := n.endOwnWrites(ctx); err != nil {
		return err
	}
	if !n.named(a, n.store.State()) {
		return errOvertaken
	}
	sv := n.cfg.Prober.Server()
	moves := sv.SourceHost != src.Address || sv.SourcePort != src.MySQLPort
	if moves && sv.HasReplication && src.ID != st.Primary {
		if err := n.halt(ctx); err != nil {
			return err
		}
	}
	switch {
	case moves && sv.HasReplication && sv.Delay == 0 && src.ID == st.Primary:
		if err := n.awaitSource(ctx, a, sv); err != nil {
			return err
		}
	case moves || n.promises.get().Followed < a.Epoch:
		if err := n.mustBeContained(ctx, a); err != nil {
			return err
		}
	}
	return n.repoint(ctx, a, src)
}

// letPrimaryIn lets a new primary's traffic pass that was kept out because it was the old one, too: it may have to catch up from here before it holds what
// this node waits for. Nothing is received from it yet: a receiver that stands still is started only after the promise to follow.
func (n *Node) letPrimaryIn(ctx context.Context, src fsm.Member, st fsm.State) error {
	if src.ID != st.Primary {
		return nil
	}
	blocked, err := n.blockedNodes()
	if err != nil || !slices.Contains(blocked, src.ID) {
		return err
	}
	if n.cfg.Prober.Look(ctx).IORunning {
		return nil
	}
	addr, err := netip.ParseAddr(src.Address)
	if err != nil {
		return err
	}
	if err := n.cfg.Addresser.Unblock(addr); err != nil {
		return fmt.Errorf("letting %s in, which is primary of epoch %d: %w", src.ID, st.Epoch, err)
	}
	return nil
}

const (
	// sourcePatience bounds one wait for a primary that still applies what this node has; the next judgement begins the next.
	sourcePatience = 5 * time.Second
	// sourcePause is between two questions at first, and grows to ten times that.
	sourcePause = 5 * time.Millisecond
)

// awaitSource receives nothing more, and returns once the primary has applied everything that was received here: what it will never have must not be
// acknowledged as if it had. MariaDB refuses a replica that is ahead of its source (error 1236) and stops its receiver, which is tried again only
// after a pause: after a takeover by a candidate that still drains, the barrier would wait for that. MySQL does not: there it is enough that the
// primary was promoted to hold it.
func (n *Node) awaitSource(ctx context.Context, a fsm.Action, sv fsm.ServerStatus) error {
	ctx, cancel := context.WithTimeout(ctx, sourcePatience)
	defer cancel()
	var sever func() error
	if old, err := netip.ParseAddr(sv.SourceHost); err == nil {
		sever = n.severFrom(old)
	}
	received, err := n.cfg.Database.Freeze(ctx, sever)
	if err != nil {
		return fmt.Errorf("leaving the old source: %w", err)
	}
	if st := n.store.State(); st.Server == string(gtid.MySQL) && n.promotedWith(st, a, received) {
		return nil
	}
	for pause := sourcePause; ; pause = min(pause*5/4, 10*sourcePause) {
		reply, err := n.askPosition(ctx, a.Target, received)
		switch {
		case err == nil && reply.Contains:
			return nil
		case err == nil && reply.Serving == a.Epoch:
			return n.quarantineFor(fsm.RebuildErrant, fmt.Sprintf("errant transactions: this node received %s, and the primary %s of epoch %d lacks some of it", received, a.Target, a.Epoch))
		case err == nil:
			err = fmt.Errorf("%s does not hold %s yet (it is at %s)", a.Target, received, reply.Position)
		default:
			err = fmt.Errorf("asking %s for its position: %w", a.Target, err)
		}
		wait(ctx, pause)
		if ctx.Err() != nil {
			return err
		}
		if !n.named(a, n.store.State()) {
			return errOvertaken
		}
	}
}

// named tells whether a state still says that this node is to follow the action's target.
func (n *Node) named(a fsm.Action, st fsm.State) bool {
	return st.Epoch == a.Epoch && a.Target == st.SourceOf(n.cfg.Node)
}

// halt receives nothing more, and applies all that was received. The old primary writes on while this node is chained to another replica: what arrived
// after that was asked for its position it would lack, and MariaDB then refuses to replicate from it.
func (n *Node) halt(ctx context.Context) error {
	received, err := n.cfg.Database.Freeze(ctx, nil)
	if err != nil {
		return fmt.Errorf("leaving the old source: %w", err)
	}
	if err := n.cfg.Database.Drain(ctx, received); err != nil {
		return fmt.Errorf("applying what was received up to %s: %w", received, err)
	}
	return nil
}

// mustBeContained compares with the primary before this node follows it.
func (n *Node) mustBeContained(ctx context.Context, a fsm.Action) error {
	ok, err := n.contained(ctx, a)
	if err != nil || ok {
		return err
	}
	pos, err := n.cfg.Database.Position(ctx)
	return errors.Join(err, n.quarantineFor(fsm.RebuildErrant, fmt.Sprintf("errant transactions: this node executed %s, and the primary %s of epoch %d lacks some of it", pos, a.Target, a.Epoch)))
}

// repoint turns replication to src. That this epoch is followed, and by which incarnation, is promised before the first byte of it can arrive: a
// node that dies in between must not say later that it has seen nothing of it.
func (n *Node) repoint(ctx context.Context, a fsm.Action, src fsm.Member) error {
	addr, err := netip.ParseAddr(src.Address)
	if err != nil {
		return err
	}
	if err := n.cfg.Addresser.Unblock(addr); err != nil {
		return fmt.Errorf("unblocking replication traffic from %s: %w", src.ID, err)
	}
	if err := n.mayStill(a); err != nil {
		return err
	}
	old := n.cfg.Prober.Look(ctx)
	before, _ := n.incarnation(old, n.promises.get())
	// What is promised and what may be acknowledged is judged by one state, and only if it still names this source.
	st := n.store.State()
	if st.Epoch != a.Epoch || a.Kind == fsm.ActFollow && !n.named(a, st) {
		return errOvertaken
	}
	first, err := n.promiseToFollow(a, st, src, before)
	if err != nil {
		return err
	}
	// Turned on before it has left its old source, its acknowledgements would count there.
	sync := st.MayAcknowledge(n.cfg.Node) && src.ID == st.SourceOf(n.cfg.Node) && (src.ID == st.Primary || old.SourceHost == src.Address && old.SourcePort == src.MySQLPort)
	if sync {
		n.sync.setOff(0)
	}
	n.repointing.Store(true)
	defer n.repointing.Store(false)
	follow := n.cfg.Database.Follow
	if old.Delay > 0 && n.store.State().Settled() >= a.Epoch {
		// What is settled holds all that was acknowledged; what is dropped here is sent again, or was promised to nobody.
		follow, before = n.cfg.Database.FollowDelayed, ""
	}
	if err := follow(ctx, Following{Host: src.Address, Port: src.MySQLPort, Sync: sync, Epoch: a.Epoch}); err != nil {
		return fmt.Errorf("following %s: %w", src.ID, err)
	}
	sv := n.cfg.Prober.Look(ctx)
	generation := n.cfg.Prober.Generation()
	if sv.State != fsm.ServerUp || sv.Started != old.Started || generation == "" {
		return fmt.Errorf("following %s: mysqld was restarted or stopped replicating meanwhile", src.ID)
	}
	return n.promiseIncarnation(sv.Started+"/"+generation, before, first)
}

// promiseIncarnation links what runs now to the incarnation before it, "" when it has forgotten something.
func (n *Node) promiseIncarnation(token, before string, first bool) error {
	return n.promises.update(func(p *Promises) {
		p.IncToken, p.IncID = token, token
		if before != "" {
			p.IncID = before
		}
		if first && before == "" {
			p.WholeID = token
		}
	})
}

// promiseToFollow writes down which epoch is followed from here on, and by which incarnation. It reports whether the epoch is followed for the first
// time and nothing of it can have arrived before.
func (n *Node) promiseToFollow(a fsm.Action, st fsm.State, src fsm.Member, before string) (first bool, err error) {
	old := n.promises.get()
	first = old.Followed < a.Epoch
	chain := src.ID != st.Primary && old.ChainEpoch != st.Epoch+1
	if !first && !chain {
		return false, nil
	}
	// What a chained node has received of this epoch it received since it was chained to its primary: only who has forgotten nothing since then is whole.
	wasChained := old.ChainEpoch == a.Epoch
	whole := before
	if wasChained {
		whole = old.ChainID
	}
	return first && !wasChained, n.promises.update(func(p *Promises) {
		if first {
			p.Followed, p.WholeEpoch, p.WholeID = a.Epoch, a.Epoch, whole
		}
		if chain {
			p.ChainEpoch, p.ChainID = st.Epoch+1, before
		}
	})
}

// comeBack is the return of a node that was primary. What it has and the settled primary lacks was acknowledged to nobody, if every epoch since
// was won without loss: then, and only then, it is rolled back by recovery, after it was saved to a file.
func (n *Node) comeBack(ctx context.Context, a fsm.Action, st fsm.State) error {
	src, ok := st.Member(a.Target)
	if !ok {
		return fmt.Errorf("%s is not a member", a.Target)
	}
	if err := n.standAside(ctx, a, st); err != nil {
		return err
	}
	if err := n.endOwnWrites(ctx); err != nil {
		return err
	}
	sv := n.cfg.Prober.Look(ctx)
	if sv.State == fsm.ServerUp && sv.Waiting == 0 {
		contained, err := n.contained(ctx, a)
		if err != nil {
			return err
		}
		if contained {
			return n.finishReturn(ctx, a, src)
		}
	}
	if st.Settled() <= n.promises.get().Held {
		return fmt.Errorf("has transactions that %s lacks, and no newer epoch is settled: keeping them", a.Target)
	}
	if st.LossySince(n.promises.get().Held) {
		return n.quarantine(fmt.Sprintf("has transactions that %s lacks, and an epoch since %d was won by accepting a loss: they may have been acknowledged", a.Target, n.promises.get().Held))
	}
	return n.rewind(ctx, a, st, src)
}

// promotedWith: what the primary was promoted to hold it holds before it serves. That needs no question.
func (n *Node) promotedWith(st fsm.State, a fsm.Action, position string) bool {
	return st.Epoch == a.Epoch && st.Op != nil && st.Op.To == a.Target && st.Op.Position != "" && fsm.Holds(st.Server, st.Op.Position, position)
}

// contained tells whether everything executed here is in the primary's history. Before the primary serves its own answer may still change from
// no to yes: then it is an error, and asked again.
func (n *Node) contained(ctx context.Context, a fsm.Action) (bool, error) {
	pos, err := n.cfg.Database.Position(ctx)
	if err != nil {
		return false, err
	}
	if n.promotedWith(n.store.State(), a, pos) {
		return true, nil
	}
	reply, err := n.askPosition(ctx, a.Target, pos)
	if err != nil {
		return false, fmt.Errorf("asking %s for its position: %w", a.Target, err)
	}
	if !reply.Contains && reply.Serving != a.Epoch {
		return false, fmt.Errorf("%s does not hold %s yet (it is at %s)", a.Target, pos, reply.Position)
	}
	return reply.Contains, nil
}

// rewind rolls the unacknowledged tail back by starting mysqld once with a recovery that cuts it.
func (n *Node) rewind(ctx context.Context, a fsm.Action, st fsm.State, src fsm.Member) error {
	reply, err := n.askPosition(ctx, a.Target, "")
	if err != nil {
		return fmt.Errorf("asking %s for its position: %w", a.Target, err)
	}
	// Killed, not stopped: a clean stop would commit the tail.
	if err := n.cfg.Service.Kill(ctx); err != nil {
		return fmt.Errorf("killing mysqld before the rewind: %w", err)
	}
	saved, err := n.cfg.Database.PrepareRewind(ctx, reply.History)
	if errors.Is(err, ErrNotRewindable) {
		return n.quarantine(err.Error())
	}
	if err != nil {
		return fmt.Errorf("judging the tail: %w", err)
	}
	if saved != "" {
		n.log.Info("unacknowledged tail saved before the rewind", "file", saved)
	}
	if err := n.mayStill(a); err != nil {
		return err
	}
	if err := n.promises.update(func(p *Promises) { p.Turned, p.TurnedAt, p.TurnedRun = max(p.Turned, a.Epoch), "", "" }); err != nil {
		return err
	}
	// With no tail there is nothing to roll back: recovery that rolls back would take what is acknowledged, too.
	if err := n.start(ctx, st, saved != ""); err != nil {
		return err
	}
	contained, err := n.contained(ctx, a)
	if err != nil {
		return err
	}
	if !contained {
		pos, perr := n.cfg.Database.Position(ctx)
		return errors.Join(perr, n.quarantine(fmt.Sprintf("after the rewind it is at %s, which %s still lacks: its tail was committed before", pos, a.Target)))
	}
	n.stats.rewound()
	return n.finishReturn(ctx, a, src)
}

// finishReturn turns the node round. From the first step on its data is not its own any more, and it says so durably before.
func (n *Node) finishReturn(ctx context.Context, a fsm.Action, src fsm.Member) error {
	sv := n.cfg.Prober.Look(ctx)
	err := n.promises.update(func(p *Promises) {
		if p.Turned < a.Epoch {
			p.Turned, p.TurnedAt, p.TurnedRun = a.Epoch, sv.Executed, sv.Started
		}
	})
	if err != nil {
		return err
	}
	// A server that replicates already was turned half-way before: its position is set.
	if !sv.HasReplication {
		if err := n.cfg.Database.FinishRewind(ctx); err != nil {
			return fmt.Errorf("turning the old primary round: %w", err)
		}
	}
	return n.repoint(ctx, a, src)
}

// quarantine keeps this node out until its data is replaced or a human has looked. It changes nothing on it.
func (n *Node) quarantine(reason string) error {
	return n.quarantineFor(fsm.RebuildQuarantined, reason)
}

func (n *Node) quarantineFor(cause fsm.RebuildCause, reason string) error {
	n.log.Error("quarantined", "node", n.cfg.Node, "cause", cause, "reason", reason)
	if err := n.promises.update(func(p *Promises) { p.Quarantine, p.Cause = reason, cause }); err != nil {
		return err
	}
	return errors.New("quarantined: " + reason)
}
