package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// Handler serves one method. from is the node id of the caller, whose whole handshake is HandshakeOf(ctx);
// ctx ends when the caller's patience does. An error that is, or wraps, an *Error reaches the caller with
// its code; any other as ErrFailed.
type Handler func(ctx context.Context, from string, body json.RawMessage) (any, error)

// Self is who this node is now. Cluster is "" before it belongs to one, and then only methods registered
// with HandleOpen are served.
type Self struct {
	Cluster, Node, Instance string
}

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Self is asked for each request, because a node joins its cluster while it runs.
	Self func() Self
	// Authorize may refuse a caller of the right cluster that means this very instance: unknown node,
	// or an instance that is no longer the node's. It must not block. nil accepts everyone.
	Authorize func(Handshake) error
	// Log gets refusals at Debug and handler failures at Warn.
	Log *slog.Logger
}

// Server is the http.Handler to mount at Prefix. The http.Server around it needs a ReadHeaderTimeout
// and must not have a WriteTimeout, which would cut long orders; requests bound themselves.
type Server struct {
	cfg     ServerConfig
	methods map[string]method
	slots   chan struct{}
}

type method struct {
	handle Handler
	open   bool
}

var _ http.Handler = (*Server)(nil)

// maxServing bounds the requests in progress. A cluster has a handful of members with a few calls each;
// more means that something loops, and answering busy at once is better than running out of memory.
const maxServing = 256

// NewServer returns a server without methods.
func NewServer(cfg ServerConfig) *Server {
	return &Server{cfg: cfg, methods: make(map[string]method), slots: make(chan struct{}, maxServing)}
}

// Handle registers a method for members: the handshake must match in full. All methods are registered
// before the server is used.
func (s *Server) Handle(name string, h Handler) { s.register(name, method{handle: h}) }

// HandleOpen registers a method for callers that do not know this node yet: one that joins, or asks who
// is there. What they do not know they leave empty; what they state must still be true. Authorize is
// not asked: the handler has to judge for itself.
func (s *Server) HandleOpen(name string, h Handler) { s.register(name, method{handle: h, open: true}) }

func (s *Server) register(name string, m method) {
	if name == "" || strings.ContainsAny(name, "/?# ") {
		panic(fmt.Sprintf("rpc: method name %q", name))
	}
	if _, taken := s.methods[name]; taken {
		panic(fmt.Sprintf("rpc: method %q registered twice", name))
	}
	s.methods[name] = m
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	self := s.cfg.Self()
	// Whoever asked learns who answers, also with a refusal: that is how a wiped node is told apart
	// from a wrong address.
	Handshake{Cluster: self.Cluster, From: self.Node, FromInstance: self.Instance}.write(w.Header())
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.refuse(w, r, ErrBusy.Errorf("%d requests are being served", maxServing))
		return
	}
	result, err := s.serve(w, r, self)
	if err != nil {
		s.refuse(w, r, toError(err))
		return
	}
	if blob, ok := result.(Blob); ok {
		s.sendBlob(w, r, blob)
		return
	}
	body, err := json.Marshal(result)
	if err != nil {
		s.refuse(w, r, ErrFailed.Errorf("encoding the answer: %v", err))
		return
	}
	s.send(w, r, http.StatusOK, body)
}

// serve checks a request and runs its handler.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, self Self) (any, error) {
	if r.Method != http.MethodPost {
		return nil, ErrBadRequest.Errorf("method %s, want POST", r.Method)
	}
	name := strings.TrimPrefix(r.URL.Path, Prefix)
	m, known := s.methods[name]
	if !known {
		return nil, ErrUnknownMethod.Errorf("%q", name)
	}
	h := readHandshake(r.Header)
	if err := s.judge(m, h, self); err != nil {
		return nil, err
	}
	timeout, err := readTimeout(r.Header)
	if err != nil {
		return nil, ErrBadRequest.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), handshakeKey{}, h), timeout)
	defer cancel()
	body, err := readAtMost(http.MaxBytesReader(w, r.Body, MaxBody+1), MaxBody)
	if err != nil {
		return nil, asRequestError(err)
	}
	return m.handle(ctx, h.From, body)
}

// judge checks the handshake against who this node is.
func (s *Server) judge(m method, h Handshake, self Self) error {
	wrong := func(stated, actual string) bool {
		return stated != actual && !(m.open && stated == "")
	}
	switch {
	case self.Cluster == "" && !m.open:
		return ErrWrongCluster.Errorf("%s belongs to no cluster yet", self.Node)
	case wrong(h.Cluster, self.Cluster) && !(m.open && self.Cluster == ""):
		// A node without a cluster may be told of one: that is how it joins.
		return ErrWrongCluster.Errorf("%s belongs to cluster %s, the caller says %q", self.Node, self.Cluster, h.Cluster)
	case wrong(h.To, self.Node):
		return ErrWrongNode.Errorf("this is %s, the caller wants %q", self.Node, h.To)
	case wrong(h.ToInstance, self.Instance):
		return ErrWrongInstance.Errorf("%s is instance %s, the caller wants %q", self.Node, self.Instance, h.ToInstance)
	case m.open:
		return nil
	case h.From == "" || h.FromInstance == "":
		return ErrUnauthorized.Errorf("the caller does not say who it is")
	case s.cfg.Authorize == nil:
		return nil
	}
	err := s.cfg.Authorize(h)
	var coded *Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return ErrUnauthorized.Errorf("%v", err)
}

// refuse answers with an error. The connection closes when the body was not read, which net/http does.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, e *Error) {
	level := slog.LevelDebug
	if e.Code == ErrFailed.Code {
		level = slog.LevelWarn
	}
	s.cfg.Log.Log(r.Context(), level, "rpc refused", "method", strings.TrimPrefix(r.URL.Path, Prefix),
		"from", r.Header.Get(headerFrom), "remote", r.RemoteAddr, "code", e.Code, "reason", e.Message)
	body, err := json.Marshal(e)
	if err != nil {
		// Two strings always encode.
		panic(fmt.Sprintf("rpc: encoding error: %v", err))
	}
	s.send(w, r, e.status(), body)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		// The caller is gone and learns of the loss by itself.
		s.cfg.Log.Debug("rpc answer not sent", "remote", r.RemoteAddr, "error", err)
	}
}

// toError finds the code of a handler's error.
func toError(err error) *Error {
	var coded *Error
	if errors.As(err, &coded) {
		// The text around a wrapped error is worth more than the message inside it.
		return &Error{Code: coded.Code, Message: strings.TrimPrefix(err.Error(), coded.Code+": ")}
	}
	return ErrFailed.Errorf("%v", err)
}

// asRequestError sorts the errors of reading a body.
func asRequestError(err error) error {
	var coded *Error
	if errors.As(err, &coded) {
		return coded
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return ErrTooLarge.Errorf("request over %d bytes", MaxBody)
	}
	return ErrBadRequest.Errorf("reading the request: %v", err)
}

type handshakeKey struct{}

// HandshakeOf returns the handshake of the request a handler serves, zero outside of one.
func HandshakeOf(ctx context.Context) Handshake {
	h, ok := ctx.Value(handshakeKey{}).(Handshake)
	if !ok {
		return Handshake{}
	}
	return h
}
