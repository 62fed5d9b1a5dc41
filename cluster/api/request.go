package api

import "encoding/json"

// Paths of the API.
const (
	PathStatus     = "/v1/status"
	PathBootstrap  = "/v1/bootstrap"
	PathPromote    = "/v1/promote"
	PathDemote     = "/v1/demote"
	PathFailover   = "/v1/failover"
	PathPause      = "/v1/pause"
	PathResume     = "/v1/resume"
	PathRebuild    = "/v1/rebuild"
	PathRejoin     = "/v1/rejoin"
	PathHistory    = "/v1/history"
	PathIncidents  = "/v1/incidents/"  // + number
	PathWhyNot     = "/v1/why-not/"    // + node id
	PathOperations = "/v1/operations/" // + number, ?wait=10s
	PathCheck      = "/v1/check"       // ?nodes=db1,db2
	PathCheckFacts = "/v1/check/facts" // of the node that is asked
	PathRPC        = "/rpc/"           // between nodes only
)

// HeaderForwardedBy carries the id of the node that passed a request on to the leader. A request that
// carries it is never passed on again, so two nodes that name each other as leader cannot loop.
const HeaderForwardedBy = "Highbase-Forwarded-By"

// BootstrapRequest names the first primary (POST /v1/bootstrap). It works once in a cluster's life.
type BootstrapRequest struct {
	// Primary is the id of the first primary, "" for the node that is asked.
	Primary string `json:"primary"`
	Actor   string `json:"actor"`
}

// SwitchoverRequest asks for a planned change of the primary (POST /v1/promote with To set, POST
// /v1/demote with or without From).
type SwitchoverRequest struct {
	// From is the primary that is to give up its role, "" for whoever has it.
	From string `json:"from"`
	// To is the node that is to take it over, "" for the best other candidate.
	To string `json:"to"`
	// Plan asks for the steps, the gates and the expected pause, and changes nothing.
	Plan bool `json:"plan"`
	// IfPlan is the token of a plan: refused when the epoch, the sync set or a gate has changed since; "" for whatever holds.
	IfPlan string `json:"if_plan"`
	// WaitSeconds is how long clients in the middle of something long are waited for, 0 to refuse at once.
	WaitSeconds float64 `json:"wait_seconds"`
	// Kill ends them at the pause instead; their transactions are rolled back.
	Kill  bool   `json:"kill"`
	Actor string `json:"actor"`
}

// FailoverRequest asks for an unplanned change of the primary (POST /v1/failover).
type FailoverRequest struct {
	// To is the node that is wanted as the primary, "" for the best.
	To string `json:"to"`
	// AcceptDataLoss lets acknowledged writes be lost when nobody can be proven to hold all of them.
	AcceptDataLoss bool `json:"accept_data_loss"`
	// Fenced is the old primary, when whoever asks vouches that it is switched off; only with AcceptDataLoss.
	Fenced string `json:"fenced"`
	// Plan asks only for what is at risk and what would be begun, and changes nothing.
	Plan  bool   `json:"plan"`
	Actor string `json:"actor"`
}

// PauseRequest forbids new operations (POST /v1/pause).
type PauseRequest struct {
	// ForSeconds is how long the pause lasts; 0 is until resumed.
	ForSeconds int64  `json:"for_seconds"`
	Why        string `json:"why"`
	Actor      string `json:"actor"`
}

// ResumeRequest ends a pause (POST /v1/resume).
type ResumeRequest struct {
	Actor string `json:"actor"`
}

// RebuildRequest has a node's data replaced by a copy of another's (POST /v1/rebuild).
type RebuildRequest struct {
	Node string `json:"node"`
	// From is the donor, "" for the best one.
	From string `json:"from"`
	// Confirmed says that this node's data may be thrown away whatever it holds, also where it may be the only copy of acknowledged writes.
	Confirmed bool `json:"confirmed"`
	// Plan asks for the gates and the donor, and changes nothing.
	Plan  bool   `json:"plan"`
	Actor string `json:"actor"`
}

// RejoinRequest lifts a node's quarantine, so that it tries to come back as it is (POST /v1/rejoin).
type RejoinRequest struct {
	Node  string `json:"node"`
	Actor string `json:"actor"`
}

// History answers GET /v1/history: the incidents kept, newest first.
type History struct {
	Incidents []Incident `json:"incidents"`
}

// WhyNot answers GET /v1/why-not/{node}: every rule that was looked at for this node as a candidate.
type WhyNot struct {
	Node string `json:"node"`
	// Eligible says that no rule refuses the node.
	Eligible bool      `json:"eligible"`
	Verdicts []Verdict `json:"verdicts"`
}

// ErrorBody is the body of every answer that is an error (status 400 and above without an outcome).
type ErrorBody struct {
	// Error says what is wrong in one sentence, How what to do about it.
	Error string `json:"error"`
	How   string `json:"how"`
}

// MarshalJSON writes every list as a list, never null.
func (h History) MarshalJSON() ([]byte, error) {
	type plain History
	h.Incidents = list(h.Incidents)
	return json.Marshal(plain(h))
}

// MarshalJSON writes every list as a list, never null.
func (w WhyNot) MarshalJSON() ([]byte, error) {
	type plain WhyNot
	w.Verdicts = list(w.Verdicts)
	return json.Marshal(plain(w))
}
