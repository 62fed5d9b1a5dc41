package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// fakeBackend is strict: a call for which the test set no function fails the test.
type fakeBackend struct {
	t *testing.T

	mu     sync.Mutex
	leader string
	self   bool
	local  Local

	status     func() api.Status
	bootstrap  func(api.BootstrapRequest) (api.Result, error)
	switchover func(api.SwitchoverRequest) (api.Result, error)
	failover   func(api.FailoverRequest) (api.Result, error)
	pause      func(api.PauseRequest) (api.Result, error)
	resume     func(api.ResumeRequest) (api.Result, error)
	rebuild    func(api.RebuildRequest) (api.Result, error)
	rejoin     func(api.RejoinRequest) (api.Result, error)
	history    func() []api.Incident
	incident   func(uint64) (api.Incident, bool)
	check      func([]string) (api.Check, error)
	whyNot     func(string) ([]api.Verdict, error)
	operation  func(uint64, time.Duration) (api.Result, bool)
}

var _ Backend = (*fakeBackend)(nil)

func (f *fakeBackend) Check(_ context.Context, nodes []string) (api.Check, error) {
	if f.check == nil {
		f.unexpected("Check")
		return api.Check{}, ErrUnavailable
	}
	return f.check(nodes)
}

func (f *fakeBackend) CheckFacts(context.Context) api.CheckFacts { return api.CheckFacts{Node: "db1"} }

func (f *fakeBackend) unexpected(what string) {
	f.t.Helper()
	f.t.Errorf("unexpected call of %s", what)
}

func (f *fakeBackend) Status(context.Context) api.Status {
	if f.status == nil {
		f.unexpected("Status")
		return api.Status{}
	}
	return f.status()
}

func (f *fakeBackend) Local() Local {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.local
}

func (f *fakeBackend) Bootstrap(_ context.Context, r api.BootstrapRequest) (api.Result, error) {
	if f.bootstrap == nil {
		f.unexpected("Bootstrap")
		return api.Result{}, ErrUnavailable
	}
	return f.bootstrap(r)
}

func (f *fakeBackend) Switchover(_ context.Context, r api.SwitchoverRequest) (api.Result, error) {
	if f.switchover == nil {
		f.unexpected("Switchover")
		return api.Result{}, ErrUnavailable
	}
	return f.switchover(r)
}

func (f *fakeBackend) Failover(_ context.Context, r api.FailoverRequest) (api.Result, error) {
	if f.failover == nil {
		f.unexpected("Failover")
		return api.Result{}, ErrUnavailable
	}
	return f.failover(r)
}

func (f *fakeBackend) Pause(_ context.Context, r api.PauseRequest) (api.Result, error) {
	if f.pause == nil {
		f.unexpected("Pause")
		return api.Result{}, ErrUnavailable
	}
	return f.pause(r)
}

func (f *fakeBackend) Rebuild(_ context.Context, r api.RebuildRequest) (api.Result, error) {
	if f.rebuild == nil {
		f.unexpected("Rebuild")
		return api.Result{}, ErrUnavailable
	}
	return f.rebuild(r)
}

func (f *fakeBackend) Rejoin(_ context.Context, r api.RejoinRequest) (api.Result, error) {
	if f.rejoin == nil {
		f.unexpected("Rejoin")
		return api.Result{}, ErrUnavailable
	}
	return f.rejoin(r)
}

func (f *fakeBackend) Resume(_ context.Context, r api.ResumeRequest) (api.Result, error) {
	if f.resume == nil {
		f.unexpected("Resume")
		return api.Result{}, ErrUnavailable
	}
	return f.resume(r)
}

func (f *fakeBackend) History(context.Context) []api.Incident {
	if f.history == nil {
		f.unexpected("History")
		return nil
	}
	return f.history()
}

func (f *fakeBackend) Incident(_ context.Context, id uint64) (api.Incident, bool) {
	if f.incident == nil {
		f.unexpected("Incident")
		return api.Incident{}, false
	}
	return f.incident(id)
}

func (f *fakeBackend) WhyNot(_ context.Context, node string) ([]api.Verdict, error) {
	if f.whyNot == nil {
		f.unexpected("WhyNot")
		return nil, ErrUnknownNode
	}
	return f.whyNot(node)
}

func (f *fakeBackend) Operation(_ context.Context, id uint64, wait time.Duration) (api.Result, bool) {
	if f.operation == nil {
		f.unexpected("Operation")
		return api.Result{}, false
	}
	return f.operation(id, wait)
}

func (f *fakeBackend) LeaderAPI() (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leader, f.self
}

func (f *fakeBackend) setLeader(addr string, self bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leader, f.self = addr, self
}

// logged is a slog destination tests can read.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newTestServer(t *testing.T, node string, b Backend, change func(*Config)) (*Server, *logged) {
	t.Helper()
	out := &logged{}
	cfg := Config{Node: node, Backend: b, Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Version: "1.2.3", Revision: "abc"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, out
}

// listen serves a handler on loopback and gives its HOST:PORT.
func listen(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// do makes one request on a handler and gives status and body.
func do(t *testing.T, h http.Handler, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	data, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(data)
}

// errorBody decodes an error answer and fails unless it says what and how.
func errorBody(t *testing.T, body string) api.ErrorBody {
	t.Helper()
	var e api.ErrorBody
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		t.Fatalf("the answer is no error body: %v: %s", err, body)
	}
	if e.Error == "" || e.How == "" {
		t.Fatalf("the error does not say what and how: %s", body)
	}
	return e
}
