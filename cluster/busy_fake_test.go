package cluster

import (
	"context"
	"slices"

	"github.com/highbase/highbase/fsm"
)

// heldUp tells whether a client keeps read_only from taking effect. mu is held.
func (h *host) heldUp() bool {
	return slices.ContainsFunc(h.sessions, func(s fsm.Session) bool { return s.DDL || s.Locks })
}

func (h *host) Sessions(ctx context.Context) ([]fsm.Session, error) {
	if err := h.ask(ctx, "Sessions"); err != nil {
		return nil, err
	}
	defer h.w.mu.Unlock()
	return slices.Clone(h.sessions), nil
}

// BreakOff is allowed where no client hears an answer any more.
func (h *host) BreakOff(ctx context.Context) (int, error) {
	if err := h.ask(ctx, "BreakOff"); err != nil {
		return 0, err
	}
	defer h.leave()
	if h.gate > now() {
		h.w.breach("%s: clients are broken off while the gate is open", h.id)
	}
	n := len(h.sessions)
	h.broken += n
	h.sessions = nil
	return n, nil
}
