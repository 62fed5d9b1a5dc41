package vip

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"
)

var testMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}

func TestARPForms(t *testing.T) {
	frames := arpAnnouncements(vip4, testMAC)
	if len(frames) != 2 {
		t.Fatalf("%d forms, want request and reply", len(frames))
	}
	for i, want := range []arpPacket{
		{arpRequest, testMAC, vip4, make(net.HardwareAddr, 6), vip4},
		{arpReply, testMAC, vip4, testMAC, vip4},
	} {
		got, ok := parseARP(frames[i])
		if !ok || got.op != want.op || got.senderIP != want.senderIP || got.targetIP != want.targetIP ||
			!bytes.Equal(got.senderMAC, want.senderMAC) || !bytes.Equal(got.targetMAC, want.targetMAC) {
			t.Errorf("form %d is %+v, want %+v", i, got, want)
		}
	}
	probe, ok := parseARP(arpProbe(vip4, testMAC))
	if !ok || !probe.senderIP.IsUnspecified() || probe.targetIP != vip4 {
		t.Errorf("probe is %+v: it must not claim the address", probe)
	}
}

func TestNDForms(t *testing.T) {
	b, err := ndAnnouncement(vip6, testMAC)
	check(t, err, "encoding")
	ip, mac, ok := parseNA(b)
	if !ok || ip != vip6 || !bytes.Equal(mac, testMAC) {
		t.Errorf("announcement is of %s at %s, %v", ip, mac, ok)
	}
	const flags, override = etherHeaderLen + ip6HeaderLen + 4, 0x20
	if b[flags] != override {
		t.Errorf("flags are %#x, want override only", b[flags])
	}
	probe, err := ndProbe(vip6, testMAC)
	check(t, err, "encoding")
	if _, _, ok := parseNA(probe); ok {
		t.Error("a probe was read as a claim")
	}
	if want := []byte{0x33, 0x33, 0xff, 0, 1, 0}; !bytes.Equal(probe[:6], want) {
		t.Errorf("probe goes to %x, want %x", probe[:6], want)
	}
}

func FuzzFrames(f *testing.F) {
	for _, b := range arpAnnouncements(vip4, testMAC) {
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	na, err := ndAnnouncement(vip6, testMAC)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(na)
	f.Add(na[:len(na)-9]) // cut within the option
	lying := bytes.Clone(na)
	lying[etherHeaderLen+4], lying[etherHeaderLen+5] = 0xff, 0xff // payload length
	f.Add(lying)
	empty := bytes.Clone(na)
	empty[etherHeaderLen+ip6HeaderLen+24+1] = 0 // option of length 0
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseARP(b); ok {
			if !p.senderIP.Is4() || len(p.senderMAC) != 6 {
				t.Fatalf("accepted %+v", p)
			}
			again, ok := parseARP(p.frame())
			if !ok || again.senderIP != p.senderIP || again.op != p.op || !bytes.Equal(again.senderMAC, p.senderMAC) {
				t.Fatalf("%+v became %+v", p, again)
			}
		}
		if ip, mac, ok := parseNA(b); ok && (!ip.Is6() || len(mac) != 6) {
			t.Fatalf("accepted %s at %s", ip, mac)
		}
	})
}

// FuzzNetlink feeds the parsers of the kernel's answers.
func FuzzNetlink(f *testing.F) {
	f.Add([]byte(attrs(nil).str(1, "x").nest(2, attrs(nil).u32(3, 4))))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseElement(b)
		_, _, _ = chainLine(1, b)
		_, _, _ = ruleLine(1, b)
		_, _ = parseSocket(b)
		_, _ = bytesReceived(b)
		_ = eachMessage(b, func(_, _ uint16, _ uint32, _ []byte) error { return nil })
	})
}

func TestSchedule(t *testing.T) {
	var s schedule
	if _, ok := s.next(); ok {
		t.Fatal("the zero value announces")
	}
	const start = time.Hour
	s.burst(start)
	var got []time.Duration
	for range 7 {
		due, ok := s.next()
		if !ok {
			t.Fatal("the burst ended")
		}
		got = append(got, due-start)
		s.sent(due)
	}
	ms := time.Millisecond
	want := []time.Duration{0, 100 * ms, 1100 * ms, 2200 * ms, 3300 * ms, 33300 * ms, 63300 * ms}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("announced at %v, want %v", got, want)
		}
	}
	s.insist = true
	if due, _ := s.next(); due != s.last+insistEvery {
		t.Errorf("insisting: due %s after the last", due-s.last)
	}
	s.stop()
	if _, ok := s.next(); ok {
		t.Error("a stopped schedule announces")
	}
}

func TestTimeoutKeepsItsMargins(t *testing.T) {
	const guard = 40 * time.Millisecond
	for _, tc := range []struct {
		left, want time.Duration
	}{{1060 * time.Millisecond, time.Second}, {70 * time.Millisecond, 10 * time.Millisecond}, {69 * time.Millisecond, 0}, {-time.Second, 0}} {
		got, err := timeoutFor(time.Hour+tc.left, time.Hour, guard)
		if got != tc.want || (err != nil) != (tc.want == 0) {
			t.Errorf("%s left: timeout %s, %v; want %s", tc.left, got, err, tc.want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Addresses: []Address{{vip4, "eth0"}}, MySQLPort: 3306}
	if _, err := good.withDefaults(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"guard too short":   func(c *Config) { c.Guard = time.Millisecond },
		"guard too long":    func(c *Config) { c.Guard = time.Second },
		"lifetime":          func(c *Config) { c.AddressLifetime = time.Millisecond },
		"no port":           func(c *Config) { c.MySQLPort = 0 },
		"instance":          func(c *Config) { c.Instance = "a b" },
		"no interface":      func(c *Config) { c.Addresses = []Address{{vip4, ""}} },
		"twice":             func(c *Config) { c.Addresses = []Address{{vip4, "eth0"}, {vip4, "eth1"}} },
		"invalid address":   func(c *Config) { c.Addresses = []Address{{netip.Addr{}, "eth0"}} },
		"multicast address": func(c *Config) { c.Addresses = []Address{{netip.MustParseAddr("224.0.0.1"), "eth0"}} },
	} {
		c := good
		spoil(&c)
		if _, err := c.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
