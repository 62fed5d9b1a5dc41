package probe

import (
	"testing"
	"time"

	"github.com/highbase/highbase/mysqld"
)

// TestReceiverThatWaits: one that has not connected for long waits for its next try; one that was started anew meanwhile has all its time to connect.
func TestReceiverThatWaits(t *testing.T) {
	var v view
	begun := time.Now()
	for _, look := range []struct {
		what     string
		after    time.Duration
		state    mysqld.ThreadState
		receiver uint64
		stalled  bool
	}{
		{"it begins to connect", 0, mysqld.ThreadConnecting, 7, false},
		{"it waits", connectAfter, mysqld.ThreadConnecting, 7, true},
		{"another one begins", connectAfter + time.Millisecond, mysqld.ThreadConnecting, 8, false},
		{"that one is given its time", 2 * connectAfter, mysqld.ThreadConnecting, 8, false},
		{"and waits as well", 2*connectAfter + 2*time.Millisecond, mysqld.ThreadConnecting, 8, true},
		{"it is connected", 3 * connectAfter, mysqld.ThreadYes, 8, false},
		{"it has lost its source", 4 * connectAfter, mysqld.ThreadConnecting, 8, false},
	} {
		v.fill(reading{status: mysqld.Status{HasReplication: true, IORunning: look.state, ReceiverID: look.receiver}, begun: begun.Add(look.after)})
		if v.status.IOStalled != look.stalled {
			t.Errorf("%s: called waiting: %t", look.what, v.status.IOStalled)
		}
	}
}
