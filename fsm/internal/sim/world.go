package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/highbase/highbase/fsm"
)

// Controls break one guarantee each, on purpose: the checks must see it.
type Controls struct {
	SkipFence           bool // evidence of a fence is committed without a fence
	SkipLeaseWait       bool // leases count as run out at once
	SkipEpochCheck      bool // executors take orders and actions of any age
	CountAnyIncarnation bool // a node that forgot what it had acknowledged says it is still the same
	SkipBarrier         bool // the gate opens before the barrier is acknowledged
	AckOutside          bool // a replica outside the set acknowledges: the set grows after its acknowledgement counts
	ShrinkFirst         bool // a shrink is committed before the leaving member's acknowledgements are stopped
	ShrinkNoWait        bool // a shrink is committed without waiting until the others hold everything
	Unblocked           bool // a member that has left may connect although it has not switched off its acknowledgements
	RaiseFirst          bool // more acknowledgements are promised before mysqld waits for them
	LowerFirst          bool // mysqld waits for fewer acknowledgements before that is in the log
	FewerAnswers        bool // one answer to the freeze is made up
	DropBase            bool // promote replaces the set at once
	FreezeUndone        bool // a repair starts replication again after the freeze was answered
	LocalRollback       bool // a released primary takes its role back by itself
	LateAsync           bool // an action decided from an older state of the same epoch takes effect
	AutoStart           bool // a rebooted replica starts mysqld with its replication by itself
	RewindEarly         bool // a former primary rewinds although no newer epoch is settled
	RewindDegraded      bool // a primary that is started again while commits wait for nobody drops what no replica has
	AckTooEarly         bool // a chained replica acknowledges before it has left its old source
	ForgetChain         bool // a node that forgot what it received while it was chained says that it is whole
	SemiSyncOffInFence  bool // a fence switches semi-sync off, which tells waiters success
}

// Config is one run.
type Config struct {
	Seed      uint64
	Data      int           // nodes with a database
	Witnesses int           // nodes with a vote only
	Server    string        // "mariadb" (default), or "mysql", which can wait for more than one acknowledgement
	Chaos     time.Duration // how long faults are injected, in model time
	Heal      time.Duration // within this a healed cluster must serve again, in model time; 0: it need not
	Focus     string        // name of a fault that strikes more often than the others, "" for none
	Controls  Controls
}

// Result is what a run came to.
type Result struct {
	Seed       uint64
	Violation  string // "" when every check held
	Transcript []string
	Acked      int // transactions that were acknowledged or read
	Epoch      uint64
	Won        map[fsm.Won]int
	Stranded   bool // healthy again, but with an unsettled epoch that lost too many incarnations to be decided without a human
	Rewinds    int
	Fetches    int // caught up from a frozen node that may not be promoted
	Extras     int // taken over from replicas outside the sync set
	Rebuilds   int
	Rollbacks  int
	Chained    int // promotions after which another replica acknowledged at once
}

// World is one run's whole state. Time is true time; every node has a clock of its own.
type World struct {
	cfg   Config
	rng   *rand.Rand
	now   time.Duration
	queue events
	order uint64
	nodes []*node
	cut   [][]bool // from, to
	loss  float64  // of every message
	slow  float64  // share of messages that are late
	raft  raft
	chain []*tx // everything acknowledged or read so far: one history
	calm  bool  // no more faults
	lines []string
	res   Result
}

type event struct {
	at    time.Duration
	order uint64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push is for container/heap.
func (e *events) Push(x any) { *e = append(*e, x.(event)) }

// Pop is for container/heap.
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}

const (
	ms     = time.Millisecond
	second = time.Second
	port   = 3306
)

// Run plays one seed: a healthy cluster, then faults, then peace.
func Run(cfg Config) Result {
	if cfg.Server == "" {
		cfg.Server = "mariadb"
	}
	w := &World{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x68626173)), res: Result{Seed: cfg.Seed, Won: map[fsm.Won]int{}}}
	w.build()
	w.until(3*time.Second, nil)
	w.startChaos()
	w.until(w.now+cfg.Chaos, nil)
	w.healAll()
	w.mustHeal()
	w.finish()
	return w.res
}

// mustHeal is G3. A run without a bound is only held to what must never happen.
func (w *World) mustHeal() {
	if healthy := w.until(w.now+w.cfg.Heal, w.healthy); healthy || w.cfg.Heal == 0 || w.res.Violation != "" {
		return
	}
	if w.needsHuman() {
		w.res.Stranded = true
		w.say(nil, "stranded: %s", w.unhealthy())
		w.acceptLoss("")
		if w.until(w.now+w.cfg.Heal, w.healthy) || w.res.Violation != "" {
			return
		}
		w.fail("not healed %v after an operator accepted a loss: %s", w.cfg.Heal, w.unhealthy())
		return
	}
	w.fail("not healed %v after the last fault: %s", w.cfg.Heal, w.unhealthy())
}

// needsHuman is what several losses at once may leave behind although all nodes are back: an unsettled epoch whose members have forgotten too
// much for it to be decided, or whose primary has lost what it must hold. It is safe, it is rare, and TestWorlds counts it.
func (w *World) needsHuman() bool {
	s := w.raft.state()
	if s.Op == nil || s.Base == nil {
		return false
	}
	p := w.node(s.Primary)
	return s.Op.Step == fsm.StepFenced || s.Op.Step == fsm.StepPromoted && !p.contains(s.Op.Position)
}

// until plays events up to an instant, or until the condition holds, which is looked at every 100 ms.
func (w *World) until(end time.Duration, done func() bool) bool {
	look := w.now
	for w.res.Violation == "" && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
		if done != nil && w.now >= look {
			if done() {
				return true
			}
			look = w.now + 100*ms
		}
	}
	if w.res.Violation == "" {
		w.now = end
	}
	return done != nil && done()
}

func (w *World) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, event{at: w.now + d, order: w.order, do: do})
}

// every repeats with a little jitter.
func (w *World) every(d time.Duration, do func()) {
	w.after(w.between(d/2, d+d/2), func() { do(); w.every(d, do) })
}

func (w *World) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(w.rng.Int64N(int64(b-a)))
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// say adds a line to the transcript; only the end of a long one is kept.
func (w *World) say(n *node, format string, args ...any) {
	who := "-"
	if n != nil {
		who = string(n.id)
	}
	w.lines = append(w.lines, fmt.Sprintf("%9.3fs %-4s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
	if len(w.lines) > 4000 {
		w.lines = append([]string(nil), w.lines[2000:]...)
	}
}

func (w *World) fail(format string, args ...any) {
	if w.res.Violation == "" {
		w.res.Violation = fmt.Sprintf(format, args...)
		w.say(nil, "VIOLATION: %s", w.res.Violation)
	}
}

func (w *World) finish() {
	s := w.raft.state()
	w.res.Transcript, w.res.Acked, w.res.Epoch = w.lines, len(w.chain), s.Epoch
	for _, e := range s.Epochs {
		w.res.Won[e.Won]++
	}
	for _, i := range s.Incidents {
		if i.Outcome == fsm.OutcomeRolledBack {
			w.res.Rollbacks++
		}
	}
}

// settings are the default profile with shorter patience, so that each way back is walked often.
func settings() fsm.Settings {
	s, err := fsm.Profile("lan")
	if err != nil {
		panic(err) // the default profile exists: a test of fsm says so
	}
	s.ShrinkAfter, s.DegradeAfter = 700*ms, 1500*ms
	s.HungAfter, s.RestartTimeout, s.RestartWindow = time.Second, 4*time.Second, 8*time.Second
	s.PromoteTimeout, s.PrepareTimeout, s.ReleaseTimeout, s.OrderTimeout = 5*time.Second, 2*time.Second, 1500*ms, 2*time.Second
	return s
}

func (w *World) build() {
	var members []fsm.Member
	for i := range w.cfg.Data + w.cfg.Witnesses {
		n := &node{w: w, idx: i, id: fsm.NodeID(fmt.Sprintf("db%d", i+1)), data: i < w.cfg.Data, hostUp: true, rate: 1 + (w.rng.Float64()-0.5)*0.0098, offset: w.between(0, time.Hour)}
		role := fsm.RoleData
		if !n.data {
			n.id, role = fsm.NodeID(fmt.Sprintf("w%d", i+1-w.cfg.Data)), fsm.RoleWitness
		}
		n.sv = server{n: n, state: fsm.ServerUp, run: 1, readOnly: true, blocked: map[*node]bool{}, acked: map[*node]int{}}
		w.nodes = append(w.nodes, n)
		members = append(members, fsm.Member{ID: n.id, Role: role, Priority: 100, Address: string(n.id), MySQLPort: port})
	}
	w.cut = make([][]bool, len(w.nodes))
	for i := range w.cut {
		w.cut[i] = make([]bool, len(w.nodes))
	}
	w.raft.states = []fsm.State{{}}
	w.commit(nil, fsm.Command{Bootstrap: &fsm.Bootstrap{ClusterID: "sim", Cluster: "sim", Server: w.cfg.Server, Members: members, Settings: settings(), Primary: w.nodes[0].id}})
	for _, n := range w.nodes {
		n.startAgent()
		n.startKernelAndServer()
	}
	w.every(50*ms, w.elections)
}

func (w *World) node(id fsm.NodeID) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}
