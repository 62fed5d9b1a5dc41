package fsm

import (
	"slices"
	"strings"
	"testing"
)

// pick is one election: a state, answers, and who may be promoted by which right.
type pick struct {
	name    string
	make    func(*testing.T) *scene
	answers func(c *scene) []Answer
	ownToo  bool
	fetch   NodeID
	alone   bool
	to      NodeID // "" for nobody
	won     Won
	verdict string // a refusal that must be named
	node    NodeID // of whom
}

func with(a Answer, edit func(*Answer)) Answer {
	edit(&a)
	return a
}

func own(c *scene, epoch uint64) Answer {
	return Answer{Node: "db1", Epoch: c.s.Epoch, Incarnation: "i-db1", Held: epoch, LastEpoch: epoch}
}

// unsettled is the second takeover of a chain: db2 was promoted to epoch 2 and lost before it settled. The set of epoch 2 is {db1, db3}, the
// base set, of epoch 1, is {db2, db3}. db1 came back in between and counts again when recounted is set.
func unsettled(recounted bool) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := promotedTakeover(t)
		c.obs["db1"].Incarnation = "i-db1"
		known := "i-db1-before"
		if recounted {
			known = "i-db1"
		}
		c.must(t, Command{Grow: &Grow{Epoch: 2, Node: "db1", Incarnation: known}})
		c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 2, OpID: c.s.Op.ID}})
		c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 3, Evidence: Evidence{Kind: EvidenceLease, Node: "db2"}}})
		return c
	}
}

// reached is an answer that holds the barrier of epoch 2.
func reached(c *scene, id NodeID, received string) Answer {
	return with(c.answer(id, received), func(a *Answer) { a.LastEpoch = 2 })
}

var picks = []pick{
	{name: "the most advanced", make: fencedTakeover, to: "db3", won: WonCount, verdict: "candidate.behind", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-99"), c.answer("db3", "0-1-100")} }},
	{name: "equal: the lower id", make: fencedTakeover, to: "db2", won: WonCount,
		answers: func(c *scene) []Answer { return []Answer{c.answer("db3", "0-1-100"), c.answer("db2", "0-1-100")} }},
	{name: "equal: the higher priority", make: prioritized, to: "db3", won: WonCount,
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")} }},
	{name: "equal: not one that lags, whatever its priority", make: prioritized, to: "db2", won: WonCount, answers: func(c *scene) []Answer {
		return []Answer{c.answer("db2", "0-1-100"), with(c.answer("db3", "0-1-100"), func(a *Answer) { a.Unapplied = 21 })}
	}},
	{name: "equal: a little is no lag", make: prioritized, to: "db3", won: WonCount, answers: func(c *scene) []Answer {
		return []Answer{c.answer("db2", "0-1-100"), with(c.answer("db3", "0-1-100"), func(a *Answer) { a.Unapplied = 20 })}
	}},
	{name: "both lag: who has less to apply", make: prioritized, to: "db2", won: WonCount, answers: func(c *scene) []Answer {
		return []Answer{with(c.answer("db2", "0-1-100"), func(a *Answer) { a.Unapplied = 100 }), with(c.answer("db3", "0-1-100"), func(a *Answer) { a.Unapplied = 1000 })}
	}},
	{name: "both lag alike: the higher priority", make: prioritized, to: "db3", won: WonCount, answers: func(c *scene) []Answer {
		return []Answer{with(c.answer("db2", "0-1-100"), func(a *Answer) { a.Unapplied = 981 }), with(c.answer("db3", "0-1-100"), func(a *Answer) { a.Unapplied = 1000 })}
	}},
	{name: "one that lags and holds more", make: fencedTakeover, to: "db3", won: WonCount, answers: func(c *scene) []Answer {
		return []Answer{c.answer("db2", "0-1-99"), with(c.answer("db3", "0-1-100"), func(a *Answer) { a.Unapplied = 1000 })}
	}},
	{name: "one too few", make: fencedTakeover, verdict: "candidate.count", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100")} }},
	{name: "an incarnation the log does not know", make: fencedTakeover, verdict: "candidate.count", node: "db2", answers: func(c *scene) []Answer {
		return []Answer{c.answer("db2", "0-1-100"), with(c.answer("db3", "0-1-80"), func(a *Answer) { a.Incarnation = "i-db3-again" })}
	}},
	{name: "an incarnation the log never knew", make: fencedTakeover, verdict: "candidate.count", node: "db2", answers: func(c *scene) []Answer {
		c.s.Sync.Members[1].Incarnation = ""
		return []Answer{c.answer("db2", "0-1-100"), with(c.answer("db3", "0-1-80"), func(a *Answer) { a.Incarnation = "" })}
	}},
	{name: "two histories", make: fencedTakeover, verdict: "candidate.incomparable",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-2-100")} }},
	{name: "a domain more on each side", make: fencedTakeover, verdict: "candidate.incomparable",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100,7-1-1"), c.answer("db3", "0-1-101")} }},
	{name: "a position that cannot be read", make: fencedTakeover, verdict: "candidate.position", node: "db3",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "nonsense")} }},
	{name: "never-promote steps aside", make: never("db2"), to: "db3", won: WonCount, verdict: "candidate.never-promote", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")} }},
	{name: "never-promote holds more: the other catches up from it", make: never("db2"), to: "db3", won: WonCount, fetch: "db2", verdict: "candidate.behind", node: "db3",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-99")} }},
	{name: "an excluded one counts and does not lead", make: excluded("db2"), to: "db3", won: WonCount, verdict: "candidate.excluded", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")} }},
	{name: "an excluded one that held the epoch, when nobody else can", make: excluded("db1"), ownToo: true, to: "db1", won: WonOwn, verdict: "candidate.count", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), c.answer("db2", "0-1-100")} }},
	{name: "an excluded one that held the epoch waits for the others", make: excluded("db1"), verdict: "candidate.excluded", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), c.answer("db2", "0-1-100")} }},
	{name: "an excluded one comes after those who count", make: excluded("db1"), ownToo: true, to: "db2", won: WonCount,
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")}
		}},
	{name: "an old answer", make: fencedTakeover, verdict: "candidate.old-answer", node: "db2", answers: func(c *scene) []Answer {
		return []Answer{with(c.answer("db2", "0-1-100"), func(a *Answer) { a.Epoch = 1 }), c.answer("db3", "0-1-100")}
	}},
	{name: "a witness", make: fencedTakeover, verdict: "candidate.not-data", node: "w1",
		answers: func(c *scene) []Answer { return []Answer{{Node: "w1", Epoch: 2}} }},

	{name: "the old primary waits for the others", make: fencedTakeover, verdict: "candidate.own-later", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1)} }},
	{name: "the old primary by its own right", make: fencedTakeover, ownToo: true, to: "db1", won: WonOwn,
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), c.answer("db2", "0-1-100")} }},
	{name: "the others come before the old primary", make: fencedTakeover, ownToo: true, to: "db2", won: WonCount,
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), c.answer("db2", "0-1-100"), c.answer("db3", "0-1-90")}
		}},
	{name: "the old primary with data of an older epoch", make: fencedTakeover, ownToo: true, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{own(c, 0)} }},
	{name: "the old primary for an older promise", make: fencedTakeover, ownToo: true, verdict: "candidate.old-answer", node: "db1", answers: func(c *scene) []Answer {
		return []Answer{with(own(c, 1), func(a *Answer) { a.Epoch = 1 })}
	}},
	{name: "the old primary, when the others are incomparable", make: fencedTakeover, ownToo: true, to: "db1", won: WonOwn, verdict: "candidate.incomparable",
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), c.answer("db2", "0-1-100"), c.answer("db3", "0-2-100")}
		}},

	{name: "unsettled: too few of the new set", make: unsettled(false), ownToo: true, verdict: "candidate.count", node: "db3",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db1", "0-1-100"), c.answer("db3", "0-1-100")} }},
	{name: "unsettled: the base's primary never received anything of it, and says so", make: unsettled(false), ownToo: true, to: "db1", won: WonOwn,
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), c.answer("db3", "0-1-100")} }},
	{name: "unsettled: the base's primary alone knows nothing of the barrier", make: unsettled(false), ownToo: true, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1)} }},
	{name: "unsettled: the base's primary turned towards it and has forgotten nothing", make: unsettled(false), ownToo: true, to: "db1", won: WonOwn, answers: func(c *scene) []Answer {
		return []Answer{with(c.answer("db1", "0-1-100"), func(a *Answer) { a.Whole = 2 }), c.answer("db3", "0-1-100")}
	}},
	{name: "unsettled: whole since an older epoch is not whole", make: unsettled(false), ownToo: true, verdict: "candidate.count", node: "db1", answers: func(c *scene) []Answer {
		return []Answer{with(c.answer("db1", "0-1-100"), func(a *Answer) { a.Whole = 1 }), c.answer("db3", "0-1-100")}
	}},
	{name: "unsettled: one holds the new barrier", make: unsettled(true), to: "db3", won: WonCount, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db1", "0-1-100"), reached(c, "db3", "0-2-102")} }},
	{name: "unsettled: an old tail does not outvote the barrier", make: unsettled(true), to: "db3", won: WonCount,
		answers: func(c *scene) []Answer { return []Answer{c.answer("db1", "0-1-109"), reached(c, "db3", "0-2-102")} }},
	{name: "unsettled: nobody holds it and the base is short", make: unsettled(true), verdict: "candidate.count", node: "db3",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db1", "0-1-100"), c.answer("db3", "0-1-100")} }},
	{name: "unsettled: nobody holds it, the base counts", make: unsettled(true), to: "db2", won: WonCount, answers: func(c *scene) []Answer {
		return []Answer{c.answer("db1", "0-1-100"), c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")}
	}},
	{name: "unsettled: nobody holds it, the base's primary by its own right", make: unsettled(true), ownToo: true, to: "db1", won: WonOwn,
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), c.answer("db3", "0-1-100")} }},
	{name: "unsettled: the base's primary may not overrule a barrier", make: unsettled(true), ownToo: true, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), reached(c, "db3", "0-2-102")} }},
	{name: "unsettled: nor acknowledge one: a third is waited for", make: unsettled(true), ownToo: true, verdict: "candidate.no-acknowledger", node: "db3",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), reached(c, "db3", "0-2-102")} }},
	{name: "unsettled: the third is there", make: unsettled(true), ownToo: true, to: "db3", won: WonCount, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), c.answer("db2", "0-1-100"), reached(c, "db3", "0-2-102")}
		}},
	{name: "unsettled: its own primary never took it up: the base's comes back, whatever the new set has forgotten", make: unsettled(false), ownToo: true, to: "db1", won: WonOwn,
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), with(c.answer("db2", "0-1-100"), func(a *Answer) { a.Incarnation = "i-db2-again" })}
		}},
	{name: "unsettled: its own primary never took it up: the base counts", make: unsettled(false), to: "db2", won: WonCount,
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")} }},
	{name: "unsettled: its own primary never took it up, and the base is short", make: unsettled(false), verdict: "candidate.count", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100")} }},
	{name: "unsettled: its own primary said so for an older promise", make: unsettled(false), ownToo: true, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), with(c.answer("db2", "0-1-100"), func(a *Answer) { a.Epoch = 2 })}
		}},
	{name: "unsettled: its own primary took it up and forgot nothing: only it may go on alone", make: unsettled(false), ownToo: true, to: "db2", won: WonOwn, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), with(c.answer("db2", "0-2-101"), func(a *Answer) { a.Held, a.LastEpoch = 2, 0 })}
		}},
	{name: "a chain: the base's primary knows nothing of what the epoch between acknowledged", make: chained, ownToo: true, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), reached(c, "db3", "0-2-105")} }},
	{name: "a chain: nor does one that has forgotten it and is whole since", make: chained, ownToo: true, verdict: "candidate.count", node: "db1", answers: func(c *scene) []Answer {
		return []Answer{own(c, 1), with(c.answer("db3", "0-1-100"), func(a *Answer) { a.Incarnation, a.LastEpoch, a.Whole = "i-db3-again", 1, 3 })}
	}},
	{name: "a chain: nor does its last primary, which never took it up, of the epoch between", make: chained, ownToo: true, verdict: "candidate.count", node: "db1",
		answers: func(c *scene) []Answer {
			return []Answer{own(c, 1), with(c.answer("db2", "0-2-105"), func(a *Answer) { a.Incarnation = "i-db2-again" })}
		}},
	{name: "nobody could acknowledge its barrier", make: twoFenced, verdict: "candidate.no-acknowledger", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100")} }},
	{name: "a former primary could not acknowledge it: it comes back itself", make: twoFenced, ownToo: true, to: "db1", won: WonOwn, verdict: "candidate.no-acknowledger", node: "db2",
		answers: func(c *scene) []Answer { return []Answer{own(c, 1), c.answer("db2", "0-1-100")} }},
	{name: "unsettled: the promoted one itself, it held its epoch", make: unsettled(false), ownToo: true, to: "db2", won: WonOwn, answers: func(c *scene) []Answer {
		return []Answer{with(c.answer("db2", "0-2-101"), func(a *Answer) { a.Held, a.LastEpoch = 2, 2 })}
	}},
}

// chained is an unsettled epoch behind an unsettled one: db2 won epoch 2 and may have opened and acknowledged in it; it was lost, came back by its own
// right as epoch 3, and was lost for good before the barrier of that. What epoch 2 acknowledged is at stake, and neither the base nor the last grant
// says so.
func chained(t *testing.T) *scene {
	c := promotedTakeover(t)
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 2, OpID: c.s.Op.ID}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 3, Evidence: Evidence{Kind: EvidenceLease, Node: "db2"}}})
	c.obs["db3"].Incarnation = "i-db3-twice"
	db3 := reached(c, "db3", "0-2-105")
	c.answers = []Answer{db3, {Node: "db2", Epoch: 3, Held: 2, LastEpoch: 2}}
	c.wait(c.s.Settings.OrderTimeout + 1)
	c.follow(t)
	if c.s.Primary != "db2" || c.s.Epoch != 3 {
		t.Fatalf("primary %q of epoch %d", c.s.Primary, c.s.Epoch)
	}
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 3, OpID: c.s.Op.ID}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 4, Evidence: Evidence{Kind: EvidenceLease, Node: "db2"}}})
	return c
}

// twoFenced is a takeover with two data nodes and a witness.
func twoFenced(t *testing.T) *scene {
	c := steady(t, append(data("db1", "db2"), witness("w1"))...)
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}})
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceHook, Node: "db1"}}})
	return c
}

func prioritized(t *testing.T) *scene {
	c := fencedTakeover(t)
	c.s.Members[2].Priority = 101
	return c
}

func never(id NodeID) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := fencedTakeover(t)
		i := slices.IndexFunc(c.s.Members, func(m Member) bool { return m.ID == id })
		c.s.Members[i].NeverPromote = true
		return c
	}
}

func excluded(id NodeID) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := fencedTakeover(t)
		c.s.Op.Excluded = []NodeID{id}
		return c
	}
}

func TestElect(t *testing.T) {
	for _, p := range picks {
		t.Run(p.name, func(t *testing.T) {
			c := p.make(t)
			answers := p.answers(c)
			choice, ok, verdicts := Elect(c.s, answers, p.ownToo, p.alone)
			if ok != (p.to != "") || choice.To != p.to || choice.Won != p.won || choice.Fetch != p.fetch {
				t.Errorf("chose %q by %q, want %q by %q; verdicts %v", choice.To, choice.Won, p.to, p.won, verdicts)
			}
			if p.verdict != "" && !hasVerdict(verdicts, p.verdict, p.node) {
				t.Errorf("no verdict %s of %q among %v", p.verdict, p.node, verdicts)
			}
			if !ok {
				return
			}
			// Whatever Elect chooses, Apply must let through: the two judge alike.
			cmd := promoteOf(c, choice.To, choice.Won, answers...)
			cmd.Promote.Fetch, cmd.Promote.Position = choice.Fetch, choice.Position
			if err := c.apply(cmd); err != nil {
				t.Errorf("the choice does not commit: %v", err)
			}
		})
	}
}

// TestElectIsBlindToOrder: answers arrive in any order, and the choice must not depend on it.
func TestElectIsBlindToOrder(t *testing.T) {
	for _, p := range picks {
		c := p.make(t)
		answers := p.answers(c)
		permute(answers, func(order []Answer) {
			if choice, ok, _ := Elect(c.s, order, p.ownToo, p.alone); ok != (p.to != "") || choice.To != p.to {
				t.Errorf("%s: chose %q in the order %v", p.name, choice.To, order)
			}
		})
	}
}

func permute(a []Answer, f func([]Answer)) {
	if len(a) < 2 {
		f(a)
		return
	}
	for i := range a {
		rest := slices.Delete(slices.Clone(a), i, i+1)
		permute(rest, func(order []Answer) { f(append([]Answer{a[i]}, order...)) })
	}
}

// TestNeeded checks |S| - W + 1 against what it stands for: the smallest number of members that always includes one of every W.
func TestNeeded(t *testing.T) {
	for size := 1; size <= 5; size++ {
		for acks := 1; acks <= size; acks++ {
			set := SyncSet{Members: make([]SyncMember, size), Acks: acks}
			smallest := size
			for asked := size; asked >= 1; asked-- {
				if size-asked >= acks { // W members can hide among those not asked
					break
				}
				smallest = asked
			}
			if set.Needed() != smallest {
				t.Errorf("|S|=%d W=%d: needed %d, want %d", size, acks, set.Needed(), smallest)
			}
		}
	}
}

// TestNewSetIsWhoAnswered: a member counts at once in the new set, with the incarnation that answered. A former primary does not answer as one that
// follows, and who did not answer is not in it.
func TestNewSetIsWhoAnswered(t *testing.T) {
	c := fencedTakeover(t)
	c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-90"), own(c, 1)}
	c.follow(t)
	want := SyncSet{Members: []SyncMember{{Node: "db3", Incarnation: "i-db3"}}, Acks: 1}
	if !slices.Equal(c.s.Sync.Members, want.Members) || c.s.Sync.Acks != want.Acks {
		t.Errorf("the new set is %+v, want %+v", c.s.Sync, want)
	}
}

func TestSwitchedSet(t *testing.T) {
	c := releasingTo(t)
	a := c.answer("db1", "0-1-100")
	c.release, c.reached = &a, true
	c.obs["db3"].Incarnation = "i-db3-again"
	c.follow(t)
	want := []SyncMember{{Node: "db1", Incarnation: "i-db1"}, {Node: "db3"}}
	if !slices.Equal(c.s.Sync.Members, want) {
		t.Errorf("the new set is %+v, want %+v", c.s.Sync.Members, want)
	}
}

func TestBestCandidate(t *testing.T) {
	c := steady(t)
	if to, _ := BestCandidate(c.s, c.view(), ""); to != "db2" {
		t.Errorf("best is %q, want db2", to)
	}
	if to, _ := BestCandidate(c.s, c.view(), "db2"); to != "db3" {
		t.Errorf("best but db2 is %q, want db3", to)
	}
	c.s.Members[2].Priority = 200
	if to, _ := BestCandidate(c.s, c.view(), ""); to != "db3" {
		t.Errorf("best by priority is %q, want db3", to)
	}
	c.obs["db3"].Server.State = ServerDown
	to, refusals := BestCandidate(c.s, c.view(), "")
	if to != "db2" || !hasVerdict(refusals, "candidate.server-up", "db3") {
		t.Errorf("best is %q, refusals %v", to, refusals)
	}
	c.lose("db2")
	if to, refusals := BestCandidate(c.s, c.view(), ""); to != "" || !hasVerdict(refusals, "candidate.alive", "db2") {
		t.Errorf("best is %q, refusals %v", to, refusals)
	}
}

// TestPassesSoon: what time alone mends is waited for, and what needs somebody is told at once.
func TestPassesSoon(t *testing.T) {
	lag := 5.1
	for _, k := range []struct {
		soon bool
		edit func(c *scene)
	}{
		{true, func(c *scene) { c.obs["db2"].Standing = StandingCatching }},
		{true, func(c *scene) { c.obs["db2"].Incarnation = "i-db2-again" }},
		{true, func(c *scene) { c.s.Change = &SetChange{} }},
		{false, func(c *scene) { c.obs["db2"].Standing = StandingQuarantined }},
		{false, func(c *scene) { c.obs["db2"].Server.State = ServerHung }},
		{false, func(c *scene) { c.obs["db2"].Server.Lag = &lag }},
		{false, func(*scene) {}},
	} {
		c := steady(t)
		k.edit(c)
		gates := SwitchoverGates(c.s, c.view(), "db2")
		if i := slices.IndexFunc(gates, func(g Verdict) bool { return !g.OK }); (i >= 0 && PassesSoon(gates[i])) != k.soon {
			t.Errorf("soon is not %t with %v", k.soon, gates)
		}
	}
}

// TestReserveIsNoCandidate: whom the full set has no place for is told so and not made to wait; a place that becomes free is waited for.
func TestReserveIsNoCandidate(t *testing.T) {
	c := steady(t, data("db1", "db2", "db3", "db4")...)
	reserve := NodeID("db4")
	if _, in := c.s.Sync.Member(reserve); in || len(c.s.Sync.Members) != c.s.setLimit() {
		t.Fatalf("%s was to be the one left over: %+v", reserve, c.s.Sync)
	}
	refused := func() (out []Verdict) {
		for _, g := range SwitchoverGates(c.s, c.view(), reserve) {
			if !g.OK {
				out = append(out, g)
			}
		}
		return out
	}
	if got := refused(); len(got) != 1 || got[0].Rule != "candidate.reserve" || PassesSoon(got[0]) || !strings.Contains(got[0].Why, "db2, db3") {
		t.Errorf("refused by %v", got)
	}
	c.obs["db3"].Server.State = ServerDown
	if got := refused(); len(got) != 1 || got[0].Rule != "candidate.in-sync" || !PassesSoon(got[0]) {
		t.Errorf("with a place that becomes free: refused by %v", got)
	}
}

// TestSwitchoverGates breaks one gate at a time: exactly that one must refuse.
func TestSwitchoverGates(t *testing.T) {
	lag := 5.1
	for _, g := range []struct {
		gate string
		edit func(c *scene)
	}{
		{"candidate.never-promote", func(c *scene) { c.s.Members[1].NeverPromote = true }},
		{"candidate.alive", func(c *scene) { c.noAgent["db2"] = true }},
		{"candidate.server-up", func(c *scene) { c.obs["db2"].Server.State = ServerHung }},
		{"candidate.follows", func(c *scene) { c.obs["db2"].Standing = StandingCatching }},
		{"candidate.in-sync", func(c *scene) { c.obs["db2"].Incarnation = "i-db2-again" }},
		{"candidate.lag", func(c *scene) { c.obs["db2"].Server.Lag = &lag }},
		{"candidate.lag", func(c *scene) { c.obs["db2"].Server.Lag = nil }},
		{GateUnapplied, func(c *scene) { c.obs["db2"].Server.Received = "0-1-9999999" }},
		{GateUnapplied, func(c *scene) { c.obs["db2"].Server.Executed = "nonsense" }},
		{"primary.serving", func(c *scene) { c.obs["db1"].Serving = 0 }},
	} {
		c := steady(t)
		g.edit(c)
		for _, v := range SwitchoverGates(c.s, c.view(), "db2") {
			if v.OK == (v.Rule == g.gate) {
				t.Errorf("with %s broken: %s", g.gate, v)
			}
		}
	}
	c := steady(t)
	if v := SwitchoverGates(c.s, c.view(), "db1"); v[1].OK || v[1].Rule != "candidate.not-primary" {
		t.Errorf("the primary may be switched to itself: %v", v)
	}
	c = steady(t, append(data("db1", "db2"), witness("w1"))...)
	c.obs["db1"].Server.State = ServerDown
	if v := SwitchoverGates(c.s, c.view(), "db2"); v[len(v)-1].OK {
		t.Errorf("nobody could acknowledge the barrier, and it passes: %v", v)
	}
	if v := SwitchoverGates(c.s, c.view(), "w1"); v[0].OK {
		t.Errorf("a witness may be switched to: %v", v)
	}
}
