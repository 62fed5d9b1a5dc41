//go:build !break_lease_wait

package cluster

// breakLeaseWait is false in every build that is not a control of the tests.
const breakLeaseWait = false
