package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/fsm"
)

// leading is one leadership: its picture begins empty. It gathers, lets fsm.Decide judge, commits and sends orders, and gathers again.
type leading struct {
	n      *Node
	term   uint64
	wake   chan struct{}
	asks   chan asking // of operators
	cancel context.CancelFunc
	done   chan struct{}

	mu         sync.Mutex
	step       stepKey     // the operation step the answers belong to
	since      fsm.Instant // when this leader first saw it
	began      fsm.Instant // when it first saw the operation
	answers    []fsm.Answer
	fence      *fsm.Evidence
	release    *fsm.Answer
	reached    bool
	failed     string
	phases     []fsm.PhaseTime
	inFlight   map[orderKey]bool
	catching   map[fsm.NodeID]catching
	chain      map[fsm.NodeID]chaining
	verdicts   []fsm.Verdict
	moved      fsm.Instant                // last try to hand leadership away
	unable     map[fsm.NodeID]fsm.Instant // since when a member of the sync set cannot acknowledge
	change     uint64                     // index of the change of the sync set that is prepared ...
	changed    fsm.Instant                // ... and when it was first seen
	busy       *fsm.Busy                  // what the old primary of the running operation last said about its clients ...
	askingBusy bool                       // ... and is being asked again
	idle       fsm.Instant                // since when the primary at rest says that it does not serve, 0 when it serves
	served     fsm.Instant                // since when the primary of the running operation says that it serves, 0 when it does not
}

type stepKey struct {
	op    uint64
	epoch uint64
	step  fsm.Step
	index uint64
}

type orderKey struct {
	kind  fsm.OrderKind
	node  fsm.NodeID
	epoch uint64
	index uint64
}

// catching follows one incarnation until it holds what the primary had after the incarnation was first seen.
type catching struct {
	incarnation string
	target      string // the primary's position, read after the incarnation was first seen; "" while being asked for
	asked       bool
}

// leadership is told by Raft of every change.
func (n *Node) leadership(isLeader bool, term uint64) {
	if old := n.leading.Swap(nil); old != nil {
		old.cancel()
		n.grantor.leaveOffice()
		<-old.done
		// Once more: it may have taken office in its last moment.
		n.grantor.leaveOffice()
	}
	if !isLeader {
		return
	}
	n.stats.tookOffice()
	ctx, cancel := context.WithCancel(n.ctx)
	l := &leading{n: n, term: term, wake: make(chan struct{}, 1), asks: make(chan asking), cancel: cancel, done: make(chan struct{}),
		inFlight: map[orderKey]bool{}, catching: map[fsm.NodeID]catching{}, chain: map[fsm.NodeID]chaining{}, unable: map[fsm.NodeID]fsm.Instant{}}
	n.leading.Store(l)
	go func() {
		defer close(l.done)
		l.run(ctx)
	}()
}

func (l *leading) run(ctx context.Context) {
	if !l.takeOffice(ctx) {
		return
	}
	changed := l.n.store.watch()
	defer l.n.store.unwatch(changed)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-l.wake:
		case a := <-l.asks:
			l.answer(ctx, a)
		case <-timer.C:
		}
		// Several rounds may be due at once: each commit makes the next decision possible.
		for l.turn(ctx) {
		}
		// What changes wakes it; only the ages of what does not are looked for here.
		switch ping := l.n.settings().Ping; {
		case !l.n.calm.Load() || l.n.store.State().Op != nil:
			timer.Reset(l.untilClear(ping / 2))
		case l.n.peers.allAnswer():
			timer.Reset(l.n.cfg.UntilBeat(calmTurns * ping))
		default:
			timer.Reset(l.n.cfg.UntilBeat(ping))
		}
	}
}

// untilClear is a pause that ends with the last lease, if that is sooner: a takeover may be waiting for nothing else.
func (l *leading) untilClear(pause time.Duration) time.Duration {
	if left := l.n.grantor.clearAt() - now(); left > 0 {
		return min(pause, left)
	}
	return pause
}

// takeOffice waits for a round of this term: before it, the applied state may lack what an earlier leader committed.
func (l *leading) takeOffice(ctx context.Context) bool {
	for ctx.Err() == nil {
		c, cancel := context.WithTimeout(ctx, 2*time.Second)
		round, err := l.n.raft().Barrier(c)
		cancel()
		if err == nil && ctx.Err() == nil {
			l.n.grantor.takeOffice(round.Term, l.n.store.State())
			l.n.log.Info("took office as Raft leader", "term", l.term, "epoch", l.n.store.State().Epoch)
			return true
		}
		// Whatever the reason, it is tried again until Raft says that this node does not lead: then ctx ends.
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// turn decides once. It reports whether something was committed, so that another turn is due.
func (l *leading) turn(ctx context.Context) bool {
	st := l.n.store.State()
	v := l.tryChain(st, l.ageSet(st, fsm.Classify(st, l.view(st))))
	d := fsm.Decide(st, v)
	l.report(d)
	for _, o := range d.Orders {
		l.send(ctx, o)
	}
	committed := false
	for _, c := range d.Commands {
		if l.commit(ctx, st, c) != nil {
			break
		}
		committed = true
	}
	if d.Transfer != "" {
		l.transfer(ctx, st, d.Transfer)
	}
	if committed { // what was seen may be over: a pause may have begun
		return ctx.Err() == nil
	}
	l.followCatching(ctx, st, v)
	l.askBusy(ctx, st)
	return false
}

// view is the picture of this moment.
func (l *leading) view(st fsm.State) fsm.View {
	v := fsm.View{Self: l.n.cfg.Node, Now: now(), Wall: time.Now(), Nodes: l.n.peers.observations(), LeaseClear: l.n.grantor.clearAt()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter(st, v.Now)
	v.StepSince, v.Answers, v.Fence, v.Release, v.Reached, v.ReleaseError = l.since, slices.Clone(l.answers), l.fence, l.release, l.reached, l.failed
	v.Phases, v.Busy = slices.Clone(l.phases), l.busy
	v.NotServing, v.ServingSince = l.notServing(st, v), l.servingSince(st, v)
	if breakLeaseWait {
		v.LeaseClear = 0
	}
	if breakFence && st.Op != nil && st.Op.Step == fsm.StepBegun {
		v.Fence = &fsm.Evidence{Kind: fsm.EvidenceAgent, Node: st.Op.From, Detail: "made up by a test build"}
	}
	// An answer counts only while the incarnation that gave it lives: a member that has forgotten something since is asked again.
	v.Answers = slices.DeleteFunc(v.Answers, func(a fsm.Answer) bool {
		obs := v.Node(a.Node)
		gone := a.Held == 0 && obs.Known && obs.At > l.since && obs.Obs.Incarnation != "" && a.Incarnation != "" && obs.Obs.Incarnation != a.Incarnation
		if gone {
			l.answers = slices.DeleteFunc(l.answers, func(b fsm.Answer) bool { return b.Node == a.Node })
		}
		return gone
	})
	for _, id := range st.DataNodes() {
		if c, ok := l.catching[id]; ok && c.target == caught {
			v.CaughtUp = append(v.CaughtUp, fsm.SyncMember{Node: id, Incarnation: c.incarnation})
		}
	}
	return v
}

// ageSet adds since when members of the sync set have been unable to acknowledge, and since when a change of it has been prepared.
func (l *leading) ageSet(st fsm.State, v fsm.View) fsm.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range v.Nodes {
		id := v.Nodes[i].ID
		if _, in := st.Sync.Member(id); !in || fsm.CannotAck(st, v, id) == "" {
			delete(l.unable, id)
		} else if l.unable[id] == 0 {
			l.unable[id] = v.Now
		}
		v.Nodes[i].UnableSince = l.unable[id]
	}
	index := uint64(0)
	if st.Change != nil {
		index = st.Change.Index
	}
	if index != l.change {
		l.change, l.changed = index, v.Now
	}
	v.ChangeSince = l.changed
	return v
}

// notServing is since when the primary, with nothing under way, reports that it does not serve; 0 when it serves or does not report.
func (l *leading) notServing(st fsm.State, v fsm.View) fsm.Instant {
	n := v.Node(st.Primary)
	switch {
	case st.Primary == "" || st.Op != nil || n.Obs.Serving == st.Epoch:
		l.idle = 0
	case v.Fresh(st, st.Primary) && l.idle == 0:
		l.idle = v.Now
	}
	return l.idle
}

// servingSince is since when the primary of an operation under way reports that it serves the present epoch; 0 when it does not.
func (l *leading) servingSince(st fsm.State, v fsm.View) fsm.Instant {
	switch {
	case st.Op == nil || st.Primary == "" || v.Node(st.Primary).Obs.Serving != st.Epoch:
		l.served = 0
	case l.served == 0:
		l.served = v.Now
	}
	return l.served
}

// enter notes a new step. Answers belong to an epoch of an operation: those of another are forgotten.
func (l *leading) enter(st fsm.State, t fsm.Instant) {
	var key stepKey
	if st.Op != nil {
		key = stepKey{st.Op.ID, st.Epoch, st.Op.Step, st.Op.Index}
	}
	if key == l.step {
		return
	}
	old := l.step
	if key.op != old.op {
		l.phases, l.began, l.busy = nil, t, nil
		if st.Op != nil && (st.Op.Kind == fsm.KindTakeover) && st.Op.Step == fsm.StepBegun {
			l.phases = []fsm.PhaseTime{{Name: "detect", Took: l.n.peers.silence(st.Op.From)}}
		}
	} else if name := phaseOf[old.step]; name != "" {
		l.phases = append(l.phases, fsm.PhaseTime{Name: name, Took: t - l.since})
	}
	if key.op != old.op || key.epoch != old.epoch {
		l.answers, l.fence, l.release, l.reached, l.failed = nil, nil, nil, false, ""
		clear(l.catching)
	}
	l.step, l.since = key, t
}

// phaseOf names the time spent in a step.
var phaseOf = map[fsm.Step]string{fsm.StepBegun: "fence", fsm.StepFenced: "freeze", fsm.StepPrepared: "prepare", fsm.StepChained: "chain", fsm.StepReleasing: "release", fsm.StepRestart: "restart"}

// report logs a verdict when it is new: what is true every turn is a metric, not a log line.
func (l *leading) report(d fsm.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range d.Verdicts {
		if !slices.ContainsFunc(l.verdicts, func(o fsm.Verdict) bool { return o.Rule == v.Rule && o.Node == v.Node && o.OK == v.OK }) {
			l.n.log.Info("decided", "rule", v.Rule, "node", v.Node, "ok", v.OK, "value", v.Value, "threshold", v.Threshold, "why", v.Why)
		}
	}
	l.verdicts = d.Verdicts
}

// commit proposes one command. A command that ends an epoch first stops this leader from granting any more of it.
func (l *leading) commit(ctx context.Context, st fsm.State, c fsm.Command) error {
	ends := c.Begin != nil || c.Release != nil
	if ends {
		l.n.grantor.end(st.Epoch)
	}
	err := l.n.propose(ctx, c)
	if err == nil {
		if ends {
			// From here the applied state refuses by itself.
			l.n.grantor.resume()
		}
		return nil
	}
	l.n.log.Warn("not committed", "command", c.Name(), "error", err.Error())
	if ends && (errors.Is(err, fsm.ErrRefused) || errors.Is(err, raftnode.ErrNotProposed) || errors.Is(err, raftnode.ErrNotLeader)) {
		l.n.grantor.resume()
	}
	if ends && errors.Is(err, raftnode.ErrUnknownOutcome) {
		l.settleFate(ctx)
	}
	return err
}

// settleFate waits for a round: it puts everything proposed before it into the applied state, or out of the log for good. Until then nothing
// is granted; a leadership that ends meanwhile grants nothing anyway.
func (l *leading) settleFate(ctx context.Context) {
	for ctx.Err() == nil {
		c, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := l.n.raft().Barrier(c)
		cancel()
		if err == nil {
			l.n.grantor.resume()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// proposeTimeout bounds one commit. A leader that cannot commit for so long has Raft's watchdog to deal with.
const proposeTimeout = 3 * time.Second

// propose commits a command and returns the FSM's refusal, if any.
func (n *Node) propose(ctx context.Context, c fsm.Command) error {
	data, err := c.Encode()
	if err != nil {
		return fmt.Errorf("encoding %s: %w", c.Name(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	r := n.raft()
	if r == nil {
		return raftnode.ErrNotLeader
	}
	res, _, err := r.Apply(ctx, data)
	if err != nil {
		return err
	}
	if refusal, ok := res.(error); ok {
		return refusal
	}
	return nil
}

// transfer hands leadership away, at most every few seconds.
func (l *leading) transfer(ctx context.Context, st fsm.State, to fsm.NodeID) {
	m, ok := st.Member(to)
	if !ok || now()-l.moved < 3*time.Second {
		return
	}
	l.moved = now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := l.n.raft().TransferTo(ctx, raftnode.MakeServerID(string(m.ID), m.Instance)); err != nil {
		l.n.log.Warn("leadership not handed over", "to", to, "error", err.Error())
	}
}
