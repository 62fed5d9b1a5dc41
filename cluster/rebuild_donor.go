package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/cluster/transfer"
	"github.com/highbase/highbase/fsm"
)

const (
	// copyWindow is how much of a copy its donor keeps until it is confirmed, in memory.
	copyWindow = 64 << 20
	// linkPatience is how long the link between a donor and its receiver may stay broken before either gives up.
	linkPatience = 5 * time.Minute
	// takeWait is how long a donor waits for the next bytes before it answers that there are none yet.
	takeWait = 2 * time.Second
	// donorPatience is how long a donor waits until it has applied what the primary has.
	donorPatience = 30 * time.Second
	// appliedPause is how often it looks whether it has.
	appliedPause = 20 * time.Millisecond
)

// errCopyOver is answered when a copy cannot go on: it has to begin anew.
var errCopyOver = &rpc.Error{Code: "copy_over"}

type donateRequest struct {
	Index   uint64 `json:"index"`          // which rebuild
	Turn    uint64 `json:"turn,omitempty"` // log index of the order that names this donor, 0 from a version that does not say
	Session string `json:"session"`        // made by the receiver: a second start replaces the first
}

type donateReply struct {
	Size int64 `json:"size"`
}

type takeRequest struct {
	Session string `json:"session"`
	Offset  int64  `json:"offset"` // everything before it has arrived
}

// takeHead goes with the bytes of a chunk.
type takeHead struct {
	Offset int64  `json:"offset"`
	CRC    uint32 `json:"crc"`
	End    bool   `json:"end"`
}

type historyAtRequest struct {
	Index  uint64 `json:"index"`
	File   string `json:"file"`
	Offset int64  `json:"offset"`
}

type historyAtReply struct {
	History string `json:"history"`
}

// donations are the copies that this node gives, at most one to each other node.
type donations struct {
	n *Node

	mu  sync.Mutex
	out map[fsm.NodeID]*donation
}

type donation struct {
	session string
	index   uint64
	box     *transfer.Outbox
	cancel  context.CancelFunc
}

func newDonations(n *Node) *donations { return &donations{n: n, out: map[fsm.NodeID]*donation{}} }

// registerRebuild lists the calls of a rebuild.
func (n *Node) registerRebuild() {
	n.server.Handle("copy_begin", typed(n.donations.begin))
	n.server.Handle("copy_take", typed(n.donations.take))
	n.server.Handle("copy_history", typed(func(ctx context.Context, from string, in historyAtRequest) (historyAtReply, error) {
		if err := n.donations.allowed(fsm.NodeID(from), in.Index); err != nil {
			return historyAtReply{}, err
		}
		text, err := n.cfg.Rebuilder.HistoryAt(ctx, in.File, in.Offset)
		return historyAtReply{text}, err
	}))
	n.server.Handle("rejoin", typed(n.onRejoin))
	n.server.Handle("rebuilt", typed(func(ctx context.Context, from string, in fsm.Rebuilt) (struct{}, error) {
		if in.Node != fsm.NodeID(from) {
			return struct{}{}, fmt.Errorf("%s ends the rebuild of %s", from, in.Node)
		}
		return struct{}{}, n.propose(ctx, fsm.Command{At: time.Now(), Rebuilt: &in})
	}))
}

// allowed: the data of a cluster goes only to whom the log gives it.
func (d *donations) allowed(to fsm.NodeID, index uint64) error {
	if d.n.cfg.Rebuilder == nil {
		return fmt.Errorf("%s cannot be copied from", d.n.cfg.Node)
	}
	r, ok := d.n.store.State().RebuildOf(to)
	if !ok || r.Index != index || r.Donor != d.n.cfg.Node {
		return fmt.Errorf("the log, as applied on %s, orders no rebuild %d of %s from it", d.n.cfg.Node, index, to)
	}
	if q := d.n.promises.get().Quarantine; q != "" {
		return fmt.Errorf("the donor is quarantined: %s", q)
	}
	return nil
}

// applied waits until this node has applied the log up to an index: whoever was told of an order first asks before the others have heard of it.
func (d *donations) applied(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, donorPatience)
	defer cancel()
	changed := d.n.store.watch()
	defer d.n.store.unwatch(changed)
	for d.n.store.State().Index < index {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// begin starts a copy, in place of one that was begun before for the same node.
func (d *donations) begin(ctx context.Context, from string, in donateRequest) (donateReply, error) {
	to := fsm.NodeID(from)
	d.applied(ctx, in.Turn)
	if err := d.allowed(to, in.Index); err != nil {
		return donateReply{}, err
	}
	if err := d.caughtUp(ctx); err != nil {
		return donateReply{}, err
	}
	if err := d.allowed(to, in.Index); err != nil { // that took a while
		return donateReply{}, err
	}
	d.end(to, func(*donation) bool { return true })
	// It lives longer than this call.
	living, cancel := context.WithCancel(d.n.ctx)
	stream, size, err := d.n.cfg.Rebuilder.Donate(living)
	if err != nil {
		cancel()
		return donateReply{}, err
	}
	rate := d.n.settings().RebuildRate
	box := transfer.NewOutbox(stream, transfer.OutboxConfig{Window: copyWindow, Rate: rate, Patience: linkPatience})
	d.mu.Lock()
	d.out[to] = &donation{session: in.Session, index: in.Index, box: box, cancel: cancel}
	d.mu.Unlock()
	d.n.log.Info("giving a copy of this node's data", "to", to, "rebuild", in.Index, "bytes", size, "rate", rate)
	return donateReply{size}, nil
}

// caughtUp waits until this node has applied what the primary has now. The receiver may have been primary: it would not receive again what it wrote
// itself (MySQL manual, replicate_same_server_id; not tried here), so that a copy without some of that lacks it for ever.
func (d *donations) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, donorPatience)
	defer cancel()
	st := d.n.store.State()
	if st.Primary == d.n.cfg.Node {
		return nil
	}
	at, err := d.n.positionOf(ctx, st.Primary, st.Epoch)
	for ; ; wait(ctx, appliedPause) {
		if at != "" {
			var held bool
			if held, err = d.n.cfg.Database.Contains(ctx, at); held && err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the donor has not applied %q of the primary %s within %v", at, st.Primary, donorPatience), err)
		}
		if at == "" {
			at, err = d.n.positionOf(ctx, st.Primary, st.Epoch)
		}
	}
}

// take answers with the next bytes of a copy.
func (d *donations) take(ctx context.Context, from string, in takeRequest) (rpc.Blob, error) {
	d.mu.Lock()
	out := d.out[fsm.NodeID(from)]
	d.mu.Unlock()
	if out == nil || out.session != in.Session {
		return rpc.Blob{}, errCopyOver.Errorf("%s gives no such copy", d.n.cfg.Node)
	}
	ctx, cancel := context.WithTimeout(ctx, takeWait)
	defer cancel()
	c, err := out.box.Take(ctx, in.Offset)
	if err != nil {
		return rpc.Blob{}, errCopyOver.Errorf("%v", err)
	}
	return rpc.Blob{Head: takeHead{c.Offset, c.CRC, c.End}, Data: c.Data}, nil
}

// end ends a node's copy if it is such a one.
func (d *donations) end(to fsm.NodeID, such func(*donation) bool) {
	d.mu.Lock()
	out := d.out[to]
	if out == nil || !such(out) {
		d.mu.Unlock()
		return
	}
	delete(d.out, to)
	d.mu.Unlock()
	out.cancel()
	out.box.Close()
	d.n.log.Info("a copy of this node's data has ended", "to", to, "rebuild", out.index)
}

// watch ends the copies that the log does not order any more, and all of them with this node.
func (d *donations) watch(ctx context.Context) {
	changed := d.n.store.watch()
	defer d.n.store.unwatch(changed)
	for {
		d.mu.Lock()
		var to []fsm.NodeID
		for id := range d.out {
			to = append(to, id)
		}
		d.mu.Unlock()
		st := d.n.store.State()
		for _, id := range to {
			r, ok := st.RebuildOf(id)
			d.end(id, func(out *donation) bool {
				return ctx.Err() != nil || !ok || r.Index != out.index || r.Donor != d.n.cfg.Node
			})
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}
