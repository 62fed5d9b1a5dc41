package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Defaults of ClientOptions.
const (
	// DefaultConnectTimeout is how long one address may take to accept a connection: a lost host does
	// not answer at all, and the next address should be tried while the operator still looks.
	DefaultConnectTimeout = time.Second
	// DefaultReadTimeout is how long one address may take to answer a read: a frozen hbd accepts the
	// connection (its kernel does) and says nothing.
	DefaultReadTimeout = 3 * time.Second
)

// ClientOptions tunes a Client. The zero value is ready to use.
type ClientOptions struct {
	// ConnectTimeout bounds the connect to one address; 0 is DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// ReadTimeout bounds one read from one address; 0 is DefaultReadTimeout. Requests that change
	// something are bounded by their context alone: cutting them short only makes their outcome unknown.
	ReadTimeout time.Duration
	// DialContext replaces the dialer, for tests that connect from inside another network namespace.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client talks to a cluster through any of its nodes' API addresses, tried in turn. It is safe for
// concurrent use.
type Client struct {
	addrs []string
	http  *http.Client
	read  time.Duration

	mu   sync.Mutex
	next int // index of the address that answered last, tried first the next time
}

// NewClient makes a client for addresses as ParseAddrs returns them. It connects to nothing yet; the
// only error is an empty list.
func NewClient(addrs []string, opts ClientOptions) (*Client, error) {
	if len(addrs) == 0 {
		return nil, fmt.Errorf("making an API client: no address given")
	}
	connect := opts.ConnectTimeout
	if connect <= 0 {
		connect = DefaultConnectTimeout
	}
	read := opts.ReadTimeout
	if read <= 0 {
		read = DefaultReadTimeout
	}
	dial := opts.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: connect}).DialContext
	}
	transport := &http.Transport{
		// No proxy from the environment: cluster traffic never leaves by way of one.
		Proxy: nil,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connect)
			defer cancel()
			conn, err := dial(ctx, network, addr)
			var op *net.OpError
			if err != nil && !errors.As(err, &op) {
				// transportError tells "never sent" by the dial operation; a caller's dialer may not say so.
				err = &net.OpError{Op: "dial", Net: network, Err: err}
			}
			return conn, err
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
	}
	return &Client{
		addrs: append([]string(nil), addrs...),
		read:  read,
		http: &http.Client{
			Transport: transport,
			// hbd forwards, it never redirects; a redirect is another service.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close drops idle connections. The client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks any node for the whole cluster as that node knows it.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	err := c.get(ctx, PathStatus, 0, &out)
	return out, err
}

// History asks for the incidents kept in the replicated state, newest first.
func (c *Client) History(ctx context.Context) (History, error) {
	var out History
	err := c.get(ctx, PathHistory, 0, &out)
	return out, err
}

// Incident asks for one incident by its number. A number nobody knows is ErrRejected.
func (c *Client) Incident(ctx context.Context, id uint64) (Incident, error) {
	var out Incident
	err := c.get(ctx, PathIncidents+strconv.FormatUint(id, 10), 0, &out)
	return out, err
}

// WhyNot asks what speaks for and against promoting node now. An unknown node is ErrRejected.
func (c *Client) WhyNot(ctx context.Context, node string) (WhyNot, error) {
	var out WhyNot
	err := c.get(ctx, PathWhyNot+url.PathEscape(node), 0, &out)
	return out, err
}

// Operation asks how far an operation is. With wait above 0 the node answers when something changed,
// at the latest after wait.
func (c *Client) Operation(ctx context.Context, id uint64, wait time.Duration) (Result, error) {
	path := PathOperations + strconv.FormatUint(id, 10)
	if wait > 0 {
		path += "?wait=" + url.QueryEscape(wait.String())
	}
	var out Result
	err := c.get(ctx, path, wait, &out)
	return out, err
}

// Bootstrap names the first primary, once in a cluster's life.
func (c *Client) Bootstrap(ctx context.Context, req BootstrapRequest) (Result, error) {
	return c.post(ctx, PathBootstrap, req)
}

// Promote asks for a switchover to req.To, or for its plan.
func (c *Client) Promote(ctx context.Context, req SwitchoverRequest) (Result, error) {
	return c.post(ctx, PathPromote, req)
}

// Demote asks for a switchover away from req.From (the primary when empty), or for its plan.
func (c *Client) Demote(ctx context.Context, req SwitchoverRequest) (Result, error) {
	return c.post(ctx, PathDemote, req)
}

// Failover asks for an unplanned change of the primary, or for what it would risk.
func (c *Client) Failover(ctx context.Context, req FailoverRequest) (Result, error) {
	return c.post(ctx, PathFailover, req)
}

// Pause forbids new operations.
func (c *Client) Pause(ctx context.Context, req PauseRequest) (Result, error) {
	return c.post(ctx, PathPause, req)
}

// Rebuild has a node's data replaced by a copy.
func (c *Client) Rebuild(ctx context.Context, req RebuildRequest) (Result, error) {
	return c.post(ctx, PathRebuild, req)
}

// Rejoin lifts a node's quarantine.
func (c *Client) Rejoin(ctx context.Context, req RejoinRequest) (Result, error) {
	return c.post(ctx, PathRejoin, req)
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, req ResumeRequest) (Result, error) {
	return c.post(ctx, PathResume, req)
}
