// Package vip owns the virtual addresses of a cluster on one host: it adds and removes them, announces
// them to the neighbours, watches for other claimants, cuts connections, and holds the kernel gate that
// ends the service on them when the lease ends, whatever user space does.
//
// The gate is a set of nftables tables (inet, arp and netdev families, one transaction for all of them).
// It is open while a set element with a timeout lives and closed otherwise. Closed means: TCP to a VIP is
// answered with a reset, nothing else leaves from the VIP, and no ARP or neighbour-discovery packet that
// claims it leaves the host, not even one written to a packet socket. A frozen or dead daemon needs no
// watchdog: the element ends without it.
//
// Every write that opens or prolongs the gate is guarded. The kernel refuses the transaction when the
// process was held up between reading the clock and the call, so that no gate outlives its lease.
//
// A client that waits for an answer from a holder that vanished would wait for hours. Connections lists the
// clients while they are served; a new holder gives that list to Tickle, which makes their kernels ask and be
// reset.
//
// All instants are durations since boot on CLOCK_BOOTTIME, as Now returns them.
//
// It does not decide who may hold an address, it does not talk to a database or to other nodes, and it
// starts no processes.
package vip
