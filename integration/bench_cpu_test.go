//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clockTick is the unit of /proc/PID/stat (USER_HZ, 100 on every Linux architecture that Go knows; proc(5)).
const clockTick = 10 * time.Millisecond

// cpuOf is what a process has taken of the processors, user and system, since it started; 0 for no process.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	if pid == 0 {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name, second and in parentheses, may hold blanks: utime and stime are the 12th and 13th after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// cpuTaken is what all hbd and all mysqld of a cluster have taken.
func cpuTaken(t *testing.T, c *Cluster) (hbd, mysqld time.Duration) {
	t.Helper()
	for _, h := range c.Facts.Hosts {
		hbd += cpuOf(t, h.PIDs.HBD)
		mysqld += cpuOf(t, h.PIDs.Mysqld)
	}
	return hbd, mysqld
}
