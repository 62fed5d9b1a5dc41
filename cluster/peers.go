package cluster

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// peers looks at every other member, directly and often, and keeps what they say of themselves. Each node does so: the leader's evidence is
// everybody's own.
type peers struct {
	n *Node

	mu    sync.Mutex
	known map[fsm.NodeID]*peer
}

// peer is one other member as seen from here. Instants are this node's.
type peer struct {
	member     fsm.Member
	instance   string
	lastAgent  fsm.Instant // its hbd answered
	noAgent    int         // completed tries at its hbd that failed since ...
	firstMiss  fsm.Instant // ... and when the first of them began
	noServer   int         // completed tries at its mysqld that failed since
	lastServer fsm.Instant // its mysqld answered, or its hbd said that it is up
	lastReach  fsm.Instant // its mysqld itself answered
	tried      fsm.Instant // last direct try at its mysqld
	agentOK    bool
	reached    bool   // the last direct try at its mysqld succeeded
	told       bool   // the tries that have failed are evidence, and that was told
	run        string // run of its mysqld when it was last seen up, "" once it was seen gone
	obs        fsm.Observation
	obsAt      fsm.Instant
	heard      fsm.Instant // a ping of its own arrived
	pinged     fsm.Instant // it answered a ping of this node, as of when that was sent
	leads      bool
	refusals   []fsm.Verdict // what it refused in its last decision, as the leader
	position   string        // newest position of its server that it told of ...
	positionAt fsm.Instant   // ... and when
	kick       chan struct{}
}

type pingRequest struct {
	Obs fsm.Observation `json:"obs"`
}

type pingReply struct {
	Obs      fsm.Observation `json:"obs"`
	Instance string          `json:"instance"`
	Leads    bool            `json:"leads"`
	Refusals []fsm.Verdict   `json:"refusals,omitempty"` // of the leader's last decision: shown, never acted upon
}

func newPeers(n *Node) *peers {
	p := &peers{n: n, known: map[fsm.NodeID]*peer{}}
	start := now()
	for _, m := range n.cfg.Peers {
		if m.ID != n.cfg.Node {
			p.known[m.ID] = &peer{member: m, lastAgent: start, lastServer: start, kick: make(chan struct{}, 1)}
		}
	}
	return p
}

func (p *peers) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, pe := range p.known {
		wg.Go(func() { p.watch(ctx, pe) })
	}
	wg.Wait()
}

// settings are the log's, or the file's while there is no log.
func (n *Node) settings() fsm.Settings {
	if s := n.store.State(); s.Bootstrapped() {
		return s.Settings
	}
	return n.cfg.Settings
}

// watch pings one peer until ctx ends: every Ping or nearly so, and at once when kicked.
func (p *peers) watch(ctx context.Context, pe *peer) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	news := false // something is to be told when the pause is over
	for {
		select {
		case <-ctx.Done():
			return
		case <-pe.kick:
			if rest := p.n.pauses.left(p.n.store.State()); rest > 0 { // all that happens in a pause is told at once after it
				news = true
				timer.Reset(rest)
				continue
			}
		case <-timer.C:
			if rest := p.spared(pe, p.n.settings()); rest > 0 && !news {
				timer.Reset(rest)
				continue
			}
		}
		news = false
		set := p.n.settings()
		begin := now()
		p.look(ctx, pe, set)
		if took := now() - begin; took < set.Ping {
			timer.Reset(p.n.pingPause(set, p.allAnswer()))
		} else {
			timer.Reset(set.Ping / 10) // it did not answer
		}
	}
}

// look asks a peer's hbd, and its mysqld beside it when that does not answer at once: of a host that is lost both are evidence, and must be there before
// its lease has run out.
func (p *peers) look(ctx context.Context, pe *peer, set fsm.Settings) {
	waiting, answered := context.WithCancel(ctx)
	defer answered()
	begin := now()
	var direct sync.WaitGroup
	direct.Go(func() {
		if agent, _ := p.reachable(pe.member.ID); agent { // so far: it is given some time to answer
			wait(waiting, lateAnswer(set))
		}
		p.tryServer(ctx, pe, set, begin)
	})
	p.ping(ctx, pe, set)
	answered()
	direct.Wait()
	p.tellLoss(pe, set)
}

// wakeLeading lets this node's leading, if it leads, judge anew.
func (n *Node) wakeLeading() {
	if l := n.leading.Load(); l != nil {
		wake(l.wake)
	}
}

// ownPings is how many pings' time passes at most between two own ones to a peer that pings this node: that a peer reaches this node's hbd does not
// tell whether it is still to be reached at its own port.
const ownPings = 2

// spared is for how long a peer need not be pinged, 0 for not at all. In plain service one of two nodes pings and the other has its answer in that, both
// ways. Who has not been pinged for half a beat longer than a period pings itself, and a peer that did not answer has to answer first.
func (p *peers) spared(pe *peer, set fsm.Settings) time.Duration {
	if !p.n.pingsLess(set, p.allAnswer()) {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t, period := now(), calmPings*set.Ping
	if t-pe.heard >= period || t-pe.pinged >= ownPings*period-set.Ping/2 {
		return 0
	}
	return pe.heard + longestCalm(set) - t
}

// allAnswer: while one does not, what this node sees of it is news to the others at every beat.
func (p *peers) allAnswer() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pe := range p.known {
		if !pe.agentOK {
			return false
		}
	}
	return true
}

func (p *peers) ping(ctx context.Context, pe *peer, set fsm.Settings) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout(set))
	defer cancel()
	var reply pingReply
	begin := now()
	err := p.n.client.Ping(ctx, p.address(pe), "ping", pingRequest{Obs: p.n.observation()}, &reply)
	p.mu.Lock()
	defer p.mu.Unlock()
	if was := pe.agentOK; was != (err == nil) {
		pe.agentOK = err == nil
		p.n.log.Info("peer's hbd", "node", pe.member.ID, "reachable", pe.agentOK, "error", errText(err))
		p.kickAll() // the next one of the others may be far away
	}
	if err != nil {
		pe.leads = false
		p.missed(pe, begin, set)
		return
	}
	pe.pinged, pe.leads, pe.instance, pe.refusals = begin, reply.Leads, reply.Instance, reply.Refusals
	p.contact(pe, reply.Obs)
}

// missed counts a try at a peer's hbd that failed. It was last reached at the latest when the first of those began that have failed since: what it said of
// itself after that (it may ping this node and not answer) proves nothing.
func (p *peers) missed(pe *peer, begin fsm.Instant, set fsm.Settings) {
	if pe.heldUpHere(begin, set) {
		return
	}
	if pe.noAgent == 0 {
		pe.firstMiss = begin
	}
	if pe.noAgent++; pe.noAgent == enoughTries {
		pe.lastAgent = min(pe.lastAgent, pe.firstMiss)
		pe.lastServer = min(pe.lastServer, max(pe.firstMiss, pe.lastReach))
		// Connections kept from before it went are dead, and each would cost a call its deadline when it is back.
		p.n.client.Forget(pe.member.API)
	}
}

// contact notes that a peer is there, with what it says of itself.
func (p *peers) contact(pe *peer, obs fsm.Observation) {
	pe.lastAgent, pe.noAgent = now(), 0
	if obs.Server.State == fsm.ServerUp || pe.member.Role == fsm.RoleWitness {
		pe.lastServer, pe.noServer = pe.lastAgent, 0
	}
	p.keep(pe, obs)
}

// tryServer reaches for the peer's mysqld itself, but only while its hbd has not answered since the look began: then it is evidence. What has begun is not
// cut off: a server counts logins that were, and may keep this host out for them.
func (p *peers) tryServer(ctx context.Context, pe *peer, set fsm.Settings, look fsm.Instant) {
	p.mu.Lock()
	since, begin := now()-pe.lastAgent, now()
	silent := pe.lastAgent < look || !pe.agentOK
	// After a while once a second is enough: the verdict is known, only its end is waited for. So it is for one that is only late again and again.
	due := ctx.Err() == nil && (silent && (!pe.agentOK && since < 5*time.Second || begin-pe.tried > time.Second) || p.mustLearn(pe, begin))
	if due {
		pe.tried = begin
	} else if !pe.agentOK && pe.reached { // as the last try said
		pe.lastServer, pe.lastReach, pe.noServer = begin, begin, 0
	}
	p.mu.Unlock()
	if !due || pe.member.Role == fsm.RoleWitness || p.n.cfg.Reach == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout(set))
	defer cancel()
	err := p.n.cfg.Reach(ctx, pe.member.Address, pe.member.MySQLPort)
	p.mu.Lock()
	defer p.mu.Unlock()
	pe.reached = err == nil
	switch {
	case err == nil:
		pe.lastReach = now()
		pe.lastServer, pe.noServer = pe.lastReach, 0
	case pe.agentOK && pe.lastAgent >= look: // its hbd has answered meanwhile: what it says of its mysqld counts
	case p.mayNotReach() && pe.lastReach == 0:
	case !pe.heldUpHere(begin, set):
		pe.noServer++
	}
}

// mayNotReach: nobody else but Highbase asks for a way from this host to the servers: while none has been seen, that nothing comes back says nothing.
func (p *peers) mayNotReach() bool { return p.n.self.Role == fsm.RoleWitness }

const (
	// learnWay and keepWay are how often such a host tries a server whose hbd answers, before it has reached it and after.
	learnWay = time.Second
	keepWay  = time.Minute
)

// mustLearn: it is time to see whether there is a way to a server. mu is held.
func (p *peers) mustLearn(pe *peer, t fsm.Instant) bool {
	pause := keepWay
	if pe.lastReach == 0 {
		pause = learnWay
	}
	return p.mayNotReach() && pe.agentOK && (pe.tried == 0 || t-pe.tried > pause)
}

// heldUpHere: a try that has taken far longer than it may was held up here, not there. Once no lease can live any more even that does not matter: a node that
// is always starved must not keep the others from being helped.
func (pe *peer) heldUpHere(begin fsm.Instant, set fsm.Settings) bool {
	t := now()
	return t-begin > 2*tryTimeout(set) && t-pe.lastAgent < set.Drifted(set.Lease)+set.AgentGrace
}

// cutLost destroys what is left of the replication traffic between this node and one that went away, when one of the two is the primary. On MariaDB
// the return of a vanished replica would hang every new login until another acknowledgement arrives or the dead connection ends; and a replica
// whose primary lost power and came back would wait on the old connection until its net timeout.
func (p *peers) cutLost(m fsm.Member) {
	st := p.n.store.State()
	addr, err := netip.ParseAddr(m.Address)
	if (st.Primary != p.n.cfg.Node && st.Primary != m.ID) || err != nil || p.n.cfg.Addresser == nil {
		return
	}
	cut, err := p.n.cfg.Addresser.SeverPeer(addr)
	p.n.log.Info("cut the replication connections of a lost node", "node", m.ID, "sockets", cut, "error", errText(err))
}

// keep stores an observation unless it is older than the one kept.
func (p *peers) keep(pe *peer, obs fsm.Observation) {
	if obs.Node != pe.member.ID || (obs.Run == pe.obs.Run && obs.Sequence <= pe.obs.Sequence) {
		return
	}
	p.noteRun(pe, obs.Server)
	changed := obs.Serving != pe.obs.Serving || obs.Server.State != pe.obs.Server.State || obs.Standing != pe.obs.Standing ||
		obs.ServedIndex != pe.obs.ServedIndex || obs.FailedIndex != pe.obs.FailedIndex || obs.SyncOff != pe.obs.SyncOff || obs.Prepared != pe.obs.Prepared ||
		!slices.Equal(p.lostTo(obs), p.lostTo(pe.obs))
	pe.obs, pe.obsAt = obs, now()
	if obs.Server.Executed != "" {
		pe.position, pe.positionAt = obs.Server.Executed, pe.obsAt
	}
	if changed {
		wake(p.n.wake)
		p.n.wakeLeading()
	}
}

// noteRun notices that a peer's mysqld, or its whole host, went away since it was last seen up: what is left of the connections to it is cut, if
// possible before it connects again.
func (p *peers) noteRun(pe *peer, sv fsm.ServerStatus) {
	gone := sv.State == fsm.ServerDown || sv.State == fsm.ServerHung || (sv.State == fsm.ServerUp && sv.Started != pe.run)
	if pe.run != "" && gone {
		pe.run = ""
		go p.cutLost(pe.member)
	}
	if sv.State == fsm.ServerUp {
		pe.run = sv.Started
	}
}

// received stores what a peer says of itself in a ping of its own. It counts as having reached the peer only while that answers this node, too: a path that
// works in one direction is none.
func (p *peers) received(from fsm.NodeID, obs fsm.Observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pe, ok := p.known[from]
	switch {
	case !ok:
	case pe.agentOK:
		pe.heard = now()
		p.contact(pe, obs)
	default:
		p.keep(pe, obs)
	}
}

// kickAll pings everybody at once: something happened here that they should know.
func (p *peers) kickAll() {
	for _, pe := range p.known {
		wake(pe.kick)
	}
}

// observations is the newest of every node, this one's own included.
func (p *peers) observations() []fsm.NodeView {
	own := fsm.NodeView{ID: p.n.cfg.Node, Obs: p.n.observation(), Known: true, At: now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []fsm.NodeView{own}
	for _, m := range p.n.cfg.Peers {
		if pe, ok := p.known[m.ID]; ok {
			out = append(out, fsm.NodeView{ID: m.ID, Obs: pe.obs, Known: pe.obsAt != 0, At: pe.obsAt})
		}
	}
	return out
}

// observed is the newest observation of one node.
func (p *peers) observed(id fsm.NodeID) (fsm.Observation, fsm.Instant, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pe, ok := p.known[id]
	if !ok || pe.obsAt == 0 {
		return fsm.Observation{}, 0, false
	}
	return pe.obs, pe.obsAt, true
}

// silence is how long a node's hbd has not answered this one.
func (p *peers) silence(id fsm.NodeID) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pe, ok := p.known[id]; ok {
		return now() - pe.lastAgent
	}
	return 0
}

func (p *peers) reachable(id fsm.NodeID) (agent, server bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pe, ok := p.known[id]
	return ok && pe.agentOK, ok && pe.obs.Server.State == fsm.ServerUp
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
