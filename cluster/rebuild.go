package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster/transfer"
	"github.com/highbase/highbase/fsm"
)

const (
	// copyTries is how often one rebuild is tried before it is given up and the log says so.
	copyTries = 5
	// copyPause is the time between two tries.
	copyPause = 2 * time.Second
)

// rebuilds is the rebuild of this node, if one is ordered or left over. It works beside the actions, for as long as copying takes; what changes
// the database it does in its turn, like an action.
type rebuilds struct {
	n     *Node
	pause time.Duration // between two tries
	look  chan struct{} // wakes watch: there is something to be found

	mu       sync.Mutex
	running  bool
	of       uint64 // the rebuild that tries counts
	tries    int
	last     error // of the newest try that counts
	phase    string
	begun    fsm.Instant
	size     int64
	inbox    *transfer.Inbox
	received int64
	empty    bool            // there was no data when it was looked last
	found    fsm.RebuildNeed // what the checks found, apart from a quarantine
}

func newRebuilds(n *Node) *rebuilds {
	return &rebuilds{n: n, pause: copyPause, look: make(chan struct{}, 1)}
}

// copy is what the judgement needs to know.
func (r *rebuilds) copy() fsm.Copy {
	if r.n.cfg.Rebuilder == nil {
		return fsm.Copy{}
	}
	stage, err := r.n.cfg.Rebuilder.Stage()
	if err != nil {
		r.n.stats.note(r.n.log, "reading how far a rebuild has come", err)
	}
	empty := false
	if r.n.cfg.Prober.Server().State == fsm.ServerDown && stage.Copy == fsm.CopyNone {
		// Where nobody knows where the data would be, it is not called empty.
		if empty, err = r.n.cfg.Rebuilder.Empty(); err != nil {
			r.n.stats.note(r.n.log, "looking whether there is data", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if empty && !r.empty {
		wake(r.look)
	}
	r.empty = empty
	return fsm.Copy{Stage: stage.Copy, Of: indexOf(stage.ID), Running: r.running, Empty: empty}
}

func indexOf(id string) uint64 {
	index, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return 0
	}
	return index
}

// need is what this node says of its data.
func (r *rebuilds) need(p Promises) fsm.RebuildNeed {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.found
	if p.Quarantine != "" {
		out = fsm.RebuildNeed{Cause: p.Cause, Reason: p.Quarantine}
	}
	if r.phase == "" {
		return out
	}
	out.Phase, out.Size, out.Received, out.Elapsed = r.phase, r.size, r.received, now()-r.begun
	if r.inbox != nil {
		out.Received = r.inbox.Received()
	}
	return out
}

// wanted starts the work unless it is under way.
func (r *rebuilds) wanted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running || r.n.cfg.Rebuilder == nil {
		return
	}
	r.running = true
	r.n.wg.Go(func() {
		ctx, cancel := context.WithCancel(r.n.ctx)
		defer cancel()
		changed := r.n.store.watch()
		defer r.n.store.unwatch(changed)
		tried, _ := r.n.store.State().RebuildOf(r.n.cfg.Node)
		err := r.work(ctx)
		if err != nil && ctx.Err() == nil {
			r.n.log.Warn("rebuild", "error", err.Error())
			r.rest(ctx, tried, err, changed)
		}
		r.mu.Lock()
		r.running = false
		r.mu.Unlock()
		wake(r.n.wake)
	})
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (r *rebuilds) enter(phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase == "" {
		r.begun = now()
	}
	r.phase = phase
}

// work does what is due, whatever was done before.
func (r *rebuilds) work(ctx context.Context) error {
	stage, err := r.n.cfg.Rebuilder.Stage()
	if err != nil {
		return err
	}
	st := r.n.store.State()
	order, ordered := st.RebuildOf(r.n.cfg.Node)
	mine := ordered && indexOf(stage.ID) == order.Index
	switch {
	case stage.Copy == fsm.CopyAdopted && (mine || !ordered):
		return r.conclude(ctx, order, mine)
	case stage.Copy == fsm.CopyPlacing && !ordered:
		return r.bringIntoUse(ctx) // the right was given, and all of the copy is here: there is nothing else to become of this node
	case !ordered:
		return nil
	}
	if err := r.attempt(order.Index); err != nil {
		return r.giveUp(ctx, order, err)
	}
	if stage.Copy == fsm.CopyPlacing {
		err = r.bringIntoUse(ctx)
	} else {
		err = r.run(ctx, order, stage, mine)
	}
	if errors.Is(err, ErrNoRoom) {
		return r.giveUp(ctx, order, err)
	}
	r.failed(order, err)
	return err
}

// run takes a copy in, keeps what is errant, and puts the copy in the place of the data. What this very order has taken in, or was fetching when it was
// cut off, is not asked for again.
func (r *rebuilds) run(ctx context.Context, order fsm.Rebuilding, stage RebuildStage, mine bool) error {
	half := stage.Copy == fsm.CopyHalf
	if !mine || !stage.Whole && !half {
		if err := r.receive(ctx, order); err != nil {
			return err
		}
	}
	r.enter("placing")
	if !half { // else it was kept before the first byte of the data was given up
		if err := r.keepErrant(ctx, order); err != nil {
			return err
		}
	}
	return r.n.exec.action(ctx, func(ctx context.Context) error {
		fetching, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go r.measure(fetching)
		go r.whileOrdered(fetching, order, func(cause error) bool {
			s, err := r.n.cfg.Rebuilder.Stage()
			if err != nil {
				return false
			}
			if s.Copy != fsm.CopyPlacing && s.Copy != fsm.CopyAdopted { // what is all here needs no donor any more
				cancel(cause)
			}
			return true
		})
		// The last question, after which nothing is left of the old data's rights.
		if err := fsm.MayWipe(r.n.store.State(), r.n.cfg.Node, order.Index); err != nil {
			return fmt.Errorf("%w: %w", errKept, err)
		}
		if r.n.stopping.Load() {
			return errOvertaken
		}
		err := r.n.promises.update(func(p *Promises) {
			if p.Quarantine == "" {
				p.Quarantine, p.Cause = "its data is being replaced by a copy", order.Cause
			}
		})
		if err != nil {
			return err
		}
		return caused(fetching, r.place(fetching))
	})
}

// bringIntoUse goes on with a copy that is half in its place.
func (r *rebuilds) bringIntoUse(ctx context.Context) error {
	r.enter("placing")
	return r.n.exec.action(ctx, func(ctx context.Context) error { return caused(ctx, r.place(ctx)) })
}

// donor is whom the log names as the source of the copy, nil when it orders none any more.
func (r *rebuilds) donor() (*fsm.Member, error) {
	st := r.n.store.State()
	order, ordered := st.RebuildOf(r.n.cfg.Node)
	if !ordered {
		return nil, nil
	}
	m, ok := st.Member(order.Donor)
	if !ok {
		return nil, fmt.Errorf("the donor %s is not a member", order.Donor)
	}
	return &m, nil
}

// letThrough ends this host's own block towards the donor: an older freeze or release may have left one. This node's mysqld neither receives nor
// acknowledges any more, and its data is given up.
func (r *rebuilds) letThrough(donor *fsm.Member) {
	if donor == nil {
		return
	}
	addr, err := netip.ParseAddr(donor.Address)
	if err == nil {
		err = r.n.cfg.Addresser.Unblock(addr)
	}
	if err != nil {
		r.n.log.Warn("the donor stays blocked here", "donor", donor.ID, "error", err.Error())
	}
}

// place ends with mysqld on the copy. What this node had promised of its old data holds for the copy no longer: it was never writable, and has
// followed nobody yet.
func (r *rebuilds) place(ctx context.Context) error {
	donor, err := r.donor()
	if err != nil {
		return err
	}
	if donor != nil { // as the log names it now: the one before may be gone
		if err := r.n.cfg.Rebuilder.Redirect(donor.Address, donor.MySQLPort); err != nil {
			return err
		}
	}
	quiet := r.n.newSilence(ctx)
	defer quiet.end()
	silent := func() {
		quiet.begin()
		r.letThrough(donor)
	}
	if err := r.n.cfg.Rebuilder.Place(ctx, silent); err != nil {
		return err
	}
	r.enter("starting")
	if err := r.n.cfg.Rebuilder.Adopt(ctx); err != nil {
		return err
	}
	r.n.cfg.Prober.Look(ctx)
	r.enter("following")
	return r.n.promises.update(func(p *Promises) {
		p.Quarantine, p.Cause = "", ""
		p.Held, p.Followed, p.BarrierEpoch, p.BarrierRun = 0, 0, 0, ""
		p.Turned, p.TurnedAt, p.TurnedRun = 0, "", ""
		p.IncToken, p.IncID, p.WholeEpoch, p.WholeID = "", "", 0, ""
	})
}

// conclude ends a rebuild whose copy is in use: well when the node follows on it, badly when the copy has what the primary lacks.
func (r *rebuilds) conclude(ctx context.Context, order fsm.Rebuilding, mine bool) error {
	p := r.n.promises.get()
	outcome, reason := fsm.OutcomeDone, "follows on a copy of "+string(order.Donor)
	if p.Quarantine != "" {
		outcome, reason = fsm.OutcomeFailed, "the copy is of no use: "+p.Quarantine
	}
	if mine {
		if err := r.report(ctx, order, outcome, reason); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.phase, r.inbox, r.found = "", nil, fsm.RebuildNeed{}
	r.mu.Unlock()
	if err := r.n.cfg.Rebuilder.Finish(); err != nil {
		return err
	}
	r.n.log.Info("rebuild has ended", "rebuild", order.Index, "outcome", outcome, "reason", reason)
	return nil
}

// report makes the log say how a rebuild ended.
func (r *rebuilds) report(ctx context.Context, order fsm.Rebuilding, outcome fsm.Outcome, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	end := fsm.Rebuilt{Node: r.n.cfg.Node, Index: order.Index, Outcome: outcome, Reason: reason}
	var err error
	if r.n.leading.Load() != nil {
		err = r.n.propose(ctx, fsm.Command{At: time.Now(), Rebuilt: &end})
	} else {
		err = r.n.callLeader(ctx, "rebuilt", end, nil)
	}
	if err != nil {
		return fmt.Errorf("telling the log how the rebuild ended: %w", err)
	}
	if outcome != fsm.OutcomeDone {
		r.mu.Lock()
		r.phase, r.inbox = "", nil
		r.mu.Unlock()
	}
	return nil
}
