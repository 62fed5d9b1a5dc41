//go:build integration

package integration

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// settled waits until a counter of a host has stood still for longer than any gap within
// a burst of announcements (1.1 s): what it rises by afterwards comes of the next fault,
// not of the last change of the primary. It returns the value.
func (s *scenario) settled(host, name string) float64 {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	value, since := s.metric(host, name), s.load.Now()
	err := Await(ctx, name+" of "+host+" to stand still", func(context.Context) (bool, string) {
		if now := s.metric(host, name); now != value {
			value, since = now, s.load.Now()
		}
		return s.load.Now()-since > 2*time.Second, fmt.Sprintf("now %v", value)
	})
	if err != nil {
		s.Fatal(err)
	}
	return value
}

// rises waits until a counter of a host has risen by at least n above from, and returns it.
func (s *scenario) rises(host, name string, from, n float64) float64 {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var value float64
	err := Await(ctx, fmt.Sprintf("%s of %s to rise by %v", name, host, n), func(context.Context) (bool, string) {
		value = s.metric(host, name)
		return value >= from+n, fmt.Sprintf("%v, was %v", value, from)
	})
	if err != nil {
		s.Fatal(err)
	}
	return value
}

// macOf asks a host for the hardware address of its interface.
func (s *scenario) macOf(host string) string {
	s.Helper()
	exit, out, err := s.Command(s.ctx, host, "ip", "-o", "link", "show", "eth0")
	_, rest, found := strings.Cut(out, "link/ether ")
	mac, _, _ := strings.Cut(rest, " ")
	if err != nil || exit != 0 || !found {
		s.Fatalf("asking %s for its MAC: exit %d, %v: %s", host, exit, err, out)
	}
	return mac
}

// neighbour is what a host believes about the virtual address now, in the words of ip.
func (s *scenario) neighbour(host string) string {
	s.Helper()
	exit, out, err := s.Command(s.ctx, host, "ip", "neigh", "show", "to", s.Facts.VIP, "dev", "eth0")
	if err != nil || exit != 0 {
		s.Fatalf("asking %s for its neighbours: exit %d, %v: %s", host, exit, err, out)
	}
	return strings.TrimSpace(out)
}

// beliefs collects every change of a host's neighbour entry for the virtual address: the
// holder contradicts a claim within a millisecond, no look from time to time would see it.
type beliefs struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write takes what `ip monitor` prints.
func (b *beliefs) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// about are the lines that speak of address, oldest first.
func (b *beliefs) about(address string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.text.String()) {
		if strings.HasPrefix(line, address+" ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// deleted are the lines that tell of an address being removed.
func (b *beliefs) deleted(address string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.text.String()) {
		if strings.HasPrefix(line, "Deleted ") && strings.Contains(line, " "+address+"/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// watchBeliefs listens to what the kernel of host tells of its neighbours, until stop.
func (s *scenario) watchBeliefs(host string) (b *beliefs, stop func()) {
	return s.monitor(host, "neigh")
}

// watchAddress listens to what the kernel of host tells of its addresses, until stop. It
// returns once it hears: a mark of its own, an address on the loopback, was heard.
func (s *scenario) watchAddress(host string) (b *beliefs, stop func()) {
	s.Helper()
	const mark = "127.66.66.66"
	b, stop = s.monitor(host, "address")
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "the mark to be heard on "+host, func(ctx context.Context) (bool, string) {
		s.byHand(host, "ip addr add "+mark+"/32 dev lo && ip addr del "+mark+"/32 dev lo")
		return len(b.deleted(mark)) > 0, "silence"
	})
	if err != nil {
		s.Fatal(err)
	}
	return b, stop
}

func (s *scenario) monitor(host, what string) (b *beliefs, stop func()) {
	b = &beliefs{}
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		_, err := s.Exec(ctx, host, []string{"ip", "monitor", what}, strings.NewReader(""), b, io.Discard)
		if ctx.Err() == nil {
			s.Errorf("ip monitor %s on %s ended early: %v", what, host, err)
		}
	})
	return b, func() {
		cancel()
		running.Wait()
	}
}

// heldTrue waits until host believes that the virtual address is at mac.
func (s *scenario) heldTrue(host, mac string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, host+" to believe the holder again", func(context.Context) (bool, string) {
		now := s.neighbour(host)
		return strings.Contains(now, mac), now
	})
	if err != nil {
		s.Error(err)
	}
}
