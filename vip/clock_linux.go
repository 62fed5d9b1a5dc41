package vip

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since boot on CLOCK_BOOTTIME. Unlike Go's monotonic clock it counts the time the
// machine was suspended, so a lease that ended during a suspend is seen as ended.
func Now() time.Duration {
	var ts unix.Timespec
	// It cannot fail: the clock exists since Linux 2.6.39 and the pointer is valid.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("vip: reading CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
