package vip

import (
	"errors"
	"net/netip"
	"time"
)

var (
	// ErrLate is returned by Open and Renew when the deadline is too near or has passed, or when the
	// caller was held up for longer than the guard. Nothing was opened or prolonged.
	ErrLate = errors.New("vip: too late for this deadline")
	// ErrExpired is returned by Renew when the lease had already ended: it is never revived. Only Open,
	// with a newly granted lease, opens the gate again.
	ErrExpired = errors.New("vip: lease has already expired")
	// ErrGateLost is returned when the kernel no longer has the gate's table, because someone flushed the
	// ruleset. The manager reinstalls it closed.
	ErrGateLost = errors.New("vip: gate is not in the kernel")
	// ErrGateOpen is returned by CleanUp while a lease is still alive in the kernel.
	ErrGateOpen = errors.New("vip: gate is still open")
	// ErrNoKernelGate is returned by operations that need nftables on a host without it.
	ErrNoKernelGate = errors.New("vip: no nftables on this host")
	// ErrBusy is returned by New when a running process already owns the gate of this instance.
	ErrBusy = errors.New("vip: gate is owned by another process")
	// ErrStopped is returned by every operation after Stop or Destroy.
	ErrStopped = errors.New("vip: manager is stopped")
)

// jiffiesMargin is what a kernel timer may add to a timeout: two ticks at 100 Hz, the slowest kernel.
const jiffiesMargin = 20 * time.Millisecond

// minLease is the shortest remaining time worth opening for. Timeouts are whole milliseconds and a
// timeout of zero would mean "for ever".
const minLease = 10 * time.Millisecond

// gate is what holds the lease: the kernel, or a timer of this process where nftables is missing.
type gate interface {
	// kernel tells whether the lease ends without this process.
	kernel() bool
	// egress tells whether frames written to packet sockets are held back as well.
	egress() bool
	// owned tells whether the kernel protects the table from other processes.
	owned() bool
	open(deadline time.Duration) error
	renew(deadline time.Duration) error
	shut() error
	remaining() (time.Duration, error)
	setBlocked(addrs []netip.Addr) error
	blocked() ([]netip.Addr, error)
	// cover puts the server's own port behind the gate too, for everybody but the peers; covers reads it back.
	cover(on bool) error
	covers() (bool, error)
	// ensure reinstalls the gate closed if it is damaged, and tells whether it had to.
	ensure() (repaired bool, err error)
	// release lets go of the gate and leaves it as it is; destroy removes it.
	release() error
	destroy() error
}

// timeoutFor is the time a lease element may get when written after now: the write may reach the kernel
// up to guard later, and the kernel's timer may be late by jiffiesMargin.
func timeoutFor(deadline, now, guard time.Duration) (time.Duration, error) {
	r := (deadline - now - guard - jiffiesMargin).Truncate(time.Millisecond)
	if r < minLease {
		return 0, ErrLate
	}
	return r, nil
}
