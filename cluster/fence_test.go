package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// commitWaits leaves a commit behind which no replica acknowledges.
func commitWaits(u *unit) {
	u.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	u.host.change(func() { u.host.mode = modeWritable })
	if _, err := u.w.commit(ctx, u.host, 0); err == nil {
		u.t.Fatal("it was acknowledged")
	}
}

func TestReadOnlyThatReturnsLeavesMysqldAlive(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.host.change(func() { u.host.gate = 0 })
	u.host.expect("SetReadOnly", "KillClients")
	how, err := u.makeReadOnly(u.short(), true)
	if err != nil || !strings.Contains(how, "read-only") {
		t.Errorf("%q, %v", how, err)
	}
	if got, want := u.host.made(), []string{"SetReadOnly", "KillClients"}; !slices.Equal(got, want) {
		t.Errorf("it did %v, want %v", got, want)
	}
}

// TestHangingReadOnlyGetsMysqldKilled: a commit waits, and nothing but SIGKILL keeps it from being told success.
func TestHangingReadOnlyGetsMysqldKilled(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.host.change(func() { u.host.gate = 0 })
	commitWaits(u)
	u.host.expect("SetReadOnly", "Kill")
	how, err := u.makeReadOnly(u.short(), true)
	if err != nil || how != "mysqld is killed" {
		t.Errorf("%q, %v", how, err)
	}
	if got, want := u.host.made(), []string{"SetReadOnly", "Kill"}; !slices.Equal(got, want) {
		t.Errorf("it did %v, want %v", got, want)
	}
}

// TestCancelledFenceKillsNothing: that the caller has gone says nothing about commits.
func TestCancelledFenceKillsNothing(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.host.change(func() { u.host.gate = 0 })
	k := u.host.holdCall("SetReadOnly")
	u.host.expect("SetReadOnly")
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := u.makeReadOnly(ctx, true)
		result <- err
	}()
	<-k.entered
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if u.host.Server().State != fsm.ServerUp {
		t.Error("mysqld was killed")
	}
}

func TestFenceKnowsWhatToMakeCertain(t *testing.T) {
	for _, c := range []struct {
		name    string
		state   fsm.ServerState
		certain bool
		calls   []string
	}{
		{"down, by itself", fsm.ServerDown, false, nil},
		{"down, for a leader", fsm.ServerDown, true, []string{"Kill"}},
		{"hung, by itself", fsm.ServerHung, false, []string{"Kill"}},
		{"hung, for a leader", fsm.ServerHung, true, []string{"Kill"}},
		{"unknown, for a leader", fsm.ServerUnknown, true, []string{"Kill"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUnit(t)
			u.steady("db1")
			u.host.change(func() { u.host.state = c.state })
			u.host.expect(c.calls...)
			if _, err := u.makeReadOnly(u.short(), c.certain); err != nil {
				t.Error(err)
			}
			if got := u.host.made(); !slices.Equal(got, c.calls) {
				t.Errorf("it did %v, want %v", got, c.calls)
			}
		})
	}
}

func TestFailedKillIsNoEvidence(t *testing.T) {
	u := newUnit(t)
	u.steady("db1")
	u.serving()
	u.begin()
	commitWaits(u)
	u.host.fail("Kill", errors.New("operation not permitted"))
	reply, err := u.obey(u.short(), u.order(fsm.OrderFence))
	if err == nil || reply.Evidence != nil {
		t.Errorf("evidence %+v, error %v", reply.Evidence, err)
	}
}

// TestFakeSeesWrongFences is the control of the fence's tests: a fence that does it wrong is seen.
func TestFakeSeesWrongFences(t *testing.T) {
	ctx := context.Background()
	for name, wrong := range map[string]func(*host) error{
		"polite stop":              func(h *host) error { return service{h}.Stop(ctx) },
		"clients killed first":     func(h *host) error { _, err := h.KillClients(ctx); return err },
		"cut with the gate open":   func(h *host) error { _, err := address{h}.Sever(); return err },
		"acknowledgements dropped": func(h *host) error { return h.SourceSync(ctx, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			w, breaches := watched(t)
			h := w.hosts["db1"]
			h.mode, h.acks, h.gate = modeWritable, 1, now()+awaitLimit
			if err := wrong(h); err != nil {
				t.Fatal(err)
			}
			if len(*breaches) == 0 {
				t.Error("not seen")
			}
		})
	}
}

// watched is a world whose breaches are the test's to count.
func watched(t *testing.T) (*world, *[]string) {
	w := newWorld(t, 3)
	var seen []string
	w.report = func(b string) { seen = append(seen, b) }
	return w, &seen
}
