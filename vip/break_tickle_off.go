//go:build !break_tickle

package vip

// breakTickle is false in every build that is not a control of the tests.
const breakTickle = false
