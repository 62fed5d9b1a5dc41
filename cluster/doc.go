// Package cluster is the shell around the judgement of package fsm: it gathers what nodes see, lets the Raft leader decide, commits, sends
// orders, renews the primary's lease, and carries out on each node what Reconcile asks for.
//
// It does not choose. Whatever is a choice stands in package fsm; whatever touches mysqld, addresses or the kernel comes in through the small
// interfaces of ports.go and is wired together in cmd/hbd.
//
// Who owns what:
//
//	store     the applied State; written by Raft's one apply goroutine only
//	promises  what this node has promised durably; written under the executor lock
//	executor  one change of this node at a time; an order from the leader cancels what is in hand
//	holder    this node's lease and the kernel gate that follows it
//	grantor   what this node granted as a leader
//	leading   the leader's picture; empty again with each leadership
package cluster
