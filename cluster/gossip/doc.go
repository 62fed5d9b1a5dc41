// Package gossip notices, sooner than anything that decides, that a peer may be gone or is back. It runs
// hashicorp/memberlist among the known members of one cluster.
//
// What it says is a hint: it makes somebody look sooner. Suspicion is neither evidence of a failure nor
// does its absence prove health, and a call may be late, doubled or missing.
//
// Every packet and stream carries the cluster id as memberlist's label, so that two clusters never merge,
// whatever addresses they are given; names that are no members are ignored. Peers that are missing are
// asked again and again, because memberlist forgets the dead after a while and two halves of a long
// partition would otherwise never speak again.
//
// It does not decide anything, carry any state of the cluster, or wait for absent peers.
package gossip
