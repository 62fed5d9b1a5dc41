// Command hbctl asks a Highbase cluster how it is and tells it what to do. It talks to the API of any
// node; nodes pass on to the leader what only the leader may answer.
//
// Data goes to stdout, talk to stderr, and the exit code tells the outcome (exit.go). docs/hbctl.md
// describes every command and flag; a test holds it to that.
//
// It does not hold a connection to a database or to Raft: everything it knows came over the API.
package main
