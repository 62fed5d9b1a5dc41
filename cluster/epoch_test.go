//go:build !break_epoch

package cluster

import (
	"slices"
	"testing"
)

func TestLowerOrdersAreRefusedAcrossRestarts(t *testing.T) {
	if accepted := acceptsLower(t); len(accepted) > 0 {
		t.Errorf("accepted: %+v", accepted)
	}
}

func TestOutdatedActionsAreRefused(t *testing.T) {
	v := Promises{HighestEpoch: 5, HighestIndex: 50}
	for _, at := range outdatedActions {
		if !v.outdated(at[0], at[1]) {
			t.Errorf("an action of epoch %d index %d is not called outdated", at[0], at[1])
		}
	}
}

func TestOvertakenOrdersDisturbNothing(t *testing.T) {
	for _, s := range overtaken {
		t.Run(s.name, func(t *testing.T) {
			u, late := s.prepare(t)
			before, calls := u.promises.get(), u.host.made()
			gate, mode := u.host.gate, u.host.mode
			if _, err := u.obey(u.short(), late); err == nil {
				t.Error("the order was obeyed")
			}
			if got := u.promises.get(); got != before {
				t.Errorf("promises changed: %+v, before %+v", got, before)
			}
			if got := u.host.made(); !slices.Equal(got, calls) {
				t.Errorf("it did %v", got[len(calls):])
			}
			if u.host.gate != gate || u.host.mode != mode || (s.serves && u.holder.deadline(u.store.State().Epoch) == 0) {
				t.Error("the service was disturbed")
			}
		})
	}
}
