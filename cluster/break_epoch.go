//go:build break_epoch

package cluster

// breakEpoch breaks a guarantee on purpose, in test builds only, to see that the tests notice: orders and actions of an old epoch are carried out.
const breakEpoch = true
