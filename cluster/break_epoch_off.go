//go:build !break_epoch

package cluster

// breakEpoch is false in every build that is not a control of the tests.
const breakEpoch = false
