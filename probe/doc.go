// Package probe tells what is true of one host's database server: whether it serves, and if not, why not.
//
// Four things look at the server, each in a goroutine of its own so that none can hold up another:
//
//	look     reads the server's status over kept connections, ten times a second, one look at a time
//	watch    an idle connection and the process itself, asleep in the kernel: a death is seen at once
//	login    a fresh connection now and then, as a client makes it: kept ones say nothing about logins
//	disk     a small write with fsync and the free space, where the server keeps its data and its binary log
//
// judge puts their evidence together. Only two findings change what a server is: it is down when its process is
// gone or it refuses connections, and hung when its process lives and no statement was answered for HungAfter,
// on kept connections nor on a fresh one. Everything else (connections exhausted, disk full or hanging, commits
// that wait for acknowledgements) is a Fault of a server that is up.
//
// It does not change anything: it restarts nothing, kills nothing, and decides nothing.
package probe
