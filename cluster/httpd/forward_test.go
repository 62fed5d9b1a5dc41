package httpd

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// pair is a leader db1 and a follower db2 that knows it.
func pair(t *testing.T, lead *fakeBackend) (follower *Server, back *fakeBackend) {
	t.Helper()
	lead.t, lead.self = t, true
	leader, _ := newTestServer(t, "db1", lead, nil)
	back = &fakeBackend{t: t, leader: listen(t, leader.API())}
	follower, _ = newTestServer(t, "db2", back, nil)
	return follower, back
}

func TestAFollowerPassesChangesOn(t *testing.T) {
	calls := 0
	follower, _ := pair(t, &fakeBackend{switchover: func(r api.SwitchoverRequest) (api.Result, error) {
		calls++
		if r.To != "db3" || r.Actor != "ann" {
			t.Errorf("the leader got %+v", r)
		}
		return api.Result{Outcome: api.OutcomeRefused, Rule: "candidate.lag", Value: "14.2 s", Threshold: "2 s"}, nil
	}})
	code, body := do(t, follower.API(), "POST", api.PathPromote, `{"to":"db3","actor":"ann"}`)
	if code != http.StatusConflict || !strings.Contains(body, `"threshold":"2 s"`) || calls != 1 {
		t.Errorf("got %d %s after %d calls", code, body, calls)
	}
}

func TestABadRequestIsNotPassedOn(t *testing.T) {
	follower, _ := pair(t, &fakeBackend{})
	if code, _ := do(t, follower.API(), "POST", api.PathPromote, `{"too":"db3"}`); code != 400 {
		t.Errorf("status %d, want 400", code)
	}
}

func TestForwardingCannotLoop(t *testing.T) {
	a, b := &fakeBackend{t: t}, &fakeBackend{t: t}
	first, _ := newTestServer(t, "db1", a, nil)
	second, _ := newTestServer(t, "db2", b, nil)
	a.setLeader(listen(t, second.API()), false)
	b.setLeader(listen(t, first.API()), false)
	code, body := do(t, first.API(), "POST", api.PathPromote, `{"to":"db3"}`)
	if code != http.StatusServiceUnavailable {
		t.Fatalf("status %d, want 503: %s", code, body)
	}
	if e := errorBody(t, body); !strings.Contains(e.Error, "db1 passed this on to db2") {
		t.Errorf("the error does not name both: %q", e.Error)
	}
	// Positive control: without the guard's header the second node would pass it on again.
	second2, _ := newTestServer(t, "db2", &fakeBackend{t: t, leader: "127.0.0.1:1"}, nil)
	if _, body := do(t, second2.API(), "POST", api.PathPromote, `{"to":"db3"}`); !strings.Contains(body, "127.0.0.1:1") {
		t.Errorf("without the header the node did not try the leader: %s", body)
	}
}

func TestNoLeaderIsServiceUnavailable(t *testing.T) {
	for words, local := range map[string]Local{"no leader": {ClusterID: "c-1"}, "no cluster": {}} {
		s, _ := newTestServer(t, "db2", &fakeBackend{t: t, local: local}, nil)
		code, body := do(t, s.API(), "POST", api.PathResume, `{}`)
		if e := errorBody(t, body); code != 503 || !strings.Contains(e.Error, words) {
			t.Errorf("got %d %s, want %q", code, body, words)
		}
	}
}

func TestNothingIsJudgedWithoutACluster(t *testing.T) {
	s, _ := newTestServer(t, "db2", &fakeBackend{t: t}, nil)
	if code, body := do(t, s.API(), "GET", api.PathWhyNot+"db1", ""); code != 503 || !strings.Contains(body, "hbctl bootstrap") {
		t.Errorf("got %d %s", code, body)
	}
}

func TestBootstrapNeedsNoLeader(t *testing.T) {
	b := &fakeBackend{t: t, bootstrap: func(api.BootstrapRequest) (api.Result, error) {
		return api.Result{Outcome: api.OutcomeDone}, nil
	}}
	s, _ := newTestServer(t, "db2", b, nil)
	if code, body := do(t, s.API(), "POST", api.PathBootstrap, `{"primary":"db2"}`); code != 200 {
		t.Errorf("got %d %s", code, body)
	}
}

func TestALeaderThatDoesNotListenBeganNothing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s, _ := newTestServer(t, "db2", &fakeBackend{t: t, leader: addr}, nil)
	code, body := do(t, s.API(), "POST", api.PathResume, `{}`)
	if e := errorBody(t, body); code != 503 || !strings.Contains(e.Error, "nothing was begun") {
		t.Errorf("got %d %s", code, body)
	}
}

// TestALeaderThatDiesAfterTheRequestIsUnknown is the difference that matters: the request was sent, so
// it may have happened, and nobody may be told otherwise.
func TestALeaderThatDiesAfterTheRequestIsUnknown(t *testing.T) {
	got := make(chan struct{}, 8)
	addr := listen(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		got <- struct{}{}
		panic(http.ErrAbortHandler)
	}))
	s, _ := newTestServer(t, "db2", &fakeBackend{t: t, leader: addr}, nil)
	code, body := do(t, s.API(), "POST", api.PathPromote, `{"to":"db3"}`)
	if code != http.StatusAccepted || !strings.Contains(body, `"outcome":"unknown"`) {
		t.Errorf("got %d %s", code, body)
	}
	if len(got) != 1 {
		t.Errorf("the leader was asked %d times, want once", len(got))
	}
}

func TestReadsFallBackToThisNode(t *testing.T) {
	follower, back := pair(t, &fakeBackend{
		operation: func(id uint64, _ time.Duration) (api.Result, bool) {
			return api.Result{Outcome: api.OutcomeDone, Operation: id, Message: "told by the leader"}, true
		},
	})
	if _, body := do(t, follower.API(), "GET", "/v1/operations/17", ""); !strings.Contains(body, "told by the leader") {
		t.Errorf("the leader was not asked: %s", body)
	}
	back.setLeader("127.0.0.1:1", false)
	back.operation = func(id uint64, _ time.Duration) (api.Result, bool) {
		return api.Result{Outcome: api.OutcomeUnknown, Operation: id, Message: "told by the follower"}, true
	}
	if _, body := do(t, follower.API(), "GET", "/v1/operations/17", ""); !strings.Contains(body, "told by the follower") {
		t.Errorf("the follower did not answer itself: %s", body)
	}
}
