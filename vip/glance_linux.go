package vip

import (
	"net/netip"
	"slices"
	"time"
)

// glanceAge is how long what was read from the kernel is taken for what is there, if nothing speaks against it. It
// bounds what no notice tells of, such as a suspend of the machine, during which the kernel's timers stand still.
const glanceAge = 250 * time.Millisecond

// glance keeps what was read last. Reading the gate and the addresses takes a dozen requests to the kernel, and they are
// looked at some twenty times in a second.
type glance[T any] struct {
	value T
	at    time.Duration // before it was read; 0 when nothing is kept
}

func (g *glance[T]) fresh(now time.Duration) bool { return g.at != 0 && now-g.at < glanceAge }

// glances are what was read of the gate's tables. Only owned ones are remembered: the kernel lets nothing but the socket
// of this process change them (NFT_TABLE_F_OWNER, linux/netfilter/nf_tables.h), and each write over that socket forgets
// what it may have changed. What is told from memory is what the kernel would tell; the one thing that changes by itself
// is the lease: it is counted down, and close to its end the kernel is asked.
type glances struct {
	lease   glance[time.Duration]
	blocked glance[[]netip.Addr]
	covered glance[bool]
}

// glanced answers from what is kept, or reads and keeps it. The caller holds mu.
func glanced[T any](g *kernelGate, kept *glance[T], read func() (T, error)) (T, error) {
	now := Now()
	if g.owned() && kept.fresh(now) {
		return kept.value, nil
	}
	value, err := read()
	if err == nil {
		*kept = glance[T]{value, now}
	}
	return value, err
}

// change writes, and forgets what was read before. The caller holds mu.
func (g *kernelGate) change(msgs []nlMessage) error {
	defer func() { g.seen = glances{} }()
	return nftBatch(g.sock, msgs)
}

// changeLease writes what neither the blocks nor the gated port depend on, and forgets the lease, or everything if it
// failed: the tables may be gone. The caller holds mu.
func (g *kernelGate) changeLease(msgs []nlMessage) error {
	g.seen.lease = glance[time.Duration]{}
	err := nftBatch(g.sock, msgs)
	if err != nil {
		g.seen = glances{}
	}
	return err
}

// remaining is the shortest life among the lease's elements, 0 if any of them is gone.
func (g *kernelGate) remaining() (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return 0, ErrStopped
	}
	now, kept := Now(), &g.seen.lease
	if g.owned() && kept.fresh(now) {
		if left := kept.value - (now - kept.at); kept.value == 0 || left > jiffiesMargin {
			return max(left, 0), nil
		}
	}
	left, err := g.readRemaining()
	if err == nil {
		*kept = glance[time.Duration]{left, now}
	}
	return left, err
}

func (g *kernelGate) blocked() ([]netip.Addr, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return nil, ErrStopped
	}
	list, err := glanced(g, &g.seen.blocked, func() ([]netip.Addr, error) { return g.listAddrs(setBlocked4, setBlocked6) })
	if errMissing(err) {
		return nil, ErrGateLost
	}
	return slices.Clone(list), err
}

func (g *kernelGate) covers() (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return false, ErrStopped
	}
	on, err := glanced(g, &g.seen.covered, func() (bool, error) {
		found, err := g.listSet(setCovered)
		return len(found) > 0, err
	})
	if errMissing(err) {
		return false, ErrGateLost
	}
	return on, err
}
