package raftnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// keepAlive finds peers that vanished without a word within about 20 s; the system's default is two
// hours, and each such connection holds a goroutine.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}

// maxHandshakes bounds connections that have not said yet who they are; more wait in the kernel's queue.
const maxHandshakes = 64

// stream is the raft.StreamLayer: TCP, or TLS over it, with our handshake in front. Targets it dials are
// written "<server id>@<ip:port>" (see transport), so that it can say whom it wants to meet.
type stream struct {
	cfg       Config
	self      ServerID
	advertise string
	listener  net.Listener
	log       *slog.Logger
	limit     *limiter

	ready  chan net.Conn
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

var _ raft.StreamLayer = (*stream)(nil)

// listen starts accepting. Close ends it and every connection it made or took.
func listen(cfg Config, self ServerID) (*stream, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	ln, err := lc.Listen(context.Background(), "tcp", cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("listening for raft: %w", err)
	}
	advertise := cfg.Advertise
	if advertise == "" {
		advertise = ln.Addr().String()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{
		cfg: cfg, self: self, advertise: advertise, listener: ln,
		log: cfg.Log.With("component", "raft"), limit: newLimiter(repeatEvery),
		ready: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes),
		ctx: ctx, cancel: cancel, open: make(map[net.Conn]struct{}),
	}
	s.wg.Go(s.acceptLoop)
	return s, nil
}

// Accept returns the next connection that passed the handshake.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.ready:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr returns the address peers dial, which need not be the one listened on.
func (s *stream) Addr() net.Addr { return address(s.advertise) }

// Close stops listening and cuts every connection, so that no exchange in flight outlives the node.
func (s *stream) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.mu.Lock()
	for conn := range s.open {
		// The connection is being thrown away; what its Close has to say helps nobody.
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Dial connects to a target and introduces both ends.
func (s *stream) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to, addr, err := splitTarget(target)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithDeadline(s.ctx, deadline)
	defer cancel()
	raw, err := s.cfg.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := s.track(raw)
	if err != nil {
		return nil, err
	}
	if s.cfg.ClientTLS != nil {
		conn.Conn = tls.Client(raw, clientTLS(s.cfg.ClientTLS, addr))
	}
	if err := greet(conn, hello{Cluster: s.cfg.ClusterID, From: s.self, To: to}, deadline); err != nil {
		s.logRefusal("raft peer refused us", string(to), addr, err)
		return nil, errors.Join(fmt.Errorf("meeting %s at %s: %w", to, addr, err), conn.Close())
	}
	return conn, nil
}

// clientTLS checks the peer's certificate against the address dialled, as https does, unless the
// configuration names somebody.
func clientTLS(cfg *tls.Config, addr string) *tls.Config {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || cfg.ServerName != "" {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	return cfg
}

func (s *stream) acceptLoop() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		conn, err := s.listener.Accept()
		if err != nil {
			<-s.slots
			if s.ctx.Err() != nil {
				return
			}
			s.logRefusal("accepting raft connection failed", "", s.advertise, err)
			// Out of descriptors, most likely: give the process a moment to get some back.
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			s.welcome(conn)
		})
	}
}

// welcome performs the handshake with a dialler and hands the connection to Raft, or closes it.
func (s *stream) welcome(raw net.Conn) {
	remote := raw.RemoteAddr().String()
	conn, err := s.track(raw)
	if err != nil {
		return
	}
	if s.cfg.ServerTLS != nil {
		conn.Conn = tls.Server(raw, s.cfg.ServerTLS)
	}
	h, err := receive(conn, s.judge, time.Now().Add(s.cfg.Timing.rpcTimeout()))
	if err != nil {
		s.logRefusal("raft connection refused", string(h.From), remote, errors.Join(err, conn.Close()))
		return
	}
	select {
	case s.ready <- conn:
	case <-s.ctx.Done():
		// Close cuts it together with all others.
	}
}

// judge decides whether a dialler may speak Raft with this node.
func (s *stream) judge(h hello) error {
	switch {
	case s.cfg.trustAnyone:
		return nil
	case h.Cluster != s.cfg.ClusterID:
		return &refusal{reason: fmt.Sprintf("wrong cluster: this is %s, you want %q", s.cfg.ClusterID, h.Cluster)}
	case h.To != s.self && h.To.Node() == s.self.Node():
		return &refusal{reason: fmt.Sprintf("wrong instance: this is %s, you want %q; its store was wiped or replaced", s.self, h.To)}
	case h.To != s.self:
		return &refusal{reason: fmt.Sprintf("wrong node: this is %s, you want %q", s.self, h.To)}
	case h.From.Node() == "" || h.From.Instance() == "" || h.From == s.self:
		return &refusal{reason: fmt.Sprintf("not a peer: %q", h.From)}
	}
	if s.cfg.Authorize == nil {
		return nil
	}
	if err := s.cfg.Authorize(Identity{Cluster: h.Cluster, Server: h.From}); err != nil {
		return &refusal{reason: err.Error()}
	}
	return nil
}

// logRefusal writes one line per peer, host and reason, and counts the rest.
func (s *stream) logRefusal(msg, peer, remote string, err error) {
	host, _, splitErr := net.SplitHostPort(remote)
	if splitErr != nil {
		host = remote
	}
	var refused *refusal
	if msg == "raft peer refused us" && !errors.As(err, &refused) {
		// Not an answer but a lost connection, which the library logs in its own words.
		return
	}
	if ok, suppressed := s.limit.allow(strings.Join([]string{msg, peer, host, reasonOf(err)}, "\x00")); ok {
		s.log.Warn(msg, "peer", peer, "remote", host, "reason", reasonOf(err), "suppressed", suppressed)
	}
}

// reasonOf keeps port numbers, which differ each time, out of the limiter's key.
func reasonOf(err error) string {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.reason
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprintf("%s: %v", op.Op, op.Err)
	}
	return err.Error()
}

// track remembers a connection until it is closed. It fails, closing the connection, once Close has begun.
func (s *stream) track(raw net.Conn) (*trackedConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, errors.Join(ErrClosed, raw.Close())
	}
	s.open[raw] = struct{}{}
	return &trackedConn{Conn: raw, raw: raw, s: s}, nil
}

// trackedConn is a connection that stream.Close can cut.
type trackedConn struct {
	net.Conn
	raw net.Conn
	s   *stream
}

func (c *trackedConn) Close() error {
	c.s.mu.Lock()
	delete(c.s.open, c.raw)
	c.s.mu.Unlock()
	return c.Conn.Close()
}

// address is a net.Addr that is only a string.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// joinTarget and splitTarget carry the wanted server id through the library to Dial, which is given
// nothing but an address.
func joinTarget(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + string(addr))
}

func splitTarget(target raft.ServerAddress) (ServerID, string, error) {
	id, addr, found := strings.Cut(string(target), "@")
	if !found {
		return "", "", fmt.Errorf("raft target %q does not say which server is meant", target)
	}
	return ServerID(id), addr, nil
}
