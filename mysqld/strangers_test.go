package mysqld

import (
	"net/netip"
	"slices"
	"testing"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

// TestStrangers: whoever acknowledges from an address of no member is found, and
// only then; a replica that does not acknowledge may be anywhere.
func TestStrangers(t *testing.T) { eachServer(t, testStrangers) }

func testStrangers(t *testing.T, k *kind) {
	source, _, at6 := twoAddresses(t, k) // that at IPv4 acknowledges, the other does not
	ctx := testContext(t)
	source.must(source.EnableSourceSemiSync(ctx, 1))
	both := []netip.Addr{loopback4, loopback6}
	strangers := func(all, counted []netip.Addr) []netip.Addr {
		t.Helper()
		found, err := source.Strangers(ctx, Members{all, counted})
		source.must(err)
		return found
	}
	for _, c := range []struct {
		what         string
		all, counted []netip.Addr
		want         []netip.Addr
	}{
		{"both are members", both, both[:1], nil},
		{"the one that does not acknowledge is outside", both[:1], both[:1], nil},
		{"the one that acknowledges is outside", both[1:], nil, both[:1]},
	} {
		if found := strangers(c.all, c.counted); !slices.Equal(found, c.want) {
			t.Errorf("%s: found %v, want %v", c.what, found, c.want)
		}
	}

	// Now the other acknowledges too.
	at6.must(at6.ReplicaSemiSync(ctx, true))
	source.eventually("two that acknowledge", func() bool { return source.status().SemiSyncClients == 2 })
	if found := strangers(both[:1], both[:1]); !slices.Equal(found, both[1:]) {
		t.Errorf("one of two is outside: found %v", found)
	}
	if found := strangers(both, both); found != nil {
		t.Errorf("both are members: found %v", found)
	}
	source.must(at6.StopReplication(ctx))
	source.eventually("one that acknowledges", func() bool { return strangers(both[:1], both[:1]) == nil })
}
