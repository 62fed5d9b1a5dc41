// Package raftnode runs one member of the cluster's Raft group: hashicorp/raft over bbolt and TCP, with
// the behaviour the rest of Highbase relies on and the library leaves open.
//
//   - Identity. A server is "<node>.<instance>", and every connection opens with a handshake that names
//     the cluster and both ends. A node that lost its store is a new instance: connections meant for the
//     old one are refused, so a wiped voter can confirm nothing it has forgotten.
//   - Outcomes. A proposal was applied, or certainly was not (ErrNotLeader, ErrNotProposed), or nobody
//     knows (ErrUnknownOutcome).
//   - Rounds. VerifyQuorumRound proves leadership by a commit that was proposed after the call, and that
//     the applied state is as new; VerifyLeadership proves the first alone, by a heartbeat sent after the
//     call, without an fsync. The library's VerifyLeader proves less: see round.go.
//   - Watchdog. A leader that keeps heartbeating but commits nothing (a hung disk, a leadership transfer
//     that sticks: hashicorp/raft issue 696) gives leadership away, or reports itself stuck.
//   - Healing. A peer that returns after a long absence gets its entries at once, not after the
//     library's backoff of up to ten seconds.
//
// It does not know what the entries mean, who may be a member, or when leadership ought to move.
package raftnode
