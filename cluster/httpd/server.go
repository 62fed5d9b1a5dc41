package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// headerTimeout ends connections that never send a request.
	headerTimeout = 5 * time.Second
	// idleTimeout is long: nodes keep their RPC connections for life, and ping far more often.
	idleTimeout = 2 * time.Minute
	// drainTimeout is how long requests under way may take when the server stops.
	drainTimeout = time.Second
	// operationTimeout bounds a request that changes something. Longer than any operation's own bound:
	// the answer then is "unknown, operation N continues", never an aborted operation.
	operationTimeout = 90 * time.Second
)

// Config is what a Server needs. Backend, Log and Node are required.
type Config struct {
	// Node is this node's id, sent along with requests passed on to the leader.
	Node    string
	Backend Backend
	// RPC answers /rpc/, the requests of other nodes; nil answers 404.
	RPC http.Handler
	Log *slog.Logger
	// Version and Revision are of this build, for build_info.
	Version, Revision string
	// DialContext replaces the dialer used to pass requests on, for tests; nil is the system's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Server has the two handlers and serves them.
type Server struct {
	cfg      Config
	registry *prometheus.Registry
	requests *requestMetrics
	forward  *forwarder
	api      http.Handler
	health   http.Handler
}

// New makes a server. It fails when a required field is missing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Backend == nil:
		return nil, errors.New("making the HTTP server: no backend")
	case cfg.Log == nil:
		return nil, errors.New("making the HTTP server: no log")
	case cfg.Node == "":
		return nil, errors.New("making the HTTP server: no node id")
	}
	registry, requests, err := newRegistry(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, registry: registry, requests: requests, forward: newForwarder(cfg)}
	s.api = s.newAPI()
	s.health = s.newHealth()
	return s, nil
}

// API is the handler of the API listener: /v1/... and /rpc/.
func (s *Server) API() http.Handler { return s.api }

// Health is the handler of the health and metrics listener.
func (s *Server) Health() http.Handler { return s.health }

// ServeAPI answers on ln until ctx is done, then lets requests under way end for a moment and closes.
// It returns nil after such a stop, else why it could not go on.
func (s *Server) ServeAPI(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.api, "API")
}

// ServeHealth is ServeAPI for the health and metrics listener.
func (s *Server) ServeHealth(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.health, "health")
}

func (s *Server) serve(ctx context.Context, ln net.Listener, h http.Handler, name string) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		// Long polls and forwarded requests end with the server, not after their own patience.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving %s on %s: %w", name, ln.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		s.cfg.Log.Info("closing HTTP requests that did not end", "listener", name, "error", err)
		if err := srv.Close(); err != nil {
			return fmt.Errorf("closing %s on %s: %w", name, ln.Addr(), err)
		}
	}
	if err := <-failed; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s on %s: %w", name, ln.Addr(), err)
	}
	return nil
}
