package httpd

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// primaryLocal is a healthy primary, replicaLocal a healthy replica; the cases break one thing each.
func primaryLocal() Local {
	return Local{Node: "db1", Role: api.RolePrimary, Primary: "db1", Epoch: 42, LeaseRemaining: time.Second, GateOpen: true,
		Server: Database{Present: true, Up: true}}
}

func replicaLocal() Local {
	lag := 500 * time.Millisecond
	return Local{Node: "db2", Role: api.RoleReplica, Primary: "db1", Epoch: 42, Raft: Raft{HasLeader: true},
		Server: Database{Present: true, Up: true}, Replication: Replication{IO: true, SQL: true, Lag: &lag}}
}

func TestHealthChecks(t *testing.T) {
	with := func(l Local, change func(*Local)) Local { change(&l); return l }
	for _, c := range []struct {
		name   string
		local  Local
		path   string
		code   int
		reason string
	}{
		{"primary", primaryLocal(), "/primary", 200, "epoch 42"},
		{"lease over", with(primaryLocal(), func(l *Local) { l.LeaseRemaining = 0 }), "/primary", 503, "lease has ended"},
		{"lease long over", with(primaryLocal(), func(l *Local) { l.LeaseRemaining = -time.Second }), "/primary", 503, "lease has ended"},
		{"gate closed", with(primaryLocal(), func(l *Local) { l.GateOpen = false }), "/primary", 503, "gate is closed"},
		{"server down", with(primaryLocal(), func(l *Local) { l.Server.Up = false }), "/primary", 503, "server is down"},
		{"old view", with(primaryLocal(), func(l *Local) { l.Age = 2 * time.Second }), "/primary", 503, "stale"},
		{"replica is no primary", replicaLocal(), "/primary", 503, "the primary is db1"},
		{"lease without the role", with(primaryLocal(), func(l *Local) { l.Role = api.RoleFenced }), "/primary", 503, "fenced"},
		{"nothing known", Local{}, "/primary", 503, "there is no primary"},
		{"replica", replicaLocal(), "/replica", 200, "500ms"},
		{"close enough", replicaLocal(), "/replica?max-lag=2s", 200, "500ms"},
		{"too far behind", replicaLocal(), "/replica?max-lag=100ms", 503, "more than 100ms"},
		{"lag unknown", with(replicaLocal(), func(l *Local) { l.Replication.Lag = nil }), "/replica?max-lag=2s", 503, "not known"},
		{"lag unknown, not asked", with(replicaLocal(), func(l *Local) { l.Replication.Lag = nil }), "/replica", 200, "not known"},
		{"not receiving", with(replicaLocal(), func(l *Local) { l.Replication.IO = false }), "/replica", 503, "does not run"},
		{"not applying", with(replicaLocal(), func(l *Local) { l.Replication.SQL = false }), "/replica", 503, "does not run"},
		{"primary is no replica", primaryLocal(), "/replica", 503, "primary"},
		{"hbd lives", primaryLocal(), "/healthz", 200, "running"},
		{"hbd hangs", with(primaryLocal(), func(l *Local) { l.Age = time.Minute }), "/healthz", 503, "stale"},
		{"hbd starved for a moment", with(primaryLocal(), func(l *Local) { l.Age = 3 * time.Second }), "/healthz", 200, "running"},
		{"ready", replicaLocal(), "/readyz", 200, "ready"},
		{"no leader", with(replicaLocal(), func(l *Local) { l.Raft.HasLeader = false }), "/readyz", 503, "no Raft leader"},
		{"not ready", with(replicaLocal(), func(l *Local) { l.NotReady = "catching up" }), "/readyz", 503, "catching up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newTestServer(t, "db1", &fakeBackend{t: t, local: c.local}, nil)
			code, body := do(t, s.Health(), "GET", c.path, "")
			var answer healthAnswer
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatal(err)
			}
			if code != c.code || answer.OK != (code == 200) || !strings.Contains(answer.Reason, c.reason) {
				t.Errorf("got %d %s, want %d and %q", code, body, c.code, c.reason)
			}
			if strings.Count(body, "\n") != 1 {
				t.Errorf("the body is not one line: %q", body)
			}
			if head, _ := do(t, s.Health(), "HEAD", c.path, ""); head != c.code {
				t.Errorf("HEAD gives %d, GET %d", head, c.code)
			}
		})
	}
}

func TestHealthListenerTakesNoChanges(t *testing.T) {
	s, _ := newTestServer(t, "db1", &fakeBackend{t: t, local: primaryLocal(), self: true}, nil)
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"POST", "/primary", http.StatusMethodNotAllowed},
		{"POST", api.PathPromote, http.StatusNotFound},
		{"GET", api.PathStatus, http.StatusNotFound},
		{"OPTIONS", "/primary", http.StatusNoContent},
		{"GET", "/replica?maxlag=2s", http.StatusBadRequest},
		{"GET", "/replica?max-lag=2", http.StatusBadRequest},
		{"GET", "/replica?max-lag=-2s", http.StatusBadRequest},
		{"GET", "/replica?max-lag=2s&max-lag=3s", http.StatusBadRequest},
	} {
		if code, body := do(t, s.Health(), c.method, c.path, `{"to":"db2"}`); code != c.code {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, code, body, c.code)
		}
	}
}
