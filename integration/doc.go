// Package integration drives the real binaries against real servers on the hosts of
// a sandbox, breaks something, and checks what clients and an omniscient observer
// saw. Most of it needs the build tag "integration".
//
// A scenario has four parts:
//
//   - the workload: writers insert numbered rows through the virtual address and
//     remember what they were told (ledger.go), a reader remembers what it saw;
//   - the sampler: from inside every host it asks whether that host would serve a
//     writing client on the virtual address at this moment (timeline.go);
//   - the fault, and the wait for the expected end, by condition;
//   - the check: no acknowledged or read row is missing anywhere, no two hosts
//     served at once, one primary, everyone follows it, the tables are equal and
//     the history explains what happened.
//
// The judging parts (ledger.go, timeline.go) are pure and have controls of their
// own, without the tag: broken histories that they must find.
//
// It does not reach into the daemons: it knows the API, the servers and the hosts,
// so that it would notice a daemon that believes the wrong thing.
package integration
