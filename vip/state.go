package vip

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// EventKind says what happened.
type EventKind int

// The kinds of Event. The zero value is none of them.
const (
	_                EventKind = iota
	AddressMissing             // a held address was not on its interface
	LinkDown                   // the interface of a held address lost its link or is gone
	LinkUp                     // the interface has a link again
	ForeignClaim               // another host spoke for a held address
	GateLost                   // somebody removed or changed the gate: until Repaired it did not hold anything
	Repaired                   // what the event before reported is as it should be; after GateLost the gate is closed
	Announced                  // the address was announced
	ProtectionWeaker           // this host cannot give a part of the protection; Detail says which
)

var eventNames = [...]string{"unknown", "address-missing", "link-down", "link-up", "foreign-claim", "gate-lost", "repaired", "announced", "protection-weaker"}

// String is the kind's name in logs and metrics.
func (k EventKind) String() string {
	if k < 0 || int(k) >= len(eventNames) {
		return eventNames[0]
	}
	return eventNames[k]
}

// Event is something the manager noticed or did by itself.
type Event struct {
	Kind      EventKind
	Address   netip.Addr       // the address concerned; invalid if it concerns all
	Interface string           // its interface
	MAC       net.HardwareAddr // the claimant of a ForeignClaim
	Detail    string           // for people
}

// Counters count what happened to one address since the manager was made.
type Counters struct {
	Announcements uint64           // rounds of announcements that left the host
	Suppressed    uint64           // rounds that the closed gate or a missing link held back
	Repairs       uint64           // times a missing address was put back
	ForeignClaims uint64           // frames of other hosts that spoke for it while it was held
	LastClaim     net.HardwareAddr // who did so last
	lastReport    time.Duration
}

// AddressState is one address as it is now.
type AddressState struct {
	Address
	Present bool // on its interface
	LinkUp  bool
	Counters
}

// State is a snapshot for status pages and metrics.
type State struct {
	Held       bool          // the wanted state
	Remaining  time.Duration // of the lease in the kernel, 0 when the gate is closed
	KernelGate bool          // the lease ends without this process
	EgressGate bool          // announcements written to packet sockets are gated too
	Protected  bool          // the kernel keeps other processes from changing the gate
	GateLosses uint64        // times the gate was found damaged
	Blocked    []netip.Addr  // hosts cut off by Block
	Addresses  []AddressState
	Err        error // what could not be read
}

// eventQueue delivers events in order on a goroutine of its own, so that no lock is held during a
// callback and a slow one holds up nothing. Beyond its limit the oldest are dropped.
type eventQueue struct {
	mu      sync.Mutex
	pending []Event
	signal  chan struct{}
	deliver func(Event)
}

const maxPendingEvents = 1024

func newEventQueue(deliver func(Event)) *eventQueue {
	return &eventQueue{signal: make(chan struct{}, 1), deliver: deliver}
}

func (q *eventQueue) add(e Event) {
	q.mu.Lock()
	if len(q.pending) >= maxPendingEvents {
		q.pending = q.pending[1:]
	}
	q.pending = append(q.pending, e)
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// run delivers until quit is closed, then what is left.
func (q *eventQueue) run(quit <-chan struct{}) {
	for {
		q.mu.Lock()
		batch := q.pending
		q.pending = nil
		q.mu.Unlock()
		for _, e := range batch {
			q.deliver(e)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.signal:
		case <-quit:
			q.mu.Lock()
			empty := len(q.pending) == 0
			q.mu.Unlock()
			if empty {
				return
			}
		}
	}
}
