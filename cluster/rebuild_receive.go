package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/cluster/transfer"
	"github.com/highbase/highbase/fsm"
)

// errOtherDonor ends a copy because the log names another donor, or orders none any more.
var errOtherDonor = errors.New("the log does not order this copy any more")

// receive takes in a copy from the donor that the log names, for as long as it names it.
func (r *rebuilds) receive(ctx context.Context, order fsm.Rebuilding) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go r.whileOrdered(ctx, order, func(cause error) bool { cancel(cause); return true })
	r.enter("receiving")
	begin := donateRequest{Index: order.Index, Turn: order.Turn, Session: identity.NewID()}
	var reply donateReply
	if err := r.call(ctx, order.Donor, "copy_begin", begin, &reply); err != nil {
		return err
	}
	from, _ := r.n.store.State().Member(order.Donor)
	inbox := transfer.NewInbox(ctx, transfer.InboxConfig{Fetch: r.fetch(order.Donor, begin.Session), Patience: linkPatience, Pause: copyPause / 4})
	defer inbox.Close()
	r.mu.Lock()
	r.inbox, r.size = inbox, reply.Size
	r.mu.Unlock()
	r.n.log.Info("receiving a copy", "from", order.Donor, "rebuild", order.Index, "bytes", reply.Size)
	err := r.n.cfg.Rebuilder.Receive(ctx, Incoming{ID: strconv.FormatUint(order.Index, 10), Size: reply.Size,
		Host: from.Address, Port: from.MySQLPort, Rate: r.n.settings().RebuildRate,
		Stream: &lastByte{inbox, func() { r.enter("preparing") }},
		HistoryAt: func(ctx context.Context, file string, offset int64) (string, error) {
			var out historyAtReply
			err := r.call(ctx, order.Donor, "copy_history", historyAtRequest{order.Index, file, offset}, &out)
			return out.History, err
		}})
	if err != nil && ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return err
}

// lastByte tells when a stream has ended.
type lastByte struct {
	io.Reader
	ended func()
}

func (l *lastByte) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		l.ended()
	}
	return n, err
}

// call asks the donor; its context has a bound of its own.
func (r *rebuilds) call(ctx context.Context, donor fsm.NodeID, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return r.n.callNode(ctx, donor, method, in, out)
}

// fetch asks for the chunk at an offset.
func (r *rebuilds) fetch(donor fsm.NodeID, session string) func(context.Context, int64) (transfer.Chunk, error) {
	return func(ctx context.Context, offset int64) (transfer.Chunk, error) {
		pe, ok := r.n.peers.known[donor]
		if !ok {
			return transfer.Chunk{}, fmt.Errorf("%w: %s is not a peer of this node", transfer.ErrSource, donor)
		}
		ctx, cancel := context.WithTimeout(ctx, 5*takeWait)
		defer cancel()
		var head takeHead
		data, err := r.n.client.CallBlob(ctx, r.n.peers.address(pe), "copy_take", takeRequest{session, offset}, &head)
		if errors.Is(err, errCopyOver) {
			return transfer.Chunk{}, fmt.Errorf("%w: %w", transfer.ErrSource, err)
		}
		if err != nil && ctx.Err() != context.Canceled { // else this end gave it up
			r.n.stats.note(r.n.log, "the link to the donor of a copy is broken; asking for the same bytes again", err)
		}
		return transfer.Chunk{Offset: head.Offset, Data: data, CRC: head.CRC, End: head.End}, err
	}
}

// whileOrdered ends a copy when the log names another donor or orders it no more; end reports whether it did, or else is asked again.
func (r *rebuilds) whileOrdered(ctx context.Context, order fsm.Rebuilding, end func(cause error) bool) {
	changed := r.n.store.watch()
	defer r.n.store.unwatch(changed)
	again := time.NewTicker(r.pause / 4)
	defer again.Stop()
	for {
		if now, ok := r.n.store.State().RebuildOf(r.n.cfg.Node); (!ok || now.Turn != order.Turn) && end(errOtherDonor) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again.C:
		}
	}
}

// measure follows a copy that a server makes by itself while it is placed.
func (r *rebuilds) measure(ctx context.Context) {
	for ctx.Err() == nil {
		if received, size, ok := r.n.cfg.Rebuilder.Progress(ctx); ok {
			r.mu.Lock()
			r.inbox, r.phase, r.received, r.size = nil, "receiving", received, size
			r.mu.Unlock()
		}
		wait(ctx, copyPause/2)
	}
}
