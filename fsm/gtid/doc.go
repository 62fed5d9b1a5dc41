// Package gtid is the algebra of replication positions: what a server has
// executed or received, whether one position holds another, and what is missing.
//
// MySQL writes a *set*: for each source UUID (and tag) the intervals of
// transaction numbers. Everything about such a set can be decided from its text.
//
// MariaDB writes a *position*: for each domain the last transaction, as
// domain-server-sequence. With gtid_strict_mode the sequence only rises within a
// domain, so a position stands for everything up to it. Positions of one history
// are ordered by the sequence; whether two positions written by different servers
// belong to one history cannot be read from them:
//
//   - 0-1-101 and 0-2-101 are two transactions with one number: a fork, certain.
//     They are Incomparable and neither contains the other.
//   - 0-1-100 and 0-2-101 are ordered by sequence. If server 2 was promoted at
//     0-1-99 they are a fork all the same. This package answers "contains";
//     Proven tells that the answer rests on server 2 having continued from
//     0-1-100, which only the caller can show (by the epoch rows in the data).
//
// Sets are values: no operation changes one, and one may be shared freely.
// The text comes from servers, so no input makes a function here panic.
//
// It does not talk to servers, does not keep the list of all server ids of a
// MariaDB domain (gtid_binlog_state), and does not judge who may be promoted.
package gtid
