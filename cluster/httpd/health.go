package httpd

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/highbase/highbase/cluster/api"
)

const (
	// maxViewAge is how old the local view may be for a role check: an older one is not the truth.
	maxViewAge = time.Second
	// maxLoopAge is how long the loop may be silent before /healthz says hbd hangs. Longer than
	// maxViewAge: a restart of hbd for a moment of starvation would do harm.
	maxLoopAge = 10 * time.Second
)

// healthAnswer is the body of a health check: one JSON line.
type healthAnswer struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason"`
	Node   string `json:"node"`
	Role   string `json:"role"`
	Epoch  uint64 `json:"epoch"`
}

// newHealth builds the handler of the health and metrics listener.
func (s *Server) newHealth() http.Handler {
	mux := http.NewServeMux()
	check := func(pattern string, judge func(Local, map[string]string) (bool, string, error), params ...string) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query, err := queryValues(r, params...)
			if err != nil {
				writeError(w, http.StatusBadRequest, err.Error(), "docs/hbctl.md lists the health checks")
				return
			}
			local := s.cfg.Backend.Local()
			ok, reason, err := judge(local, query)
			if err != nil {
				writeError(w, http.StatusBadRequest, err.Error(), "docs/hbctl.md lists the health checks")
				return
			}
			status := http.StatusServiceUnavailable
			if ok {
				status = http.StatusOK
			}
			writeJSON(w, status, healthAnswer{OK: ok, Reason: reason, Node: local.Node, Role: local.Role, Epoch: local.Epoch})
		})
		mux.Handle(pattern, s.instrument(pattern, only(http.MethodGet, h)))
	}
	check("/primary", judgePrimary)
	check("/replica", judgeReplica, "max-lag")
	check("/healthz", judgeHealthz)
	check("/readyz", judgeReadyz)
	metrics := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      promLog{s.cfg.Log},
		Timeout:       5 * time.Second,
		// Overlapping scrapes are fine, a pile of them is not.
		MaxRequestsInFlight: 4,
	})
	mux.Handle("/metrics", s.instrument("/metrics", only(http.MethodGet, metrics)))
	mux.Handle("/", s.instrument("other", http.HandlerFunc(notFound)))
	return s.recovered(mux)
}

// judgePrimary: clients may write here. Only a lease that is valid at this moment and an open gate
// say so, whatever the role is called.
func judgePrimary(l Local, _ map[string]string) (bool, string, error) {
	switch {
	case l.Age > maxViewAge:
		return false, stale(l), nil
	case l.Role != api.RolePrimary:
		return false, notPrimary(l), nil
	case l.LeaseRemaining <= 0:
		return false, "the lease has ended", nil
	case !l.GateOpen:
		return false, "the gate is closed", nil
	case !l.Server.Up:
		return false, "the database server is down", nil
	}
	return true, fmt.Sprintf("primary of epoch %d, lease %d ms", l.Epoch, l.LeaseRemaining.Milliseconds()), nil
}

// judgeReplica: clients may read here, at most max-lag behind when given.
func judgeReplica(l Local, query map[string]string) (bool, string, error) {
	limit := time.Duration(-1)
	if text, given := query["max-lag"]; given {
		parsed, err := time.ParseDuration(text)
		if err != nil || parsed < 0 {
			return false, "", fmt.Errorf("max-lag=%q is not a duration, write it like max-lag=2s", text)
		}
		limit = parsed
	}
	switch {
	case l.Age > maxViewAge:
		return false, stale(l), nil
	case l.Role != api.RoleReplica:
		return false, "this node is " + orUnknown(l.Role), nil
	case !l.Server.Up:
		return false, "the database server is down", nil
	case !l.Replication.IO || !l.Replication.SQL:
		return false, fmt.Sprintf("replication does not run (receiving: %t, applying: %t)", l.Replication.IO, l.Replication.SQL), nil
	case limit >= 0 && l.Replication.Lag == nil:
		return false, "the lag is not known", nil
	case limit >= 0 && *l.Replication.Lag > limit:
		return false, fmt.Sprintf("the lag is %s, more than %s", l.Replication.Lag.Round(time.Millisecond), limit), nil
	case l.Replication.Lag == nil:
		return true, "replica, the lag is not known", nil
	}
	return true, fmt.Sprintf("replica, the lag is %s", l.Replication.Lag.Round(time.Millisecond)), nil
}

// judgeHealthz: hbd itself is alive. It says nothing of the cluster.
func judgeHealthz(l Local, _ map[string]string) (bool, string, error) {
	if l.Age > maxLoopAge {
		return false, stale(l), nil
	}
	return true, "hbd is running", nil
}

// judgeReadyz: this node can do its part in the cluster.
func judgeReadyz(l Local, _ map[string]string) (bool, string, error) {
	switch {
	case l.Age > maxLoopAge:
		return false, stale(l), nil
	case l.NotReady != "":
		return false, l.NotReady, nil
	case !l.Raft.HasLeader:
		return false, "no Raft leader is known: nothing can be decided", nil
	}
	return true, "ready", nil
}

func stale(l Local) string {
	return fmt.Sprintf("stale: the view is %s old", l.Age.Round(time.Millisecond))
}

func notPrimary(l Local) string {
	if l.Primary == "" {
		return "this node is " + orUnknown(l.Role) + ", there is no primary"
	}
	return fmt.Sprintf("this node is %s, the primary is %s", orUnknown(l.Role), l.Primary)
}

func orUnknown(role string) string {
	if role == "" {
		return "of unknown role"
	}
	return role
}
