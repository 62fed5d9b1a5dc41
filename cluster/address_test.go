package cluster

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

var (
	_ Prober    = (*host)(nil)
	_ Database  = (*host)(nil)
	_ Addresser = address{}
	_ Service   = service{}
)

// address is a host seen as its Addresser.
type address struct{ *host }

// KernelGate is what a real host has.
func (address) KernelGate() bool { return true }

// Open is G1 and I7: a lease in hand, a barrier acknowledged in this run of mysqld, and nobody else's gate open.
func (a address) Open(deadline time.Duration) error {
	h := a.host
	if err := h.enter(context.Background(), "Open"); err != nil {
		return err
	}
	defer h.leave()
	if h.mode != modeWritable {
		h.w.breach("%s: the gate is opened while mysqld is %s", h.id, h.mode)
	}
	h.checkLease(deadline)
	h.checkBarrier("the gate is opened")
	for _, o := range h.w.sorted() {
		if o != h && o.gate > now() {
			h.w.breach("G1: %s opens its gate while that of %s is open for another %v", h.id, o.id, o.gate-now())
		}
	}
	until := gateUntil(deadline)
	if until <= now() {
		return errors.New("too late to open the gate")
	}
	h.gate = until
	h.opened++
	return nil
}

// checkLease: what the gate may rest on is a lease that was granted.
func (h *host) checkLease(deadline time.Duration) {
	if h.node == nil {
		return
	}
	l := h.node.holder
	l.mu.Lock()
	epoch, until := l.epoch, l.until
	l.mu.Unlock()
	if epoch == 0 || deadline > until {
		h.w.breach("%s: the gate is opened until %v, its lease of epoch %d ends at %v", h.id, deadline, epoch, until)
	}
}

func (h *host) checkBarrier(what string) {
	if h.barrier == 0 || h.barrierIn != h.run {
		h.w.breach("%s: %s without a barrier acknowledged in this run of mysqld", h.id, what)
		return
	}
	if h.node == nil {
		return
	}
	if epoch, _ := h.node.holder.valid(); epoch != h.barrier {
		h.w.breach("%s: %s with the barrier of epoch %d and the lease of epoch %d", h.id, what, h.barrier, epoch)
	}
}

// Renew extends a gate that is open; the kernel refuses to revive one that has closed.
func (a address) Renew(deadline time.Duration) error {
	h := a.host
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.fails["Renew"] != nil {
		return h.fails["Renew"]
	}
	if h.gate <= now() {
		return errors.New("the gate has closed")
	}
	h.gate = max(h.gate, gateUntil(deadline))
	return nil
}

func (a address) Close() error {
	if err := a.enter(context.Background(), "Close"); err != nil {
		return err
	}
	defer a.leave()
	a.gate = 0
	return nil
}

func (a address) Remaining() (time.Duration, error) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return max(0, a.gate-now()), nil
}

func (a address) SetHeld(ctx context.Context, held bool) error {
	name := "Release"
	if held {
		name = "Take"
	}
	if err := a.enter(ctx, name); err != nil {
		return err
	}
	defer a.leave()
	if held && a.opened == 0 {
		a.w.breach("%s: takes the address and never opened its gate", a.id)
	}
	a.held = held
	if !held && a.w.answers == a.host {
		a.w.answers = nil
	}
	return nil
}

// Announce makes clients come here, and the other holders hear of it.
func (a address) Announce() {
	if err := a.enter(context.Background(), "Announce"); err != nil {
		return
	}
	defer a.leave()
	if !a.held {
		a.w.breach("%s: announces an address it does not hold", a.id)
	}
	a.w.answers = a.host
	a.announced++
	for _, o := range a.w.sorted() {
		if o != a.host && o.held && o.claimed != nil {
			go o.claimed(a.w.vip)
		}
	}
}

func (a address) Insist(on bool) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.insists = on
}

// Sever destroys the clients' sockets: before the gate is closed they would be back at once.
func (a address) Sever() (int, error) {
	if err := a.enter(context.Background(), "Sever"); err != nil {
		return 0, err
	}
	defer a.leave()
	if a.gate > now() {
		a.w.breach("%s: clients are cut while the gate is open", a.id)
	}
	return 1, nil
}

func (a address) SeverPeer(netip.Addr) (int, error) {
	if err := a.enter(context.Background(), "SeverPeer"); err != nil {
		return 0, err
	}
	defer a.leave()
	return 1, nil
}

func (a address) Block(peer netip.Addr) error {
	if err := a.enter(context.Background(), "Block"); err != nil {
		return err
	}
	defer a.leave()
	a.blocked[peer] = true
	return nil
}

func (a address) Unblock(peer netip.Addr) error {
	if err := a.enter(context.Background(), "Unblock"); err != nil {
		return err
	}
	defer a.leave()
	delete(a.blocked, peer)
	return nil
}

func (a address) Blocked() ([]netip.Addr, error) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	var out []netip.Addr
	for p := range a.blocked {
		out = append(out, p)
	}
	return out, nil
}

func (a address) Addresses() []Address {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return []Address{{IP: a.w.vip, Held: a.held, Announcements: uint64(a.announced)}}
}

func (a address) OnForeignClaim(f func(netip.Addr)) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.claimed = f
}

// Destroy is for a clean stop, after the address was given up. Blocks and a gated port stay.
func (a address) Destroy(ctx context.Context) error {
	if err := a.enter(ctx, "Destroy"); err != nil {
		return err
	}
	defer a.leave()
	if a.held || a.gate > now() {
		a.w.breach("%s: leaves the host with the address or an open gate", a.id)
	}
	return nil
}

// promised reads what the node promised from the disk: memory does not count after a crash.
func (h *host) promised() Promises {
	if h.node == nil {
		return Promises{}
	}
	p, err := openPromises(h.node.cfg.DataDir)
	if err != nil {
		h.w.breach("%s: promises cannot be read: %v", h.id, err)
		return Promises{}
	}
	return p.get()
}
