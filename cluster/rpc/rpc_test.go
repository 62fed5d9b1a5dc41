package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// patience is a deadline that only a hang exceeds.
const patience = 20 * time.Second

var (
	db1 = Self{Cluster: "c1", Node: "db1", Instance: "i1"}
	db2 = Self{Cluster: "c1", Node: "db2", Instance: "i2"}
)

type text struct {
	Text string `json:"text"`
}

// serve starts db2 with an echo, and whatever prepare adds.
func serve(t *testing.T, self *Self, prepare func(*Server)) Peer {
	t.Helper()
	s := NewServer(ServerConfig{
		Self: func() Self { return *self },
		Authorize: func(h Handshake) error {
			if h.From != "db1" || h.FromInstance != "i1" {
				return fmt.Errorf("%s instance %s is no member", h.From, h.FromInstance)
			}
			return nil
		},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	s.Handle("echo", func(_ context.Context, from string, body json.RawMessage) (any, error) {
		var in text
		if err := Decode(body, &in); err != nil {
			return nil, ErrBadRequest.Errorf("%v", err)
		}
		return text{Text: from + " says " + in.Text}, nil
	})
	s.HandleOpen("who", func(context.Context, string, json.RawMessage) (any, error) { return *self, nil })
	if prepare != nil {
		prepare(s)
	}
	mux := http.NewServeMux()
	mux.Handle(Prefix, s)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return Peer{ID: self.Node, Instance: self.Instance, Addr: srv.Listener.Addr().String()}
}

func client(t *testing.T, self Self, dial func(context.Context, string, string) (net.Conn, error)) *Client {
	t.Helper()
	c := NewClient(ClientConfig{Self: func() Self { return self }, dial: dial})
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCallAndPing(t *testing.T) {
	self := db2
	peer := serve(t, &self, nil)
	c := client(t, db1, nil)
	for name, call := range map[string]func(context.Context, Peer, string, any, any) error{"call": c.Call, "ping": c.Ping} {
		var out text
		if err := call(within(t, patience), peer, "echo", text{Text: "hello"}, &out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out.Text != "db1 says hello" {
			t.Fatalf("%s: %q", name, out.Text)
		}
	}
	if err := c.Call(context.Background(), peer, "echo", nil, nil); !errors.Is(err, ErrNoDeadline) {
		t.Fatalf("no deadline: %v", err)
	}
}

func TestStrangersAreRefusedByCode(t *testing.T) {
	self := db2
	peer := serve(t, &self, nil)
	cases := map[string]struct {
		as   Self
		to   func(*Peer)
		want *Error
	}{
		"other cluster":   {as: Self{Cluster: "c2", Node: "db1", Instance: "i1"}, want: ErrWrongCluster},
		"no cluster":      {as: Self{Node: "db1", Instance: "i1"}, want: ErrWrongCluster},
		"other node":      {as: db1, to: func(p *Peer) { p.ID = "db3" }, want: ErrWrongNode},
		"old instance":    {as: db1, to: func(p *Peer) { p.Instance = "i0" }, want: ErrWrongInstance},
		"any instance":    {as: db1, to: func(p *Peer) { p.Instance = "" }, want: ErrWrongInstance},
		"wiped caller":    {as: Self{Cluster: "c1", Node: "db1", Instance: "i9"}, want: ErrUnauthorized},
		"unknown caller":  {as: Self{Cluster: "c1", Node: "db9", Instance: "i1"}, want: ErrUnauthorized},
		"nameless caller": {as: Self{Cluster: "c1"}, want: ErrUnauthorized},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			to := peer
			if c.to != nil {
				c.to(&to)
			}
			err := client(t, c.as, nil).Call(within(t, patience), to, "echo", text{}, nil)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %s", err, c.want.Code)
			}
		})
	}
}

func TestOpenMethodsServeNewcomersAndStillCheckWhatIsStated(t *testing.T) {
	self := db2
	peer := serve(t, &self, nil)
	newcomer := client(t, Self{Node: "db9"}, nil)
	var out Self
	if err := newcomer.Call(within(t, patience), Peer{Addr: peer.Addr, ID: "db2"}, "who", nil, &out); err != nil || out != self {
		t.Fatalf("newcomer: %+v, %v", out, err)
	}
	stranger := client(t, Self{Cluster: "c2", Node: "db9"}, nil)
	if err := stranger.Call(within(t, patience), Peer{Addr: peer.Addr, ID: "db2"}, "who", nil, nil); !errors.Is(err, ErrWrongCluster) {
		t.Fatalf("other cluster on an open method: %v", err)
	}
	if err := newcomer.Call(within(t, patience), Peer{Addr: peer.Addr, ID: "db2", Instance: "i0"}, "who", nil, nil); !errors.Is(err, ErrWrongInstance) {
		t.Fatalf("old instance on an open method: %v", err)
	}
	self.Cluster = ""
	if err := client(t, db1, nil).Call(within(t, patience), peer, "who", nil, nil); err != nil {
		t.Fatalf("a node without a cluster must hear of one: %v", err)
	}
	if err := client(t, db1, nil).Call(within(t, patience), peer, "echo", text{}, nil); !errors.Is(err, ErrWrongCluster) {
		t.Fatalf("a node without a cluster served a member's method: %v", err)
	}
}

func TestErrorsCrossTheWireWithTheirCode(t *testing.T) {
	stale := &Error{Code: "stale_epoch"}
	self := db2
	peer := serve(t, &self, func(s *Server) {
		s.Handle("stale", func(context.Context, string, json.RawMessage) (any, error) {
			return nil, fmt.Errorf("accepting action: %w", stale.Errorf("3 is below 4"))
		})
		s.Handle("plain", func(context.Context, string, json.RawMessage) (any, error) {
			return nil, errors.New("disk full")
		})
		s.Handle("unanswerable", func(context.Context, string, json.RawMessage) (any, error) {
			return make(chan int), nil
		})
	})
	c := client(t, db1, nil)
	err := c.Call(within(t, patience), peer, "stale", nil, nil)
	if !errors.Is(err, stale) || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "3 is below 4") {
		t.Errorf("coded: %v", err)
	}
	for method, want := range map[string]*Error{"plain": ErrFailed, "unanswerable": ErrFailed, "nosuch": ErrUnknownMethod} {
		if err := c.Call(within(t, patience), peer, method, nil, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", method, err, want.Code)
		}
	}
	for what, in := range map[string]any{
		"unknown field": map[string]string{"text": "a", "more": "b"}, "wrong type": 7,
	} {
		if err := c.Call(within(t, patience), peer, "echo", in, nil); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSizesAreBounded(t *testing.T) {
	self := db2
	peer := serve(t, &self, func(s *Server) {
		s.Handle("flood", func(context.Context, string, json.RawMessage) (any, error) {
			return text{Text: strings.Repeat("x", MaxAnswer)}, nil
		})
	})
	c := client(t, db1, nil)
	if err := c.Call(within(t, patience), peer, "echo", text{Text: strings.Repeat("x", MaxBody)}, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("our own client: %v", err)
	}
	if err := c.Call(within(t, patience), peer, "flood", nil, nil); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("flooding peer: %v", err)
	}
	// Somebody who ignores the limit.
	req, err := http.NewRequest(http.MethodPost, "http://"+peer.Addr+Prefix+"echo", strings.NewReader(strings.Repeat(" ", MaxBody+1)))
	if err != nil {
		t.Fatal(err)
	}
	Handshake{Cluster: "c1", From: "db1", FromInstance: "i1", To: "db2", ToInstance: "i2"}.write(req.Header)
	writeTimeout(req.Header, patience)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := readAtMost(resp.Body, MaxAnswer)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if err := refusalOf(resp.StatusCode, body); !errors.Is(err, ErrTooLarge) {
		t.Errorf("raw request: %v", err)
	}
}

func TestUnreachableIsNotNoAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := Peer{ID: "db2", Instance: "i2", Addr: ln.Addr().String()}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := client(t, db1, nil).Call(within(t, patience), gone, "echo", nil, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("refused connection: %v", err)
	}
	hole := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	if err := client(t, db1, hole).Call(within(t, 50*time.Millisecond), gone, "echo", nil, nil); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no way to connect: %v", err)
	}
	self := db2
	begun := make(chan time.Time, 1)
	peer := serve(t, &self, func(s *Server) {
		s.Handle("slow", func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			deadline, _ := ctx.Deadline()
			begun <- deadline
			<-ctx.Done()
			return nil, ctx.Err()
		})
	})
	err = client(t, db1, nil).Call(within(t, 300*time.Millisecond), peer, "slow", nil, nil)
	if !errors.Is(err, ErrNoAnswer) && !errors.Is(err, ErrFailed) {
		t.Errorf("slow handler: %v", err)
	}
	if deadline := <-begun; time.Until(deadline) > time.Second {
		t.Errorf("the handler was given until %s from now", time.Until(deadline))
	}
}

func TestAnswerOfSomebodyElseIsNoAnswer(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "teapot") {
			w.WriteHeader(http.StatusTeapot)
		}
		if _, err := io.WriteString(w, `{"text":"hello"}`); err != nil {
			t.Error(err)
		}
	}))
	defer other.Close()
	c := client(t, db1, nil)
	for _, method := range []string{"echo", "teapot"} {
		err := c.Call(within(t, patience), Peer{ID: "db2", Instance: "i2", Addr: other.Listener.Addr().String()}, method, nil, nil)
		if !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestBlob(t *testing.T) {
	self := db2
	data := []byte{0, 1, 2, 255, '\n'}
	peer := serve(t, &self, func(s *Server) {
		s.Handle("bytes", func(context.Context, string, json.RawMessage) (any, error) {
			return Blob{Head: text{Text: "five"}, Data: data}, nil
		})
	})
	c := client(t, db1, nil)
	var head text
	got, err := c.CallBlob(within(t, patience), peer, "bytes", nil, &head)
	if err != nil || string(got) != string(data) || head.Text != "five" {
		t.Fatalf("%q %+v %v", got, head, err)
	}
	// A method that answers with JSON alone is no blob.
	if _, err := c.CallBlob(within(t, patience), peer, "who", nil, &head); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("a blob without a head: %v", err)
	}
}
