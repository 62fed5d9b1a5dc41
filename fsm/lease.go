package fsm

import "time"

// Lease arithmetic. The holder counts from before it sent its request, the grantor from after it granted, stretched by the drift allowance; so
// whatever the network does in between, the grantor's end is never before the holder's. Only durations cross the network.

// HolderDeadline is when a holder must have stopped, on its own clock: counted from before it sent the request.
func HolderDeadline(sent Instant, granted time.Duration) Instant { return sent + granted }

// GateTimeout is how long the kernel may keep the gate open when it is told at `now`: the guard and the jiffies are taken off, so that a write
// held up by the guard at most still ends before the deadline. Not positive means: do not open.
func GateTimeout(s Settings, deadline, now Instant) time.Duration {
	return deadline - now - s.Guard - s.Jiffies
}

// GrantClear is when a lease granted at `granted` can be live nowhere any more, on the grantor's clock.
func GrantClear(s Settings, granted Instant, length time.Duration) Instant {
	return granted + s.Drifted(length)
}

// OfficeClear is when a leader that took office at `office` knows that whatever an earlier leader granted has run out: as if the longest lease
// in the log had been granted at that moment.
func OfficeClear(s State, office Instant) Instant { return GrantClear(s.Settings, office, s.LeaseMax) }

// LeaseRefusal says why the primary's lease is not granted to a node, "" when it is: only the primary of the present epoch, and nobody once the
// end of that epoch is under way.
func LeaseRefusal(s State, node NodeID, epoch uint64) string {
	switch {
	case !s.Bootstrapped():
		return "the cluster is not bootstrapped"
	case s.Epoch != epoch:
		return "another epoch"
	case s.Primary != node:
		return "not the primary"
	case s.Phase == PhaseFencing:
		return "the epoch is being given up"
	}
	return ""
}
