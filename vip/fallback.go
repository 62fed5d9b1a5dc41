package vip

import (
	"net/netip"
	"sync"
	"time"
)

// timerGate is the gate of a host without nftables: a timer of this process that removes the addresses
// and severs the connections when the lease ends. It holds as long as the process runs in time.
type timerGate struct {
	expire func()

	mu       sync.Mutex
	deadline time.Duration
	timer    *time.Timer
	released bool
}

func newTimerGate(expire func()) *timerGate { return &timerGate{expire: expire} }

func (g *timerGate) kernel() bool { return false }
func (g *timerGate) egress() bool { return false }
func (g *timerGate) owned() bool  { return false }

func (g *timerGate) open(deadline time.Duration) error { return g.set(deadline, false) }

func (g *timerGate) renew(deadline time.Duration) error { return g.set(deadline, true) }

func (g *timerGate) set(deadline time.Duration, mustLive bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.released {
		return ErrStopped
	}
	now := Now()
	if mustLive && g.deadline <= now {
		return ErrExpired
	}
	left, err := timeoutFor(deadline, now, 0)
	if err != nil {
		return err
	}
	g.deadline = now + left
	if g.timer != nil {
		g.timer.Stop()
	}
	// A renewal replaces the timer; one that fires in between finds that the deadline has moved.
	g.timer = time.AfterFunc(left, g.fire)
	return nil
}

func (g *timerGate) fire() {
	g.mu.Lock()
	over := !g.released && g.deadline <= Now()
	g.mu.Unlock()
	if over {
		g.expire()
	}
}

func (g *timerGate) shut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.released {
		return ErrStopped
	}
	open := g.deadline > Now()
	g.deadline = 0
	if g.timer != nil {
		g.timer.Stop()
	}
	if open {
		g.timer = time.AfterFunc(0, g.fire)
	}
	return nil
}

func (g *timerGate) remaining() (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.released {
		return 0, ErrStopped
	}
	return max(g.deadline-Now(), 0), nil
}

func (g *timerGate) setBlocked([]netip.Addr) error  { return ErrNoKernelGate }
func (g *timerGate) blocked() ([]netip.Addr, error) { return nil, ErrNoKernelGate }
func (g *timerGate) cover(on bool) error            { return coverWithoutKernel(on) }
func (g *timerGate) covers() (bool, error)          { return false, nil }
func (g *timerGate) ensure() (bool, error)          { return false, nil }
func (g *timerGate) destroy() error                 { return nil }

func coverWithoutKernel(on bool) error {
	if on {
		return ErrNoKernelGate
	}
	return nil
}

// release forgets the timer: the addresses then end by their lifetimes.
func (g *timerGate) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.released = true
	if g.timer != nil {
		g.timer.Stop()
	}
	return nil
}

// expire fences this host from user space. The addresses stay wanted: they are put back when the gate
// opens again.
func (m *Manager) expire() {
	m.ops.Lock()
	defer m.ops.Unlock()
	if err := m.removeAll(); err != nil {
		m.log.Error("fencing at the end of the lease failed", "err", err)
	}
}
