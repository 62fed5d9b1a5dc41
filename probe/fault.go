package probe

// What fsm.ServerStatus.Fault may say, as the whole text or, where noted, as its beginning.
const (
	// Of a server that is down.
	FaultNoProcess    = "no process"
	FaultRefuses      = "the process runs but takes no connections" // starting, recovering, or on its way out
	FaultShuttingDown = "shutting down"

	// Of a server that answers no statement: hung, or on its way to being called so.
	FaultFrozen = "process is stopped" // state T: SIGSTOP, or a debugger
	FaultSilent = "answers no statement"

	// Of a server that is up.
	FaultTooManyConnections = "too many connections"
	FaultDiskFull           = "disk full"
	FaultDiskHung           = "disk hangs" // of a hung server too
	FaultCommitsWait        = "commits wait for acknowledgement"
	FaultLoginsHang         = "new connections are not answered"
	FaultStatusHangs        = "answers logins but no status statement"
	FaultManagerRefused     = "manager account refused"       // followed by ": " and the server's words
	FaultErrors             = "answers the status with error" // followed by ": " and the server's words
)
