package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holes is a dialer whose living connections can be turned into black holes, as by a cut link: nothing
// sent arrives, nothing comes back, and no error tells. New connections work.
type holes struct {
	mu    sync.Mutex
	conns []*hole
	dials atomic.Int32
}

type hole struct {
	net.Conn
	silent atomic.Bool
}

func (h *hole) Write(p []byte) (int, error) {
	if h.silent.Load() {
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func (h *holes) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	h.dials.Add(1)
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &hole{Conn: conn}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = append(h.conns, c)
	return c, nil
}

func (h *holes) swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.silent.Store(true)
	}
}

// gate is a method whose calls wait inside their handlers until all of them are there.
type gate struct {
	arrived, leave chan struct{}
}

func (g gate) serve(context.Context, string, json.RawMessage) (any, error) {
	g.arrived <- struct{}{}
	<-g.leave
	return nil, nil
}

// warm leaves n idle ping connections in the pool.
func (g gate) warm(t *testing.T, c *Client, peer Peer, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := c.Ping(within(t, patience), peer, "gate", nil, nil); err != nil {
				t.Errorf("warming: %v", err)
			}
		})
	}
	for range n {
		<-g.arrived
	}
	for range n {
		g.leave <- struct{}{}
	}
	wg.Wait()
}

func TestBlackHoleDoesNotPoisonThePool(t *testing.T) {
	g := gate{arrived: make(chan struct{}), leave: make(chan struct{})}
	self := db2
	peer := serve(t, &self, func(s *Server) { s.Handle("gate", g.serve) })
	const idle = 3
	net := &holes{}
	c := client(t, db1, net.dial)
	g.warm(t, c, peer, idle)
	net.swallow()
	if err := c.Ping(within(t, 100*time.Millisecond), peer, "echo", text{}, nil); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("ping into the hole: %v", err)
	}
	if err := c.Ping(within(t, patience), peer, "echo", text{}, nil); err != nil {
		t.Fatalf("first ping after the link is back: %v", err)
	}

	// Positive control: a pool that keeps its idle connections pays a deadline for each of them.
	g.warm(t, c, peer, idle)
	net.swallow()
	lost := 0
	for range idle {
		keep := c.link(linkKey{addr: peer.Addr, ping: true})
		req, err := c.request(within(t, 100*time.Millisecond), time.Second, peer, "echo", text{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := exchange(keep, req, peer); err != nil {
			lost++
		}
	}
	if lost != idle {
		t.Fatalf("%d calls lost in a pool of %d dead connections: the test proves nothing", lost, idle)
	}
}

func TestSlowOrderDoesNotDelayAPing(t *testing.T) {
	release := make(chan struct{})
	self := db2
	peer := serve(t, &self, func(s *Server) {
		s.Handle("order", func(context.Context, string, json.RawMessage) (any, error) {
			<-release
			return nil, nil
		})
	})
	net := &holes{}
	c := client(t, db1, net.dial)
	done := make(chan error, 1)
	go func() { done <- c.Call(within(t, patience), peer, "order", nil, nil) }()
	for range 5 {
		if err := c.Ping(within(t, patience), peer, "echo", text{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := net.dials.Load(); n != 2 {
		t.Errorf("%d connections for one order and five pings, want 2: pings share one, orders have their own", n)
	}
}

func BenchmarkPing(b *testing.B) {
	s := NewServer(ServerConfig{Self: func() Self { return db2 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	s.Handle("ping", func(context.Context, string, json.RawMessage) (any, error) { return nil, nil })
	srv := httptest.NewServer(s)
	defer srv.Close()
	c := NewClient(ClientConfig{Self: func() Self { return db1 }})
	defer c.Close()
	peer := Peer{ID: "db2", Instance: "i2", Addr: srv.Listener.Addr().String()}
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := c.Ping(ctx, peer, "ping", nil, nil); err != nil {
			b.Fatal(err)
		}
		cancel()
	}
}
