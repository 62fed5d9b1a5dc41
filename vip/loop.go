package vip

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// gateCheckEvery is how often the gate is compared with what it should be, and links are asked whether they were cut, in
// case a notice was missed.
const gateCheckEvery = 5 * time.Second

// gateRetryEvery is how soon a gate that could not be checked or reinstalled is tried again.
const gateRetryEvery = 200 * time.Millisecond

// reopenEvery is how often a packet socket is tried again on an interface that is gone.
const reopenEvery = 500 * time.Millisecond

// start begins everything that runs in the background.
func (m *Manager) start() {
	m.running.Go(func() { m.events.run(m.quit) })
	for iface, err := range m.tune() {
		m.emit(Event{Kind: ProtectionWeaker, Interface: iface, Detail: err.Error()})
		m.log.Warn("setting ARP options failed", "interface", iface, "err", err)
	}
	m.reportWeaker()
	if m.cfg.skipWatches {
		return
	}
	m.running.Go(func() {
		m.follow(m.notifiers[0], func() {
			m.links.forget()
			m.wake()
		}, m.hearLink)
	})
	if len(m.notifiers) > 1 {
		m.running.Go(func() {
			m.follow(m.notifiers[1], m.suspectGate, nil,
				nftType(unix.NFT_MSG_NEWTABLE), nftType(unix.NFT_MSG_DELTABLE), nftType(unix.NFT_MSG_DELCHAIN),
				nftType(unix.NFT_MSG_NEWRULE), nftType(unix.NFT_MSG_DELRULE), nftType(unix.NFT_MSG_DELSET))
		})
	}
	for iface, p := range m.ports {
		for _, proto := range p.protocols() {
			m.running.Go(func() {
				p.receive(proto, func(f []byte) { m.handleFrame(iface, proto, f) }, func() bool { return m.pause(reopenEvery) })
			})
		}
	}
	m.running.Go(m.loop)
}

// hearLink takes a notice about a link, or (type 0) that some were lost.
func (m *Manager) hearLink(typ uint16, data []byte) {
	if typ == 0 {
		m.countLinks()
		return
	}
	if err := m.links.hear(typ, data); err != nil {
		m.log.Warn("a notice about a link could not be read", "err", err)
	}
}

// countLinks looks whether a link was cut of which no notice came. Where that cannot be told, it is said once.
func (m *Manager) countLinks() {
	err := m.links.count()
	m.mu.Lock()
	told := m.countFailing
	m.countFailing = err != nil
	m.mu.Unlock()
	if err != nil && !told {
		m.log.Warn("how often links lost their carrier cannot be told: short cuts may be missed", "err", err)
	}
}

func (m *Manager) tune() map[string]error {
	failed := map[string]error{}
	for iface := range m.ports {
		if err := tuneARP(iface); err != nil {
			failed[iface] = err
		}
	}
	return failed
}

// reportWeaker says which part of the protection this host cannot give.
func (m *Manager) reportWeaker() {
	switch {
	case !m.gate.kernel():
		m.emit(Event{Kind: ProtectionWeaker, Detail: "no nftables: the lease ends only while this process runs"})
	case !m.gate.egress() && len(m.cfg.Addresses) > 0:
		m.emit(Event{Kind: ProtectionWeaker, Detail: "no netdev egress hook: an announcement of a process that was held up is not stopped"})
	}
}

// follow runs a notifier. If it fails the periodic checks still find what is there, later.
func (m *Manager) follow(n *notifier, notify func(), heard func(uint16, []byte), types ...uint16) {
	if err := n.run(notify, heard, types...); err != nil {
		m.log.Error("kernel notices have ended", "err", err)
		m.emit(Event{Kind: ProtectionWeaker, Detail: "kernel notices have ended: " + err.Error()})
	}
}

// pause waits and returns false if the manager is stopping.
func (m *Manager) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.quit:
		return false
	}
}

// wake makes the loop look at everything now.
func (m *Manager) wake() {
	select {
	case m.wakeUp <- struct{}{}:
	default:
	}
}

// suspectGate makes the loop check the gate now.
func (m *Manager) suspectGate() {
	m.mu.Lock()
	m.checkGate = true
	m.mu.Unlock()
	m.wake()
}

// loop looks after what is wanted. It acts on what it finds, not on what a notice said: a missed or
// merged notice costs nothing. That a link was cut for a moment is found in the kernel's count (links.hear).
func (m *Manager) loop() {
	var refreshed, checked time.Duration
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-m.wakeUp:
		case <-timer.C:
		}
		now := Now()
		if m.takeGateSuspicion() || now-checked >= m.gateCheckPeriod() {
			m.mendGate()
			m.countLinks()
			checked = now
		}
		m.ops.Lock()
		m.watchLinks()
		if m.isHeld() {
			m.mendAddresses()
			if now-refreshed >= m.refreshPeriod() {
				m.refreshAddresses()
				refreshed = now
			}
			if m.announcementDue(now) {
				m.announceAll()
			}
		}
		m.ops.Unlock()
		timer.Reset(m.untilNext(refreshed, checked))
	}
}

// refreshPeriod prolongs the addresses three times per lifetime.
func (m *Manager) refreshPeriod() time.Duration { return m.cfg.AddressLifetime / 3 }

// untilNext is how long the loop may sleep.
func (m *Manager) untilNext(refreshed, checked time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := checked + gateCheckEvery
	if m.gateFailing {
		due = checked + gateRetryEvery
	}
	if m.held {
		due = min(due, refreshed+m.refreshPeriod())
		if next, ok := m.sched.next(); ok {
			due = min(due, next)
		}
		if m.owedDefence {
			due = min(due, m.lastDefence+defendEvery)
		}
	}
	return max(due-Now(), time.Millisecond)
}

func (m *Manager) gateCheckPeriod() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gateFailing {
		return gateRetryEvery
	}
	return gateCheckEvery
}

func (m *Manager) takeGateSuspicion() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.checkGate
	m.checkGate = false
	return was
}

// mendGate reinstalls a damaged gate, closed. Whoever has a valid lease opens it again.
func (m *Manager) mendGate() {
	repaired, err := m.gate.ensure()
	m.mu.Lock()
	m.gateFailing = err != nil
	m.mu.Unlock()
	switch {
	case errors.Is(err, ErrStopped):
		return
	case err != nil:
		m.log.Error("checking the gate failed", "repairing", repaired, "err", err)
		if !repaired {
			return
		}
	case !repaired:
		return
	}
	m.mu.Lock()
	m.gateLosses++
	m.mu.Unlock()
	m.emit(Event{Kind: GateLost, Detail: "the nftables ruleset was changed by another process"})
	if err == nil {
		m.log.Error("the gate was gone from the kernel; installed again, closed")
		m.emit(Event{Kind: Repaired, Detail: "gate installed again, closed"})
	}
}

// watchLinks reports changes of the links and announces over one that is back, however short it was
// away: a switch may have forgotten its port. The caller holds ops.
func (m *Manager) watchLinks() {
	cut := m.links.wasCut() // first: what is heard from here on wakes the loop again
	for iface := range m.ports {
		link, err := m.links.find(iface)
		index := 0
		if err == nil && link.up {
			index = link.index
		}
		m.mu.Lock()
		was := m.linkUp[iface]
		m.linkUp[iface] = index
		m.mu.Unlock()
		interrupted := was != 0 && index != 0 && (index != was || cut[index])
		if index == was && !interrupted {
			continue
		}
		if index == 0 || interrupted {
			detail := "interface " + iface + " has no link"
			switch {
			case interrupted:
				detail = "interface " + iface + " was without a link for a moment"
			case err != nil:
				detail = err.Error()
			}
			m.linkEvent(LinkDown, iface, detail)
		}
		if index != 0 {
			m.reviveLink(iface, link, index != was)
			m.linkEvent(LinkUp, iface, "interface "+iface+" has a link")
		}
	}
}

func (m *Manager) linkEvent(kind EventKind, iface, detail string) {
	m.log.Warn("link changed", "interface", iface, "up", kind == LinkUp, "detail", detail)
	m.emit(Event{Kind: kind, Interface: iface, Detail: detail})
}

// reviveLink prepares an interface that is back. Of a new one the kernel may have dropped the egress chain:
// the gate is whole before anything is announced.
func (m *Manager) reviveLink(iface string, link linkState, mayBeNew bool) {
	if mayBeNew {
		m.mendGate()
	}
	for _, proto := range m.ports[iface].protocols() {
		if _, err := m.ports[iface].conn(proto, link.index); err != nil {
			m.log.Warn("opening packet socket failed", "interface", iface, "err", err)
		}
	}
	if err := tuneARP(iface); err != nil {
		m.log.Warn("setting ARP options failed", "interface", iface, "err", err)
	}
	if m.isHeld() {
		m.mendAddresses()
		m.startBurst()
	}
}

// mendAddresses puts back held addresses that are missing, while the gate is open: behind a closed gate
// the address may be another host's by now. The caller holds ops.
func (m *Manager) mendAddresses() {
	mended := false
	for _, a := range m.cfg.Addresses {
		link, err := m.links.read(a.Interface)
		if err != nil || !link.up || link.has(a.IP) {
			continue // without a link there is nothing to put it on; watchLinks reports that
		}
		if left, err := m.gate.remaining(); err != nil || left == 0 {
			continue
		}
		m.emit(Event{Kind: AddressMissing, Address: a.IP, Interface: a.Interface, Detail: "held address was not on the interface"})
		if err := m.links.put(link.index, a.IP, m.cfg.AddressLifetime); err != nil {
			m.log.Error("putting an address back failed", "address", a.IP, "err", err)
			continue
		}
		mended = true
		m.mu.Lock()
		m.counters[a.IP].Repairs++
		m.mu.Unlock()
		m.log.Warn("put a missing address back", "address", a.IP, "interface", a.Interface)
		m.emit(Event{Kind: Repaired, Address: a.IP, Interface: a.Interface, Detail: fmt.Sprintf("%s is on %s again", a.IP, a.Interface)})
	}
	if mended {
		m.startBurst()
	}
}

func (m *Manager) refreshAddresses() {
	for _, a := range m.cfg.Addresses {
		if err := m.refresh(a, m.cfg.AddressLifetime); err != nil {
			m.log.Warn("prolonging an address failed", "address", a.IP, "err", err)
		}
	}
}

// announcementDue tells whether to announce now, by schedule or as a defence that had to wait.
func (m *Manager) announcementDue(now time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owedDefence && now-m.lastDefence >= defendEvery {
		m.owedDefence = false
		m.lastDefence = now
		return true
	}
	next, ok := m.sched.next()
	return ok && next <= now
}
