//go:build integration

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/sandbox"
)

// TestAddress: somebody meddles with the virtual address. No reason to fail over.
func TestAddress(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "the address deleted by hand is put back", func(s *scenario) {
		s.fault("drop-vip", s.primary())
		s.writesGoOn()
		if !s.holdsAddress(s.primary()) {
			s.Errorf("clients write, but %s does not have the address", s.primary())
		}
		s.nothingHappened()
	})

	g.run(t, "the link goes down and up", func(s *scenario) {
		exit, out, err := s.Command(s.ctx, s.primary(), "sh", "-c", "ip link set eth0 down && ip link set eth0 up")
		if err != nil || exit != 0 {
			s.Fatalf("exit %d, %v: %s", exit, err, out)
		}
		s.writesGoOn()
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
		s.fault("start-host", s.primary())
	})

	g.run(t, "a foreign claim is reported and defended", func(s *scenario) {
		before := s.metric(s.primary(), "highbase_vip_conflicts_total")
		s.claim(clientHost) // a database host's own hbd lets no such frame out
		s.writesGoOn()
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		err := Await(ctx, "the claim to be reported", func(context.Context) (bool, string) {
			now := s.metric(s.primary(), "highbase_vip_conflicts_total")
			return now > before, fmt.Sprintf("highbase_vip_conflicts_total %v, was %v", now, before)
		})
		if err != nil {
			s.Error(err)
		}
		s.nothingHappened()
	})
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
