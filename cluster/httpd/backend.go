package httpd

import (
	"context"
	"errors"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// Backend is what this package needs of the cluster. All methods are called from many goroutines at
// once; Status and Local are called on every scrape and health check and must not wait for the
// network, the disk, or a lock held across either.
type Backend interface {
	// Status is the whole cluster as this node knows it, with its age.
	Status(ctx context.Context) api.Status
	// Local is this node only.
	Local() Local

	// The requests that change something. The error is for what is not an answer of a rule: one of the
	// sentinels below (wrapped), or anything else, which is reported as an internal error.
	// A Result may be OutcomeUnknown with an operation id as soon as the operation is committed.
	// Bootstrap alone is also called on a node that knows no leader: it makes the first one.
	Bootstrap(ctx context.Context, req api.BootstrapRequest) (api.Result, error)
	Switchover(ctx context.Context, req api.SwitchoverRequest) (api.Result, error)
	Failover(ctx context.Context, req api.FailoverRequest) (api.Result, error)
	Pause(ctx context.Context, req api.PauseRequest) (api.Result, error)
	Resume(ctx context.Context, req api.ResumeRequest) (api.Result, error)
	Rebuild(ctx context.Context, req api.RebuildRequest) (api.Result, error)
	Rejoin(ctx context.Context, req api.RejoinRequest) (api.Result, error)

	// History is the incidents kept, newest first; Incident is one of them.
	History(ctx context.Context) []api.Incident
	Incident(ctx context.Context, id uint64) (api.Incident, bool)
	// WhyNot is every rule looked at for node as a candidate; ErrUnknownNode when it is no member.
	WhyNot(ctx context.Context, node string) ([]api.Verdict, error)
	// Operation tells how far an operation is. With wait above 0 it returns when something changed, at
	// the latest after wait. False: this node knows no such operation.
	Operation(ctx context.Context, id uint64, wait time.Duration) (api.Result, bool)

	// Check looks at the given nodes, all when none is given; ErrUnknownNode for a stranger. CheckFacts is this node's part of it.
	Check(ctx context.Context, nodes []string) (api.Check, error)
	CheckFacts(ctx context.Context) api.CheckFacts

	// LeaderAPI is the API address of the Raft leader, "" when none is known; self when it is this node.
	LeaderAPI() (addr string, self bool)
}

// Sentinels a Backend returns, wrapped with what it was doing. The status codes they become are part
// of the contract with api.Client: 503 means that certainly nothing was begun.
var (
	// ErrNotLeader: this node is not, or no longer, the leader, and did not begin the request (503).
	ErrNotLeader = errors.New("this node is not the leader")
	// ErrUnavailable: nothing was begun and it may work later (503).
	ErrUnavailable = errors.New("cannot be served now")
	// ErrUnknownOutcome: the request may or may not take effect, as after a lost leadership (202).
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrUnknownNode: the request names a node that is no member (404).
	ErrUnknownNode = errors.New("no such node")
	// ErrBadRequest: the request contradicts itself (400).
	ErrBadRequest = errors.New("bad request")
)
