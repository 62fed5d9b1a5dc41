package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

func TestChangesReachTheBackend(t *testing.T) {
	var got []string
	note := func(v any) (api.Result, error) {
		data, err := json.Marshal(v)
		got = append(got, string(data))
		return api.Result{Outcome: api.OutcomeDone}, err
	}
	b := &fakeBackend{t: t, self: true,
		bootstrap:  func(r api.BootstrapRequest) (api.Result, error) { return note(r) },
		switchover: func(r api.SwitchoverRequest) (api.Result, error) { return note(r) },
		failover:   func(r api.FailoverRequest) (api.Result, error) { return note(r) },
		pause:      func(r api.PauseRequest) (api.Result, error) { return note(r) },
		resume:     func(r api.ResumeRequest) (api.Result, error) { return note(r) },
		rebuild:    func(r api.RebuildRequest) (api.Result, error) { return note(r) },
		rejoin:     func(r api.RejoinRequest) (api.Result, error) { return note(r) },
	}
	s, _ := newTestServer(t, "db1", b, nil)
	for _, c := range []struct{ path, body, want string }{
		{api.PathBootstrap, `{"primary":"db1","actor":"ann"}`, `{"primary":"db1","actor":"ann"}`},
		{api.PathPromote, `{"to":"db2","plan":true,"actor":"ann"}`, `{"from":"","to":"db2","plan":true,"if_plan":"","wait_seconds":0,"kill":false,"actor":"ann"}`},
		{api.PathDemote, `{"actor":"ann"}`, `{"from":"","to":"","plan":false,"if_plan":"","wait_seconds":0,"kill":false,"actor":"ann"}`},
		{api.PathFailover, `{"to":"db2","accept_data_loss":true,"fenced":"db1","actor":"ann"}`,
			`{"to":"db2","accept_data_loss":true,"fenced":"db1","plan":false,"actor":"ann"}`},
		{api.PathFailover, `{"plan":true}`, `{"to":"","accept_data_loss":false,"fenced":"","plan":true,"actor":"someone at 192.0.2.1"}`},
		{api.PathPause, `{"for_seconds":60,"why":"disk swap","actor":"ann"}`, `{"for_seconds":60,"why":"disk swap","actor":"ann"}`},
		{api.PathResume, `{}`, `{"actor":"someone at 192.0.2.1"}`},
		{api.PathRebuild, `{"node":"db3","confirmed":true,"actor":"ann"}`, `{"node":"db3","from":"","confirmed":true,"plan":false,"actor":"ann"}`},
		{api.PathRejoin, `{"node":"db3","actor":"ann"}`, `{"node":"db3","actor":"ann"}`},
	} {
		code, body := do(t, s.API(), "POST", c.path, c.body)
		if code != http.StatusOK {
			t.Fatalf("%s: status %d: %s", c.path, code, body)
		}
		if last := got[len(got)-1]; last != c.want {
			t.Errorf("%s: the backend got %s, want %s", c.path, last, c.want)
		}
	}
}

func TestBadRequestsNeverReachTheBackend(t *testing.T) {
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t, self: true}, nil)
	for _, c := range []struct{ name, path, body, want string }{
		{"empty", api.PathResume, ``, "empty"},
		{"unknown key", api.PathPromote, `{"to":"db2","paln":true}`, `unknown key "paln"`},
		{"wrong case", api.PathPromote, `{"To":"db2"}`, `unknown key "To"`},
		{"twice", api.PathPromote, `{"to":"db2","to":"db3"}`, "twice"},
		{"null", api.PathPromote, `{"to":null}`, "null"},
		{"trailing", api.PathPromote, `{"to":"db2"} {}`, "after the JSON object"},
		{"not an object", api.PathPromote, `["db2"]`, "not a JSON object"},
		{"wrong type", api.PathPromote, `{"to":2}`, "does not fit"},
		{"cut off", api.PathPromote, `{"to":"db2"`, "not JSON"},
		{"oversize", api.PathPause, `{"why":"` + strings.Repeat("x", maxBody) + `"}`, "longer than"},
		{"no target", api.PathPromote, `{}`, `needs "to"`},
		{"demote with target", api.PathDemote, `{"to":"db2"}`, `no "to"`},
		{"to itself", api.PathPromote, `{"to":"db2","from":"db2"}`, "both"},
		{"rebuild of nobody", api.PathRebuild, `{}`, "needs \"node\""},
		{"rejoin of nobody", api.PathRejoin, `{}`, "needs \"node\""},
		{"vouched for without need", api.PathFailover, `{"fenced":"db1"}`, "accepts a loss"},
		{"off and promoted", api.PathFailover, `{"fenced":"db1","to":"db1","accept_data_loss":true}`, "both"},
		{"negative pause", api.PathPause, `{"for_seconds":-1}`, "for_seconds"},
		{"pause beyond arithmetic", api.PathPause, `{"for_seconds":9223372036854775807}`, "for_seconds"},
		{"terminal escape", api.PathPause, `{"why":"\u001b[2J"}`, "printable"},
		{"long id", api.PathPromote, `{"to":"` + strings.Repeat("d", 64) + `"}`, "64 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body := do(t, s.API(), "POST", c.path, c.body)
			if code != http.StatusBadRequest {
				t.Fatalf("status %d, want 400: %s", code, body)
			}
			if e := errorBody(t, body); !strings.Contains(e.Error, c.want) {
				t.Errorf("error %q does not say %q", e.Error, c.want)
			}
		})
	}
}

func TestOutcomesHaveTheirStatus(t *testing.T) {
	for _, c := range []struct {
		result api.Result
		err    error
		code   int
	}{
		{api.Result{Outcome: api.OutcomeDone}, nil, 200},
		{api.Result{Outcome: api.OutcomeUnknown, Operation: 17}, nil, 202},
		{api.Result{Outcome: api.OutcomeRefused, Rule: "candidate.lag"}, nil, 409},
		{api.Result{Outcome: api.OutcomeFailed}, nil, 500},
		{api.Result{Outcome: "perhaps"}, nil, 500},
		{api.Result{}, fmt.Errorf("proposing: %w", ErrUnknownOutcome), 202},
		{api.Result{}, fmt.Errorf("proposing: %w", ErrNotLeader), 503},
		{api.Result{}, fmt.Errorf("stopping: %w", ErrUnavailable), 503},
		{api.Result{}, fmt.Errorf("db9: %w", ErrUnknownNode), 404},
		{api.Result{}, fmt.Errorf("to what: %w", ErrBadRequest), 400},
		{api.Result{}, errors.New("disk on fire"), 500},
	} {
		b := &fakeBackend{t: t, self: true, switchover: func(api.SwitchoverRequest) (api.Result, error) { return c.result, c.err }}
		s, _ := newTestServer(t, "db1", b, nil)
		code, body := do(t, s.API(), "POST", api.PathPromote, `{"to":"db2"}`)
		if code != c.code {
			t.Errorf("%+v, %v: status %d, want %d: %s", c.result, c.err, code, c.code, body)
		}
		if !json.Valid([]byte(body)) {
			t.Errorf("%+v, %v: the body is not JSON: %s", c.result, c.err, body)
		}
	}
}

func TestReads(t *testing.T) {
	b := &fakeBackend{t: t, self: true, local: Local{ClusterID: "c-1"},
		status:  func() api.Status { return api.Status{Cluster: "shop"} },
		history: func() []api.Incident { return nil },
		incident: func(id uint64) (api.Incident, bool) {
			return api.Incident{ID: id, Outcome: api.OutcomeDone}, id == 17
		},
		whyNot: func(node string) ([]api.Verdict, error) {
			if node != "db2" {
				return nil, fmt.Errorf("%q: %w", node, ErrUnknownNode)
			}
			return []api.Verdict{{Rule: "a", OK: true}, {Rule: "b"}}, nil
		},
		operation: func(id uint64, wait time.Duration) (api.Result, bool) {
			return api.Result{Outcome: api.OutcomeUnknown, Operation: id, Message: wait.String()}, id == 17
		},
	}
	s, _ := newTestServer(t, "db1", b, nil)
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/v1/status", 200, `"vips":[]`},
		{"/v1/history", 200, `{"incidents":[]}`},
		{"/v1/incidents/17", 200, `"id":"17"`},
		{"/v1/incidents/18", 404, "not known"},
		{"/v1/incidents/x", 400, "not a number"},
		{"/v1/incidents/0", 400, "not a number"},
		{"/v1/why-not/db2", 200, `"eligible":false`},
		{"/v1/why-not/db9", 404, "no such node"},
		{"/v1/operations/17", 200, `"message":"0s"`},
		{"/v1/operations/17?wait=5s", 200, `"message":"5s"`},
		{"/v1/operations/17?wait=5h", 200, `"message":"30s"`},
		{"/v1/operations/17?wait=soon", 400, "not a duration"},
		{"/v1/operations/17?weit=5s", 400, "unknown query"},
		{"/v1/operations/18", 404, "not known"},
		{"/v1/nothing", 404, "nothing at"},
		{"/v1/promote", 405, "use POST"},
		{"/rpc/ping", 404, "nothing at"},
	} {
		code, body := do(t, s.API(), "GET", c.path, "")
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d and %q", c.path, code, body, c.code, c.want)
		}
	}
}

func TestRPCIsMountedAsGiven(t *testing.T) {
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t}, func(c *Config) {
		c.RPC = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "rpc "+r.URL.Path) })
	})
	if code, body := do(t, s.API(), "POST", "/rpc/ping", "", "Sec-Fetch-Site", "cross-site"); code != 200 || body != "rpc /rpc/ping" {
		t.Errorf("got %d %q", code, body)
	}
}

func TestBrowsersOfOtherSitesAreRefused(t *testing.T) {
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t, self: true}, nil)
	code, body := do(t, s.API(), "POST", api.PathPromote, `{"to":"db2"}`, "Sec-Fetch-Site", "cross-site")
	if code != http.StatusForbidden {
		t.Fatalf("status %d, want 403", code)
	}
	errorBody(t, body)
}

func TestPanicIsAnErrorAndALogLine(t *testing.T) {
	b := &fakeBackend{t: t, self: true, status: func() api.Status { panic("boom") }}
	s, log := newTestServer(t, "db1", b, nil)
	code, body := do(t, s.API(), "GET", api.PathStatus, "")
	if code != 500 || strings.Contains(body, "boom") {
		t.Errorf("got %d %s", code, body)
	}
	if !strings.Contains(log.String(), "boom") {
		t.Errorf("the log does not say why: %s", log)
	}
}

func TestServeStopsWithItsContext(t *testing.T) {
	b := &fakeBackend{t: t, self: true}
	s, _ := newTestServer(t, "db1", b, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.ServeHealth(ctx, ln) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

func TestServeSaysWhyItCannot(t *testing.T) {
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t}, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.ServeAPI(context.Background(), ln); err == nil {
		t.Error("serving on a closed listener gave no error")
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty Config was accepted")
	}
}
