//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// freedWithin is how long after its new primary was first seen serving a client may go on waiting. It is told within a second; the rest is for a crowded
// machine, and nothing against the hours that it would wait untold.
const freedWithin = 5 * time.Second

// TestTickle: clients that only wait for an answer, and would wait for hours, are freed when the primary changes.
func TestTickle(t *testing.T) {
	g := newGroup(t, sandbox.Options{})

	g.run(t, "host killed under waiting clients", func(s *scenario) {
		old := s.primary()
		all := s.waitingClients()
		s.at = s.load.Now()
		s.fault("kill-host", old)
		st := s.awaitNewPrimary(old)
		s.allFreed(all, st.Primary)
		s.rises(st.Primary, "highbase_client_connections_tickled_total", 0, float64(len(all)))
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("start-host", old)
	})

	g.run(t, "hbd frozen under waiting clients", func(s *scenario) {
		// The old server lives and has all their connections; the gate keeps it from answering.
		old := s.primary()
		all := s.waitingClients()
		s.at = s.load.Now()
		s.fault("pause-hbd", old)
		st := s.awaitNewPrimary(old)
		s.allFreed(all, st.Primary)
		s.awaitIncident(api.KindTakeover, api.KindFailover)
		s.fault("resume-hbd", old)
	})

	g.run(t, "switchover under waiting clients", func(s *scenario) {
		all := s.waitingClients()
		to := s.others(s.primary())[0]
		s.at = s.load.Now()
		if answer := s.ctl("promote", to, "--kill"); answer.Exit != exitDone {
			s.Errorf("hbctl promote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
		s.awaitIncident(api.KindSwitchover)
		s.allFreed(all, to)
	})
}

// patient is a client without any time limit: what it waits for ends by what its kernel hears, or never.
type patient struct {
	net.Conn
	what string

	mu    sync.Mutex
	err   error
	ended time.Duration // on the ledger's clock
	done  chan struct{}
}

// Read notes how the connection ended. The driver finds no TCP connection here whose keepalive it could turn on.
func (p *patient) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.err == nil {
			p.err = err
		}
	}
	return n, err
}

// waitingClients are some in the middle of a long SELECT and some idle, on the client host and on the replicas' hosts, all of which the replicas' daemons know.
func (s *scenario) waitingClients() []*patient {
	s.Helper()
	var all []*patient
	for _, host := range append(s.others(s.primary()), clientHost) {
		for range 3 {
			all = append(all, s.waitingClient(host, true), s.waitingClient(host, false))
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "the replicas to know the primary's clients", func(context.Context) (bool, string) {
		there, known := s.connections(s.primary()), []float64{}
		ok := there >= len(all)
		for _, host := range s.others(s.primary()) {
			k := s.metric(host, "highbase_client_connections_known")
			known = append(known, k)
			ok = ok && int(k) >= there
		}
		return ok, fmt.Sprintf("%d connections, known are %v", there, known)
	})
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range all {
		select {
		case <-p.done:
			s.Fatalf("%s ended before anything happened: %v", p.what, p.err)
		default:
		}
	}
	return all
}

// waitingClient connects through the address, from inside a host.
func (s *scenario) waitingClient(host string, busy bool) *patient {
	s.Helper()
	p := &patient{what: "an idle client on " + host, done: make(chan struct{})}
	if busy {
		p.what = "a client in a long SELECT on " + host
	}
	cfg := s.viaAddress(host, time.Second, 0)
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			return nil, fmt.Errorf("dialled a %T", conn)
		}
		p.Conn = conn
		return p, tcp.SetKeepAlive(false)
	}
	conn, err := connect(s.ctx, cfg)
	if err != nil {
		s.Fatalf("%s: %v", p.what, err)
	}
	// Not conn.Close: it would wait for the statement.
	s.Cleanup(func() { _ = p.Conn.Close() })
	go func() {
		defer close(p.done)
		if busy {
			var slept int
			if err := conn.QueryRowContext(context.Background(), "SELECT SLEEP(600)").Scan(&slept); err == nil {
				p.err = errors.New("the statement ended without an error")
			}
		} else if _, err := p.Read(make([]byte, 1)); err == nil {
			p.err = errors.New("the server said something")
		}
		p.ended = s.load.Now()
	}()
	return p
}

// connections counts those of clients to the address on a host.
func (s *scenario) connections(host string) int {
	s.Helper()
	exit, out, err := s.Command(s.ctx, host, "ss", "-Htn", "state", "established", "src", s.Facts.VIP)
	if err != nil || exit != 0 {
		s.Fatalf("listing the connections of %s: exit %d, %v: %s", host, exit, err, out)
	}
	return strings.Count(out, "\n")
}

// allFreed waits for the end of every one and demands that its kernel was told, and soon: a reset, or its own host's abort.
func (s *scenario) allFreed(all []*patient, successor string) {
	s.Helper()
	limit := time.After(patience)
	last := all[0]
	for _, p := range all {
		select {
		case <-p.done:
		case <-limit:
			s.Fatalf("%s still waits: it hangs", p.what)
		}
		if !errors.Is(p.err, syscall.ECONNRESET) && !errors.Is(p.err, syscall.ECONNABORTED) {
			s.Errorf("%s ended with %v, want a reset", p.what, p.err)
		}
		if p.ended < s.at {
			s.Errorf("%s ended before the primary was lost", p.what)
		}
		if p.ended > last.ended {
			last = p
		}
	}
	var served time.Duration
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, successor+" to be seen serving", func(context.Context) (ok bool, _ string) {
		served, ok = FirstServing(s.sampler.Samples(), successor, s.at)
		return ok, "not yet"
	})
	if err != nil {
		s.Fatal(err)
	}
	if late := last.ended - served; late > freedWithin {
		s.Errorf("%s was freed %v after %s was first seen serving, at most %v was to pass", last.what, late, successor, freedWithin)
	}
	s.Logf("%d waiting clients were freed: the last %v after the fault, %v after %s was first seen serving", len(all), (last.ended - s.at).Round(time.Millisecond),
		(last.ended - served).Round(time.Millisecond), successor)
}
