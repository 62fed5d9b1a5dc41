package httpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

const (
	// forwardDial bounds the connect to the leader.
	forwardDial = time.Second
	// forwardRead bounds a read asked of the leader beyond its own wait; then this node answers itself.
	forwardRead = 2 * time.Second
	// maxForwarded bounds an answer passed back.
	maxForwarded = 8 << 20
)

// forwarder passes requests on to the leader, once.
type forwarder struct {
	node string
	log  *slog.Logger
	http *http.Client
}

func newForwarder(cfg Config) *forwarder {
	dial := cfg.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &forwarder{node: cfg.Node, log: cfg.Log, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, forwardDial)
				defer cancel()
				conn, err := dial(ctx, network, addr)
				if err != nil {
					return nil, &dialError{err}
				}
				return conn, nil
			},
			DisableCompression: true,
			// A fresh connection each time: whether a reused one still led anywhere could only be found
			// out by sending the request, and then its outcome is unknown. Operators ask rarely.
			DisableKeepAlives: true,
		},
	}}
}

// dialError marks a request that was never sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// change passes on a request that changes something. What the leader was sent and did not answer has
// an unknown outcome and is reported so.
func (f *forwarder) change(ctx context.Context, w http.ResponseWriter, r *http.Request, leader string, body []byte) {
	if by := r.Header.Get(api.HeaderForwardedBy); by != "" {
		writeError(w, http.StatusServiceUnavailable,
			fmt.Sprintf("%s passed this on to %s, which is not the leader", by, f.node), "an election may be under way: try again")
		return
	}
	if leader == "" {
		writeError(w, http.StatusServiceUnavailable, fmt.Sprintf("%s knows no leader, nothing was begun", f.node),
			"hbctl status tells which nodes do not answer; a majority of voters is needed")
		return
	}
	status, answer, err := f.ask(ctx, r, leader, body)
	var dial *dialError
	switch {
	case errors.As(err, &dial):
		writeError(w, http.StatusServiceUnavailable,
			fmt.Sprintf("%s cannot connect to the leader at %s, nothing was begun: %v", f.node, leader, dial.err), "try again, or ask another node")
	case err != nil:
		f.log.Warn("a request passed on to the leader was not answered", "leader", leader, "path", r.URL.Path, "error", err)
		writeResult(w, api.Result{Outcome: api.OutcomeUnknown, Node: f.node,
			Message: fmt.Sprintf("outcome unknown: the leader at %s was asked and did not answer: %v", leader, err)})
	default:
		writeRaw(w, status, answer)
	}
}

// ask sends r to the leader and returns its answer.
func (f *forwarder) ask(ctx context.Context, r *http.Request, leader string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+leader+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("making the request for the leader: %w", err)
	}
	req.GetBody = nil // never sent twice
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(api.HeaderForwardedBy, f.node)
	resp, err := f.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("asking the leader: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxForwarded+1))
	if err != nil {
		return 0, nil, fmt.Errorf("reading the leader's answer: %w", err)
	}
	if len(answer) > maxForwarded {
		return 0, nil, fmt.Errorf("the leader's answer is longer than %d bytes", maxForwarded)
	}
	return resp.StatusCode, answer, nil
}

// atLeader answers a read by the leader when one is known, and by this node when it does not answer:
// something is better than nothing, and a read may be repeated.
func (s *Server) atLeader(local http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leader, self := s.cfg.Backend.LeaderAPI()
		if self || leader == "" || r.Header.Get(api.HeaderForwardedBy) != "" {
			local(w, r)
			return
		}
		limit := forwardRead
		if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil && wait > 0 {
			limit += min(wait, maxWait)
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		status, answer, err := s.forward.ask(ctx, r, leader, nil)
		if err != nil || status >= http.StatusInternalServerError {
			s.cfg.Log.Debug("answering a read myself, the leader did not", "leader", leader, "status", status, "error", err)
			local(w, r)
			return
		}
		writeRaw(w, status, answer)
	})
}
