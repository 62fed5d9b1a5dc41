package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is whom to call. Instance is "" only for methods registered with HandleOpen.
type Peer struct {
	ID, Instance string
	// Addr is the peer's API address, "ip:port".
	Addr string
}

// ClientConfig is what a Client needs.
type ClientConfig struct {
	// Self is asked for each call.
	Self func() Self
	// DialTimeout bounds making a connection, below the deadline of the call. Default 1 s.
	DialTimeout time.Duration
	// TLS makes calls over https; nil means plain http.
	TLS *tls.Config

	// dial is a seam for tests: a network that can be cut.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client calls peers over connections it keeps. It may be used by many goroutines.
type Client struct {
	cfg    ClientConfig
	scheme string
	mu     sync.Mutex
	links  map[linkKey]*http.Transport
}

// linkKey separates the connections: per peer, so that a dead one takes no other's along, and per kind.
type linkKey struct {
	addr string
	ping bool
}

const (
	// idlePerLink is how many idle connections to one peer are kept per kind.
	idlePerLink = 4
	// idleTimeout must be shorter than what the peer's http.Server allows, or calls meet connections
	// that the peer is closing.
	idleTimeout = 60 * time.Second
)

// NewClient returns a client without connections.
func NewClient(cfg ClientConfig) *Client {
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = time.Second
	}
	if cfg.dial == nil {
		cfg.dial = (&net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 10 * time.Second}).DialContext
	}
	scheme := "http"
	if cfg.TLS != nil {
		scheme = "https"
	}
	return &Client{cfg: cfg, scheme: scheme, links: make(map[linkKey]*http.Transport)}
}

// Call asks a peer and decodes its answer into out, which may be nil. The context needs a deadline, and
// the peer is told how much of it is left.
//
// The error is or wraps an *Error when the peer said no, ErrUnreachable when it certainly got nothing,
// ErrNoAnswer when it may have acted.
func (c *Client) Call(ctx context.Context, peer Peer, method string, in, out any) error {
	return c.call(ctx, false, peer, method, in, out)
}

// Ping is Call over connections of its own, for short questions whose delay would be taken for a sign.
func (c *Client) Ping(ctx context.Context, peer Peer, method string, in, out any) error {
	return c.call(ctx, true, peer, method, in, out)
}

// Forget closes the idle connections to an address, for example when a member was removed.
func (c *Client) Forget(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ping := range []bool{false, true} {
		key := linkKey{addr: addr, ping: ping}
		if t := c.links[key]; t != nil {
			t.CloseIdleConnections()
			delete(c.links, key)
		}
	}
}

// Close closes every idle connection. Calls in progress end by their own deadlines.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.links {
		t.CloseIdleConnections()
	}
	clear(c.links)
}

func (c *Client) call(ctx context.Context, ping bool, peer Peer, method string, in, out any) error {
	_, body, err := c.ask(ctx, ping, peer, method, in)
	if err != nil || out == nil {
		return err
	}
	if err := decodeAnswer(body, out); err != nil {
		return fmt.Errorf("calling %s on %s: %w: answer is not readable: %w", method, peer.ID, ErrNoAnswer, err)
	}
	return nil
}

// ask sends a request and returns a good answer's headers and body.
func (c *Client) ask(ctx context.Context, ping bool, peer Peer, method string, in any) (http.Header, []byte, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, nil, ErrNoDeadline
	}
	req, err := c.request(ctx, time.Until(deadline), peer, method, in)
	if err != nil {
		return nil, nil, fmt.Errorf("calling %s on %s: %w", method, peer.ID, err)
	}
	link := c.link(linkKey{addr: peer.Addr, ping: ping})
	header, body, status, err := exchange(link, req, peer)
	if err != nil {
		// A dead peer's other connections are as dead as this one; see the package comment.
		link.CloseIdleConnections()
		return nil, nil, fmt.Errorf("calling %s on %s: %w", method, peer.ID, err)
	}
	if status != http.StatusOK {
		return nil, nil, fmt.Errorf("calling %s on %s: %w", method, peer.ID, refusalOf(status, body))
	}
	return header, body, nil
}

// request builds the HTTP request. Nothing is sent yet.
func (c *Client) request(ctx context.Context, left time.Duration, peer Peer, method string, in any) (*http.Request, error) {
	if left <= 0 {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, context.DeadlineExceeded)
	}
	if left > maxTimeout {
		left = maxTimeout
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("%w: encoding: %w", ErrUnreachable, err)
		}
	}
	if len(body) > MaxBody {
		return nil, ErrTooLarge.Errorf("request of %d bytes, at most %d", len(body), MaxBody)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme+"://"+peer.Addr+Prefix+method, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	self := c.cfg.Self()
	Handshake{Cluster: self.Cluster, From: self.Node, FromInstance: self.Instance, To: peer.ID, ToInstance: peer.Instance}.write(req.Header)
	req.Header.Set("Content-Type", "application/json")
	writeTimeout(req.Header, left)
	return req, nil
}

// exchange sends a request, reads the whole answer and checks that the right instance gave it.
func exchange(link *http.Transport, req *http.Request, peer Peer) (header http.Header, body []byte, status int, err error) {
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	// The transport and not http.Client: no redirects, no cookies, no proxy.
	resp, err := link.RoundTrip(req)
	switch {
	case err != nil && !connected.Load():
		return nil, nil, 0, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case err != nil:
		return nil, nil, 0, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	if n := resp.ContentLength; n > 0 && n <= MaxAnswer {
		body = make([]byte, n)
		_, err = io.ReadFull(resp.Body, body)
	} else {
		body, err = readAtMost(resp.Body, MaxAnswer)
	}
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, nil, 0, fmt.Errorf("%w: reading it: %w", ErrNoAnswer, err)
	}
	if resp.StatusCode == http.StatusOK {
		err = checkAnswerer(readHandshake(resp.Header), peer)
	}
	return resp.Header, body, resp.StatusCode, err
}

// checkAnswerer refuses an answer somebody else gave: another program on the port, or a proxy.
func checkAnswerer(h Handshake, peer Peer) error {
	if h.From != peer.ID || peer.Instance != "" && h.FromInstance != peer.Instance {
		return fmt.Errorf("%w: %q instance %q answered", ErrNoAnswer, h.From, h.FromInstance)
	}
	return nil
}

// refusalOf decodes an error answer.
func refusalOf(status int, body []byte) error {
	var e Error
	if err := decodeAnswer(body, &e); err != nil || e.Code == "" {
		return fmt.Errorf("%w: HTTP status %d from something that is not a node", ErrNoAnswer, status)
	}
	return &e
}

// link returns the transport for a peer, making it on first use.
func (c *Client) link(key linkKey) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.links[key]; t != nil {
		return t
	}
	t := &http.Transport{
		DialContext: c.cfg.dial, TLSClientConfig: c.cfg.TLS, TLSHandshakeTimeout: c.cfg.DialTimeout,
		MaxIdleConnsPerHost: idlePerLink, IdleConnTimeout: idleTimeout,
		DisableCompression: true,
		// One request per connection at a time: with HTTP/2 a lost packet would delay all of them.
		ForceAttemptHTTP2: false, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	c.links[key] = t
	return t
}
