package fsm

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// refusal is a command that must not commit: the invariant it would break, and the words that say so.
type refusal struct {
	name string
	make func(*testing.T) *scene
	cmd  func(c *scene) Command
	want string
}

func promoteOf(c *scene, to NodeID, won Won, answers ...Answer) Command {
	var members []SyncMember
	for _, id := range c.s.DataNodes() {
		if id != to && len(members) < c.s.setLimit() {
			members = append(members, SyncMember{Node: id})
		}
	}
	return Command{Promote: &Promote{OpID: c.s.opID(), Epoch: c.s.Epoch, To: to, Won: won, Members: members, Acks: 1, Answers: answers}}
}

func released(c *scene) Command {
	cmd := promoteOf(c, "db2", WonSwitchover)
	a := c.answer("db1", "0-1-100")
	cmd.Promote.Release = &a
	return cmd
}

// twice is a situation in which the operation that the command names has ended already.
func twice(make func(*testing.T) *scene, cmd func(c *scene) Command) (func(*testing.T) *scene, func(*scene) Command) {
	var late Command
	return func(t *testing.T) *scene {
		c := make(t)
		late = cmd(c)
		c.must(t, late)
		return c
	}, func(*scene) Command { return late }
}

func refusals() []refusal {
	both := func(c *scene) []Answer { return []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")} }
	out := []refusal{
		{"I1 begin of an epoch that has ended", begunTakeover, func(*scene) Command {
			return Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}}
		}, "the epoch is 2"},
		{"I1 begin beside an operation it does not name", switching, func(*scene) Command {
			return Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}}
		}, "is running"},
		{"I1 begin while fencing", begunTakeover, func(c *scene) Command {
			return Command{Begin: &Begin{Kind: KindTakeover, Epoch: 2, OpID: c.s.Op.ID}}
		}, "fencing already"},
		{"I1 begin of a switchover", steadyScene, func(*scene) Command {
			return Command{Begin: &Begin{Kind: KindSwitchover, Epoch: 1}}
		}, "begin of"},
		{"I1 promote at another epoch", fencedTakeover, func(c *scene) Command {
			cmd := promoteOf(c, "db2", WonCount, both(c)...)
			cmd.Promote.Epoch = 1
			return cmd
		}, "running is operation"},
		{"I1 promote of another operation", fencedTakeover, func(c *scene) Command {
			cmd := promoteOf(c, "db2", WonCount, both(c)...)
			cmd.Promote.OpID--
			return cmd
		}, "running is operation"},
		{"I1 settle of an epoch that has ended", promotedTakeover, func(c *scene) Command {
			return Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 1}}
		}, "epoch 2"},
		{"I1 settle before promote", fencedTakeover, func(c *scene) Command {
			return Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 2}}
		}, "step promoted"},
		{"I1 recount for another epoch", promotedTakeover, func(*scene) Command {
			return Command{Recount: &Recount{Epoch: 1, Node: "db3", Incarnation: "i"}}
		}, "the epoch is 2"},
		{"I1 recount while nobody is primary", begunTakeover, func(*scene) Command {
			return Command{Recount: &Recount{Epoch: 2, Node: "db3", Incarnation: "i"}}
		}, "recount"},
		{"I1 recount of the primary", steadyScene, func(*scene) Command {
			return Command{Recount: &Recount{Epoch: 1, Node: "db1", Incarnation: "i"}}
		}, "not in the sync set"},
		{"I1 restart of an epoch that has ended", promotedTakeover, func(c *scene) Command {
			return Command{Restart: &Restart{Epoch: 1, OpID: c.s.Op.ID}}
		}, "the epoch is 2"},
		{"I1 restart beside a takeover", promotedTakeover, func(c *scene) Command {
			return Command{Restart: &Restart{Epoch: 2, OpID: c.s.Op.ID, Attempt: 1}}
		}, "is running"},
		{"I1 switchover beside an operation", restartingPrimary, func(*scene) Command {
			return Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}}
		}, "is running"},
		{"I1 switchover from one who is not primary", steadyScene, func(*scene) Command {
			return Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db3", To: "db2"}}
		}, "the primary is db1"},
		{"I1 bootstrap of a cluster that exists", steadyScene, func(c *scene) Command {
			return Command{Bootstrap: &Bootstrap{ClusterID: "c2", Members: c.s.Members, Settings: c.s.Settings, Primary: "db2"}}
		}, "exists already"},

		{"I2 promote without a fence", begunTakeover, func(c *scene) Command { return promoteOf(c, "db2", WonCount, both(c)...) }, "not fenced"},
		{"I2 fence of another node", begunTakeover, func(c *scene) Command {
			return Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceAgent, Node: "db2"}}}
		}, "the old primary is db1"},
		{"I2 fence without evidence", begunTakeover, func(c *scene) Command {
			return Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceNone, Node: "db1"}}}
		}, "evidence of kind"},
		{"I2 a release is no fence of a takeover", begunTakeover, func(c *scene) Command {
			return Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceRelease, Node: "db1"}}}
		}, "evidence of kind"},
		{"I2 switchover without a release", releasingTo, func(c *scene) Command { return promoteOf(c, "db2", WonSwitchover) }, "no release"},
		{"I2 switchover with the release of another epoch", releasingTo, func(c *scene) Command {
			cmd := released(c)
			cmd.Promote.Release.Epoch = 0
			return cmd
		}, "no release"},
		{"I2 switchover with the release of another node", releasingTo, func(c *scene) Command {
			cmd := released(c)
			cmd.Promote.Release.Node = "db3"
			return cmd
		}, "no release"},
		{"I2 switchover to another than asked", releasingTo, func(c *scene) Command {
			cmd := released(c)
			cmd.Promote.To = "db3"
			cmd.Promote.Members = []SyncMember{{Node: "db1"}, {Node: "db2"}}
			return cmd
		}, "is to db2"},
		{"I2 switchover that still prepares", switching, released, "is at step prepared"},

		{"I3 one answer too few", fencedTakeover, func(c *scene) Command { return promoteOf(c, "db2", WonCount, both(c)[0]) }, "2 are needed"},
		{"I3 an answer of another incarnation", fencedTakeover, func(c *scene) Command {
			a := both(c)
			a[1].Incarnation = "i-db3-again"
			return promoteOf(c, "db2", WonCount, a...)
		}, "2 are needed"},
		{"I3 an answer of another epoch", fencedTakeover, func(c *scene) Command {
			a := both(c)
			a[1].Epoch = 1
			return promoteOf(c, "db2", WonCount, a...)
		}, "2 are needed"},
		{"I3 the old primary without its own data", fencedTakeover, func(c *scene) Command {
			return promoteOf(c, "db1", WonOwn, append(both(c), c.answer("db1", ""))...)
		}, "counted member"},
		{"I3 another right than claimed", fencedTakeover, func(c *scene) Command { return promoteOf(c, "db2", WonOwn, both(c)...) }, "won by count"},
		{"I3 a stranger", fencedTakeover, func(c *scene) Command { return promoteOf(c, "db9", WonCount, both(c)...) }, "not a data node"},

		{"I4 rollback of what has been promoted", switched, func(c *scene) Command {
			return Command{Rollback: &Rollback{OpID: c.s.Op.ID, Epoch: 1}}
		}, "rollback"},
		{"I4 rollback of a takeover", begunTakeover, func(c *scene) Command {
			return Command{Rollback: &Rollback{OpID: c.s.Op.ID, Epoch: 2}}
		}, "rollback"},

		{"I6 switchover of a paused cluster", pausedScene, func(*scene) Command {
			return Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}}
		}, "paused by ann"},
		{"I6 takeover of a paused cluster", pausedScene, func(*scene) Command {
			return Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}}
		}, "paused by ann"},
		{"I6 restart of a paused cluster", pausedScene, func(*scene) Command {
			return Command{Restart: &Restart{Epoch: 1, Attempt: 1}}
		}, "paused by ann"},
		{"I6 failover after a restart, paused between", func(t *testing.T) *scene {
			c := restartingPrimary(t)
			c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
			return c
		}, func(c *scene) Command {
			return Command{Begin: &Begin{Kind: KindFailover, Epoch: 1, OpID: c.s.Op.ID}}
		}, "paused by ann"},
	}
	late := func(name string, make func(*testing.T) *scene, cmd func(c *scene) Command, want string) {
		m, c := twice(make, cmd)
		out = append(out, refusal{name, m, c, want})
	}
	late("I1 the same begin twice", steadyScene, func(*scene) Command { return Command{Begin: &Begin{Kind: KindTakeover, Epoch: 1}} }, "the epoch is 2")
	late("I1 the same promote twice", fencedTakeover, func(c *scene) Command { return promoteOf(c, "db2", WonCount, both(c)...) }, "step promoted")
	late("I1 the same settle twice", promotedTakeover, func(c *scene) Command { return Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 2}} }, "running is none")
	late("I1 the same restart twice", steadyScene, func(*scene) Command { return Command{Restart: &Restart{Epoch: 1, Attempt: 1}} }, "is running")
	late("I1 the same second attempt twice", restartingPrimary, func(c *scene) Command {
		return Command{Restart: &Restart{Epoch: 1, OpID: c.s.Op.ID, Attempt: 2}}
	}, "attempt")
	late("I1 the same switchover twice", steadyScene, func(*scene) Command {
		return Command{Switchover: &Switchover{Kind: KindSwitchover, Epoch: 1, From: "db1", To: "db2"}}
	}, "is running")
	late("I2 the same fence twice", begunTakeover, func(c *scene) Command {
		return Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceHook, Node: "db1"}}}
	}, "at step fenced")
	late("I4 promote after rollback", releasingTo, func(c *scene) Command { return Command{Rollback: &Rollback{OpID: c.s.Op.ID, Epoch: 1}} }, "running is operation 0")
	return out
}

func pausedScene(t *testing.T) *scene {
	c := steady(t)
	c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann", Why: "upgrade"}})
	return c
}

func TestApplyRefusals(t *testing.T) {
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			c := r.make(t)
			before := c.s.Clone()
			err := c.apply(r.cmd(c))
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("error is %v, want a refusal", err)
			}
			if !strings.Contains(err.Error(), r.want) {
				t.Errorf("refusal %q does not say %q", err, r.want)
			}
			if !reflect.DeepEqual(before, c.s) {
				t.Error("a refused command changed the state")
			}
		})
	}
}

// TestRollbackExcludesPromote is I4 in both orders.
func TestRollbackExcludesPromote(t *testing.T) {
	c := releasingTo(t)
	promote, rollback := released(c), Command{Rollback: &Rollback{OpID: c.s.Op.ID, Epoch: 1}}
	before := c.s.Clone()
	c.must(t, promote)
	if err := c.apply(rollback); !errors.Is(err, ErrRefused) {
		t.Errorf("rollback after promote: %v", err)
	}
	c.s = before
	c.must(t, rollback)
	if err := c.apply(promote); !errors.Is(err, ErrRefused) {
		t.Errorf("promote after rollback: %v", err)
	}
}

// TestPauseLetsABegunOperationEnd is the other half of I6.
func TestPauseLetsABegunOperationEnd(t *testing.T) {
	c := begunTakeover(t)
	c.must(t, Command{SetPause: &SetPause{Paused: true, By: "ann"}})
	c.wait(2e9)
	c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-100")}
	c.follow(t)
	if c.s.Phase != PhasePromoting || c.s.Primary != "db2" {
		t.Fatalf("phase %s, primary %q: the takeover stopped half-way", c.s.Phase, c.s.Primary)
	}
	c.serve("db2")
	c.follow(t)
	if c.s.Phase != PhaseSteady {
		t.Errorf("phase %s", c.s.Phase)
	}
	c.must(t, Command{SetPause: &SetPause{}})
	if c.s.Paused != nil {
		t.Error("not resumed")
	}
}

func TestHandoverIsNotPaused(t *testing.T) {
	c := pausedScene(t)
	c.must(t, Command{Switchover: &Switchover{Kind: KindHandover, Epoch: 1, From: "db1", To: "db2"}})
}

func TestBaseStaysUntilSettled(t *testing.T) {
	c := promotedTakeover(t)
	want := Base{Epoch: 1, Primary: "db1", Sync: SyncSet{Members: []SyncMember{{Node: "db2", Incarnation: "i-db2"}, {Node: "db3", Incarnation: "i-db3"}}, Acks: 1}}
	if c.s.Base == nil || !reflect.DeepEqual(*c.s.Base, want) {
		t.Fatalf("base is %+v, want %+v", c.s.Base, want)
	}
	// An interrupted chain keeps the first unsettled base.
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 2, OpID: c.s.Op.ID, Exclude: "db2"}})
	if !reflect.DeepEqual(*c.s.Base, want) {
		t.Errorf("the second begin changed the base to %+v", c.s.Base)
	}
	if c.s.Op.Attempt != 1 || len(c.s.Op.Excluded) != 1 || c.s.Op.From != "db2" {
		t.Errorf("operation is %+v", c.s.Op)
	}
	if inc := c.s.Incidents[len(c.s.Incidents)-1]; inc.Outcome != OutcomeSuperseded {
		t.Errorf("the first takeover ended as %s", inc.Outcome)
	}
}

func TestUnknownCommandsStop(t *testing.T) {
	if _, err := Apply(State{}, 1, Command{Bootstrap: &Bootstrap{}}); !errors.Is(err, ErrRefused) {
		t.Errorf("empty bootstrap: %v", err)
	}
	if _, err := Apply(steady(t).s, 9, Command{}); !errors.Is(err, ErrUnknownCommand) {
		t.Errorf("empty command: %v", err)
	}
	for _, data := range []string{``, `{}`, `{"v":1}`, `{"v":2,"settle":{}}`, `{"v":1,"settle":{},"later":1}`, `{"v":1,"settle":{}} {}`, `[]`} {
		if _, err := DecodeCommand([]byte(data)); !errors.Is(err, ErrUnknownCommand) {
			t.Errorf("%s: %v", data, err)
		}
	}
}

// TestOrderIndexRises: orders of one step carry one index, and each new step or attempt a higher one.
func TestOrderIndexRises(t *testing.T) {
	c := steady(t)
	seen := []uint64{}
	note := func() { seen = append(seen, c.s.Op.Index) }
	c.obs["db1"].Server.State, c.obs["db1"].Serving = ServerDown, 0
	c.follow1(t)
	note()
	c.must(t, Command{Recount: &Recount{Epoch: 1, Node: "db2", Incarnation: "again"}})
	if c.s.Op.Index != seen[0] {
		t.Error("a recount moved the index of the running step")
	}
	c.must(t, Command{Restart: &Restart{Epoch: 1, OpID: c.s.Op.ID, Attempt: 2}})
	note()
	c.must(t, Command{Begin: &Begin{Kind: KindFailover, Epoch: 1, OpID: c.s.Op.ID}})
	note()
	c.must(t, Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: 2, Evidence: Evidence{Kind: EvidenceHook, Node: "db1"}}})
	note()
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Errorf("indexes %v do not rise", seen)
		}
	}
}
