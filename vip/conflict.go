package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// conflictWait bounds a probe: on one broadcast domain an answer takes well under a millisecond.
	conflictWait = 50 * time.Millisecond
	// probeEvery repeats it, as a frame may be lost.
	probeEvery = 15 * time.Millisecond
)

// claim is a host seen speaking for an address.
type claim struct {
	ip  netip.Addr
	mac net.HardwareAddr
}

// Conflict asks the network whether another host answers for one of the addresses, without claiming them
// (RFC 5227, RFC 4862), for at most 50 ms or until ctx ends. It returns the first claimant's MAC. An old
// holder whose gate is closed does not answer, and rightly is not found.
func (m *Manager) Conflict(ctx context.Context) (mac net.HardwareAddr, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, conflictWait)
	defer cancel()
	claims := make(chan claim, 1)
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return nil, false, ErrStopped
	}
	m.probing[claims] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.probing, claims)
		m.mu.Unlock()
	}()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		// One probe that got out is enough for an answer; an interface that is down answers nothing.
		if err := m.probeAll(); err != nil {
			return nil, false, err
		}
		select {
		case c := <-claims:
			return c.mac, true, nil
		case <-ctx.Done():
			return nil, false, nil
		case <-tick.C:
		}
	}
}

// probeAll sends one probe for every address.
func (m *Manager) probeAll() error {
	var errs []error
	for _, a := range m.cfg.Addresses {
		link, err := m.links.find(a.Interface)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		proto := int(protoARP)
		var frame []byte
		if a.IP.Is4() {
			frame = arpProbe(a.IP, link.mac)
		} else if frame, err = ndProbe(a.IP, link.mac); err != nil {
			errs = append(errs, err)
			continue
		} else {
			proto = int(protoIPv6)
		}
		if err := m.ports[a.Interface].send(proto, link.index, frame); err != nil {
			errs = append(errs, fmt.Errorf("probing for %s: %w", a.IP, err))
		}
	}
	return errors.Join(errs...)
}
