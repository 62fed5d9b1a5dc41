package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster"
	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/cluster/httpd"
	"github.com/highbase/highbase/fsm"
)

var _ httpd.Backend = (*backend)(nil)

// backend fits a node to the HTTP server. Requests pass through, with the node's errors made the server's; Local is
// translated, and the durations that the node hands out once are gathered.
type backend struct {
	*cluster.Node
	checker *checker
	dialect string // "mariadb", "mysql" or "none"

	mu     sync.Mutex
	phases map[string]httpd.Histogram
	gaps   map[string]httpd.Histogram
	starts serverStart
}

// serverStart is since when the present run of mysqld has been seen.
type serverStart struct {
	run string
	at  time.Time
}

func newBackend(n *cluster.Node, c *checker, dialect string) *backend {
	return &backend{Node: n, checker: c, dialect: dialect, phases: map[string]httpd.Histogram{}, gaps: map[string]httpd.Histogram{}}
}

// translate makes an error of the cluster one of the HTTP server, with its words.
func translate(err error) error {
	for ours, theirs := range map[error]error{
		cluster.ErrNotLeader: httpd.ErrNotLeader, cluster.ErrUnknownOutcome: httpd.ErrUnknownOutcome, cluster.ErrUnknownNode: httpd.ErrUnknownNode,
	} {
		if errors.Is(err, ours) {
			return translated{kind: theirs, error: err}
		}
	}
	return err
}

// translated is an error with the words of the one and the kind of the other.
type translated struct {
	error
	kind error
}

// Unwrap makes it both.
func (t translated) Unwrap() []error { return []error{t.kind, t.error} }

// Bootstrap implements httpd.Backend, as do the others.
func (b *backend) Bootstrap(ctx context.Context, req api.BootstrapRequest) (api.Result, error) {
	r, err := b.Node.Bootstrap(ctx, req)
	return r, translate(err)
}

func (b *backend) Switchover(ctx context.Context, req api.SwitchoverRequest) (api.Result, error) {
	r, err := b.Node.Switchover(ctx, req)
	return r, translate(err)
}

func (b *backend) Rebuild(ctx context.Context, req api.RebuildRequest) (api.Result, error) {
	r, err := b.Node.Rebuild(ctx, req)
	return r, translate(err)
}

func (b *backend) Rejoin(ctx context.Context, req api.RejoinRequest) (api.Result, error) {
	r, err := b.Node.Rejoin(ctx, req)
	return r, translate(err)
}

func (b *backend) Failover(ctx context.Context, req api.FailoverRequest) (api.Result, error) {
	r, err := b.Node.Failover(ctx, req)
	return r, translate(err)
}

func (b *backend) Pause(ctx context.Context, req api.PauseRequest) (api.Result, error) {
	r, err := b.Node.Pause(ctx, req)
	return r, translate(err)
}

func (b *backend) Resume(ctx context.Context, req api.ResumeRequest) (api.Result, error) {
	r, err := b.Node.Resume(ctx, req)
	return r, translate(err)
}

func (b *backend) WhyNot(ctx context.Context, node string) ([]api.Verdict, error) {
	v, err := b.Node.WhyNot(ctx, node)
	return v, translate(err)
}

// Check implements httpd.Backend.
func (b *backend) Check(ctx context.Context, nodes []string) (api.Check, error) {
	return b.checker.check(ctx, nodes)
}

// CheckFacts implements httpd.Backend.
func (b *backend) CheckFacts(ctx context.Context) api.CheckFacts { return b.checker.facts(ctx) }

// Local implements httpd.Backend.
func (b *backend) Local() httpd.Local {
	l := b.Node.Local()
	o, st := l.Observation, l.State
	out := httpd.Local{
		Node: string(l.Node), ClusterID: l.ClusterID, Dialect: b.dialect, Role: roleOf(o), Mode: "auto", Phase: string(st.Phase), Primary: string(st.Primary),
		Epoch: st.Epoch, AppliedIndex: l.Applied, PrimarySince: primarySince(st), Age: l.Age, NotReady: l.NotReady,
		LeaseRemaining: o.LeaseLeft, GateOpen: o.GateOpen, GateKernel: o.KernelGate,
		Raft:           httpd.Raft{Leader: l.Leader, HasLeader: l.HasLeader, Voters: len(st.Members), LeaderChanges: l.Offices},
		CommitsWaiting: o.Server.Waiting, SyncMembers: len(st.Sync.Members), SyncAcks: st.Sync.Acks, Degraded: st.Bootstrapped() && st.Sync.Acks == 0,
		SyncMinReplicas: st.Settings.SyncMinReplicas, SyncChanging: st.Change != nil, LossyEpochs: lossyEpochs(st), DegradedSince: degradedSince(st),
		FailuresTolerated: l.Tolerated, Operations: operations(l.Ended), LastPhases: map[string]time.Duration{},
	}
	if st.Paused != nil {
		out.Mode = "paused"
	}
	if out.Phase == "" {
		out.Phase = api.PhaseNone
	}
	for _, a := range l.Addresses {
		out.VIPs = append(out.VIPs, httpd.VIP{Address: a.IP.String(), Held: a.Held, Open: a.Held && o.GateOpen, Conflicts: a.Conflicts, Repairs: a.Repairs, Announcements: a.Announcements})
	}
	out.Clients = httpd.Clients(l.Clients)
	for _, p := range l.Peers {
		paths := map[string]bool{"gossip": p.Gossip, "rpc": p.Agent}
		if m, ok := st.Member(p.ID); !ok || m.Role == fsm.RoleData {
			paths["mysql"] = p.Server
		}
		out.Peers = append(out.Peers, httpd.Peer{ID: string(p.ID), Paths: paths})
	}
	for _, p := range l.LastPhases {
		out.LastPhases[p.Name] = p.Took
	}
	out.Replication, out.Repairs = replicationOf(o.Server), l.Repairs
	out.Rebuild = rebuildOf(st, o)
	if out.Rebuild.Active {
		out.Role = api.RoleRebuilding
	}
	b.timed(l, &out)
	return out
}

// timed fills in what is gathered over time.
func (b *backend) timed(l cluster.LocalStatus, out *httpd.Local) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range l.AllPhases {
		h := b.phases[p.Name]
		h.Observe(p.Took)
		b.phases[p.Name] = h
	}
	out.Phases = copyOf(b.phases)
	out.WriteGaps = copyOf(b.gaps)
	sv := l.Observation.Server
	if sv.Started != b.starts.run {
		b.starts = serverStart{sv.Started, time.Now()}
	}
	out.Server = httpd.Database{Present: b.dialect != "none", Up: sv.State == fsm.ServerUp, Restarts: max(l.Starts, 1) - 1, Rewinds: l.Rewinds}
	if out.Server.Up {
		out.Server.Started = b.starts.at
	}
}

func copyOf(in map[string]httpd.Histogram) map[string]httpd.Histogram {
	out := make(map[string]httpd.Histogram, len(in))
	for k, v := range in {
		out[k] = v
	}
	return out
}

// roleOf is the node's role in the words of the API.
func roleOf(o fsm.Observation) string {
	switch o.Standing {
	case fsm.StandingServing, fsm.StandingPrimary:
		return api.RolePrimary
	case fsm.StandingReplica:
		return api.RoleReplica
	case fsm.StandingWitness:
		return api.RoleWitness
	case fsm.StandingFenced:
		return api.RoleFenced
	case fsm.StandingQuarantined:
		return api.RoleQuarantined
	case fsm.StandingStarting, fsm.StandingCatching, fsm.StandingFrozen:
		return api.RoleJoining
	default:
		return ""
	}
}

// primarySince is when the newest operation that named the present primary ended.
func primarySince(st fsm.State) time.Time {
	for i := len(st.Incidents) - 1; i >= 0; i-- {
		if in := st.Incidents[i]; in.To == st.Primary && in.Outcome == fsm.OutcomeDone && st.Primary != "" && in.Kind != fsm.KindRestart {
			return in.Ended
		}
	}
	return time.Time{}
}

// lossyEpochs counts the epochs that were won by accepting a loss.
func lossyEpochs(st fsm.State) uint64 {
	var n uint64
	for _, e := range st.Epochs {
		if e.Lossy {
			n++
		}
	}
	return n
}

// degradedSince is zero when the cluster is not degraded.
func degradedSince(st fsm.State) time.Time {
	if st.Degraded == nil {
		return time.Time{}
	}
	return st.Degraded.Since
}

// operations counts ended operations in the words of the API. A superseded one came to nothing: it was rolled over.
func operations(ended map[cluster.Ending]uint64) map[httpd.OperationKey]uint64 {
	out := map[httpd.OperationKey]uint64{}
	for e, n := range ended {
		result := httpd.ResultDone
		if e.Outcome != fsm.OutcomeDone {
			result = httpd.ResultRolledBack
		}
		out[httpd.OperationKey{Kind: string(e.Kind), Result: result}] += n
	}
	return out
}

// replicationOf is the node as a replica.
func replicationOf(sv fsm.ServerStatus) httpd.Replication {
	r := httpd.Replication{IO: sv.IORunning, SQL: sv.SQLRunning}
	if sv.Lag != nil && sv.HasReplication {
		lag := time.Duration(*sv.Lag * float64(time.Second))
		r.Lag = &lag
	}
	return r
}

// rebuildOf is the node as one whose data is of no use.
func rebuildOf(st fsm.State, o fsm.Observation) httpd.Rebuild {
	r, ordered := st.RebuildOf(o.Node)
	out := httpd.Rebuild{Cause: string(o.Rebuild.Cause), Active: ordered, Received: o.Rebuild.Received, Size: o.Rebuild.Size}
	if ordered && out.Cause == "" {
		out.Cause = string(r.Cause)
	}
	return out
}
