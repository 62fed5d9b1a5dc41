// Package identity keeps the few small files that say who a node is and what it has promised.
//
// They live in the node's data directory, which one daemon holds at a time (LockDir):
//
//	hbd.lock            held by flock for as long as the daemon lives
//	cluster.json        the cluster this node belongs to, written once
//	raft/instance.json  the instance of this node, made once, beside the Raft store
//	*.json              durable promises of the node (Durable)
//
// Every write is a new file, fsynced, renamed over the old one, and the directory fsynced, so that after
// a crash a file holds the old value or the new one and never a part. A file that cannot be read back
// exactly as it was written is an error: a promise that was forgotten must never look like a promise
// that was never made.
//
// The instance lives inside the Raft directory on purpose. A voter that lost its store has forgotten
// which votes and promotions it confirmed; wiping the directory wipes the instance too, so the node
// comes back as somebody new and has to be added again.
//
// It does not know what the promises mean, which cluster is the right one, or who else is a member.
package identity
