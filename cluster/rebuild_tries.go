package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/highbase/highbase/fsm"
)

// errKept wraps why the applied state forbids to throw the data away at this moment.
var errKept = errors.New("the data is kept")

// attempt refuses another try of a rebuild that failed too often. It goes on refusing until the log has heard of it.
func (r *rebuilds) attempt(index uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != index {
		r.of, r.tries, r.last, r.phase = index, 0, nil, ""
	}
	if r.tries >= copyTries {
		return fmt.Errorf("given up after %d tries: %w", copyTries, r.last)
	}
	return nil
}

// failed counts a try of an order. One that only had to give way does not count: to an order of the leader, to a rule that keeps the data, or to
// another donor, whatever error the loss of the one before has led to.
func (r *rebuilds) failed(order fsm.Rebuilding, err error) {
	if err == nil || errors.Is(err, fsm.ErrRefused) || errors.Is(err, errPreempted) || errors.Is(err, errOtherDonor) || errors.Is(err, errOvertaken) || errors.Is(err, context.Canceled) {
		return
	}
	if r.otherTurn(order) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == order.Index {
		r.tries++
		r.last = err
	}
}

// otherTurn: the log names another donor by now, or another rebuild, or orders none any more.
func (r *rebuilds) otherTurn(order fsm.Rebuilding) bool {
	now, _ := r.n.store.State().RebuildOf(r.n.cfg.Node)
	return now.Turn != order.Turn
}

// caused adds why an action was ended to the error that this has led to: a server says only that its statement was broken off.
func caused(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return err
}

// giveUp tells the log that a rebuild has failed. Whose data is given up and whose copy is not whole says so first, on its disk: that is why it is kept
// out from now on, and what orders the next rebuild, by a person or by the policy.
func (r *rebuilds) giveUp(ctx context.Context, order fsm.Rebuilding, why error) error {
	stage, err := r.n.cfg.Rebuilder.Stage()
	if err != nil {
		return errors.Join(why, err)
	}
	if stage.Copy == fsm.CopyHalf || stage.Copy == fsm.CopyPlacing {
		err := r.n.promises.update(func(p *Promises) {
			p.Cause = fsm.RebuildHalf
			p.Quarantine = fmt.Sprintf("its data was given up for a copy of %s that never became whole: %v", order.Donor, why)
		})
		if err != nil {
			return errors.Join(why, err)
		}
	}
	if err := r.report(ctx, order, fsm.OutcomeFailed, why.Error()); err != nil {
		return errors.Join(why, err)
	}
	r.n.log.Warn("rebuild has ended", "rebuild", order.Index, "outcome", fsm.OutcomeFailed, "stage", stage.Copy, "reason", why.Error())
	return nil
}

// rest is the time between two tries: the pause after an error, and none after what was only in the way, once it is gone.
func (r *rebuilds) rest(ctx context.Context, tried fsm.Rebuilding, err error, changed <-chan struct{}) {
	if errors.Is(err, errPreempted) {
		return // the next action waits its turn by itself
	}
	timer := time.NewTimer(r.pause)
	defer timer.Stop()
	for !r.otherTurn(tried) && !(errors.Is(err, errKept) && fsm.MayWipe(r.n.store.State(), r.n.cfg.Node, tried.Index) == nil) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-changed:
		}
	}
}
