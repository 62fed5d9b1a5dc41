//go:build race

package fsm

// underRace: the race detector makes everything ten times slower, and these tests have next to nothing for it to find.
const underRace = true
