//go:build integration

package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// burst is how many announcements follow a change: more than routine ones can add up to while a test has patience.
const burst = 5

// TestAddress: somebody meddles with the virtual address. No reason to fail over.
func TestAddress(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "the address deleted by hand is put back", func(s *scenario) {
		repaired := s.metric(s.primary(), "highbase_vip_repairs_total")
		announced := s.settled(s.primary(), "highbase_vip_announcements_total")
		s.fault("drop-vip", s.primary())
		s.rises(s.primary(), "highbase_vip_repairs_total", repaired, 1)
		s.rises(s.primary(), "highbase_vip_announcements_total", announced, burst)
		s.writesGoOn()
		if !s.holdsAddress(s.primary()) {
			s.Errorf("clients write, but %s does not have the address", s.primary())
		}
		s.nothingHappened()
	})

	g.run(t, "the link goes down and up", func(s *scenario) {
		announced := s.settled(s.primary(), "highbase_vip_announcements_total")
		// In one process: while the link is down another node may rightly take over.
		s.byHand(s.primary(), "printf 'link set eth0 down\\nlink set eth0 up\\n' | ip -batch -")
		s.rises(s.primary(), "highbase_vip_announcements_total", announced, burst)
		s.writesGoOn()
		if !s.holdsAddress(s.primary()) {
			s.Errorf("clients write, but %s does not have the address", s.primary())
		}
		s.nothingHappened()
	})

	g.run(t, "clients follow the announcement alone", func(s *scenario) {
		// An entry that stays reachable for an hour is never asked for again: only an
		// announcement can move this client to another host.
		const reachable = "/proc/sys/net/ipv4/neigh/eth0/base_reachable_time_ms"
		s.byHand(clientHost, "cat "+reachable+" > /tmp/"+s.Facts.Name+".was && echo 3600000 > "+reachable+" && ip neigh flush to "+s.Facts.VIP)
		defer s.byHand(clientHost, "cat /tmp/"+s.Facts.Name+".was > "+reachable+" && rm /tmp/"+s.Facts.Name+".was")
		s.writesGoOn()
		s.fault("kill-host", s.primary())
		s.awaitNewPrimary(s.primary())
		s.awaitIncident(api.KindTakeover)
		s.fault("start-host", s.primary())
	})

	g.run(t, "a foreign claim is reported and defended", func(s *scenario) {
		// The claim leaves from the client (a database host's own hbd lets no such frame
		// out), which does not hear itself: whom it deceives is a replica, whose sampler
		// talks to the address all the while and so has an entry to be spoiled.
		holder, deceived := s.primary(), s.others(s.primary())[0]
		mac := s.macOf(holder)
		s.heldTrue(deceived, mac)
		heard, stop := s.watchBeliefs(deceived)
		defer stop()
		announced := s.settled(holder, "highbase_vip_announcements_total")
		reported := s.metric(holder, "highbase_vip_conflicts_total")
		// Several, each contradicted before the next: a routine announcement is no defence.
		for range 4 {
			s.claim(clientHost)
			reported = s.rises(holder, "highbase_vip_conflicts_total", reported, 1)
			announced = s.rises(holder, "highbase_vip_announcements_total", announced, 1)
			s.heldTrue(deceived, mac)
		}
		s.deceivedAndCorrected(heard.about(s.Facts.VIP), mac)
		s.writesGoOn()
		s.nothingHappened()
	})
}

// deceivedAndCorrected demands that a claim did spoil the entry, or it proves nothing,
// and that the holder's address was the last word.
func (s *scenario) deceivedAndCorrected(lines []string, mac string) {
	s.Helper()
	spoiled, last := 0, ""
	for _, line := range lines {
		switch {
		case strings.Contains(line, foreignMAC.String()):
			spoiled++
			last = line
		case strings.Contains(line, mac):
			last = line
		}
	}
	if spoiled == 0 {
		s.Errorf("no claim was believed, so no defence was needed: heard %q", lines)
	}
	if !strings.Contains(last, mac) {
		s.Errorf("the last word about the address is %q, not the holder's %s", last, mac)
	}
	s.Logf("%d claims were believed, the last word is %q", spoiled, last)
}

// Environment of the test binary when it is run on a host to claim an address.
const (
	claimAddress   = "HIGHBASE_CLAIM_ADDRESS"
	claimInterface = "HIGHBASE_CLAIM_INTERFACE"
)

// foreignMAC belongs to nobody: what is sent there is lost.
var foreignMAC = net.HardwareAddr{0x02, 0xbd, 0, 0, 0, 0x66}

// claim announces the address for a machine that does not exist, from a host that is
// not the holder and whose hbd does not stop it; the other hosts believe it until the holder contradicts.
func (s *scenario) claim(host string) {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	exit, out, err := s.Command(s.ctx, host, "env", claimAddress+"="+s.Facts.VIP, claimInterface+"=eth0", self)
	if err != nil || exit != 0 {
		s.Fatalf("claiming %s from %s: exit %d, %v: %s", s.Facts.VIP, host, exit, err, out)
	}
}

// claimIfAsked makes this process the claimant; called by TestMain.
func claimIfAsked() {
	address := os.Getenv(claimAddress)
	if address == "" {
		return
	}
	if err := announce(os.Getenv(claimInterface), net.ParseIP(address), foreignMAC); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// metric adds up a metric's samples on a node; a metric that is not there fails the test.
func (s *scenario) metric(host, name string) float64 {
	s.Helper()
	h, ok := s.Host(host)
	if !ok {
		s.Fatalf("no host %s", host)
	}
	transport := &http.Transport{DialContext: s.dialer(clientHost)}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + net.JoinHostPort(h.Address, "7949") + "/metrics")
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	found, sum := false, 0.0
	for line := range strings.Lines(string(body)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			s.Fatalf("reading %q: %v", line, err)
		}
		found, sum = true, sum+v
	}
	if !found {
		s.Fatalf("%s has no metric %s", host, name)
	}
	return sum
}
