package fsm

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func fenceBy(kind EvidenceKind) func(*scene) Command {
	return func(c *scene) Command {
		return Command{Fence: &Fence{OpID: c.s.Op.ID, Epoch: c.s.Epoch, Evidence: Evidence{Kind: kind, Node: c.s.Op.From}}}
	}
}

func acceptLoss(edit func(*AcceptLoss)) func(*scene) Command {
	return func(c *scene) Command {
		a := AcceptLoss{OpID: c.s.opID(), Epoch: c.s.Epoch, Actor: "ann"}
		if edit != nil {
			edit(&a)
		}
		return Command{AcceptLoss: &a}
	}
}

// accepted is a takeover in which an operator has accepted a loss: begun, or fenced by a lease that ran out.
func accepted(make func(*testing.T) *scene, edit func(*AcceptLoss)) func(*testing.T) *scene {
	return func(t *testing.T) *scene {
		c := make(t)
		c.must(t, acceptLoss(edit)(c))
		return c
	}
}

func vouched(a *AcceptLoss) { a.Vouched = true }

func wanted(to NodeID) func(*AcceptLoss) {
	return func(a *AcceptLoss) { a.To, a.Vouched = to, true }
}

// lossyTo is a promotion by an accepted loss, on one answer.
func lossyTo(to NodeID, edit func(*Answer)) func(*scene) Command {
	return func(c *scene) Command {
		a := c.answer(to, "0-1-90")
		a.Incarnation += "-again"
		if edit != nil {
			edit(&a)
		}
		cmd := promoteOf(c, to, WonLossy, a)
		cmd.Promote.Members, cmd.Promote.Acks = nil, 0
		return cmd
	}
}

var lossyRefusals = []refusal{
	{"accept: nothing runs", steadyScene, acceptLoss(nil), "running is operation 0"},
	{"accept: another operation", begunTakeover, acceptLoss(func(a *AcceptLoss) { a.OpID-- }), "running is operation 2"},
	{"accept: another epoch", begunTakeover, acceptLoss(func(a *AcceptLoss) { a.Epoch-- }), "at epoch 2"},
	{"accept: somebody is promoted already", promotedTakeover, acceptLoss(nil), "running is operation"},
	{"accept: a switchover loses nothing", releasingTo, acceptLoss(nil), "running is operation"},
	{"accept: for a stranger", begunTakeover, acceptLoss(wanted("db9")), "not a data node"},
	{"fence: a lease is no evidence", accepted(begunTakeover, nil), fenceBy(EvidenceLease), "no evidence for a failover that accepts a loss"},
	{"fence: nor when the epoch was ended with the loss accepted", func(t *testing.T) *scene {
		c := steady(t)
		c.must(t, Command{Begin: &Begin{Kind: KindFailover, Epoch: 1, Lossy: true}})
		return c
	}, fenceBy(EvidenceLease), "no evidence"},
	{"fence: a lease is not better than a lease", accepted(fencedTakeover, nil), fenceBy(EvidenceLease), "no evidence"},
	{"fence: better evidence is there", accepted(begunTakeover, vouched), fenceBy(EvidenceHook), "at step fenced"},
	{"fence: nobody accepted a loss: the lease is good enough", fencedTakeover, fenceBy(EvidenceHook), "at step fenced"},
	{"promote: nobody accepted a loss", fencedTakeover, lossyTo("db3", nil), "nobody accepted a loss"},
	{"promote: only the lease ran out", accepted(fencedTakeover, nil), lossyTo("db3", nil), "fenced by lease only"},
	{"promote: not fenced at all", accepted(begunTakeover, nil), lossyTo("db3", nil), "not fenced"},
	{"promote: another one was asked for", accepted(fencedTakeover, wanted("db2")), lossyTo("db3", nil), "asked for db2"},
	{"promote: it answered for another epoch", accepted(fencedTakeover, vouched), lossyTo("db3", func(a *Answer) { a.Epoch-- }), "not answered"},
	{"promote: somebody else answered", accepted(fencedTakeover, vouched), lossyTo("db3", func(a *Answer) { a.Node = "db2" }), "not answered"},
}

func TestLossyRefusals(t *testing.T) {
	for _, r := range lossyRefusals {
		t.Run(r.name, func(t *testing.T) {
			c := r.make(t)
			before := c.s.Clone()
			err := c.apply(r.cmd(c))
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), r.want) {
				t.Errorf("error is %v, want a refusal that says %q", err, r.want)
			}
			if !reflect.DeepEqual(before, c.s) {
				t.Error("a refused command changed the state")
			}
		})
	}
}

// TestLossyEvidence: what was seen or vouched for is accepted, before and after a lease was committed as evidence.
func TestLossyEvidence(t *testing.T) {
	for _, make := range []func(*testing.T) *scene{begunTakeover, fencedTakeover} {
		for _, kind := range []EvidenceKind{EvidenceAgent, EvidenceHook, EvidenceHuman} {
			c := accepted(make, nil)(t)
			c.must(t, fenceBy(kind)(c))
			if c.s.Op.Step != StepFenced || c.s.Op.Fence.Kind != kind {
				t.Errorf("at %s, fenced by %+v", c.s.Op.Step, c.s.Op.Fence)
			}
			c.must(t, lossyTo("db3", nil)(c))
		}
		c := accepted(make, vouched)(t)
		if c.s.Op.Step != StepFenced || c.s.Op.Fence.Kind != EvidenceHuman || c.s.Op.Fence.Node != "db1" {
			t.Errorf("vouched for: at %s, fenced by %+v", c.s.Op.Step, c.s.Op.Fence)
		}
	}
	c := begunTakeover(t)
	c.must(t, fenceBy(EvidenceAgent)(c))
	c.must(t, acceptLoss(vouched)(c))
	if c.s.Op.Fence.Kind != EvidenceAgent {
		t.Errorf("an operator's word replaces what was seen: %+v", c.s.Op.Fence)
	}
}

// TestLossyEpochIsMarkedForEver: a node that comes back must know that its tail may have been acknowledged.
func TestLossyEpochIsMarkedForEver(t *testing.T) {
	c := accepted(fencedTakeover, vouched)(t)
	c.must(t, lossyTo("db3", nil)(c))
	check := func(when string) {
		t.Helper()
		if r, ok := c.s.EpochOf(2); !ok || !r.Lossy || r.Won != WonLossy || !c.s.LossySince(1) || c.s.LossySince(2) {
			t.Errorf("%s the record is %+v", when, r)
		}
	}
	check("promoted:")
	if c.s.Sync.Acks != 0 || !c.s.CoverPort() || c.s.Base == nil {
		t.Errorf("promoted with %+v, base %+v", c.s.Sync, c.s.Base)
	}
	c.must(t, Command{Settle: &Settle{OpID: c.s.Op.ID, Epoch: 2}})
	c.must(t, Command{Begin: &Begin{Kind: KindTakeover, Epoch: 2}})
	check("an epoch later:")
	if c.s.Op.Lossy || c.s.Op.To != "" {
		t.Errorf("the next operation accepts a loss too: %+v", c.s.Op)
	}
}

// TestSafeComesBeforeLossy: an accepted loss changes nothing when the count can be reached.
func TestSafeComesBeforeLossy(t *testing.T) {
	c := accepted(fencedTakeover, wanted("db3"))(t)
	c.answers = []Answer{c.answer("db2", "0-1-100"), c.answer("db3", "0-1-90")}
	c.wait(c.s.Settings.OrderTimeout + 1)
	c.follow(t)
	if c.s.Primary != "db2" || c.s.Epochs[1].Won != WonCount || c.s.LossySince(1) {
		t.Errorf("primary %q, epoch %+v", c.s.Primary, c.s.Epochs[1])
	}
}

// TestLossyWaitsForWhoCanAnswer: the one that is missing may hold more.
func TestLossyWaitsForWhoCanAnswer(t *testing.T) {
	c := accepted(fencedTakeover, vouched)(t)
	c.obs["db2"].Incarnation = "i-db2-again"
	c.answers = []Answer{c.answer("db2", "0-1-100")}
	if d := c.decide(); len(d.Commands) != 0 {
		t.Fatalf("decides %v although db3 could answer", commandNames(d))
	}
	c.lose("db3")
	if d := c.decide(); len(d.Commands) != 1 || d.Commands[0].Promote == nil || d.Commands[0].Promote.Won != WonLossy {
		t.Errorf("decides %+v, verdicts %v", d.Commands, d.Verdicts)
	}
}

func TestElectLossy(t *testing.T) {
	for _, e := range []struct {
		name    string
		make    func(*testing.T) *scene
		answers map[NodeID]string
		to      NodeID
		verdict string
	}{
		{"the most advanced", accepted(fencedTakeover, vouched), map[NodeID]string{"db2": "0-1-90", "db3": "0-1-100"}, "db3", "candidate.behind"},
		{"the one that was named", accepted(fencedTakeover, wanted("db2")), map[NodeID]string{"db2": "0-1-90", "db3": "0-1-100"}, "db2", "candidate.lossy"},
		{"the one that was named has not answered", accepted(fencedTakeover, wanted("db2")), map[NodeID]string{"db3": "0-1-100"}, "", "candidate.lossy"},
		{"two histories: a name is asked for", accepted(fencedTakeover, vouched), map[NodeID]string{"db2": "0-1-100", "db3": "0-2-100"}, "", "candidate.incomparable"},
		{"two histories and a name", accepted(fencedTakeover, wanted("db3")), map[NodeID]string{"db2": "0-1-100", "db3": "0-2-100"}, "db3", "candidate.lossy"},
		{"a position that cannot be read", accepted(fencedTakeover, vouched), map[NodeID]string{"db2": "nonsense"}, "", "candidate.position"},
		{"never-promote steps aside", accepted(never("db3"), vouched), map[NodeID]string{"db2": "0-1-90", "db3": "0-1-100"}, "db2", "candidate.never-promote"},
		{"never-promote, and it was named", accepted(never("db3"), wanted("db3")), map[NodeID]string{"db3": "0-1-100"}, "db3", "candidate.lossy"},
		{"nobody has answered", accepted(fencedTakeover, vouched), nil, "", "candidate.lossy"},
	} {
		t.Run(e.name, func(t *testing.T) {
			c := e.make(t)
			var answers []Answer
			for id, at := range e.answers {
				answers = append(answers, with(c.answer(id, at), func(a *Answer) { a.Incarnation += "-again" }))
			}
			choice, ok, verdicts := ElectLossy(c.s, answers)
			if ok != (e.to != "") || choice.To != e.to {
				t.Fatalf("chose %q, want %q; %v", choice.To, e.to, verdicts)
			}
			if !hasVerdict(verdicts, e.verdict, "") {
				t.Errorf("no verdict %s among %v", e.verdict, verdicts)
			}
			if ok {
				cmd := promoteOf(c, choice.To, choice.Won, answers...)
				if err := c.apply(cmd); err != nil {
					t.Errorf("the choice does not commit: %v", err)
				}
			}
		})
	}
}
