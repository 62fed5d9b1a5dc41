package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// sight is what a unit says of one peer.
func (u *unit) sight(id fsm.NodeID) fsm.Sight {
	u.t.Helper()
	all := u.peers.sights()
	i := slices.IndexFunc(all, func(s fsm.Sight) bool { return s.Node == id })
	if i < 0 {
		u.t.Fatalf("no sight of %s", id)
	}
	return all[i]
}

// silence makes a peer's host one from which nothing comes back.
func (u *unit) silence(id fsm.NodeID) {
	u.t.Helper()
	u.w.hosts[id].change(func() { u.w.hosts[id].reachable = false })
	end := make(chan struct{})
	u.peer(id, map[string]rpc.Handler{"ping": func(context.Context, string, json.RawMessage) (any, error) {
		<-end
		return nil, errors.New("never answered")
	}})
	u.t.Cleanup(func() { close(end) }) // before the stub is closed, which waits for its answers
}

// aged makes a peer one that was last reached an hour ago.
func (u *unit) aged(id fsm.NodeID) *peer {
	pe := u.peers.known[id]
	u.peers.mu.Lock()
	defer u.peers.mu.Unlock()
	pe.lastAgent, pe.lastServer = now()-time.Hour, now()-time.Hour
	return pe
}

// TestAgeIsNoEvidenceWithoutTries: a process that was starved itself has aged, not tried.
func TestAgeIsNoEvidenceWithoutTries(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	pe := u.aged("db2")
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].reachable = false })
	for try := range enoughTries {
		if s := u.sight("db2"); s.AgentAge > set.FailAfter || s.ServerAge > set.FailAfter {
			t.Fatalf("after %d tries its age counts: %+v", try, s)
		}
		// Nobody listens at its address: each try fails.
		u.peers.ping(u.short(), pe, set)
		u.peers.tryServer(u.short(), pe, set, now())
	}
	pe.firstMiss -= time.Minute // it counts from there
	if s := u.sight("db2"); s.AgentAge <= set.FailAfter {
		t.Errorf("after %d tries its hbd's age does not count: %+v", enoughTries, s)
	}
	// The server is tried once a second by now, so those tries are counted apart.
	pe.tried = 0
	for pe.noServer < enoughTries {
		pe.tried = 0
		u.peers.tryServer(u.short(), pe, set, now())
	}
	if s := u.sight("db2"); s.ServerAge <= set.FailAfter {
		t.Errorf("after %d tries its mysqld's age does not count: %+v", enoughTries, s)
	}
}

func TestOneAnswerTakesTheEvidenceAway(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	pe := u.aged("db2")
	pe.noAgent, pe.noServer = 99, 99
	u.peers.tryServer(u.short(), pe, set, now())
	if s := u.sight("db2"); s.ServerAge > set.FailAfter || s.AgentAge <= set.FailAfter {
		t.Errorf("its mysqld answered, its hbd did not: %+v", s)
	}
	pe = u.aged("db2")
	pe.noAgent, pe.noServer = 99, 99
	obs := fsm.Observation{Node: "db2", Run: "r", Sequence: 1, Server: fsm.ServerStatus{State: fsm.ServerUp}}
	u.peer("db2", answersPing(obs))
	u.peers.ping(u.short(), pe, set)
	if s := u.sight("db2"); s.ServerAge > set.FailAfter || s.AgentAge > set.FailAfter {
		t.Errorf("its hbd answered and says that mysqld is up: %+v", s)
	}
}

// TestPingOfAPeerCountsOnlyWhileItAnswers: a path that works in one direction is none.
func TestPingOfAPeerCountsOnlyWhileItAnswers(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	pings := func(seq uint64) {
		u.peers.received("db2", fsm.Observation{Node: "db2", Run: "r", Sequence: seq, Serving: seq, Server: fsm.ServerStatus{State: fsm.ServerUp}})
	}
	pe := u.aged("db2")
	pe.noAgent, pe.noServer = enoughTries, enoughTries
	pings(1)
	if s := u.sight("db2"); s.AgentAge <= u.settings().FailAfter || s.ServerAge <= u.settings().FailAfter {
		t.Errorf("it does not answer, and its own ping makes it reachable: %+v", s)
	}
	if got, _, _ := u.peers.observed("db2"); got.Serving != 1 {
		t.Errorf("what it said is not kept: %+v", got)
	}
	pe.agentOK = true
	pings(2)
	if s := u.sight("db2"); s.AgentAge > u.settings().FailAfter || s.ServerAge > u.settings().FailAfter {
		t.Errorf("it answers, and its own ping does not count: %+v", s)
	}
}

// TestOneOfTwoPings: only in plain service. Whenever the last ping of the peer came, this node tries itself before longestCalm has passed since.
func TestOneOfTwoPings(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	period := calmPings * set.Ping
	pe, other := u.peers.known["db2"], u.peers.known["db3"]
	for _, c := range []struct {
		what          string
		calm, answers bool
		heard, pinged time.Duration // ago
		want          bool
	}{
		{"it has just pinged", true, true, 0, 0, true},
		{"it pinged nearly a period ago", true, true, period - set.Ping/10, period, true},
		{"it has not pinged for a period", true, true, period, 0, false},
		{"it was not asked itself for long", true, true, 0, ownPings * period, false},
		{"something goes on", false, true, 0, 0, false},
		{"another peer does not answer", true, false, 0, 0, false},
	} {
		u.calm.Store(c.calm)
		pe.agentOK, other.agentOK = true, c.answers
		begun := now()
		pe.heard, pe.pinged = begun-c.heard, begun-c.pinged
		rest := u.peers.spared(pe, set)
		if (rest > 0) != c.want {
			t.Errorf("%s: spared for %v", c.what, rest)
		}
		if late := begun + rest - pe.heard; rest > 0 && late > longestCalm(set) {
			t.Errorf("%s: it is tried %v after it was last heard, at most %v is allowed", c.what, late, longestCalm(set))
		}
	}
	pe.agentOK, other.agentOK = false, true
	pe.heard, pe.pinged = now(), now()
	if rest := u.peers.spared(pe, set); rest > 0 {
		t.Errorf("it did not answer, and is not tried again for %v", rest)
	}
}

// TestPingsOfAPeerThatDoesNotAnswerAreForgotten: they reached this node, and nothing reaches that one.
func TestPingsOfAPeerThatDoesNotAnswerAreForgotten(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	pe := u.peers.known["db2"]
	pe.agentOK, pe.pinged = true, now()-time.Minute
	u.peers.received("db2", fsm.Observation{Node: "db2", Run: "r", Sequence: 1, Server: fsm.ServerStatus{State: fsm.ServerUp}})
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].reachable = false })
	for try := range enoughTries {
		u.peers.ping(u.short(), pe, set)
		if try == 0 {
			pe.firstMiss -= time.Minute // it has failed for long
		}
		pe.tried = 0
		u.peers.tryServer(u.short(), pe, set, now())
	}
	if s := u.sight("db2"); s.AgentAge <= set.FailAfter || s.ServerAge <= set.FailAfter {
		t.Errorf("it did not answer %d times, and was last reached when it pinged: %+v", enoughTries, s)
	}
}

// TestServerIsTriedOnlyWhileItsHbdIsSilent: an hbd that answers is given time to, and what a try at its mysqld found that had begun does not count then.
func TestServerIsTriedOnlyWhileItsHbdIsSilent(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	set.FailAfter = time.Hour // it may take its time
	obs := fsm.Observation{Node: "db2", Run: "r", Sequence: 1, Server: fsm.ServerStatus{State: fsm.ServerUp}}
	u.peer("db2", answersPing(obs))
	pe := u.peers.known["db2"]
	pe.agentOK = true
	u.peers.look(u.short(), pe, set)
	if pe.pinged == 0 || pe.reached || pe.noServer != 0 || pe.tried != 0 {
		t.Errorf("its hbd answered, and its mysqld was tried: %+v", pe)
	}

	late := make(chan struct{})
	u.peer("db2", map[string]rpc.Handler{"ping": func(context.Context, string, json.RawMessage) (any, error) {
		<-late
		return pingReply{}, nil // what it says of its mysqld must not matter
	}})
	pe.agentOK = false
	lost := u.host.holdCall("Reach")
	short := u.settings()
	var looked sync.WaitGroup
	looked.Go(func() { u.peers.look(u.short(), pe, short) })
	try := <-lost.entered
	close(late)
	await(t, "its hbd answers in the end", func() bool { ok, _ := u.peers.reachable("db2"); return ok })
	if try.Err() != nil {
		t.Error("the login was cut off: a server counts those, and may keep this host out for them")
	}
	looked.Wait()
	if pe.reached || pe.noServer != 0 {
		t.Errorf("a try counts although its hbd has answered since: %+v", pe)
	}
}

// TestServerOfALateHbdIsTriedOnceASecond: on a host that is too slow logins would make it slower.
func TestServerOfALateHbdIsTriedOnceASecond(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	pe := u.peers.known["db2"]
	pe.agentOK, pe.lastAgent = true, now()-time.Second
	u.peers.tryServer(u.short(), pe, u.settings(), now())
	first := pe.tried
	if first == 0 {
		t.Fatal("not tried at all")
	}
	u.peers.tryServer(u.short(), pe, u.settings(), now())
	if pe.tried != first {
		t.Error("tried twice at once")
	}
	pe.tried -= time.Second
	u.peers.tryServer(u.short(), pe, u.settings(), now())
	if pe.tried < first {
		t.Error("not tried again after a second")
	}
}

// TestSilentHostIsTriedBothWaysAtOnce: the first look that its hbd does not answer is a try at its mysqld, too.
func TestSilentHostIsTriedBothWaysAtOnce(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.silence("db2")
	pe := u.peers.known["db2"]
	pe.agentOK = true
	u.peers.look(u.short(), pe, u.settings())
	if pe.agentOK || pe.tried == 0 {
		t.Fatalf("its mysqld was not tried: %+v", pe)
	}
	u.lookUntilLost(pe)
}

// lookUntilLost looks at a peer until enough tries have failed: one that this machine held up does not count.
func (u *unit) lookUntilLost(pe *peer) {
	u.t.Helper()
	for deadline := now() + awaitLimit; !pe.lost(); {
		if now() > deadline {
			u.t.Fatalf("it never counts as tried: %+v", pe)
		}
		u.peers.look(u.short(), pe, u.settings())
	}
}

// TestAStallShorterThanFailAfterIsNoEvidence: in plain service the last answer is long ago when a stall begins, and only what failed since counts.
func TestAStallShorterThanFailAfterIsNoEvidence(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	pe := u.peers.known["db2"]
	pe.agentOK, pe.pinged = true, now()-time.Minute
	pe.lastAgent, pe.lastServer = now()-2*set.FailAfter, now()-2*set.FailAfter // however far apart pings are
	first := now()
	fail := func() (fsm.Sight, time.Duration) {
		u.peers.mu.Lock()
		defer u.peers.mu.Unlock()
		u.peers.missed(pe, first, set)
		pe.noServer++
		t := now()
		return fsm.Sight{AgentAge: evidence(pe.agentAge(t), pe.noAgent, set), ServerAge: evidence(t-pe.lastServer, pe.noServer, set)}, t - first
	}
	for range enoughTries {
		if s, took := fail(); s.AgentAge > set.FailAfter && s.ServerAge > set.FailAfter && took < set.FailAfter {
			t.Fatalf("evidence %v after the first try that failed: %+v", took, s)
		}
	}
	for _, at := range []*fsm.Instant{&pe.firstMiss, &pe.lastAgent, &pe.lastServer} { // time goes by
		*at -= set.FailAfter + time.Millisecond
	}
	if s := u.sight("db2"); s.AgentAge <= set.FailAfter || s.ServerAge <= set.FailAfter {
		t.Errorf("no evidence after that: %+v", s)
	}
}

// TestADirectAnswerOfMysqldIsNotForgotten when its hbd has failed to answer often enough.
func TestADirectAnswerOfMysqldIsNotForgotten(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	set := u.settings()
	pe := u.peers.known["db2"]
	first := now()
	for range enoughTries {
		u.peers.tryServer(u.short(), pe, set, now())
		u.peers.missed(pe, first, set)
		pe.firstMiss -= time.Minute
	}
	if !pe.reached || now()-pe.lastServer > time.Minute/2 {
		t.Errorf("its mysqld answered a moment ago: %+v", pe)
	}
}

// TestAWitnessWithoutAWayToAServerIsNoEvidence: nothing is known of whether one may come through from there.
func TestAWitnessWithoutAWayToAServerIsNoEvidence(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.self.Role = fsm.RoleWitness
	set := u.settings()
	pe := u.peers.known["db2"]
	pe.agentOK = false
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].reachable = false })
	u.peers.tryServer(u.short(), pe, set, now())
	if pe.noServer != 0 {
		t.Error("a try without a way counts")
	}
	// While its hbd answers the way is looked for, too, and from then on it counts.
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].reachable = true })
	obs := fsm.Observation{Node: "db2", Run: "r", Sequence: 1, Server: fsm.ServerStatus{State: fsm.ServerUp}}
	u.peer("db2", answersPing(obs))
	pe.tried = 0
	u.peers.look(u.short(), pe, set)
	if !pe.agentOK || pe.lastReach == 0 {
		t.Fatalf("the way is not looked for: %+v", pe)
	}
	pe.agentOK = false
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].reachable = false })
	u.peers.tryServer(u.short(), pe, set, now())
	if pe.noServer != 1 {
		t.Errorf("%d tries count", pe.noServer)
	}
}

// TestATryHeldUpHereIsNone: this process was starved, not the peer. Once its lease must have ended it counts all the same.
func TestATryHeldUpHereIsNone(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	pe, set := u.peers.known["db2"], u.settings()
	pe.lastAgent = now()
	u.peers.missed(pe, now()-2*tryTimeout(set)-time.Millisecond, set)
	if pe.noAgent != 0 {
		t.Error("counted")
	}
	u.peers.missed(pe, now()-tryTimeout(set), set)
	if pe.noAgent != 1 {
		t.Error("one that was not is not counted")
	}
	pe.lastAgent = now() - set.Drifted(set.Lease) - set.AgentGrace
	u.peers.missed(pe, now()-time.Hour, set)
	if pe.noAgent != 2 {
		t.Error("a node that is always starved never learns that its peer is gone")
	}
}

func TestOldObservationsNeverReplaceNewerOnes(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	obs := func(run string, seq uint64, serving uint64) fsm.Observation {
		return fsm.Observation{Node: "db2", Run: run, Sequence: seq, Serving: serving}
	}
	steps := []struct {
		in   fsm.Observation
		kept uint64
	}{
		{obs("a", 5, 1), 1},
		{obs("a", 4, 2), 1},
		{obs("a", 5, 3), 1},
		{obs("a", 6, 4), 4},
		{obs("b", 1, 5), 5}, // another run counts from its own beginning
		{obs("b", 1, 6), 5},
		{obs("b", 2, 7), 7},
	}
	for _, s := range steps {
		u.peers.received("db2", s.in)
		got, at, ok := u.peers.observed("db2")
		if !ok || got.Serving != s.kept || at == 0 {
			t.Errorf("after %s/%d: kept %d, want %d", s.in.Run, s.in.Sequence, got.Serving, s.kept)
		}
	}
	u.peers.received("db3", obs("a", 9, 8))
	if _, _, ok := u.peers.observed("db3"); ok {
		t.Error("db2's observation was kept as db3's")
	}
	u.peers.received("stranger", obs("a", 9, 8))
	if got := len(u.peers.observations()); got != 3 {
		t.Errorf("%d observations, want its own and two", got)
	}
}

// TestNewsIsActedUponAtOnce: what others wait for is not left to the next turn, and what changes all the time wakes nobody.
func TestNewsIsActedUponAtOnce(t *testing.T) {
	u := primary(t)
	sequence := uint64(100)
	for _, x := range []struct {
		name   string
		change func(*fsm.Observation)
		wakes  bool
	}{
		{"nothing", func(*fsm.Observation) {}, false},
		{"its position", func(o *fsm.Observation) { o.Server.Executed = "0-1-2" }, false},
		{"its standing", func(o *fsm.Observation) { o.Standing = fsm.StandingCatching }, true},
		{"that its acknowledgements are off: it is let in", func(o *fsm.Observation) { o.SyncOff = 7 }, true},
		{"that a change of the sync set is prepared: it is committed", func(o *fsm.Observation) { o.Prepared = 9 }, true},
		{"that it does not reach one's hbd", func(o *fsm.Observation) { o.Sights = []fsm.Sight{{Node: "db3", AgentAge: time.Hour}} }, false},
		{"that it has lost one: a takeover begins", func(o *fsm.Observation) {
			o.Sights = []fsm.Sight{{Node: "db3", AgentAge: time.Hour, ServerAge: time.Hour}}
		}, true},
		{"that one has been lost for longer", func(o *fsm.Observation) {
			o.Sights = []fsm.Sight{{Node: "db3", AgentAge: 2 * time.Hour, ServerAge: 2 * time.Hour}}
		}, false},
	} {
		obs, _, _ := u.peers.observed("db2")
		sequence++
		obs.Node, obs.Sequence = "db2", sequence
		x.change(&obs)
		select {
		case <-u.wake:
		default:
		}
		u.peers.received("db2", obs)
		woken := false
		select {
		case <-u.wake:
			woken = true
		default:
		}
		if woken != x.wakes {
			t.Errorf("%s: woken %t", x.name, woken)
		}
	}
}

func TestLostReplicaIsCutOffAtItsPrimary(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	cuts := func() int { return u.host.count("SeverPeer") }
	obs := func(seq uint64, state fsm.ServerState) fsm.Observation {
		return fsm.Observation{Node: "db2", Run: "a", Sequence: seq, Server: fsm.ServerStatus{State: state, Started: "run-1"}}
	}
	u.peers.received("db2", obs(1, fsm.ServerUp))
	if n := cuts(); n != 0 {
		t.Fatalf("cut %d times while it is up", n)
	}
	u.peers.received("db2", obs(2, fsm.ServerDown))
	await(t, "its mysqld went down: cut", func() bool { return cuts() == 1 })
	u.peers.received("db2", obs(3, fsm.ServerDown))
	u.peers.received("db2", obs(4, fsm.ServerUp))
	// The other way to lose it: nobody answers at its host. Once is enough.
	u.w.hosts["db2"].change(func() { u.w.hosts["db2"].reachable = false })
	u.silence("db2")
	pe := u.peers.known["db2"]
	u.lookUntilLost(pe)
	await(t, "its host went away: cut", func() bool { return cuts() >= 2 })
	// The third: it was away for so short a time that it was never seen down.
	back := obs(5, fsm.ServerUp)
	back.Server.Started = "run-2"
	u.peers.received("db2", back)
	await(t, "its mysqld is another: cut", func() bool { return cuts() >= 3 })
	u.peers.received("db2", fsm.Observation{Node: "db2", Run: "a", Sequence: 6, Server: fsm.ServerStatus{State: fsm.ServerUnknown}})
	if n := cuts(); n != 3 {
		t.Errorf("cut %d times, lost three times", n)
	}
}

func TestWhatIsCutLeadsFromOrToThePrimary(t *testing.T) {
	for primary, cuts := range map[fsm.NodeID]int{"db1": 1, "db2": 1, "db3": 0} {
		u := newUnit(t)
		u.steady(primary)
		u.peers.cutLost(u.peers.known["db2"].member)
		if n := u.host.count("SeverPeer"); n != cuts {
			t.Errorf("primary %s: db1 cuts %d times, want %d", primary, n, cuts)
		}
	}
}
