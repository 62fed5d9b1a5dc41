package cluster

import (
	"context"
	"maps"
	"slices"

	"github.com/highbase/highbase/fsm"
)

// Events are the fake's own. A host that was given none has none.
func (h *host) Events(ctx context.Context) (map[EventName]EventState, error) {
	if err := h.ask(ctx, "Events"); err != nil {
		return nil, err
	}
	defer h.w.mu.Unlock()
	out := maps.Clone(h.events)
	if out == nil {
		out = map[EventName]EventState{}
	}
	return out, nil
}

// ListedEvents are the notes, which every host of the world has at once.
func (h *host) ListedEvents(ctx context.Context) ([]EventName, error) {
	if err := h.ask(ctx, "ListedEvents"); err != nil {
		return nil, err
	}
	defer h.w.mu.Unlock()
	return slices.Collect(maps.Keys(h.w.noted)), nil
}

func (h *host) ListEvents(ctx context.Context, add, remove []EventName, may func() error) error {
	err := h.writeOwn(ctx, "ListEvents", may)
	if err != nil {
		return err
	}
	h.change(func() {
		for _, e := range remove {
			delete(h.w.noted, e)
		}
		for _, e := range add {
			h.w.noted[e] = true
		}
	})
	return nil
}

// EnableEvent is replicated: everybody else has the event disabled on its side from there.
func (h *host) EnableEvent(ctx context.Context, name EventName, may func() error) (bool, error) {
	if err := h.writeOwn(ctx, "EnableEvent", may); err != nil {
		return false, err
	}
	enabled := false
	h.change(func() {
		if h.events[name] != EventOnSource {
			return
		}
		enabled = true
		for _, o := range h.w.hosts {
			o.events[name] = EventOnSource
		}
		h.events[name] = EventEnabled
	})
	return enabled, nil
}

// writeOwn commits something as the manager, who may do so on a read-only server too: so nobody may ask for it there.
func (h *host) writeOwn(ctx context.Context, name string, may func() error) error {
	if err := h.ask(ctx, name); err != nil {
		return err
	}
	h.w.mu.Unlock()
	if err := may(); err != nil {
		return err
	}
	k := h.holding(name + ", sent")
	if k != nil {
		k.entered <- ctx
		select {
		case <-k.released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.w.mu.Lock()
	if h.state == fsm.ServerUp && (h.mode != modeWritable || h.source.IsValid()) {
		h.w.breach("%s: %s after it was made %s or a replica", h.id, name, h.mode)
	}
	h.w.mu.Unlock()
	_, err := h.w.commit(ctx, h, 0)
	return err
}

func (h *host) holding(name string) *hold {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.holds[name]
}

// withEvents gives a host events, which everybody else has disabled on its side.
func (w *world) withEvents(at fsm.NodeID, events map[EventName]EventState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, h := range w.hosts {
		for name, state := range events {
			if id != at {
				state = EventOnSource
			}
			h.events[name] = state
		}
	}
}

// eventsOf are a host's events and the notes, copied.
func (w *world) eventsOf(h *host) (events map[EventName]EventState, noted map[EventName]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(h.events), maps.Clone(w.noted)
}
