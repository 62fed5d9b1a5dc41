package vip

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// burstOffsets are the announcements after a change. The second covers a lost frame; the later ones lie
// more than a second apart because a neighbour may ignore a second update within one (Linux locktime).
var burstOffsets = []time.Duration{0, 100 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond, 3300 * time.Millisecond}

const (
	// refreshEvery repeats the announcement while all is quiet: a switch may have forgotten the port.
	refreshEvery = 30 * time.Second
	// insistEvery is how often the address is claimed while an old holder may still be alive.
	insistEvery = 200 * time.Millisecond
	// defendEvery bounds the answers to foreign claims: two hosts that both insist must not flood.
	defendEvery = 100 * time.Millisecond
)

// schedule says when to announce next. The zero value says never.
type schedule struct {
	active bool
	insist bool
	start  time.Duration // of the burst
	step   int           // next offset of the burst
	last   time.Duration // instant of the last announcement
}

// burst starts a new burst at now.
func (s *schedule) burst(now time.Duration) {
	*s = schedule{active: true, insist: s.insist, start: now, last: s.last}
}

func (s *schedule) stop() { s.active = false }

// next returns when the next announcement is due.
func (s *schedule) next() (time.Duration, bool) {
	if !s.active {
		return 0, false
	}
	due := s.last + refreshEvery
	if s.step < len(burstOffsets) {
		due = s.start + burstOffsets[s.step]
	}
	if s.insist {
		due = min(due, s.last+insistEvery)
	}
	return due, true
}

// sent records an announcement at now. It counts for every step of the burst that is due.
func (s *schedule) sent(now time.Duration) {
	s.last = now
	for s.step < len(burstOffsets) && s.start+burstOffsets[s.step] <= now {
		s.step++
	}
}

// Announce tells the neighbours now where the addresses are, and again 0.1, 1.1, 2.2 and 3.3 s later, then
// every 30 s while they are held. It does nothing while they are not held.
func (m *Manager) Announce() {
	m.ops.Lock()
	defer m.ops.Unlock()
	if m.isHeld() {
		m.startBurst()
		m.wake()
	}
}

// Insist keeps announcing every 200 ms while on, for as long as the old holder may be alive.
func (m *Manager) Insist(on bool) {
	m.mu.Lock()
	m.sched.insist = on
	m.mu.Unlock()
	m.wake()
}

// startBurst sends the first announcement at once and leaves the rest to the loop. The caller holds ops.
func (m *Manager) startBurst() {
	m.mu.Lock()
	m.sched.burst(Now())
	m.mu.Unlock()
	m.announceAll()
}

// announceAll announces every address once. The caller holds ops.
func (m *Manager) announceAll() {
	for _, a := range m.cfg.Addresses {
		err := m.announceOne(a)
		m.mu.Lock()
		c := m.counters[a.IP]
		switch {
		case err == nil:
			c.Announcements++
		case errors.Is(err, errSuppressed):
			c.Suppressed++
		}
		m.mu.Unlock()
		switch {
		case err == nil:
			m.emit(Event{Kind: Announced, Address: a.IP, Interface: a.Interface})
		case !errors.Is(err, errSuppressed):
			m.log.Warn("announcing failed", "address", a.IP, "err", err)
		}
	}
	m.mu.Lock()
	m.sched.sent(Now())
	m.mu.Unlock()
}

// errSuppressed says that the closed gate, or an interface that is down, held an announcement back.
var errSuppressed = errors.New("announcement was held back")

// announceOne announces an address while the lease lasts. What a late process sends after this look the kernel drops
// where it can (netdev egress); elsewhere the look is all there is.
func (m *Manager) announceOne(a Address) error {
	if breakAnnounce {
		return errSuppressed
	}
	left, err := m.gate.remaining()
	if err != nil {
		return m.noteLoss(err)
	}
	if left == 0 {
		return errSuppressed
	}
	return m.sendAnnouncement(a)
}

// sendAnnouncement reads the interface's MAC as it is now and sends every form of the announcement.
func (m *Manager) sendAnnouncement(a Address) error {
	link, err := m.links.find(a.Interface)
	if err != nil {
		return err
	}
	if len(link.mac) != len(broadcastMAC) {
		return fmt.Errorf("interface %s has no Ethernet address", a.Interface)
	}
	proto := int(protoARP)
	var frames [][]byte
	if a.IP.Is4() {
		frames = arpAnnouncements(a.IP, link.mac)
	} else {
		f, err := ndAnnouncement(a.IP, link.mac)
		if err != nil {
			return err
		}
		proto, frames = int(protoIPv6), [][]byte{f}
	}
	for _, f := range frames {
		err := m.ports[a.Interface].send(proto, link.index, f)
		if link.up && (errors.Is(err, unix.ENETDOWN) || errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed)) {
			err = m.ports[a.Interface].send(proto, link.index, f) // the socket kept an error of when the link was cut, or was closed for it
		}
		if err != nil {
			if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EPERM) {
				return errSuppressed // what a packet socket sees of a drop in egress
			}
			if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) {
				return errSuppressed // no link: LinkDown has said so, and LinkUp brings a new burst
			}
			return err
		}
	}
	return nil
}
