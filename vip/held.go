package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// SetHeld brings the host to the wanted state: addresses added and announced, or removed with their
// connections severed. It is idempotent. Held addresses are looked after until they are no longer wanted,
// also when this call returned an error for some of them. The gate is separate: an address that is held
// behind a closed gate answers with resets and is not announced.
func (m *Manager) SetHeld(ctx context.Context, held bool) error {
	m.ops.Lock()
	defer m.ops.Unlock()
	m.mu.Lock()
	was := m.held
	if m.stopped {
		m.mu.Unlock()
		return ErrStopped
	}
	m.held = held
	m.mu.Unlock()
	defer m.wake()
	if !held {
		return m.letGo(ctx)
	}
	var errs []error
	added := false
	for _, a := range m.cfg.Addresses {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("adding %s: %w", a.IP, err))
			continue
		}
		link, err := m.links.read(a.Interface)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		added = added || !link.has(a.IP)
		errs = append(errs, m.links.put(link.index, a.IP, m.cfg.AddressLifetime))
	}
	if added || !was {
		m.startBurst()
	}
	return errors.Join(errs...)
}

// letGo removes the addresses and what is connected to them. The caller holds ops.
func (m *Manager) letGo(ctx context.Context) error {
	m.mu.Lock()
	m.sched.stop()
	m.sched.insist = false
	m.owedDefence = false
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("removing the addresses: %w", err)
	}
	return m.removeAll()
}

// removeAll severs before it removes, because without the address the kernel cannot send the clients their
// resets, and again afterwards, because somebody may have come in between. The caller holds ops.
func (m *Manager) removeAll() error {
	_, err := m.Sever()
	errs := []error{err}
	for _, a := range m.cfg.Addresses {
		link, err := m.links.read(a.Interface)
		if err == nil && link.has(a.IP) {
			err = m.links.remove(link.index, a.IP)
			if p, ok := link.foreign(a.IP); ok {
				err = errors.Join(err, fmt.Errorf("address %s on %s is not the manager's: remove it from the host's own configuration", p, a.Interface))
			}
		}
		errs = append(errs, err)
	}
	_, err = m.Sever()
	return errors.Join(append(errs, err)...)
}

// CleanUp removes what an earlier run left: addresses and their connections, with the gate closed. While
// a lease is still alive it changes nothing and returns ErrGateOpen: the service may be in use.
func (m *Manager) CleanUp(ctx context.Context) error {
	m.ops.Lock()
	defer m.ops.Unlock()
	left, err := m.gate.remaining()
	if err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%w for %s", ErrGateOpen, left)
	}
	m.mu.Lock()
	m.held = false
	m.mu.Unlock()
	return errors.Join(m.Close(), m.letGo(ctx))
}

// leaveBehind prolongs the addresses for as long as the gate may stay open without this process.
func (m *Manager) leaveBehind() {
	m.ops.Lock()
	defer m.ops.Unlock()
	m.mu.Lock()
	held := m.held
	m.mu.Unlock()
	left, err := m.gate.remaining()
	if !held || err != nil || left == 0 {
		return // closed: the lifetimes that run already are enough
	}
	lifetime := max(m.cfg.AddressLifetime, left+time.Second)
	for _, a := range m.cfg.Addresses {
		if err := m.refresh(a, lifetime); err != nil {
			m.log.Warn("prolonging an address before stopping failed", "address", a.IP, "err", err)
		}
	}
}

// refresh prolongs an address that is there.
func (m *Manager) refresh(a Address, lifetime time.Duration) error {
	link, err := m.links.read(a.Interface)
	if err != nil {
		return err
	}
	if !link.has(a.IP) {
		return nil // the check for missing addresses deals with it
	}
	return m.links.put(link.index, a.IP, lifetime)
}

// Block lets no traffic on the database ports pass between this host and addr, in both directions, until
// Unblock, across restarts: what comes and what is asked is answered with resets, answers are dropped.
// Connections that exist end with the other side's next packet; SeverPeer ends them at once and tells it.
// Other traffic, such as the cluster's own, passes.
func (m *Manager) Block(addr netip.Addr) error {
	return m.changeBlocked(func(b []netip.Addr) []netip.Addr {
		if slices.Contains(b, addr.Unmap()) {
			return b
		}
		return append(b, addr.Unmap().WithZone(""))
	})
}

// Unblock undoes Block. That addr is not blocked is success.
func (m *Manager) Unblock(addr netip.Addr) error {
	return m.changeBlocked(func(b []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(b, func(a netip.Addr) bool { return a == addr.Unmap().WithZone("") })
	})
}

func (m *Manager) changeBlocked(change func([]netip.Addr) []netip.Addr) error {
	m.ops.Lock()
	defer m.ops.Unlock()
	now, err := m.gate.blocked()
	if err != nil {
		return m.noteLoss(err)
	}
	return m.noteLoss(m.gate.setBlocked(change(now)))
}

// Blocked lists the blocked hosts as the kernel has them: ErrGateLost if somebody flushed the ruleset.
func (m *Manager) Blocked() ([]netip.Addr, error) { return m.gate.blocked() }

// GatePort puts the server's port on all of the host's addresses behind the gate too, loopback
// included: while it is on, only the peers (Config.Peers) reach the port when the gate is closed. It is
// for a primary without synchronous replicas, which must not take writes on any address after its lease.
// One transaction; it lasts until it is taken back, as a block does. Without a kernel gate it cannot be
// turned on: ErrNoKernelGate.
func (m *Manager) GatePort(on bool) error {
	m.ops.Lock()
	defer m.ops.Unlock()
	return m.noteLoss(m.gate.cover(on))
}

// noteLoss has a lost gate reinstalled, closed and with its blocks.
func (m *Manager) noteLoss(err error) error {
	if errors.Is(err, ErrGateLost) {
		m.suspectGate()
	}
	return err
}

// PortGated tells whether the kernel has it so. It is false also when that cannot be read, so that the
// caller sets it again.
func (m *Manager) PortGated() bool {
	on, err := m.gate.covers()
	return err == nil && on
}
