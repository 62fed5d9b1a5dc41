package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/cluster/rpc"
	"github.com/highbase/highbase/fsm"
)

// office is a node that leads a Raft group of its own in which db1 is primary of epoch 1, and has not taken office yet.
func office(t *testing.T) *unit {
	u := newUnit(t)
	u.alone()
	u.commit(fsm.Command{At: time.Now(), Bootstrap: &fsm.Bootstrap{ClusterID: "c1", Cluster: "shop", Server: "mariadb", Members: u.cfg.Peers, Settings: u.cfg.Settings, Primary: "db1"}})
	u.commit(fsm.Command{Settle: &fsm.Settle{OpID: 1, Epoch: 1}})
	return u
}

// commit goes through the log.
func (u *unit) commit(c fsm.Command) {
	u.t.Helper()
	if err := u.propose(u.short(), c); err != nil {
		u.t.Fatalf("%s: %v", c.Name(), err)
	}
}

func (u *unit) takeOffice() {
	u.t.Helper()
	round, err := u.raft().VerifyQuorumRound(u.short())
	if err != nil {
		u.t.Fatal(err)
	}
	u.grantor.takeOffice(round.Term, u.store.State())
}

var db1Lease = leaseRequest{Node: "db1", Epoch: 1}

func TestNothingIsGrantedOutOfOffice(t *testing.T) {
	u := office(t)
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "not a leader in office" || r.Granted != 0 {
		t.Errorf("before the first round: %+v", r)
	}
	u.takeOffice()
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "" || r.Granted != u.cfg.Settings.Lease {
		t.Errorf("in office: %+v", r)
	}
	u.grantor.leaveOffice()
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal == "" || r.Granted != 0 {
		t.Errorf("after it: %+v", r)
	}
}

// TestOfficeOfAnotherTermGrantsNothing: a round of a later leadership is no proof for an earlier office.
func TestOfficeOfAnotherTermGrantsNothing(t *testing.T) {
	u := office(t)
	u.grantor.takeOffice(u.raft().Term()+1, u.store.State())
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "leadership changed" || r.Granted != 0 {
		t.Errorf("granted: %+v", r)
	}
}

func TestOnlyThePrimaryOfThePresentEpochIsGranted(t *testing.T) {
	u := office(t)
	u.takeOffice()
	for _, req := range []leaseRequest{{"db2", 1}, {"db1", 0}, {"db1", 2}, {"", 1}} {
		if r := u.grantor.grant(u.short(), req); r.Refusal == "" || r.Granted != 0 {
			t.Errorf("%+v: %+v", req, r)
		}
	}
}

func TestNothingIsGrantedOnceTheEndIsProposed(t *testing.T) {
	u := office(t)
	u.takeOffice()
	u.grantor.end(1)
	if r := u.grantor.grant(u.short(), db1Lease); !strings.Contains(r.Refusal, "end of this epoch") || r.Granted != 0 {
		t.Errorf("while ending: %+v", r)
	}
	u.grantor.resume()
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "" {
		t.Errorf("after it came to nothing: %+v", r)
	}
}

// TestEndProposedDuringTheRoundIsSeen: the answer is judged again when the round is done.
func TestEndProposedDuringTheRoundIsSeen(t *testing.T) {
	u := office(t)
	u.takeOffice()
	// The round stands still as long as an entry before it cannot be applied.
	u.store.mu.RLock()
	blocked := make(chan error, 1)
	go func() {
		blocked <- u.propose(u.short(), fsm.Command{At: time.Now(), SetPause: &fsm.SetPause{Paused: true, By: "test"}})
	}()
	ended := make(chan struct{})
	replies := make(chan leaseReply, 1)
	go func() {
		// Begun before the end is proposed, so the first look refuses nothing.
		if why := u.grantor.refusalUnlocked(db1Lease); why != "" {
			t.Errorf("refused at first: %s", why)
		}
		close(ended)
		replies <- u.grantor.grant(u.short(), db1Lease)
	}()
	<-ended
	proposed := make(chan struct{})
	go func() { u.grantor.end(1); close(proposed) }()
	select {
	case <-proposed:
	case <-time.After(time.Second): // the first look waits behind the entry, with the grantor in its hand: then the end comes right after it
	}
	u.store.mu.RUnlock()
	<-proposed
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	if r := <-replies; r.Refusal == "" || r.Granted != 0 {
		t.Errorf("granted: %+v", r)
	}
}

// refusalUnlocked is refusal without the state, which the test keeps from changing.
func (g *grantor) refusalUnlocked(req leaseRequest) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term == 0 || g.ending == req.Epoch {
		return "not now"
	}
	return ""
}

func TestClearCoversEveryLeaseThereMayBe(t *testing.T) {
	u := office(t)
	st := u.store.State()
	before := now()
	u.takeOffice()
	office := u.grantor.clearAt()
	if least := before + st.Settings.Drifted(st.LeaseMax); office < least {
		t.Errorf("what earlier leaders granted is called clear at %v, before %v", office, least)
	}
	before = now()
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "" {
		t.Fatal(r.Refusal)
	}
	granted := u.grantor.clearAt()
	if least := before + st.Settings.Drifted(st.Settings.Lease); granted < least {
		t.Errorf("an own grant is called clear at %v, before %v", granted, least)
	}
	// A refusal grants nothing, and neither it nor a new office makes anything clear sooner.
	u.grantor.grant(u.short(), leaseRequest{"db2", 1})
	if got := u.grantor.clearAt(); got != granted {
		t.Errorf("a refusal moved it from %v to %v", granted, got)
	}
	u.grantor.clear = granted + time.Hour
	u.takeOffice()
	if got := u.grantor.clearAt(); got != granted+time.Hour {
		t.Errorf("a new office forgot an own grant: %v, was %v", got, granted+time.Hour)
	}
}

func TestRefusedBeginDoesNotStopGrants(t *testing.T) {
	u := office(t)
	u.takeOffice()
	err := leadsOver(u).commit(u.short(), u.store.State(), fsm.Command{Begin: &fsm.Begin{Kind: fsm.KindTakeover, Epoch: 7}})
	if !errors.Is(err, fsm.ErrRefused) {
		t.Fatal(err)
	}
	if r := u.grantor.grant(u.short(), db1Lease); r.Refusal != "" {
		t.Errorf("grants have stopped: %s", r.Refusal)
	}
}

func TestCommittedBeginStopsGrants(t *testing.T) {
	u := office(t)
	u.takeOffice()
	if err := leadsOver(u).commit(u.short(), u.store.State(), fsm.Command{Begin: &fsm.Begin{Kind: fsm.KindTakeover, Epoch: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, epoch := range []uint64{1, 2} {
		if r := u.grantor.grant(u.short(), leaseRequest{"db1", epoch}); r.Refusal == "" {
			t.Errorf("a lease of epoch %d is granted", epoch)
		}
	}
}

// TestUnknownFateOfBeginIsSettled: whether it was committed or not, a later round tells; until then nothing is granted, and after it no longer nothing.
func TestUnknownFateOfBeginIsSettled(t *testing.T) {
	t.Parallel() // it waits for the limit of one commit
	u := office(t)
	u.takeOffice()
	st := u.store.State()
	u.store.mu.RLock() // the entry is committed and cannot be applied
	result := make(chan error, 1)
	go func() {
		result <- leadsOver(u).commit(u.short(), st, fsm.Command{Begin: &fsm.Begin{Kind: fsm.KindTakeover, Epoch: 1}})
	}()
	await(t, "the end is proposed", func() bool {
		u.grantor.mu.Lock()
		defer u.grantor.mu.Unlock()
		return u.grantor.ending == 1
	})
	select {
	case err := <-result:
		t.Errorf("before any round: %v", err)
	case <-time.After(proposeTimeout + 100*time.Millisecond):
		// The proposal has run into its limit; what is left is the wait for the round.
	}
	u.grantor.mu.Lock()
	ending := u.grantor.ending
	u.grantor.mu.Unlock()
	if ending != 1 {
		t.Error("grants go on while nobody knows whether the epoch has ended")
	}
	u.store.mu.RUnlock()
	if err := <-result; !errors.Is(err, raftnode.ErrUnknownOutcome) {
		t.Errorf("error %v", err)
	}
	u.grantor.mu.Lock()
	defer u.grantor.mu.Unlock()
	if u.grantor.ending != 0 {
		t.Error("grants have stopped for ever")
	}
}

// granting is a leader that gives leases by relay, when it is let.
func granting(hold <-chan struct{}, calls chan<- struct{}, length time.Duration) map[string]rpc.Handler {
	return map[string]rpc.Handler{"relay_lease": func(ctx context.Context, _ string, body json.RawMessage) (any, error) {
		calls <- struct{}{}
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return leaseReply{Granted: length}, nil
	}}
}

// holding is a primary that is no leader and whose only way to one is through db2.
func holding(t *testing.T, hold <-chan struct{}, length time.Duration) (*unit, <-chan struct{}) {
	u := newUnit(t)
	u.steady("db1")
	u.fresh.Store(true)
	calls := make(chan struct{}, 16)
	u.peer("db2", granting(hold, calls, length))
	delete(u.peers.known, "db3")
	return u, calls
}

// TestLeaseComesThroughAnotherMember, and is counted from before it was asked for.
func TestLeaseComesThroughAnotherMember(t *testing.T) {
	hold := make(chan struct{})
	u, calls := holding(t, hold, time.Hour)
	set := u.settings()
	set.RenewLimit = awaitLimit
	before := now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.holder.renew(u.short(), set)
	}()
	<-calls
	arrived := now()
	close(hold)
	<-done
	if len(calls) != 0 {
		t.Errorf("relayed %d times more", len(calls))
	}
	if deadline := u.holder.deadline(1); deadline < before+time.Hour || deadline > arrived+time.Hour {
		t.Errorf("deadline %v, asked for between %v and %v", deadline, before, arrived)
	}
	if u.holder.deadline(2) != 0 || u.holder.left(2) != 0 {
		t.Error("the lease of epoch 1 counts for epoch 2")
	}
}

// TestDroppedLeaseIsNotRevivedByAnAnswerInFlight: the request was sent before the role was given up.
func TestDroppedLeaseIsNotRevivedByAnAnswerInFlight(t *testing.T) {
	hold := make(chan struct{})
	u, calls := holding(t, hold, time.Hour)
	set := u.settings()
	set.RenewLimit = awaitLimit
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.holder.renew(u.short(), set)
	}()
	<-calls
	u.holder.drop()
	close(hold)
	<-done
	if left := u.holder.left(1); left != 0 {
		t.Errorf("it has a lease for another %v", left)
	}
	// The control: the same answer to a request sent after it counts.
	u.holder.renew(u.short(), set)
	if u.holder.left(1) == 0 {
		t.Error("no lease is ever obtained")
	}
}

func TestLateAnswerDoesNotShortenALease(t *testing.T) {
	open := make(chan struct{})
	close(open)
	u, _ := holding(t, open, time.Second)
	u.lease(time.Hour)
	before := u.holder.deadline(1)
	u.holder.renew(u.short(), u.settings())
	if got := u.holder.deadline(1); got != before {
		t.Errorf("deadline %v, was %v", got, before)
	}
}

func TestRenewalExtendsAnOpenGateAndRevivesNone(t *testing.T) {
	open := make(chan struct{})
	close(open)
	u, _ := holding(t, open, time.Hour)
	u.host.gate = now() + awaitLimit
	u.holder.renew(u.short(), u.settings())
	if left, err := u.cfg.Addresser.Remaining(); err != nil || left <= awaitLimit {
		t.Errorf("the open gate has %v left, %v", left, err)
	}
	u.host.gate = 0
	u.host.expect()
	u.holder.renew(u.short(), u.settings())
	if left, err := u.cfg.Addresser.Remaining(); err != nil || left != 0 {
		t.Errorf("the closed gate has %v left, %v", left, err)
	}
}

func TestWhoLetGoAsksForNoLease(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(u *unit)
	}{
		{"released", func(u *unit) {
			o := u.releasing("db2")
			u.promise(func(p *Promises) { p.ReleasedOp = o.OpID })
		}},
		{"quarantined", func(u *unit) { u.promise(func(p *Promises) { p.Quarantine = "why" }) }},
		{"promised to a newer epoch", func(u *unit) { u.promise(func(p *Promises) { p.HighestEpoch = 2 }) }},
		{"stopping", func(u *unit) { u.stopping.Store(true) }},
		{"epoch ended", func(u *unit) { u.begin() }},
		{"not the primary", func(u *unit) { u.takenOver("db2") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUnit(t)
			u.steady("db1")
			if !u.holder.wanted() {
				t.Fatal("a primary at rest wants no lease")
			}
			c.change(u)
			if u.holder.wanted() {
				t.Error("it asks for a lease")
			}
		})
	}
}
