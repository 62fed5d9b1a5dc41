package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// world is the outside of every node of a test: one fake host for each, whose servers replicate from each other, acknowledge and forget as real ones
// do. It is strict: whatever would break a guarantee on a real host is a breach, and a breach fails the test.
type world struct {
	mu       sync.Mutex
	hosts    map[fsm.NodeID]*host
	vip      netip.Addr
	answers  *host              // whom the last announcement named
	acked    []txn              // every transaction a client was told is committed
	changed  chan struct{}      // closed and replaced at every change
	noted    map[EventName]bool // in the list of enabled events, which is replicated
	breaches []string
	report   func(breach string)
}

// txn is one transaction. A barrier row carries its epoch, a client's write carries 0.
type txn struct {
	server uint32
	seq    uint64
	epoch  uint64
	serial uint64 // makes two writes with the same position different, as they are in two histories
}

func (x txn) String() string { return fmt.Sprintf("0-%d-%d", x.server, x.seq) }

// newWorld makes hosts db1, db2, ... of which each breach fails the test.
func newWorld(t testing.TB, hosts int) *world {
	w := &world{hosts: map[fsm.NodeID]*host{}, vip: netip.MustParseAddr("127.99.99.99"), changed: make(chan struct{}), noted: map[EventName]bool{}}
	w.report = func(breach string) { t.Errorf("breach: %s", breach) }
	for i := range hosts {
		id := fsm.NodeID(fmt.Sprintf("db%d", i+1))
		w.hosts[id] = &host{w: w, id: id, addr: netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), port: 3306, server: uint32(i + 1), reachable: true,
			state: fsm.ServerUp, mode: modeReadOnly, run: 1, ackedBy: map[fsm.NodeID]uint64{}, blocked: map[netip.Addr]bool{},
			fails: map[string]error{}, holds: map[string]*hold{}, events: map[EventName]EventState{}, notify: make(chan struct{}, 1)}
	}
	return w
}

// breach records what must never happen. The caller holds mu.
func (w *world) breach(format string, args ...any) {
	b := fmt.Sprintf(format, args...)
	if !slices.Contains(w.breaches, b) {
		w.breaches = append(w.breaches, b)
		w.report(b)
	}
}

func (w *world) at(addr netip.Addr) *host {
	for _, h := range w.hosts {
		if h.addr == addr {
			return h
		}
	}
	return nil
}

// touch lets everything that follows from a change happen, and tells everybody. The caller holds mu.
func (w *world) touch() {
	for _, h := range w.sorted() {
		w.replicate(h)
	}
	w.oneWriter()
	close(w.changed)
	w.changed = make(chan struct{})
	for _, h := range w.hosts {
		if h.changed() {
			wake(h.notify)
		}
	}
}

func (w *world) sorted() []*host {
	var out []*host
	for _, h := range w.hosts {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b *host) int { return int(a.server) - int(b.server) })
	return out
}

// oneWriter is G1: at no instant do two hosts let clients write.
func (w *world) oneWriter() {
	var open []fsm.NodeID
	for _, h := range w.sorted() {
		if h.serves() {
			open = append(open, h.id)
		}
	}
	if len(open) > 1 {
		w.breach("G1: %v take writes at the same instant", open)
	}
}

// until waits for a condition, which is looked at under mu whenever something changed.
func (w *world) until(ctx context.Context, cond func() bool) error {
	for {
		w.mu.Lock()
		ok, changed := cond(), w.changed
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// connected: packets of replication go from one host to the other.
func (w *world) connected(h *host) *host {
	src := w.at(h.source)
	if src == nil || !h.io || h.state != fsm.ServerUp || src.state != fsm.ServerUp || !h.reachable || !src.reachable || h.blocked[src.addr] || src.blocked[h.addr] {
		return nil
	}
	return src
}

// replicate brings to one host what its source has and it lacks; what arrives over a live connection is acknowledged once, then and there.
func (w *world) replicate(h *host) {
	if src := w.connected(h); src != nil {
		if !h.within(src) {
			if h.errant {
				h.io = false
				return
			}
			w.breach("%s replicates from %s and has transactions that %s lacks: %s, %s", h.id, src.id, src.id, h.received(), place(src.log))
			h.io = false
			return
		}
		if missing := src.log[len(h.log)+len(h.relay):]; len(missing) > 0 {
			h.relay = append(h.relay, missing...)
			if h.ack {
				src.ackedBy[h.id] = missing[len(missing)-1].seq
			}
		}
	}
	if h.state == fsm.ServerUp && h.sql && !h.stalled {
		h.log, h.relay = append(h.log, h.relay...), nil
	}
}

// last is the newest transaction received, executed or not.
func (h *host) last() txn {
	switch {
	case len(h.relay) > 0:
		return h.relay[len(h.relay)-1]
	case len(h.log) > 0:
		return h.log[len(h.log)-1]
	}
	return txn{}
}

func (h *host) received() string {
	if len(h.log)+len(h.relay) == 0 {
		return ""
	}
	return h.last().String()
}

// within tells whether everything received is in another host's history. Histories are copied from each other and transactions are unique: those
// that agree on one agree on all before it.
func (h *host) within(o *host) bool {
	n := len(h.log) + len(h.relay)
	return n == 0 || n <= len(o.log) && o.log[n-1] == h.last()
}

func place(log []txn) string {
	if len(log) == 0 {
		return ""
	}
	return log[len(log)-1].String()
}

var errReset = errors.New("connection reset by peer")

// serials makes every transaction of a test program a different one.
var serials struct {
	sync.Mutex
	last uint64
}

func nextSerial() uint64 {
	serials.Lock()
	defer serials.Unlock()
	serials.last++
	return serials.last
}

// commit writes a transaction and waits for its acknowledgements. A write whose client gives up stays in the log and goes on waiting: nobody knows
// whether it counts.
func (w *world) commit(ctx context.Context, h *host, epoch uint64) (txn, error) {
	w.mu.Lock()
	x := txn{server: h.server, seq: uint64(len(h.log) + 1), epoch: epoch, serial: nextSerial()}
	h.log = append(h.log, x)
	h.pending = append(h.pending, x.seq)
	run := h.run
	w.touch()
	w.mu.Unlock()
	alive := true
	err := w.until(ctx, func() bool {
		alive = h.run == run && h.state == fsm.ServerUp
		return !alive || h.acknowledged(x.seq)
	})
	if err == nil && !alive {
		err = errReset
	}
	return x, err
}

// write is one client's write through the address: a reset when nobody serves there, nil only when the commit was acknowledged.
func (w *world) write(ctx context.Context) error {
	w.mu.Lock()
	w.oneWriter()
	h := w.answers
	serves := h != nil && h.held && h.serves()
	w.mu.Unlock()
	if !serves {
		return errReset
	}
	x, err := w.commit(ctx, h, 0)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = append(w.acked, x)
	return nil
}

// clients writes through the address until the returned function is called or the test ends, and goes on over every failure.
func (w *world) clients(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			c, done := context.WithTimeout(ctx, 200*time.Millisecond)
			// A reset or an unknown outcome is what clients of a failover see; acknowledged writes are counted by write itself.
			_ = w.write(c)
			done()
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func (w *world) ackedCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// lost is G2: the acknowledged transactions that a host does not hold.
func (w *world) lost(h *host) []txn {
	w.mu.Lock()
	defer w.mu.Unlock()
	have := map[txn]bool{}
	for _, x := range h.log {
		have[x] = true
	}
	var out []txn
	for _, x := range w.acked {
		if !have[x] {
			out = append(out, x)
		}
	}
	return out
}
