// Package rpc carries requests between the daemons of one cluster: JSON over HTTP on the API port, below
// /rpc/.
//
// Every request names the cluster, the node and instance it comes from and those it is meant for, and
// every answer says who gives it. A node whose Raft store was wiped is another instance and so refuses,
// and is refused, until it is added again. Errors cross the wire as {code, message}, so a caller can
// branch on a code; an Error from a peer matches the sentinel of the same code with errors.Is.
//
// A failed call is one of three things: the peer answered with an Error; it certainly never got the
// request (ErrUnreachable); or nobody knows whether it acted (ErrNoAnswer).
//
// Pings travel over connections of their own, so that an order which takes seconds, or a large answer,
// never delays them; and a call that times out throws away every idle connection to that peer, because
// after a cut link all of them are equally dead and each would cost one more deadline to find out.
//
// It does not decide who is a member, retry anything, or encrypt: the last is for the tls.Config given
// to it and to the HTTP server around it.
package rpc
