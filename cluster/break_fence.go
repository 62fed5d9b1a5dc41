//go:build break_fence

package cluster

// breakFence breaks a guarantee on purpose, in test builds only, to see that the tests notice: the fence step is skipped: evidence is made up before anything is fenced.
const breakFence = true
