// Command hbd is the daemon of Highbase: one runs on every host of a cluster.
//
//	hbd -config /etc/highbase/hbd.yaml          run
//	hbd -check-config -config FILE              read the file, say what is wrong with it, touch nothing
//	hbd -version
//
// Exit status: 0 stopped in order or nothing wrong, 1 failed, 2 wrong use.
//
// SIGTERM and SIGINT stop it in order: a primary hands its role over first. A second one ends it at once; the kernel's
// gate then ends with the lease. mysqld goes on running in every case.
//
// The files: config*.go read the configuration file, adapter*.go fit the packages that touch the host to the interfaces
// of package cluster, backend.go fits a cluster.Node to the HTTP server, run.go wires it all together.
//
// It does not decide anything: every choice stands in package fsm.
package main
