//go:build break_announce

package vip

// breakAnnounce breaks a guarantee on purpose, in test builds only, to see that the tests notice: the address moves without an announcement.
const breakAnnounce = true
