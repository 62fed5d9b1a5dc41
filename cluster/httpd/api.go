package httpd

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// maxWait bounds one long poll of an operation.
const maxWait = 30 * time.Second

// newAPI builds the handler of the API listener.
func (s *Server) newAPI() http.Handler {
	mux := http.NewServeMux()
	route := func(method, pattern string, h http.Handler) {
		mux.Handle(pattern, s.instrument(pattern, only(method, h)))
	}
	b := s.cfg.Backend
	route(http.MethodPost, api.PathBootstrap, change(s, true, validBootstrap, b.Bootstrap))
	route(http.MethodPost, api.PathPromote, change(s, false, validPromote, b.Switchover))
	route(http.MethodPost, api.PathDemote, change(s, false, validDemote, b.Switchover))
	route(http.MethodPost, api.PathFailover, change(s, false, validFailover, b.Failover))
	route(http.MethodPost, api.PathPause, change(s, false, validPause, b.Pause))
	route(http.MethodPost, api.PathResume, change(s, false, validResume, b.Resume))

	route(http.MethodPost, api.PathRebuild, change(s, false, validRebuild, b.Rebuild))
	route(http.MethodPost, api.PathRejoin, change(s, false, validRejoin, b.Rejoin))

	route(http.MethodGet, api.PathStatus, http.HandlerFunc(s.status))
	route(http.MethodGet, api.PathHistory, http.HandlerFunc(s.history))
	route(http.MethodGet, api.PathIncidents+"{id}", http.HandlerFunc(s.incident))
	route(http.MethodGet, api.PathCheck, http.HandlerFunc(s.check))
	route(http.MethodGet, api.PathCheckFacts, http.HandlerFunc(s.checkFacts))
	// These two know most on the leader: it judges, and it has the operation in hand.
	route(http.MethodGet, api.PathWhyNot+"{node}", s.atLeader(s.whyNot))
	route(http.MethodGet, api.PathOperations+"{id}", s.atLeader(s.operation))
	mux.Handle("/", s.instrument("other", http.HandlerFunc(notFound)))

	// A page in an operator's browser must not be able to post here on its own.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusForbidden, "a browser sent this for another site", "use hbctl, or a page served by hbd itself")
	}))
	root := http.NewServeMux()
	root.Handle("/", guard.Handler(mux))
	if s.cfg.RPC != nil {
		root.Handle(api.PathRPC, s.cfg.RPC)
	}
	return s.recovered(root)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, s.cfg.Backend.Status(r.Context()))
}

// check asks all nodes, or those named.
func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	query, err := queryValues(r, "nodes")
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "only ?nodes=db1,db2 is known here")
		return
	}
	var nodes []string
	if query["nodes"] != "" {
		nodes = strings.Split(query["nodes"], ",")
	}
	for _, node := range nodes {
		if err := validText("nodes", node, maxID); err != nil {
			writeError(w, http.StatusBadRequest, err.Error(), "give ids as hbctl status prints them")
			return
		}
	}
	out, err := s.cfg.Backend.Check(r.Context(), nodes)
	if err != nil {
		s.writeBackendError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) checkFacts(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, s.cfg.Backend.CheckFacts(r.Context()))
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, api.History{Incidents: s.cfg.Backend.History(r.Context())})
}

func (s *Server) incident(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	incident, found := s.cfg.Backend.Incident(r.Context(), id)
	if !found {
		writeError(w, http.StatusNotFound, fmt.Sprintf("incident %d is not known to %s", id, s.cfg.Node), "hbctl history lists those kept")
		return
	}
	writeJSON(w, http.StatusOK, incident)
}

func (s *Server) whyNot(w http.ResponseWriter, r *http.Request) {
	node := r.PathValue("node")
	if err := validText("node", node, maxID); err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "give a node's id as hbctl status prints it")
		return
	}
	if s.cfg.Backend.Local().ClusterID == "" {
		writeError(w, http.StatusServiceUnavailable, s.noCluster()+": there is nothing to judge", howNoCluster)
		return
	}
	verdicts, err := s.cfg.Backend.WhyNot(r.Context(), node)
	if err != nil {
		s.writeBackendError(w, r, err)
		return
	}
	out := api.WhyNot{Node: node, Eligible: true, Verdicts: verdicts}
	for _, v := range verdicts {
		out.Eligible = out.Eligible && v.OK
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) operation(w http.ResponseWriter, r *http.Request) {
	id, ok := pathID(w, r)
	if !ok {
		return
	}
	query, err := queryValues(r, "wait")
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "only ?wait=10s is known here")
		return
	}
	var wait time.Duration
	if text := query["wait"]; text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("wait=%q is not a duration", text), "write it like wait=10s")
			return
		}
	}
	result, found := s.cfg.Backend.Operation(r.Context(), id, min(wait, maxWait))
	if !found {
		writeError(w, http.StatusNotFound, fmt.Sprintf("operation %d is not known to %s", id, s.cfg.Node), "hbctl history lists those that ended")
		return
	}
	// The question "how far is it" was answered, whatever the outcome says.
	writeJSON(w, http.StatusOK, result)
}

// pathID reads the {id} of the path, or answers 400.
func pathID(w http.ResponseWriter, r *http.Request) (uint64, bool) {
	text := r.PathValue("id")
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("%q is not a number above 0", text), "give the number as hbctl history prints it")
		return 0, false
	}
	return id, true
}

// queryValues reads the query, each key at most once and only the allowed ones: a mistyped parameter
// of a health check must not silently mean the default.
func queryValues(r *http.Request, allowed ...string) (map[string]string, error) {
	out := map[string]string{}
	for key, values := range r.URL.Query() {
		known := false
		for _, a := range allowed {
			known = known || a == key
		}
		if !known {
			return nil, fmt.Errorf("unknown query parameter %q", key)
		}
		if len(values) != 1 {
			return nil, fmt.Errorf("query parameter %q is there %d times", key, len(values))
		}
		out[key] = values[0]
	}
	return out, nil
}
