package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm"
)

// ask asks whoever leads for a planned change to db2, again while it has not heard of everybody yet.
func (c *testCluster) ask(req api.SwitchoverRequest) (r api.Result) {
	c.t.Helper()
	req.To, req.Actor = "db2", "test"
	await(c.t, "an answer about the switchover", func() bool {
		r = c.onLeader("switchover", func(ctx context.Context, m *member) (api.Result, error) { return m.Switchover(ctx, req) })
		return r.Outcome != api.OutcomeRefused || strings.HasPrefix(r.Rule, "primary.") && r.Rule != "primary.serving" && r.Value != "unknown" || r.Rule == "switchover.if-plan"
	})
	return r
}

// busy gives a host's clients something to do.
func (m *member) busy(sessions ...fsm.Session) {
	m.host.change(func() { m.host.sessions = sessions })
}

func atRest(t *testing.T) *testCluster {
	c := newCluster(t, 3, func(s *fsm.Settings) { s.ReleaseTimeout = 2 * time.Second })
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	return c
}

var (
	report = fsm.Session{ID: 7, User: "app", Age: time.Minute, Statement: "SELECT slow", Transaction: true}
	alter  = fsm.Session{ID: 8, User: "ann", Statement: "ALTER TABLE t", DDL: true}
)

// TestBusyClientsRefuse, waited for they do not once they are gone, and until then the old primary serves.
func TestBusyClientsRefuse(t *testing.T) {
	t.Parallel()
	c := atRest(t)
	db1 := c.node("db1")
	for _, k := range []struct {
		session fsm.Session
		rule    string
	}{{report, fsm.GateLongTransaction}, {alter, fsm.GateDDL}} {
		db1.busy(k.session)
		if r := c.ask(api.SwitchoverRequest{}); r.Outcome != api.OutcomeRefused || r.Rule != k.rule || !strings.Contains(r.Message, k.session.String()) {
			t.Errorf("with %s: %+v", k.session, r)
		}
	}
	if _, ended := c.node("db3").incident(fsm.KindSwitchover); ended || db1.store.State().Op != nil {
		t.Fatal("a refused request began an operation")
	}
	if r := c.ask(api.SwitchoverRequest{WaitSeconds: 60}); r.Outcome != api.OutcomeUnknown {
		t.Fatalf("with --wait: %+v", r)
	}
	c.wrote()
	if st := db1.store.State(); st.Op == nil || st.Op.Step != fsm.StepPrepared {
		t.Errorf("it did not wait: %+v", st.Op)
	}
	db1.busy()
	if in := c.awaitIncident(c.node("db3"), fsm.KindSwitchover); in.Outcome != fsm.OutcomeDone || db1.host.broken != 0 {
		t.Errorf("broke off %d, incident %+v", db1.host.broken, in)
	}
	c.healthy("db2")
	c.nothingLost()
}

// TestWaitForClientsEnds with a roll-back that names who was waited for.
func TestWaitForClientsEnds(t *testing.T) {
	t.Parallel()
	c := atRest(t)
	c.node("db1").busy(report)
	if r := c.ask(api.SwitchoverRequest{WaitSeconds: 0.3}); r.Outcome != api.OutcomeUnknown {
		t.Fatalf("with --wait: %+v", r)
	}
	in := c.awaitIncident(c.node("db3"), fsm.KindSwitchover)
	if in.Outcome != fsm.OutcomeRolledBack || !strings.Contains(in.Reason, "connection 7 of app") {
		t.Errorf("incident %+v", in)
	}
	c.healthy("db1")
	c.wrote()
	c.nothingLost()
}

// TestKillEndsClients at the pause, behind a closed gate.
func TestKillEndsClients(t *testing.T) {
	t.Parallel()
	c := atRest(t)
	db1 := c.node("db1")
	db1.busy(report, alter)
	if r := c.ask(api.SwitchoverRequest{Kill: true}); r.Outcome != api.OutcomeUnknown {
		t.Fatalf("with --kill: %+v", r)
	}
	if in := c.awaitIncident(c.node("db3"), fsm.KindSwitchover); in.Outcome != fsm.OutcomeDone || db1.host.broken != 2 {
		t.Errorf("broke off %d, incident %+v", db1.host.broken, in)
	}
	c.healthy("db2")
	c.nothingLost()
}

// TestHangingReleaseRollsBack: locks that nobody saw beforehand hold read_only up. It is also the control of the test above: without the kill it hangs.
func TestHangingReleaseRollsBack(t *testing.T) {
	t.Parallel()
	c := atRest(t)
	db1 := c.node("db1")
	entered := db1.host.holdCall("SetReadOnly")
	if r := c.ask(api.SwitchoverRequest{}); r.Outcome != api.OutcomeUnknown {
		t.Fatalf("%+v", r)
	}
	<-entered.entered
	db1.busy(alter)
	in := c.awaitIncident(c.node("db3"), fsm.KindSwitchover)
	if in.Outcome != fsm.OutcomeRolledBack || !strings.Contains(in.Reason, "connection 8 of ann") {
		t.Errorf("incident %+v", in)
	}
	db1.host.change(func() { delete(db1.host.holds, "SetReadOnly") })
	close(entered.released)
	db1.busy()
	c.healthy("db1")
	c.wrote()
	if db1.host.count("Kill") != 0 {
		t.Error("mysqld was killed")
	}
	c.nothingLost()
}

// TestPlanChangesNothing, and its token holds until a gate moves.
func TestPlanChangesNothing(t *testing.T) {
	t.Parallel()
	c := atRest(t)
	var plan api.Result
	await(t, "a plan with all gates open", func() bool {
		before := c.leader().store.State()
		plan = c.ask(api.SwitchoverRequest{Plan: true})
		for _, g := range plan.Plan.Gates {
			if !g.OK {
				return false
			}
		}
		after := c.leader().store.State()
		if after.Index != before.Index || after.Op != nil {
			t.Fatalf("index %d became %d, operation %+v", before.Index, after.Index, after.Op)
		}
		return true
	})
	text := strings.Join(plan.Plan.Steps, "\n")
	for _, want := range []string{"db3 no longer acknowledges to db1", "db3 replicates from db2 already", "epoch 2 is committed: db2"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %q:\n%s", want, text)
		}
	}
	if plan.Plan.PauseMS <= 0 {
		t.Errorf("expected pause %v", plan.Plan.PauseMS)
	}
	c.node("db1").busy(report)
	if r := c.ask(api.SwitchoverRequest{IfPlan: plan.Plan.Token, Kill: true}); r.Rule != "switchover.if-plan" {
		t.Errorf("a gate moved, and the plan still holds: %+v", r)
	}
	c.node("db1").busy()
	if r := c.ask(api.SwitchoverRequest{IfPlan: plan.Plan.Token}); r.Outcome != api.OutcomeUnknown {
		t.Errorf("nothing moved, and the plan is refused: %+v", r)
	}
	c.healthy("db2")
	c.nothingLost()
}

// TestReleaseWaitsForNoKill: a client that the server takes long to kill holds up nothing once mysqld is read-only.
func TestReleaseWaitsForNoKill(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	o := u.releasing("db2")
	o.Kill = true
	k, readOnly := u.host.holdCall("BreakOff"), u.host.holdCall("SetReadOnly")
	type result struct {
		reply orderReply
		err   error
	}
	done := make(chan result, 1)
	go func() {
		reply, err := u.obey(u.short(), o)
		done <- result{reply, err}
	}()
	killing := <-k.entered // beside read_only, and before it has returned
	<-readOnly.entered
	close(readOnly.released)
	if r := <-done; r.err != nil || r.reply.Answer == nil {
		t.Fatalf("answer %+v, error %v", r.reply.Answer, r.err)
	}
	if killing.Err() == nil {
		t.Error("the release is over, and clients are still to be killed for it")
	}
}

// TestFenceWaitsForNoKill, and the killing goes on until it is done or the server may become writable.
func TestFenceWaitsForNoKill(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.host.change(func() { u.host.gate = 0 })
	k := u.host.holdCall("KillClients")
	if _, err := u.makeReadOnly(u.short(), true); err != nil {
		t.Fatal(err)
	}
	killing := <-k.entered
	if killing.Err() != nil {
		t.Error("the killing has ended with the fence")
	}
	if err := u.stopCutting(u.short()); err != nil || killing.Err() == nil {
		t.Error("clients are killed on a server that becomes writable")
	}
}

// TestNothingIsWrittenAfterARelease: a nudge that was judged before it comes too late, until the log takes the operation back.
func TestNothingIsWrittenAfterARelease(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	o := u.releasing("db2")
	late := u.action(fsm.ActNudge)
	if _, err := u.obey(u.short(), o); err != nil {
		t.Fatal(err)
	}
	u.wg.Wait() // its clients are told, and it is looked at, beside the answer
	u.host.expect()
	for _, kind := range []fsm.ActionKind{fsm.ActNudge, fsm.ActBlock} {
		late.Kind = kind
		u.carryOut(u.short(), []fsm.Action{late})
	}
	if got := u.host.made(); len(got) > 0 {
		t.Errorf("after its release it did %v", got)
	}
	u.apply(fsm.Command{Rollback: &fsm.Rollback{OpID: u.store.State().Op.ID, Epoch: 1}})
	if err := u.mayStill(u.action(fsm.ActOpen)); err != nil {
		t.Errorf("after the roll-back: %v", err)
	}
}

// TestLeaseIsLookedAtAfterTheKilling that opening waits for: that may take longer than the lease lasts.
func TestLeaseIsLookedAtAfterTheKilling(t *testing.T) {
	u := ready(t)
	over := make(chan struct{})
	u.cutting.cancel, u.cutting.done = func() { u.holder.drop(); close(over) }, over
	u.host.expect()
	if err := u.execute(u.short(), u.action(fsm.ActOpen)); err == nil {
		t.Error("it serves without a lease")
	}
}
