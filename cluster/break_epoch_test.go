//go:build break_epoch

package cluster

import "testing"

// The control of the epoch's tests, in a build where the epoch protects nothing: the very same sequences are not refused.
// Run with: go test -tags break_epoch -run TestBrokenEpoch ./cluster

func TestBrokenEpochAcceptsLowerOrders(t *testing.T) {
	if accepted := acceptsLower(t); len(accepted) != len(lowerOrders) {
		t.Errorf("accepted only %+v", accepted)
	}
}

func TestBrokenEpochLetsOutdatedActionsPass(t *testing.T) {
	v := Promises{HighestEpoch: 5, HighestIndex: 50}
	for _, at := range outdatedActions {
		if v.outdated(at[0], at[1]) {
			t.Errorf("an action of epoch %d index %d is refused", at[0], at[1])
		}
	}
}

func TestBrokenEpochObeysOvertakenOrders(t *testing.T) {
	for _, s := range overtaken {
		t.Run(s.name, func(t *testing.T) {
			u, late := s.prepare(t)
			calls := len(u.host.made())
			if _, err := u.obey(u.short(), late); err != nil {
				t.Errorf("refused: %v", err)
			}
			if len(u.host.made()) == calls {
				t.Error("nothing was done")
			}
		})
	}
}
