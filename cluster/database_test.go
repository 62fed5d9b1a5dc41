package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/highbase/highbase/fsm"
)

var errDown = errors.New("mysqld does not answer")

// ask begins a call that needs a running server. mu is held when it returns nil.
func (h *host) ask(ctx context.Context, name string) error {
	if err := h.enter(ctx, name); err != nil {
		return err
	}
	switch h.state {
	case fsm.ServerUp:
		return nil
	case fsm.ServerHung:
		h.w.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	default:
		h.w.mu.Unlock()
		return errDown
	}
}

// SetReadOnly hangs behind a commit that waits.
func (h *host) SetReadOnly(ctx context.Context) error {
	if err := h.ask(ctx, "SetReadOnly"); err != nil {
		return err
	}
	run := h.run
	h.w.mu.Unlock()
	// Clients whose gate is closed write nothing new, so this ends once those that wait have their acknowledgement.
	err := h.w.until(ctx, func() bool { return h.run != run || h.state != fsm.ServerUp || h.waiting() == 0 && !h.heldUp() })
	if err != nil {
		return err
	}
	h.w.mu.Lock()
	defer h.leave()
	if h.run != run || h.state != fsm.ServerUp {
		return errDown
	}
	h.mode = modeReadOnly
	return nil
}

func (h *host) SetBarrierWritable(ctx context.Context) error {
	if err := h.ask(ctx, "SetBarrierWritable"); err != nil {
		return err
	}
	defer h.leave()
	if h.source.IsValid() {
		h.w.breach("%s: is made writable while it is a replica", h.id)
	}
	if h.acks == 0 && !h.mayBeAsync() {
		h.w.breach("%s: is made writable without semi-sync", h.id)
	}
	if h.node != nil {
		if epoch, _ := h.node.holder.valid(); h.promised().Held < epoch {
			h.w.breach("%s: is made writable in epoch %d before it promised durably that its data may be its own", h.id, epoch)
		}
	}
	if h.mode == modeReadOnly {
		h.mode = modeBarrier
	}
	return nil
}

// SetWritable is I7's second half: nothing of an epoch is read before its barrier is acknowledged.
func (h *host) SetWritable(ctx context.Context) error {
	if err := h.ask(ctx, "SetWritable"); err != nil {
		return err
	}
	defer h.leave()
	if h.acks == 0 && !h.mayBeAsync() || h.source.IsValid() {
		h.w.breach("%s: is made writable as a replica or without semi-sync", h.id)
	}
	h.checkBarrier("is made writable")
	h.mode = modeWritable
	return nil
}

func (h *host) SourceSync(ctx context.Context, acks int) error {
	if err := h.ask(ctx, "SourceSync"); err != nil {
		return err
	}
	defer h.leave()
	if acks < h.acks && (h.node == nil || h.node.store.State().Sync.Acks > acks) {
		h.w.breach("%s: commits need %d acknowledgements and no longer %d: waiters are told success", h.id, acks, h.acks)
	}
	if h.source.IsValid() {
		h.w.breach("%s: a replica is made to wait for acknowledgements of its own", h.id)
	}
	h.acks = acks
	return nil
}

// FollowDelayed forgets what was received and is not applied, as the real one may.
func (h *host) FollowDelayed(ctx context.Context, to Following) error {
	h.change(func() { h.receiver++ })
	return h.Follow(ctx, to)
}

// Follow applies what it received before it leaves a source, or goes on with that. What it has and the new source lacks would be lost, or split the history.
func (h *host) Follow(ctx context.Context, to Following) error {
	address, port, sync := to.Host, to.Port, to.Sync
	if err := h.ask(ctx, "Follow"); err != nil {
		return err
	}
	defer h.leave()
	a, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	src := h.w.at(a)
	if src == nil || src == h || src.port != port {
		h.w.breach("%s: follows %s:%d, which is no other server", h.id, address, port)
		return errors.New("no such source")
	}
	if h.gate > now() {
		h.w.breach("%s: becomes a replica with its gate open", h.id)
	}
	if !h.within(src) && h.errant {
		return errors.New("error 1236")
	}
	if !h.within(src) {
		h.w.breach("%s: follows %s and has %s, %s has %s", h.id, src.id, h.received(), src.id, place(src.log))
		return errors.New("error 1236")
	}
	if h.node != nil {
		if p, st := h.promised(), h.node.store.State(); st.Epoch < h.frozen || p.Quarantine != "" {
			h.w.breach("%s: follows %s at epoch %d, frozen for %d, quarantine %q", h.id, src.id, st.Epoch, h.frozen, p.Quarantine)
		}
	}
	switch {
	case h.stalled && len(h.relay) > 0 && !h.applying:
		return errors.New("not drained")
	case !h.stalled:
		h.log, h.relay = append(h.log, h.relay...), nil
	}
	h.source, h.io, h.sql, h.ack, h.acks, h.mode = a, true, true, sync, 0, modeReadOnly
	h.receiver++
	return nil
}

// Nudge commits a row, whose acknowledgement makes up for a lost one. The manager's account writes on a read-only server too: so nobody may ask.
func (h *host) Nudge(ctx context.Context) error {
	if err := h.ask(ctx, "Nudge"); err != nil {
		return err
	}
	if h.mode == modeReadOnly || h.source.IsValid() {
		h.w.breach("%s: writes a row of its own after it was made read-only or a replica", h.id)
	}
	h.w.mu.Unlock()
	_, err := h.w.commit(ctx, h, 0)
	return err
}

// MendSettings: the settings of this server are never weakened.
func (h *host) MendSettings(context.Context) error { return nil }

func (h *host) Reconnect(ctx context.Context) error {
	if err := h.ask(ctx, "Reconnect"); err != nil {
		return err
	}
	defer h.leave()
	if !h.source.IsValid() || !h.sql {
		h.w.breach("%s: reconnects and is no running replica: both threads stopped forgets what was received", h.id)
	}
	h.io = true
	return nil
}

// turning tells that the log names another source for this host than it has: it stops receiving to turn there, by no order. mu is held.
func (h *host) turning() bool {
	if h.node == nil {
		return false
	}
	st := h.node.store.State()
	to := h.w.hosts[st.SourceOf(h.id)]
	return st.Primary == h.id || to != nil && to.addr != h.source
}

// has tells whether a position is in this host's history: its transaction stands where its number says.
func (h *host) has(position string) bool {
	if position == "" {
		return true
	}
	var domain, server uint32
	var seq uint64
	if _, err := fmt.Sscanf(position, "%d-%d-%d", &domain, &server, &seq); err != nil {
		h.w.breach("%s: asked for %q, which is no position", h.id, position)
		return false
	}
	return seq > 0 && seq <= uint64(len(h.log)) && h.log[seq-1].server == server
}

func (h *host) Drain(ctx context.Context, position string) error {
	if err := h.ask(ctx, "Drain"); err != nil {
		return err
	}
	h.leave()
	return h.w.until(ctx, func() bool { return h.state == fsm.ServerUp && h.has(position) })
}

func (h *host) StopReplication(ctx context.Context) error {
	if err := h.ask(ctx, "StopReplication"); err != nil {
		return err
	}
	defer h.leave()
	if len(h.relay) > 0 {
		h.w.breach("%s: stops replicating before it applied what it received", h.id)
	}
	h.source, h.io, h.sql, h.ack = netip.Addr{}, false, false, false
	return nil
}

// Discard drops what is not applied, which must be nothing that anybody needs: the caller knows.
func (h *host) Discard(ctx context.Context, sever func() error) error {
	if err := h.ask(ctx, "Discard"); err != nil {
		return err
	}
	defer h.leave()
	h.relay, h.source, h.io, h.sql, h.ack = nil, netip.Addr{}, false, false, false
	return nil
}

// Purged: nothing here ever is.
func (h *host) Purged(context.Context) (string, error) { return "", nil }

// BecomeSource is the four in their order: each is noted and checked by itself.
func (h *host) BecomeSource(ctx context.Context, p Promotion) (string, error) {
	received, err := h.Freeze(ctx, p.Sever)
	if err != nil {
		return "", err
	}
	if p.Final && received != p.Position {
		h.w.breach("%s: its source is said to have let go at %q, and %q was received", h.id, p.Position, received)
	}
	for _, target := range slices.Compact([]string{p.Position, received}) {
		if err := h.Drain(ctx, target); err != nil {
			return "", err
		}
	}
	if err := h.StopReplication(ctx); err != nil {
		return "", err
	}
	return h.Server().Started, h.SourceSync(ctx, p.Acks)
}

// BecameSource tells nothing new: what is looked at here is the truth.
func (h *host) BecameSource(run string, _ int) bool { return run == h.Server().Started }

func (h *host) BecameReadOnly(run string) bool { return run == h.Server().Started }

// ForgetSource has nothing to forget: StopReplication has.
func (h *host) ForgetSource(context.Context) error { return nil }

func (h *host) WriteBarrier(ctx context.Context, epoch uint64, _ string) error {
	if err := h.ask(ctx, "WriteBarrier"); err != nil {
		return err
	}
	if h.mode == modeReadOnly || h.acks == 0 && !h.mayBeAsync() {
		h.w.breach("%s: writes a barrier while it is %s and needs %d acknowledgements", h.id, h.mode, h.acks)
	}
	if last := h.lastEpoch(); epoch < last {
		h.w.breach("%s: writes the barrier of epoch %d after that of %d", h.id, epoch, last)
	}
	h.w.mu.Unlock()
	if _, err := h.w.commit(ctx, h, epoch); err != nil {
		return err
	}
	h.w.mu.Lock()
	defer h.leave()
	h.barrier, h.barrierIn = epoch, h.run
	return nil
}

func (h *host) LastEpoch(ctx context.Context) (uint64, error) {
	if err := h.ask(ctx, "LastEpoch"); err != nil {
		return 0, err
	}
	defer h.w.mu.Unlock()
	return h.lastEpoch(), nil
}

func (h *host) KillClients(ctx context.Context) (int, error) {
	if err := h.ask(ctx, "KillClients"); err != nil {
		return 0, err
	}
	defer h.leave()
	if h.mode != modeReadOnly {
		h.w.breach("%s: clients are killed before it is read-only: a killed waiter is told success", h.id)
	}
	return 1, nil
}

func (h *host) Position(ctx context.Context) (string, error) {
	if err := h.ask(ctx, "Position"); err != nil {
		return "", err
	}
	defer h.w.mu.Unlock()
	return place(h.log), nil
}

// Written is the same: the fake's log is its binlog.
func (h *host) Written(ctx context.Context) (string, error) { return h.Position(ctx) }

// History is the whole log, as text.
func (h *host) History(ctx context.Context) (string, error) { return h.Position(ctx) }

func (h *host) Contains(ctx context.Context, position string) (bool, error) {
	if err := h.ask(ctx, "Contains"); err != nil {
		return false, err
	}
	defer h.w.mu.Unlock()
	return h.has(position), nil
}

// PrepareRewind judges files: mysqld must be down, killed and not started since.
func (h *host) PrepareRewind(ctx context.Context, history string) (string, error) {
	if err := h.enter(ctx, "PrepareRewind"); err != nil {
		return "", err
	}
	defer h.leave()
	if h.state != fsm.ServerDown || !h.killed {
		h.w.breach("%s: its binlog is judged while mysqld may write it", h.id)
	}
	h.prepared = &history
	return "tail.sql", nil
}

// rollBack cuts what the others lack. mu is held.
func (h *host) rollBack(history string) {
	i := slices.IndexFunc(h.log, func(x txn) bool { return x.String() == history })
	for _, o := range h.w.sorted() {
		// The others' newest common transaction: history names the primary's last one, which this host may lack.
		if o == h || !slices.ContainsFunc(o.log, func(x txn) bool { return x.String() == history }) {
			continue
		}
		n := 0
		for n < len(h.log) && n < len(o.log) && h.log[n] == o.log[n] {
			n++
		}
		i = max(i, n-1)
	}
	for _, x := range h.log[i+1:] {
		if slices.Contains(h.w.acked, x) {
			h.w.breach("G2: %s rolls back %s, which was acknowledged", h.id, x)
		}
	}
	h.log = h.log[:i+1]
}

// checkRewind: recovery may cut only what was judged, and only after the node has said durably that its data is not its own any more.
func (h *host) checkRewind() {
	if h.prepared == nil {
		h.w.breach("%s: starts with rewind and nothing was prepared", h.id)
	}
	if h.node != nil {
		if p := h.promised(); p.Turned <= p.Held {
			h.w.breach("%s: starts with rewind before it promised that its data is not its own (held %d, turned %d)", h.id, p.Held, p.Turned)
		}
	}
}

// FinishRewind turns a rewound server round.
func (h *host) FinishRewind(ctx context.Context) error {
	if err := h.ask(ctx, "FinishRewind"); err != nil {
		return err
	}
	defer h.leave()
	if h.node != nil {
		if p := h.promised(); p.Turned <= p.Held && p.Followed <= p.Held {
			h.w.breach("%s: is turned round before it promised that its data is not its own", h.id)
		}
	}
	return nil
}
