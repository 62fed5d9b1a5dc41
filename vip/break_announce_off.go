//go:build !break_announce

package vip

// breakAnnounce is false in every build that is not a control of the tests.
const breakAnnounce = false
