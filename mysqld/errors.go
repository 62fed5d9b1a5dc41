package mysqld

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// Errors a caller may branch on. They come wrapped with the values seen.
var (
	// ErrNoReplication is returned where a replica is needed and no source is
	// configured on the server.
	ErrNoReplication = errors.New("mysqld: no source is configured")
	// ErrReplica is returned where only a source will do.
	ErrReplica = errors.New("mysqld: the server is a replica")
	// ErrApplierStopped is returned when the SQL thread stopped on an error of
	// its own. Nothing was started or stopped: the relay log is as it was.
	ErrApplierStopped = errors.New("mysqld: the SQL thread is stopped on an error")
	// ErrNotDrained is returned when received transactions are not applied yet.
	ErrNotDrained = errors.New("mysqld: received transactions are not applied")
	// ErrRescue is returned when the relay log of a MariaDB replica with both
	// threads stopped could not be applied. Its files are still there.
	ErrRescue = errors.New("mysqld: the relay log could not be applied")
	// ErrWritable is returned by actions that are only safe on a read-only
	// server, such as killing clients, which may be in the middle of a commit.
	ErrWritable = errors.New("mysqld: the server is writable")
	// ErrWaiting is returned when commits wait for acknowledgements and the
	// action would tell them success.
	ErrWaiting = errors.New("mysqld: commits are waiting for acknowledgements")
	// ErrAcks is returned for a number of acknowledgements that the server
	// cannot wait for.
	ErrAcks = errors.New("mysqld: number of acknowledgements not supported")
	// ErrForgotten is returned when the SQL thread stopped while the source was
	// changed: the relay log may be gone with what was not applied. The receive
	// generation is another one.
	ErrForgotten = errors.New("mysqld: the SQL thread stopped while the source was changed, and what was not applied may be gone")
	// ErrUnsupported is returned for server versions this package does not know.
	ErrUnsupported = errors.New("mysqld: server not supported")
)

// Fault says what kind of trouble an error shows. The five kinds ask for
// different answers, and only FaultDown proves that the service is not there.
type Fault int

// The faults told apart by Classify.
const (
	// FaultNone: no error.
	FaultNone Fault = iota
	// FaultDown: nobody listens, or the connection ended: the process is gone.
	FaultDown
	// FaultHung: no answer in time. The process may be stopped, starved, or
	// waiting for a lock or an acknowledgement.
	FaultHung
	// FaultTooManyConnections: alive, but no connection is to be had.
	FaultTooManyConnections
	// FaultDiskFull: alive, but it cannot write.
	FaultDiskFull
	// FaultAuth: alive, but our account or its rights are wrong.
	FaultAuth
	// FaultOther: anything else, including our own cancelled context.
	FaultOther
)

// String gives the fault as a word for logs and metrics.
func (f Fault) String() string {
	switch f {
	case FaultNone:
		return "none"
	case FaultDown:
		return "down"
	case FaultHung:
		return "hung"
	case FaultTooManyConnections:
		return "too-many-connections"
	case FaultDiskFull:
		return "disk-full"
	case FaultAuth:
		return "auth"
	case FaultOther:
		return "other"
	default:
		panic("mysqld: unknown fault")
	}
}

// faultByNumber maps the error numbers both servers share. Sources: the error
// references of MariaDB 10.11 and MySQL 8.4.
var faultByNumber = map[uint16]Fault{
	1040: FaultTooManyConnections, // ER_CON_COUNT_ERROR
	1203: FaultTooManyConnections, // ER_TOO_MANY_USER_CONNECTIONS
	1226: FaultTooManyConnections, // ER_USER_LIMIT_REACHED
	1135: FaultTooManyConnections, // ER_CANT_CREATE_THREAD
	1021: FaultDiskFull,           // ER_DISK_FULL
	1114: FaultDiskFull,           // ER_RECORD_FILE_FULL
	3675: FaultDiskFull,           // ER_CREATE_LOG_DISK_FULL (MySQL)
	1044: FaultAuth,               // ER_DBACCESS_DENIED_ERROR
	1045: FaultAuth,               // ER_ACCESS_DENIED_ERROR
	1698: FaultAuth,               // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
	1142: FaultAuth,               // ER_TABLEACCESS_DENIED_ERROR
	1227: FaultAuth,               // ER_SPECIFIC_ACCESS_DENIED_ERROR
	1820: FaultAuth,               // ER_MUST_CHANGE_PASSWORD
	1862: FaultAuth,               // ER_MUST_CHANGE_PASSWORD_LOGIN
	3118: FaultAuth,               // ER_ACCOUNT_HAS_BEEN_LOCKED (MySQL)
	4151: FaultAuth,               // ER_ACCOUNT_HAS_BEEN_LOCKED (MariaDB)
	1053: FaultDown,               // ER_SERVER_SHUTDOWN
	1205: FaultHung,               // ER_LOCK_WAIT_TIMEOUT
}

// Classify says what kind of trouble err shows.
func (s *Server) Classify(err error) Fault { return Classify(err) }

// Classify says what kind of trouble err shows. It needs no server: the number
// or the kind of the error is all it looks at.
func Classify(err error) Fault {
	var fromServer *mysql.MySQLError
	var netErr net.Error
	switch {
	case err == nil:
		return FaultNone
	case errors.Is(err, context.Canceled):
		return FaultOther
	case errors.As(err, &fromServer):
		return classifyServerError(fromServer)
	case errors.Is(err, syscall.ENOSPC):
		return FaultDiskFull
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return FaultHung
	case errors.Is(err, syscall.EAGAIN):
		// connect(2) on a unix socket whose backlog is full: nobody accepts.
		return FaultHung
	case isGone(err):
		return FaultDown
	case errors.As(err, &netErr) && netErr.Timeout():
		return FaultHung
	}
	return FaultOther
}

// classifyServerError judges an answer of the server itself.
func classifyServerError(e *mysql.MySQLError) Fault {
	if f, ok := faultByNumber[e.Number]; ok {
		return f
	}
	return FaultOther
}

// isGone reports whether the other end of the connection is no more.
func isGone(err error) bool {
	for _, gone := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT,
		io.EOF, io.ErrUnexpectedEOF, mysql.ErrInvalidConn, driver.ErrBadConn,
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// serverErrorNumber is the server's error number in err, 0 if there is none.
func serverErrorNumber(err error) uint16 {
	var fromServer *mysql.MySQLError
	if errors.As(err, &fromServer) {
		return fromServer.Number
	}
	return 0
}
