package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/fsm/gtid"
)

type sightRequest struct {
	Primary fsm.NodeID `json:"primary"`
}

// sightReply is what one node holds, and where it last saw the primary.
type sightReply struct {
	Position string  `json:"position"` // all it received, "" when its server does not say
	Server   string  `json:"server"`   // why it does not say
	Primary  string  `json:"primary"`  // the primary's newest position as heard of here, "" when never
	AgeMS    float64 `json:"age_ms"`   // so long ago
}

// riskWait bounds the question to one node.
const riskWait = 2 * time.Second

// risk asks every data node what it holds and where it last saw the primary. Who does not answer is said not to.
func (n *Node) risk(ctx context.Context) *api.Risk {
	st := n.store.State()
	primary := st.Primary
	if primary == "" && st.Op != nil {
		primary = st.Op.From
	}
	out := &api.Risk{Primary: string(primary)}
	if d := st.Degraded; d != nil {
		out.DegradedSince, out.DegradedWhy, out.Position = api.At(d.Since), d.Cause, d.Position
	}
	ctx, cancel := context.WithTimeout(ctx, riskWait)
	defer cancel()
	ids := st.DataNodes()
	replies, errs := make([]sightReply, len(ids)), make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { replies[i], errs[i] = n.askSight(ctx, id, primary) })
	}
	wg.Wait()
	for i, id := range ids {
		if errs[i] != nil || replies[i].Primary == "" {
			continue
		}
		if out.Position == "" || fsm.Holds(st.Server, replies[i].Primary, out.Position) {
			out.Position, out.SeenBy, out.AgeMS = replies[i].Primary, string(id), &replies[i].AgeMS
		}
	}
	for i, id := range ids {
		if id != primary {
			why := replies[i].Server
			if errs[i] != nil {
				why = errs[i].Error()
			}
			out.Nodes = append(out.Nodes, api.RiskNode{ID: string(id), Position: replies[i].Position, Error: why,
				Missing: missing(st.Server, replies[i].Position, out.Position)})
		}
	}
	return out
}

// missing counts what of the primary's position a node lacks, nil when that cannot be told.
func missing(server, has, at string) *uint64 {
	if has == "" || at == "" {
		return nil
	}
	a, errA := gtid.Parse(gtid.Flavor(server), has)
	b, errB := gtid.Parse(gtid.Flavor(server), at)
	if errA != nil || errB != nil {
		return nil
	}
	count := gtid.Behind(a, b)
	if count == 0 && !(a.Contains(b) && gtid.Proven(a, b)) {
		return nil
	}
	return &count
}

func (n *Node) askSight(ctx context.Context, id, primary fsm.NodeID) (sightReply, error) {
	if id == n.cfg.Node {
		return n.sight(ctx, sightRequest{primary})
	}
	var out sightReply
	err := n.callNode(ctx, id, "sight", sightRequest{primary}, &out)
	return out, err
}

// sight answers for this node.
func (n *Node) sight(ctx context.Context, in sightRequest) (sightReply, error) {
	sv := n.cfg.Prober.Look(ctx)
	out := sightReply{Position: sv.Received}
	if out.Position == "" || n.cfg.Node == in.Primary || fsm.Holds(n.cfg.Server, sv.Executed, sv.Received) {
		out.Position = sv.Executed // after a restart the receiver knows only of what came since
	}
	if sv.State != fsm.ServerUp {
		out.Position, out.Server = "", fmt.Sprintf("its mysqld is %s: %s", sv.State, sv.Fault)
	}
	if n.cfg.Node == in.Primary {
		out.Primary = sv.Executed
		return out, nil
	}
	at, since := n.peers.lastPosition(in.Primary)
	out.Primary = at
	if at != "" {
		out.AgeMS = ms(now() - since)
	}
	return out, nil
}

// lastPosition is the newest position that a peer has told of, and when.
func (p *peers) lastPosition(id fsm.NodeID) (string, fsm.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pe, ok := p.known[id]; ok {
		return pe.position, pe.positionAt
	}
	return "", 0
}
