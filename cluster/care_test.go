package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

// TestRepairIsHeldBack: the same repair again and again waits longer and longer, another one does not, and a damage that
// was away is a new one.
func TestRepairIsHeldBack(t *testing.T) {
	var r repairs
	at := time.Hour
	last := time.Duration(0)
	for i := range 12 {
		if !r.ask("care.stopped", at) {
			t.Fatalf("attempt %d is not due after its pause", i+1)
		}
		attempt, pause := r.begin("care.stopped", at)
		if attempt != i+1 || pause < last {
			t.Errorf("attempt %d, pause %v after %v", attempt, pause, last)
		}
		if r.ask("care.stopped", at+pause-1) {
			t.Errorf("due within its pause of %v", pause)
		}
		if !r.ask("care.login", at) {
			t.Error("another repair is held back too")
		}
		if held := r.heldBack("care.stopped", at); i > 0 && !strings.Contains(held, "in vain") {
			t.Errorf("not said: %q", held)
		}
		at, last = at+pause, pause
	}
	at += fsm.RepairForget + time.Second
	if !r.ask("care.stopped", at) {
		t.Error("a damage that was away is held back")
	}
	if attempt, _ := r.begin("care.stopped", at); attempt != 1 {
		t.Errorf("a damage that was away is attempt %d", attempt)
	}
	if n := r.counts()["care.stopped"]; n != 13 {
		t.Errorf("counted %d attempts", n)
	}
}

// TestHeldBackRepairIsNotDone: a list with nothing but a repair that is held back is not started; the rest of a list is.
func TestHeldBackRepairIsNotDone(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	u.follower("db1")
	w := hire(u)
	repair := u.action(fsm.ActReconnect)
	repair.Rule = "care.login"
	u.repairs.begin(repair.Rule, now()+time.Hour)
	w.give(u.short(), []fsm.Action{repair})
	if w.done != nil {
		t.Fatal("started")
	}
	other := u.action(fsm.ActReconnect)
	other.Rule = "replica.reconnect"
	w.give(u.short(), []fsm.Action{repair, other})
	quiet(t, w)
	if n := u.host.count("Reconnect"); n != 1 {
		t.Errorf("%d actions done", n)
	}
}
