package vip

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// longLease is far beyond any test.
const longLease = time.Hour

// recorder keeps the events of a manager.
type recorder struct {
	mu   sync.Mutex
	seen []Event
}

func (r *recorder) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, e)
}

// count is how many events of a kind came.
func (r *recorder) count(k EventKind) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, e := range r.seen {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (r *recorder) await(t *testing.T, k EventKind) {
	t.Helper()
	eventually(t, "event "+k.String(), func() bool { return r.count(k) > 0 })
}

func testConfig(t *testing.T) Config {
	return Config{
		Addresses: []Address{{IP: vip4, Interface: "eth0"}, {IP: vip6, Interface: "eth0"}},
		MySQLPort: testPort,
		Logger:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// newManager makes a manager in the current namespace and ends it with the test.
func newManager(t *testing.T, cfg Config) (*Manager, *recorder) {
	t.Helper()
	rec := &recorder{}
	cfg.OnEvent = rec.add
	m, err := New(cfg)
	check(t, err, "making a manager")
	t.Cleanup(func() { check(t, m.Stop(), "stopping the manager") })
	if !cfg.userSpace && !m.KernelGate() {
		t.Skip("skipping, no nftables in this kernel")
	}
	return m, rec
}

func hold(t *testing.T, m *Manager, held bool) {
	t.Helper()
	check(t, m.SetHeld(context.Background(), held), "setting the wanted state")
}

func open(t *testing.T, m *Manager, lease time.Duration) {
	t.Helper()
	check(t, m.Open(Now()+lease), "opening the gate")
}

func remaining(t *testing.T, m *Manager) time.Duration {
	t.Helper()
	left, err := m.Remaining()
	check(t, err, "reading the lease")
	return left
}

func TestClosedGateAnswersResets(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	m, _ := newManager(t, testConfig(t))
	open(t, m, longLease)
	hold(t, m, true)
	for _, ip := range m.cfg.Addresses {
		client.mustReach(ip.IP, "db1")
		n.self.mustReach(ip.IP, "db1")
	}
	check(t, m.Close(), "closing")
	n.self.forget(client9) // the reset needs an ARP request, which must not name the address
	for _, ip := range m.cfg.Addresses {
		client.mustBeRefused(ip.IP)
		n.self.mustBeRefused(ip.IP) // over the loopback
	}
	open(t, m, longLease)
	client.mustReach(vip4, "db1")
}

func TestInsist(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, rec := newManager(t, testConfig(t))
	m.Insist(true)
	m.Announce()
	if n := rec.count(Announced); n != 0 {
		t.Fatalf("announced %d times what is not held", n)
	}
	open(t, m, longLease)
	hold(t, m, true)
	enough := 2 * 6 // two addresses; without insisting the sixth round comes after 33 s
	eventually(t, "repeated announcements", func() bool { return rec.count(Announced) >= enough })
	m.Insist(false)
	hold(t, m, false)
	m.Announce()
	st := m.State()
	if st.Held || st.Addresses[0].Announcements == 0 {
		t.Fatalf("state is %+v", st)
	}
}

// TestAddressOfSomebodyElse: a wider prefix of the host's own configuration is named, not removed.
func TestAddressOfSomebodyElse(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	m, rec := newManager(t, testConfig(t))
	n.self.addAddr("10.77.0.100/24")
	n.self.addAddr("fd77::100/64")
	open(t, m, longLease)
	hold(t, m, true)
	if err := m.SetHeld(context.Background(), false); err == nil {
		t.Fatal("letting go says nothing of the address that stays")
	}
	if n := rec.count(Repaired); n != 0 {
		t.Fatalf("%d repairs of an address that is there", n)
	}
}
