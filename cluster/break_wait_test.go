//go:build break_lease_wait || break_fence

package cluster

import (
	"slices"
	"strings"
	"testing"
)

// The control of the takeover's tests, in a build whose leader promotes before the old primary's lease has run out, or on evidence that it made up:
// the world sees two gates open. Run with: go test -tags break_lease_wait -run TestBrokenWait ./cluster (and with break_fence).
func TestBrokenWaitIsSeen(t *testing.T) {
	c := newCluster(t, 3, long)
	c.w.report = func(string) {}
	c.w.clients(t)
	c.bootstrap()
	c.wrote()
	db1 := c.node("db1")
	db1.crash()
	db1.host.change(func() { db1.host.reachable = false })
	await(t, "two gates are seen open", func() bool {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		return slices.ContainsFunc(c.w.breaches, func(b string) bool { return strings.HasPrefix(b, "G1:") })
	})
}
