package cluster

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// mayBeAsync: the log says that nobody acknowledges, and the gate covers the port.
func (h *host) mayBeAsync() bool {
	return h.node != nil && h.node.store.State().Sync.Acks == 0 && h.portGated
}

// SourceAsync tells waiting clients success, so the log must have said first that the cluster is degraded, and the gate must cover the port by then.
func (h *host) SourceAsync(ctx context.Context) error {
	if err := h.ask(ctx, "SourceAsync"); err != nil {
		return err
	}
	defer h.leave()
	if h.source.IsValid() {
		return errors.New("the server is a replica")
	}
	if h.node != nil {
		if acks := h.node.store.State().Sync.Acks; acks > 0 {
			h.w.breach("%s: commits need no acknowledgement any more before the log says so: it asks for %d", h.id, acks)
		}
	}
	if !h.portGated {
		h.w.breach("%s: commits need no acknowledgement any more and the gate does not cover the port", h.id)
	}
	h.acks = 0
	return nil
}

// SyncOff restarts the receiver if it must; what was received stays.
func (h *host) SyncOff(ctx context.Context) error {
	if err := h.ask(ctx, "SyncOff"); err != nil {
		return err
	}
	defer h.leave()
	h.ack = false
	return nil
}

// CutReplica is for blocked replicas: any other is back before the next statement.
func (h *host) CutReplica(ctx context.Context, address string) error {
	if err := h.ask(ctx, "CutReplica"); err != nil {
		return err
	}
	defer h.leave()
	a, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	if !h.blocked[a] {
		h.w.breach("%s: cuts the replica at %s without a block: it is back at once", h.id, address)
	}
	return nil
}

// CutThread ends the replication of one stranger; the test says who is connected.
func (h *host) CutThread(ctx context.Context, id uint64) error {
	if err := h.ask(ctx, "CutThread"); err != nil {
		return err
	}
	defer h.leave()
	for i, o := range h.strangers {
		if o.thread == id && h.blocked[o.from.Addr()] {
			h.strangers = slices.Delete(h.strangers, i, i+1)
			return nil
		}
	}
	return nil // it is back at once
}

// Replicas are the members whose packets arrive, and the strangers.
func (h *host) Replicas(ctx context.Context) ([]Replica, error) {
	if err := h.ask(ctx, "Replicas"); err != nil {
		return nil, err
	}
	defer h.leave()
	var out []Replica
	for _, o := range h.w.sorted() {
		if h.w.connected(o) == h {
			out = append(out, Replica{ID: uint64(o.server), Host: o.addr.String(), Port: 1000})
		}
	}
	for _, o := range h.strangers {
		out = append(out, Replica{ID: o.thread, Host: o.from.Addr().String(), Port: o.from.Port()})
	}
	return out, nil
}

// Inbound: every acknowledgement of a stranger is a byte more at each look.
func (a address) Inbound() ([]Inbound, error) {
	if err := a.enter(context.Background(), "Inbound"); err != nil {
		return nil, err
	}
	defer a.leave()
	a.looks++
	var out []Inbound
	for _, o := range a.w.sorted() {
		out = append(out, Inbound{netip.AddrPortFrom(o.addr, 1000), a.looks})
	}
	for _, o := range a.strangers {
		n := uint64(0)
		if !a.silent[o.from.Addr()] {
			n = a.looks
		}
		out = append(out, Inbound{o.from, n})
	}
	return out, nil
}

// GatePort outlives hbd, as blocks do.
func (a address) GatePort(on bool) error {
	if err := a.enter(context.Background(), "GatePort"); err != nil {
		return err
	}
	defer a.leave()
	if !on && a.acks == 0 && a.mode == modeWritable {
		a.w.breach("%s: the gate leaves the port of a writable server whose commits need no acknowledgement", a.id)
	}
	a.portGated = on
	return nil
}

func (a address) PortGated() bool {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return a.portGated
}
