package cluster

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/fsm"
)

// Promises is what this node must still know after a crash. Each field is written before the thing it promises is done or answered.
type Promises struct {
	HighestEpoch uint64 `json:"highest_epoch"` // newest order accepted: lower ones are refused
	HighestIndex uint64 `json:"highest_index"`
	Held         uint64 `json:"held"`     // newest epoch in which this node may have been writable
	Followed     uint64 `json:"followed"` // newest epoch whose primary it followed with verified data
	Frozen       uint64 `json:"frozen"`   // it follows no source of an older epoch
	ReleasedOp   uint64 `json:"released_op"`
	BarrierEpoch uint64 `json:"barrier_epoch"` // barrier acknowledged in this epoch ...
	BarrierRun   string `json:"barrier_run"`   // ... by this run of mysqld
	Turned       uint64 `json:"turned"`        // newest epoch towards which it began to turn after it was primary: from then on its data is not its own
	TurnedAt     string `json:"turned_at"`     // where it was then ...
	TurnedRun    string `json:"turned_run"`    // ... in which run of mysqld
	IncToken     string `json:"inc_token"`     // this run and receive generation of mysqld ...
	IncID        string `json:"inc_id"`        // ... is the successor of this incarnation by a repoint that dropped nothing
	WholeEpoch   uint64 `json:"whole_epoch"`   // epoch that was first followed ...
	WholeID      string `json:"whole_id"`      // ... by this incarnation
	ChainEpoch   uint64 `json:"chain_epoch"`   // epoch to come, whose primary-to-be it follows already ...
	ChainID      string `json:"chain_id"`      // ... and this was its incarnation when it began to
	Quarantine   string `json:"quarantine"`
	// Cause is why a quarantined node's data is of no use; "" in the promises of a version that did not know.
	Cause fsm.RebuildCause `json:"cause,omitempty"`
}

type promises struct {
	file *identity.Durable[Promises]
	mu   *sync.Mutex
	now  *atomic.Pointer[Promises] // what is on disk, for the many who only look
}

// What is handed out is a copy only while nothing in it is shared.
var _ = Promises{} == Promises{}

func openPromises(dir string) (promises, error) {
	f, err := identity.OpenDurable[Promises](filepath.Join(dir, "promises.json"))
	if err != nil {
		return promises{}, fmt.Errorf("reading this node's promises: %w", err)
	}
	p := promises{f, &sync.Mutex{}, &atomic.Pointer[Promises]{}}
	v, _ := f.Load()
	p.now.Store(&v)
	return p, nil
}

// get is what is on disk. It does not wait for a change under way.
func (p promises) get() Promises { return *p.now.Load() }

// change replaces the promises, on disk first.
func (p promises) change(change func(v Promises) (Promises, error)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next Promises
	err := p.file.Update(func(v Promises, _ bool) (_ Promises, err error) {
		next, err = change(v)
		return next, err
	})
	if err == nil {
		p.now.Store(&next)
	}
	return err
}

func (p promises) update(change func(*Promises)) error {
	return p.change(func(v Promises) (Promises, error) {
		change(&v)
		return v, nil
	})
}

// hold promises that an epoch may be held. Who has promised to a newer one meanwhile answers of what he was before, and stays it.
func (p promises) hold(epoch uint64) error {
	return p.change(func(v Promises) (Promises, error) {
		if !breakEpoch && epoch < v.HighestEpoch {
			return v, errOvertaken
		}
		v.Held = max(v.Held, epoch)
		return v, nil
	})
}

// own is the epoch whose primary this node was, while its data is still its own; 0 otherwise.
func (v Promises) own() uint64 {
	if v.Held > max(v.Followed, v.Turned) {
		return v.Held
	}
	return 0
}

// accept takes an order if none newer was accepted, and remembers it before anything is done. It reports whether the order is newer than any
// accepted before: a repeated one is no reason to disturb what is in hand.
func (p promises) accept(o fsm.Order, also func(*Promises)) (newer bool, err error) {
	err = p.change(func(v Promises) (Promises, error) {
		if !breakEpoch && (o.Epoch < v.HighestEpoch || (o.Epoch == v.HighestEpoch && o.Index < v.HighestIndex)) {
			return v, fmt.Errorf("order %s of epoch %d index %d is older than epoch %d index %d accepted before", o.Kind, o.Epoch, o.Index, v.HighestEpoch, v.HighestIndex)
		}
		newer = o.Epoch != v.HighestEpoch || o.Index != v.HighestIndex
		v.HighestEpoch, v.HighestIndex = o.Epoch, o.Index
		if also != nil {
			also(&v)
		}
		return v, nil
	})
	return newer, err
}

// outdated says whether an action decided from the state at (epoch, index) has been overtaken by an accepted order.
func (v Promises) outdated(epoch, index uint64) bool {
	return !breakEpoch && (epoch < v.HighestEpoch || (epoch == v.HighestEpoch && index < v.HighestIndex))
}
