//go:build break_tickle

package vip

// breakTickle breaks a guarantee on purpose, in test builds only, to see that the tests notice: the old holder's clients are left waiting.
const breakTickle = true
