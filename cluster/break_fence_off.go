//go:build !break_fence

package cluster

// breakFence is false in every build that is not a control of the tests.
const breakFence = false
