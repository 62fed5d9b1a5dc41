package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// errOvertaken is returned by an action whose right has passed: a newer order was accepted or a newer epoch applied.
var errOvertaken = errors.New("a newer order or epoch has come")

// errNotDue: what an action was to bring about has come about while it waited for its turn, and was seen.
var errNotDue = errors.New("not due any more")

// releasedAlready tells that the release, for which a fence waited, has made mysqld read-only.
func (n *Node) releasedAlready(ctx context.Context) bool {
	st := n.store.State()
	if st.Op == nil || st.Op.From != n.cfg.Node || n.promises.get().ReleasedOp != st.Op.ID {
		return false
	}
	sv := n.cfg.Prober.Look(ctx)
	return sv.State == fsm.ServerUp && sv.ReadOnly
}

// carryOut does the actions of one judgement in order and stops at the first that fails: the next judgement sees what is left.
func (n *Node) carryOut(ctx context.Context, actions []fsm.Action) {
	done, looks, opened := true, false, false
	for _, a := range actions {
		start := now()
		err := n.exec.action(ctx, func(ctx context.Context) error {
			if err := n.mayStill(a); err != nil {
				return err
			}
			if a.Kind == fsm.ActSelfFence && n.releasedAlready(ctx) {
				return errNotDue
			}
			return n.execute(ctx, a)
		})
		if errors.Is(err, errNotDue) {
			continue
		}
		looks, opened = looks || !seenByItself[a.Kind], a.Kind == fsm.ActOpen && err == nil
		n.stats.acted(a, err, now()-start)
		if err != nil {
			if !errors.Is(err, errOvertaken) && !errors.Is(err, errPreempted) && ctx.Err() == nil {
				n.log.Warn("action failed", "action", a.Kind, "rule", a.Rule, "epoch", a.Epoch, "error", err.Error())
			}
			done = false
			break
		}
		if a.Kind != fsm.ActFollow && a.Kind != fsm.ActReconnect && a.Kind != fsm.ActRebuild || now()-start > 5*time.Millisecond {
			n.log.Info("action", "action", a.Kind, "rule", a.Rule, "epoch", a.Epoch, "took", (now() - start).Round(100*time.Microsecond))
		}
	}
	if done && !looks {
		return
	}
	if opened {
		wait(ctx, n.pauses.left(n.store.State())) // clients are coming back: what became of it may be seen later
	}
	// What was changed must be seen before it is judged again.
	c, cancel := context.WithTimeout(n.ctx, time.Second)
	defer cancel()
	n.cfg.Prober.Look(c)
}

// seenByItself are the actions after whose success no look at mysqld is due: they look themselves, or change nothing of it that is judged by.
var seenByItself = map[fsm.ActionKind]bool{fsm.ActStopFollow: true, fsm.ActSourceSync: true, fsm.ActBarrier: true, fsm.ActBlock: true, fsm.ActUnblock: true,
	fsm.ActCoverPort: true, fsm.ActUncover: true, fsm.ActReleaseVIP: true}

// mayStill is the fencing token at work: it is asked under the executor lock, right before an effect.
func (n *Node) mayStill(a fsm.Action) error {
	if a.Kind == fsm.ActSelfFence || a.Kind == fsm.ActReleaseVIP || a.Kind == fsm.ActCloseGate {
		return nil // whoever may do less than he thinks may certainly do this
	}
	if n.stopping.Load() {
		return errOvertaken
	}
	// After a release the position that was answered is all there is: until the log has gone on this node only takes away.
	if st, p := n.store.State(), n.promises.get(); st.Op != nil && st.Primary == n.cfg.Node && p.ReleasedOp == st.Op.ID {
		return errOvertaken
	}
	if n.promises.get().outdated(a.Epoch, a.Index) || n.store.State().Epoch != a.Epoch {
		return errOvertaken
	}
	return nil
}

// limits of single actions. An action that runs into its limit is judged anew.
const (
	shortAction = 5 * time.Second
	longAction  = 60 * time.Second
)

// longActions wait for data to be applied, recovered or acknowledged.
var longActions = []fsm.ActionKind{fsm.ActStart, fsm.ActStopFollow, fsm.ActBarrier, fsm.ActFollow, fsm.ActReturn}

func (n *Node) execute(ctx context.Context, a fsm.Action) error {
	limit := shortAction
	if slices.Contains(longActions, a.Kind) {
		limit = longAction
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	db := n.cfg.Database
	st := n.store.State()
	switch a.Kind {
	case fsm.ActSelfFence:
		_, err := n.makeReadOnly(ctx, false)
		return err
	case fsm.ActReleaseVIP:
		return n.cfg.Addresser.SetHeld(ctx, false)
	case fsm.ActStart:
		return n.start(ctx, st, false)
	case fsm.ActKill:
		return n.cfg.Service.Kill(ctx)
	case fsm.ActStopFollow:
		return n.stopFollowing(ctx, a, st)
	case fsm.ActSourceSync:
		return n.sourceSync(ctx, st.SourceAcks())
	case fsm.ActBarrier:
		return n.barrier(ctx, a)
	case fsm.ActOpen:
		return n.openService(ctx, a, st)
	case fsm.ActForget:
		return db.ForgetSource(ctx)
	case fsm.ActFollow:
		return n.follow(ctx, a, st)
	case fsm.ActNudge:
		n.nudge()
		return nil
	case fsm.ActReconnect:
		return n.reconnect(ctx, a)
	case fsm.ActReturn:
		return n.comeBack(ctx, a, st)
	case fsm.ActMend:
		return db.MendSettings(ctx)
	case fsm.ActUnblock:
		return n.unblockAll()
	case fsm.ActBlock, fsm.ActPrepare, fsm.ActAsync, fsm.ActSyncOff, fsm.ActCoverPort, fsm.ActUncover:
		return n.executeSync(ctx, a)
	case fsm.ActRebuild:
		n.rebuilds.wanted()
		return nil
	case fsm.ActCloseGate, fsm.ActNone:
		return nil
	}
	return fmt.Errorf("action %q is not known to this version", a.Kind)
}

// start starts mysqld. A restart in place that fails is told to the leader, who decides on the next attempt.
func (n *Node) start(ctx context.Context, st fsm.State, rewind bool) error {
	err := n.cfg.Service.Start(ctx, rewind)
	if err == nil {
		n.cfg.Prober.Look(ctx)
		n.stats.started()
		return nil
	}
	// A start that was overtaken has not failed.
	if ctx.Err() == nil && st.Op != nil && st.Op.Step == fsm.StepRestart && st.Primary == n.cfg.Node {
		n.stats.startFailed(st.Op.Index, err.Error())
		n.peers.kickAll()
	}
	return fmt.Errorf("starting mysqld: %w", err)
}

// openService lets clients in: writable, gate, address, announcement, in this order. Each has the right checked right before it.
func (n *Node) openService(ctx context.Context, a fsm.Action, st fsm.State) error {
	begin := now()
	if err := n.stopCutting(ctx); err != nil { // may take a while: the right is looked at after it
		return err
	}
	if n.holder.deadline(a.Epoch) == 0 {
		return errors.New("the lease has run out")
	}
	if err := n.cfg.Database.SetWritable(ctx); err != nil {
		return fmt.Errorf("writable: %w", err)
	}
	if err := n.mayStill(a); err != nil {
		return err
	}
	deadline := n.holder.deadline(a.Epoch)
	if deadline == 0 {
		return errors.New("the lease has run out")
	}
	if !n.gateOpen() {
		if err := n.cfg.Addresser.Open(deadline); err != nil {
			return fmt.Errorf("opening the gate: %w", err)
		}
	}
	if err := n.cfg.Addresser.SetHeld(ctx, true); err != nil {
		return fmt.Errorf("taking the address: %w", err)
	}
	if !n.stats.announced(a.Epoch) {
		n.cfg.Addresser.Announce()
		n.stats.setAnnounced(a.Epoch)
	}
	n.insist(st)
	n.tickle(a.Epoch, st.Op != nil && st.Op.Kind == fsm.KindSwitchover)
	if st.Op != nil {
		n.stats.phase("announce", now()-begin)
		n.stats.served(st.Op.Index)
	}
	n.holder.kick()
	n.peers.kickAll()
	return nil
}

// insist keeps announcing while the host of an old primary that did not give way may still be alive.
func (n *Node) insist(st fsm.State) {
	if st.Op == nil || st.Op.Step != fsm.StepPromoted || st.Op.From == "" || st.Op.Kind.Planned() {
		return
	}
	n.cfg.Addresser.Insist(true)
	from, epoch := st.Op.From, st.Epoch
	n.wg.Go(func() {
		// Until it has applied the new epoch and let go, or for a minute: after that the regular refresh goes on.
		end := time.NewTimer(time.Minute)
		defer end.Stop()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-n.ctx.Done():
				return
			case <-end.C:
				n.cfg.Addresser.Insist(false)
				return
			case <-tick.C:
			}
			obs, at, ok := n.peers.observed(from)
			gone := ok && now()-at < time.Second && obs.Epoch >= epoch && !obs.VIPHeld
			if gone || n.store.State().Epoch != epoch {
				n.cfg.Addresser.Insist(false)
				return
			}
		}
	})
}
