package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

// The three things a server may let in.
const (
	modeReadOnly = "read-only"
	modeBarrier  = "barrier" // the manager's account alone
	modeWritable = "writable"
)

// host is one fake host: a mysqld, its service, a prober, and the kernel's gate and address. It survives its hbd, as hosts do.
type host struct {
	w      *world
	id     fsm.NodeID
	addr   netip.Addr
	port   uint16
	server uint32
	node   *Node // whose hbd this host has, nil for a test without one

	reachable bool // others reach its mysqld
	state     fsm.ServerState
	run       int // of mysqld
	delay     time.Duration
	receiver  int // generation: rises when what was received may be forgotten
	mode      string
	acks      int   // needed as a source, 0: asynchronous
	log       []txn // executed
	relay     []txn // received and not executed
	source    netip.Addr
	io, sql   bool
	ack       bool // acknowledges as a replica
	stalled   bool // executes nothing for now
	applying  bool // its source can be changed while it applies, as MySQL's can
	errant    bool // the test wrote something here that nobody else has
	ackedBy   map[fsm.NodeID]uint64
	pending   []uint64 // commits that wait for their acknowledgement, whether or not their client still does
	barrier   uint64   // epoch whose barrier was acknowledged ...
	barrierIn int      // ... in this run
	frozen    uint64   // highest promise under which it has answered a freeze
	prepared  *string  // history up to which the next start may roll back
	killed    bool     // not started since the last kill

	gate      fsm.Instant // open until then
	held      bool
	insists   bool
	blocked   map[netip.Addr]bool
	strangers []dump              // replicas that are nobody's ...
	silent    map[netip.Addr]bool // ... and do not acknowledge
	looks     uint64              // at what has arrived
	portGated bool
	claimed   func(netip.Addr)
	opened    int
	announced int

	sessions []fsm.Session // clients in the middle of something: while one of them writes or holds locks, read_only hangs
	broken   int           // so many were broken off

	events map[EventName]EventState // scheduled ones

	calls  []string // every call that changes something, in order
	allow  []string // when not nil: the only calls this test expects
	fails  map[string]error
	holds  map[string]*hold
	notify chan struct{}
	told   news
	seen   seen
}

// hold keeps a call from returning until it is released or its context ends.
type hold struct {
	entered  chan context.Context // receives the context of each call that is being held
	released chan struct{}
}

// holdCall makes calls of one name wait.
func (h *host) holdCall(name string) *hold {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	k := &hold{entered: make(chan context.Context, 16), released: make(chan struct{})}
	h.holds[name] = k
	return k
}

// fail makes calls of one name fail, nil: succeed again.
func (h *host) fail(name string, err error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.fails[name] = err
}

// expect names the only calls that this test allows from here on, and forgets those made so far.
func (h *host) expect(names ...string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.calls, h.allow = nil, append([]string{}, names...)
}

func (h *host) made() []string {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return slices.Clone(h.calls)
}

func (h *host) count(name string) int {
	n := 0
	for _, c := range h.made() {
		if c == name {
			n++
		}
	}
	return n
}

// change is how a test changes a host.
func (h *host) change(f func()) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	f()
	h.w.touch()
}

// enter begins a call that changes something: it is recorded, refused if the test does not expect it, held, and made to fail, as the test asked.
// mu is held when it returns nil, and only then.
func (h *host) enter(ctx context.Context, name string) error {
	h.w.mu.Lock()
	h.calls = append(h.calls, name)
	if h.allow != nil && !slices.Contains(h.allow, name) {
		h.w.breach("%s: unexpected call of %s", h.id, name)
	}
	k := h.holds[name]
	h.w.mu.Unlock()
	if k != nil {
		select {
		case k.entered <- ctx:
		default: // nobody has looked at the last ones
		}
		select {
		case <-k.released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.w.mu.Lock()
	if err := h.fails[name]; err != nil {
		h.w.mu.Unlock()
		return err
	}
	return nil
}

func (h *host) leave() {
	h.w.touch()
	h.w.mu.Unlock()
}

// acknowledged: enough replicas have said that they hold everything up to seq. mu is held.
func (h *host) acknowledged(seq uint64) bool {
	n := 0
	for _, s := range h.ackedBy {
		if s >= seq {
			n++
		}
	}
	return n >= h.acks
}

// waiting counts the commits that wait. mu is held.
func (h *host) waiting() int {
	h.pending = slices.DeleteFunc(h.pending, h.acknowledged)
	return len(h.pending)
}

// news is what a prober would wake its hbd for.
type news struct {
	state       fsm.ServerState
	run         int
	mode        string
	source      netip.Addr
	io, sql, on bool
	ack         bool
	acks        int
}

// changed tells whether there is news since it was last asked. mu is held.
func (h *host) changed() bool {
	n := news{h.state, h.run, h.mode, h.source, h.io, h.sql, h.w.connected(h) != nil, h.ack, h.acks}
	old := h.told
	h.told = n
	return n != old
}

// serves: a client at the gate may write. mu is held.
func (h *host) serves() bool {
	return h.gate > now() && h.state == fsm.ServerUp && h.mode == modeWritable
}

// crash ends mysqld as SIGKILL does: what waits for an acknowledgement stays in the log and is acknowledged to nobody. mu is held.
func (h *host) crash() {
	h.state, h.mode, h.acks, h.pending = fsm.ServerDown, "", 0, nil
	h.io, h.sql, h.ack, h.killed, h.prepared = false, false, false, true, nil
	clear(h.ackedBy)
}

// Prober.

// Server is the newest look.
func (h *host) Server() fsm.ServerStatus {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	sv := fsm.ServerStatus{State: h.state, Version: "10.11.0-fake"}
	if h.state != fsm.ServerUp {
		sv.Fault = "made so by the test"
		return sv
	}
	lag := 0.0
	connected := h.w.connected(h) != nil
	sv.Started, sv.ReadOnly = fmt.Sprintf("run-%s-%d", h.id, h.run), h.mode != modeWritable
	sv.Executed, sv.Received, sv.ServerID = place(h.log), h.received(), h.server
	sv.HasReplication, sv.IORunning, sv.SQLRunning = h.source.IsValid(), h.io, h.sql
	sv.IOConnecting = h.io && !connected
	sv.ReplicaSync, sv.ReplicaSyncSet, sv.Acks = h.ack && connected, h.ack, h.acks
	sv.Delay = h.delay
	sv.SourceSync, sv.Waiting, sv.LastEpoch = h.acks > 0, h.waiting(), h.lastEpoch()
	if h.source.IsValid() {
		sv.SourceHost, sv.SourcePort, sv.Lag = h.source.String(), h.port, &lag
		if src := h.w.at(h.source); src != nil {
			sv.SourceID = fmt.Sprint(src.server)
		}
	}
	return sv
}

// lastEpoch remembers how far it has looked: the log is long and asked about often.
func (h *host) lastEpoch() uint64 {
	if n := h.seen.upTo; n > len(h.log) || n > 0 && h.log[n-1] != h.seen.last {
		h.seen = seen{}
	}
	for ; h.seen.upTo < len(h.log); h.seen.upTo++ {
		h.seen.last = h.log[h.seen.upTo]
		if e := h.seen.last.epoch; e > 0 {
			h.seen.epoch = e
		}
	}
	return h.seen.epoch
}

// seen is the newest epoch row among the first transactions of a log.
type seen struct {
	upTo  int
	last  txn
	epoch uint64
}

// Look is the same: the fake's memory is never old.
func (h *host) Look(context.Context) fsm.ServerStatus { return h.Server() }

// Generation changes with every repoint.
func (h *host) Generation() string {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.state != fsm.ServerUp {
		return ""
	}
	return fmt.Sprint("g", h.receiver)
}

// Changed receives after every change of the world.
func (h *host) Changed() <-chan struct{} { return h.notify }

// Run has nothing to look at.
func (h *host) Run(ctx context.Context) { <-ctx.Done() }

// Reach answers for another host's mysqld; held, nothing comes back until its context ends.
func (h *host) Reach(ctx context.Context, address string, port uint16) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if k := h.holds["Reach"]; k != nil {
		h.w.mu.Unlock()
		k.entered <- ctx
		<-ctx.Done()
		h.w.mu.Lock()
		return ctx.Err()
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	o := h.w.at(a)
	if o == nil || o.port != port || !o.reachable || o.state != fsm.ServerUp {
		return fmt.Errorf("no mysqld answers at %s:%d", address, port)
	}
	return nil
}

// service is a host seen as its service manager: Database and Service both have names that mean something else there.
type service struct{ *host }

// Start starts mysqld, which the old primary may do only as the log asks: a plain start commits whatever it had.
func (s service) Start(ctx context.Context, rewind bool) error {
	h, name := s.host, "Start"
	if rewind {
		name = "Start(rewind)"
	}
	if err := h.enter(ctx, name); err != nil {
		return err
	}
	defer h.leave()
	if h.state != fsm.ServerDown {
		return errors.New("mysqld runs already")
	}
	if rewind {
		h.checkRewind()
		if h.prepared != nil {
			h.rollBack(*h.prepared)
		}
	}
	h.state, h.mode, h.killed, h.prepared = fsm.ServerUp, modeReadOnly, false, nil
	h.run++
	return nil
}

// Stop is never asked for: a polite stop acknowledges what waits.
func (s service) Stop(ctx context.Context) error {
	if err := s.enter(ctx, "Stop"); err != nil {
		return err
	}
	defer s.leave()
	s.w.breach("%s: mysqld was stopped politely", s.id)
	return nil
}

// Kill is SIGKILL.
func (s service) Kill(ctx context.Context) error {
	if err := s.enter(ctx, "Kill"); err != nil {
		return err
	}
	defer s.leave()
	s.crash()
	return nil
}

// gateUntil is how long the kernel keeps a gate open that was opened until deadline: guard and jiffies are taken off.
func gateUntil(deadline time.Duration) fsm.Instant { return deadline - 60*time.Millisecond }
