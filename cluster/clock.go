package cluster

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/fsm"
)

// now reads CLOCK_BOOTTIME: it goes on while the machine is suspended, which Go's monotonic clock does not (time(7), clock_gettime(2)).
func now() fsm.Instant {
	var ts unix.Timespec
	// The clock exists since Linux 2.6.39 and the pointer is valid: there is no way for this call to fail.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("cluster: CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
