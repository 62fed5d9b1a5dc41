package vip

import (
	"bytes"
	"time"
)

// eventEvery bounds how often the same foreign claim is reported.
const eventEvery = time.Second

// handleFrame looks at one received frame for somebody speaking for one of the addresses.
func (m *Manager) handleFrame(iface string, proto int, frame []byte) {
	var c claim
	if proto == int(protoARP) {
		p, ok := parseARP(frame)
		if !ok {
			return
		}
		c = claim{ip: p.senderIP, mac: p.senderMAC}
	} else {
		ip, mac, ok := parseNA(frame)
		if !ok {
			return
		}
		c = claim{ip: ip, mac: mac}
	}
	for _, a := range m.cfg.Addresses {
		if a.IP == c.ip && a.Interface == iface {
			m.handleClaim(a, c)
		}
	}
}

// handleClaim hands a foreign claim to whoever is probing and, while the address is held, reports it and
// announces at once: the last announcement wins, so the rightful holder must have it.
func (m *Manager) handleClaim(a Address, c claim) {
	link, err := m.links.find(a.Interface)
	if err != nil || bytes.Equal(link.mac, c.mac) {
		return // our own frame, sent back by the network; or no interface to answer on
	}
	now := Now()
	m.mu.Lock()
	for ch := range m.probing {
		select {
		case ch <- c:
		default: // it has its answer
		}
	}
	if !m.held || m.stopped {
		m.mu.Unlock()
		return
	}
	if left, err := m.gate.remaining(); err == nil && left == 0 {
		// Behind a closed gate the other may be the rightful holder: told, not counted and not contradicted.
		m.mu.Unlock()
		m.emit(Event{Kind: ForeignClaim, Address: a.IP, Interface: a.Interface, MAC: c.mac, Detail: "claimed by " + c.mac.String()})
		return
	}
	cnt := m.counters[a.IP]
	cnt.ForeignClaims++
	report := !bytes.Equal(cnt.LastClaim, c.mac) || now-cnt.lastReport >= eventEvery
	cnt.LastClaim = c.mac
	if report {
		cnt.lastReport = now
	}
	defend := now-m.lastDefence >= defendEvery
	if defend {
		m.lastDefence = now
	}
	m.mu.Unlock()
	if report {
		m.log.Warn("another host claims the address", "address", a.IP, "mac", c.mac.String())
		m.emit(Event{Kind: ForeignClaim, Address: a.IP, Interface: a.Interface, MAC: c.mac, Detail: "claimed by " + c.mac.String()})
	}
	if defend {
		m.Announce()
	} else {
		m.defendLater()
	}
}

// defendLater makes the loop announce as soon as the bound on answers allows: the last claim of a series
// must not stay unanswered.
func (m *Manager) defendLater() {
	m.mu.Lock()
	m.owedDefence = true
	m.mu.Unlock()
	m.wake()
}
