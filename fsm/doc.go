// Package fsm holds all of Highbase's judgement: the replicated state, the commands that change it, and the pure functions that decide
// what happens next. It is the one place where anything is chosen; everything else gathers, carries out and reports.
//
// It does not read a clock, touch a file or a socket, start a goroutine, log, or draw a random number: TestPure holds it to that. The same
// state and the same input give the same output on every node.
//
// The four functions, and who calls them:
//
//	Apply(State, Command)             every node, for each committed log entry
//	Classify(State, View, now)        the Raft leader: raw reports become health, with reasons
//	Decide(State, View, now)          the Raft leader: commands to commit, orders to send, a verdict for every rule looked at
//	Reconcile(State, self, Local)     every node, leader or not: what is committed and what is seen here become local actions
//
// Invariants, each asserted in a test:
//
//	I1  Epochs only rise; each change of primary is a compare-and-swap on (epoch, operation, step).
//	I2  No promote without fence evidence: a failover's is committed by Fence, a switchover's travels inside Promote.
//	I3  Promote needs |S| - W + 1 answers of valid incarnations, or the old primary with its own data (docs/DESIGN.md, "Failover and takeover").
//	I4  Of rollback and promote of one operation exactly one can commit.
//	I5  Nothing is decided from an unknown: only failed, seen directly by a quorum of voters, starts a failover.
//	I6  A paused cluster begins no new operation; one already begun runs to its end.
//	I7  A node that Reconcile lets serve is the primary of the epoch it has applied, has a lease for it and has written its barrier.
//	I8  While no newer epoch is settled, a node that was primary keeps every byte it has.
package fsm
