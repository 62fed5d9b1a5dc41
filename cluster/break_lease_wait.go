//go:build break_lease_wait

package cluster

// breakLeaseWait breaks a guarantee on purpose, in test builds only, to see that the tests notice: leases are taken to have run out at once.
const breakLeaseWait = true
