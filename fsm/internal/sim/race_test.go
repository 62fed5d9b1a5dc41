//go:build race

package sim

// underRace: the race detector makes everything ten times slower, and these tests have next to nothing for it to find.
const underRace = true
