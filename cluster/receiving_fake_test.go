package cluster

import "context"

// Freeze stops receiving and nothing else. In a freeze order the block comes before it; a node named primary asks for the same to stop being a
// replica, and one that turns to another source.
func (h *host) Freeze(ctx context.Context, sever func() error) (string, error) {
	if err := h.ask(ctx, "Freeze"); err != nil {
		return "", err
	}
	if sever != nil {
		if !h.turning() {
			if len(h.blocked) == 0 {
				h.w.breach("%s: freezes without a block towards the old source", h.id)
			}
			h.frozen = max(h.frozen, h.promised().Frozen)
		}
		h.w.mu.Unlock()
		if err := sever(); err != nil {
			return "", err
		}
		h.w.mu.Lock()
	}
	defer h.leave()
	h.io = false
	h.sql = h.sql || h.source.IsValid()
	return h.received(), nil
}

// EndReceiving drops nothing: everything that came is applied.
func (h *host) EndReceiving(ctx context.Context, sever func() error) error {
	if err := h.ask(ctx, "EndReceiving"); err != nil {
		return err
	}
	defer h.leave()
	if len(h.blocked) == 0 {
		h.w.breach("%s: ends receiving without a block towards the old source", h.id)
	}
	if len(h.relay) > 0 {
		h.w.breach("%s: ends receiving with %v received and not applied", h.id, h.relay)
	}
	h.io = false
	return nil
}
