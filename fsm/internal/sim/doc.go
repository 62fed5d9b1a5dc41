// Package sim is a seeded model world in which the real Classify, Decide, Reconcile and Apply run against everything that may go wrong: lost and
// late messages, one-way cuts, frozen and killed daemons, crashed hosts and servers, drifting clocks, deposed leaders that still act. After each
// step it checks what the design promises; a failure is a seed and a transcript, and the same seed gives the same transcript again.
//
// What is modelled, and how simply:
//
//	Raft      one log. A leader needs a majority to commit and to renew a lease; a change of leader commits a random prefix of what its
//	          predecessor had in flight and drops the rest. A deposed leader goes on acting until it hears of it.
//	hbd       a loop that reconciles, an executor that takes time for each action and asks again right before it takes effect, durable promises.
//	kernel    a gate that ends by itself, whatever hbd does.
//	mysqld    a binlog, of which the engine has committed a prefix; lossless semi-sync that waits for as many acknowledgements as it is told, from
//	          whoever has it switched on and is not blocked, whatever the log says; a relay log that a crash forgets.
//	operator  asks for planned changes, pauses, stops things by hand; and accepts a loss when a healthy cluster cannot decide by itself.
//
// It does not model MySQL's own protocol, disks that lie, or a machine that stops as a whole and resumes.
package sim
