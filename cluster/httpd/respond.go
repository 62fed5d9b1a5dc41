package httpd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/highbase/highbase/cluster/api"
)

// writeJSON answers with v. A value of ours that cannot be encoded is a fault of the program and is
// reported as such, never as an empty answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("encoding the answer: %v", err), "report this, it is a fault of hbd")
		return
	}
	writeRaw(w, status, append(data, '\n'))
}

func writeRaw(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A caller that went away is no concern of ours, and there is nobody left to tell.
	_, _ = w.Write(body)
}

func writeError(w http.ResponseWriter, status int, text, how string) {
	data, err := json.Marshal(api.ErrorBody{Error: text, How: how})
	if err != nil { // two strings always encode
		data = []byte(`{"error":"encoding the error failed","how":""}`)
	}
	writeRaw(w, status, append(data, '\n'))
}

// writeResult answers with a result under the status that says the same: 200 done, 202 unknown,
// 409 refused, 500 failed.
func writeResult(w http.ResponseWriter, r api.Result) {
	status := http.StatusInternalServerError
	switch r.Outcome {
	case api.OutcomeDone:
		status = http.StatusOK
	case api.OutcomeUnknown:
		status = http.StatusAccepted
	case api.OutcomeRefused:
		status = http.StatusConflict
	case api.OutcomeFailed:
	default:
		writeError(w, status, fmt.Sprintf("the outcome %q is none of the four", r.Outcome), "report this, it is a fault of hbd")
		return
	}
	writeJSON(w, status, r)
}

// writeBackendError maps the sentinels of Backend to statuses; the rest is an internal error.
func (s *Server) writeBackendError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		s.cfg.Log.Warn("a request ended with an unknown outcome", "path", r.URL.Path, "error", err)
		writeResult(w, api.Result{Outcome: api.OutcomeUnknown, Node: s.cfg.Node, Message: err.Error()})
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrUnavailable):
		writeError(w, http.StatusServiceUnavailable, err.Error(), "nothing was begun; try again")
	case errors.Is(err, ErrUnknownNode):
		writeError(w, http.StatusNotFound, err.Error(), "hbctl status lists the nodes")
	case errors.Is(err, ErrBadRequest):
		writeError(w, http.StatusBadRequest, err.Error(), "docs/hbctl.md lists the requests")
	default:
		s.cfg.Log.Error("a request failed", "path", r.URL.Path, "error", err)
		writeError(w, http.StatusInternalServerError, err.Error(), "the log of "+s.cfg.Node+" has more")
	}
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %.200q", r.URL.Path), "try GET "+api.PathStatus)
}

// only lets one method through (HEAD with GET) and answers OPTIONS.
func only(method string, next http.Handler) http.Handler {
	allow := method + ", OPTIONS"
	if method == http.MethodGet {
		allow = "GET, HEAD, OPTIONS"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == method, method == http.MethodGet && r.Method == http.MethodHead:
			next.ServeHTTP(w, r)
		case r.Method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Allow", allow)
			writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("%.20q is not answered here", r.Method), "use "+method)
		}
	})
}

// recovered turns a panic into a 500 and a log line: one request's fault must not end the process
// that holds a lease.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // net/http's own way to drop a connection
			}
			s.cfg.Log.Error("a request panicked", "path", r.URL.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
			writeError(w, http.StatusInternalServerError, "internal error", "the log of "+s.cfg.Node+" has more")
		}()
		next.ServeHTTP(w, r)
	})
}
