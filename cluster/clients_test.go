package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// someClients are n different connections, of both families.
func someClients(n int) []Connection {
	vip4, vip6 := netip.MustParseAddrPort("10.77.0.100:3306"), netip.MustParseAddrPort("[fd77::100]:3306")
	out := make([]Connection, 0, n)
	for i := range n {
		c := Connection{vip4, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 1, byte(i % 50)}), uint16(1+i))}
		if i%2 == 1 {
			c = Connection{vip6, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 0x77, 14: byte(i >> 8), 15: byte(i)}), 40000)}
		}
		out = append(out, c)
	}
	return out
}

// TestWhoLeavesMayStayInTheListAWhile: while nobody comes no list is made, and in the end one is.
func TestWhoLeavesMayStayInTheListAWhile(t *testing.T) {
	u := newUnit(t)
	f := newFakeClients()
	u.cfg.Clients = f
	u.steady("db1")
	u.serving()
	f.set(someClients(3)...)
	if !u.clients.look() {
		t.Fatal("three clients are no news")
	}
	f.set(someClients(2)...)
	if u.clients.look() || f.looks != 1 {
		t.Errorf("%d looks for nobody who came", f.looks)
	}
	f.set(someClients(4)...)
	if !u.clients.look() || u.clients.read().Shared != 4 {
		t.Errorf("two came; shared are %+v", u.clients.read())
	}
	f.set()
	u.clients.looked.at -= shareAnyway
	if !u.clients.look() || u.clients.read().Shared != 0 {
		t.Errorf("all have left; shared are %+v", u.clients.read())
	}
}

func sorted(list []Connection) []Connection {
	out := slices.Clone(list)
	packClients(out) // sorts
	return out
}

func TestClientListsComeBack(t *testing.T) {
	for _, n := range []int{0, 1, 2, 300, maxClients} {
		list := someClients(n)
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		packed := packClients(slices.Clone(list))
		got, err := unpackClients(packed)
		if err != nil || !slices.Equal(got, sorted(list)) {
			t.Fatalf("%d connections became %d, %v", n, len(got), err)
		}
		slices.Reverse(list)
		if again := packClients(append(list, list...)); !bytes.Equal(again, packed) {
			t.Errorf("%d connections in another order and twice are other bytes", n)
		}
	}
}

// TestTheLongestListFitsARequest: each client has an IPv6 address of its own.
func TestTheLongestListFitsARequest(t *testing.T) {
	list := make([]Connection, maxClients)
	for i := range list {
		a := [16]byte{0xfd, 0x77, 12: 1, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		list[i] = Connection{netip.MustParseAddrPort("[fd77::100]:3306"), netip.AddrPortFrom(netip.AddrFrom16(a), 65535)}
	}
	body, err := json.Marshal(clientsRequest{Epoch: 1 << 62, Run: run, Sequence: 1 << 62, List: packClients(list)})
	if err != nil || len(body) > rpc.MaxBody {
		t.Errorf("a request has %d bytes, %v; at most %d are taken", len(body), err, rpc.MaxBody)
	}
	if _, err := unpackClients(packClients(append(list, someClients(1)...))); !errors.Is(err, errClientList) {
		t.Errorf("one more than the bound: %v", err)
	}
}

func FuzzClientList(f *testing.F) {
	packed := packClients(someClients(9))
	f.Add(packed)
	f.Add(packed[:len(packed)-1])
	f.Add([]byte{4, 10, 77, 0, 100, 0xea, 0x19, 0xff, 0xff, 0xff, 0xff, 0x0f}) // four billion hosts
	f.Add(append([]byte{0}, packed...))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := unpackClients(b)
		if err != nil {
			return
		}
		again, err := unpackClients(packClients(slices.Clone(list)))
		if want := slices.Compact(sorted(list)); err != nil || len(again) > len(want) || len(list) > maxClients {
			t.Fatalf("%v became %v, %v", list, again, err)
		}
	})
}

// said is a list that a node sent.
func said(epoch uint64, run string, sequence uint64, list ...Connection) clientsRequest {
	return clientsRequest{Epoch: epoch, Run: run, Sequence: sequence, List: packClients(slices.Clone(list))}
}

// TestOnlyNewerListsAreKept: what is late is dropped, by epoch, then by sequence within one run of hbd.
func TestOnlyNewerListsAreKept(t *testing.T) {
	c := newClients(nil)
	all := someClients(9)
	for i, step := range []struct {
		in    clientsRequest
		holds int
	}{
		{said(2, "r1", 5, all[:1]...), 1},
		{said(2, "r1", 4, all[:2]...), 1}, // late
		{said(1, "r0", 9, all[:3]...), 1}, // late by an epoch
		{said(2, "r1", 6, all[:4]...), 4},
		{said(2, "r1", 7), 0},             // all of them have gone
		{said(2, "r2", 1, all[:5]...), 5}, // its hbd was restarted
		{said(3, "r2", 0, all[:6]...), 6},
	} {
		if err := c.keep("db1", step.in); err != nil {
			t.Fatal(err)
		}
		if got := c.lists["db1"].count; got != step.holds {
			t.Errorf("step %d: %d connections are kept, want %d", i, got, step.holds)
		}
	}
	if err := c.keep("db1", clientsRequest{Epoch: 9, List: []byte{1}}); err == nil || c.lists["db1"].count != 6 {
		t.Errorf("an unreadable list: %v, kept are %d", err, c.lists["db1"].count)
	}
}

// TestListsAreTakenOnce: those of every epoch before, and not of a later one.
func TestListsAreTakenOnce(t *testing.T) {
	c := newClients(nil)
	all := someClients(6)
	for _, in := range []struct {
		from fsm.NodeID
		said clientsRequest
	}{{"db1", said(1, "a", 1, all[:2]...)}, {"db2", said(2, "b", 1, all[2:5]...)}, {"db4", said(7, "c", 1, all[5])}} {
		if err := c.keep(in.from, in.said); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.take(3)
	if err != nil || !slices.Equal(sorted(got), sorted(all[:5])) {
		t.Errorf("took %v, %v", got, err)
	}
	if again, _ := c.take(3); len(again) != 0 {
		t.Errorf("took %v again", again)
	}
	if later, _ := c.take(8); len(later) != 1 {
		t.Errorf("the list of a later epoch is %v", later)
	}
}

// TestOldListsAreForgotten once a newer epoch has lasted for a while.
func TestOldListsAreForgotten(t *testing.T) {
	c := newClients(nil)
	all := someClients(3)
	for id, epoch := range map[fsm.NodeID]uint64{"db1": 1, "db2": 2} {
		if err := c.keep(id, said(epoch, "a", 1, all...)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.lists) != 2 {
		t.Fatalf("kept are %d lists", len(c.lists))
	}
	old := c.lists["db1"]
	old.at -= 2 * oldListsFor
	c.lists["db1"] = old
	if err := c.keep("db2", said(2, "a", 2, all...)); err != nil {
		t.Fatal(err)
	}
	if _, found := c.lists["db1"]; found {
		t.Error("the list of an epoch long ended is kept")
	}
}

// fakeClients is a host's connections.
type fakeClients struct {
	mu       sync.Mutex
	here     []Connection
	accepted uint64
	looks    int
	hold     func() // called within a look
	tickled  chan []Connection
}

func newFakeClients() *fakeClients { return &fakeClients{tickled: make(chan []Connection, 4)} }

func (f *fakeClients) set(list ...Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range list {
		if !slices.Contains(f.here, c) {
			f.accepted++
		}
	}
	f.here = list
}

func (f *fakeClients) Accepted() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted, nil
}

func (f *fakeClients) Connections() ([]Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	if f.hold != nil {
		f.hold()
	}
	return slices.Clone(f.here), nil
}

func (f *fakeClients) Tickle(_ context.Context, of []Connection) (int, error) {
	f.tickled <- of
	return len(of), nil
}

// TestOnlyAHolderLooks: what ends with the lease must not make the others forget.
func TestOnlyAHolderLooks(t *testing.T) {
	u := newUnit(t)
	f := newFakeClients()
	u.cfg.Clients = f
	f.set(someClients(3)...)
	if u.clients.look() || f.looks > 0 {
		t.Error("a node without a role looked")
	}
	u.steady("db1")
	u.serving()
	if !u.clients.look() || u.clients.read().Shared != 3 {
		t.Errorf("shared are %+v", u.clients.read())
	}
	if u.clients.look() {
		t.Error("the same connections are news")
	}
	// The lease ends while it looks, and with it the connections.
	f.set()
	u.clients.looked.at -= shareAnyway
	f.hold = u.holder.drop
	if u.clients.look() || u.clients.newest.Sequence != 1 {
		t.Errorf("it tells of connections cut at the end of the lease: sequence %d", u.clients.newest.Sequence)
	}
	if got := u.clients.read(); got.Shared != 0 {
		t.Errorf("without a lease it counts %+v", got)
	}
	f.hold = nil
	u.lease(awaitLimit)
	f.set(someClients(maxClients + 5)...)
	if !u.clients.look() {
		t.Error("more connections are no news")
	}
	if got := u.clients.read(); got.Shared != maxClients || got.Unshared != 5 {
		t.Errorf("beyond the bound it counts %+v", got)
	}
}

// TestListsTravelAndAreUsed: real nodes over loopback; the primary's host dies, its successor provokes the clients that the primary had, and nobody else does.
func TestListsTravelAndAreUsed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, nil)
	fakes := map[fsm.NodeID]*fakeClients{}
	for _, m := range c.nodes {
		fakes[m.id] = newFakeClients()
	}
	c.clients = func(id fsm.NodeID) Clients { return fakes[id] }
	first, then := someClients(4), someClients(7)[2:]
	fakes["db1"].set(first...)
	c.bootstrap()
	knows := func(want int) func() bool {
		return func() bool {
			return c.node("db2").clients.read().Known == want && c.node("db3").clients.read().Known == want
		}
	}
	await(t, "the replicas know the primary's clients", knows(len(first)))
	fakes["db1"].set(then...)
	await(t, "the replicas know of a change", knows(len(then)))
	// A replica that forgot is told again.
	c.node("db3").crash()
	c.node("db3").start()
	await(t, "a restarted replica knows them too", knows(len(then)))
	c.healthy("db1")

	db1 := c.node("db1")
	db1.crash()
	db1.host.change(func() { db1.host.reachable = false })
	successor := c.awaitIncident(c.node("db2"), fsm.KindTakeover).To
	await(t, "the count of what was provoked", func() bool { return c.node(successor).clients.read().Tickled == uint64(len(then)) })
	if got := <-fakes[successor].tickled; !slices.Equal(sorted(got), sorted(then)) {
		t.Errorf("it provoked %v, want %v", got, then)
	}
	for id, f := range fakes {
		select {
		case got := <-f.tickled:
			t.Errorf("%s provoked %v as well", id, got)
		default:
		}
	}
}
