// Package mysqld changes and reads one database server, MariaDB (10.6 and
// later) or MySQL (8.0.26 and later), and starts and stops its process.
//
// A Server speaks SQL over connections opened beforehand and kept for life: on
// a server whose commits wait for acknowledgements new logins are not to be
// relied on. What MariaDB and MySQL call differently is behind one seam, the
// dialect; server vocabulary stands only in the files mariadb*.go and
// mysql*.go. A Service starts, stops and kills the process. The rewind files
// read binary logs of a stopped server and say what a crash left in them that
// the cluster does not have.
//
// Four rules hold in every function here, because breaking any of them loses
// acknowledged transactions:
//
//   - a commit that waits for an acknowledgement is never killed, and semi-sync
//     is never switched off under it: both tell the client success;
//   - the applier (SQL thread) is made to run before the receiver (IO thread)
//     is touched, and only the receiver is stopped: MariaDB deletes its relay
//     log at any START while both are stopped;
//   - what a server received is read after STOP of the receiver has returned;
//   - nothing is repointed before it has applied all that it received.
//
// It does not decide anything: who is primary, whose acknowledgement counts and
// whether a tail may be cut is judged elsewhere. It does not rebuild a server,
// and it does not destroy sockets: callers pass that in as a function.
package mysqld
