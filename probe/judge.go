package probe

import (
	"errors"
	"syscall"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
)

// evidence is everything seen by the end of one look.
type evidence struct {
	err     error         // of reading the status
	silent  time.Duration // how long the server has answered nothing by now, 0 while it answers or refuses
	process processView   // looked at only when err is not nil
	login   loginView
	disk    diskView
	stalled bool // commits wait and none has got through for a while
}

// loginView is what fresh connections showed.
type loginView struct {
	tooMany  bool // the newest was refused for want of connections
	hangs    bool // the newest got no answer
	answered bool // one begun since the silence began was answered
	failed   bool // one begun since the silence began got no answer
}

// diskView is what the disk showed.
type diskView struct {
	full bool
	hung bool
}

// judge says what the server is and what is wrong with it. It has no memory: before is the state so far.
func judge(before fsm.ServerState, e evidence, hungAfter time.Duration) (fsm.ServerState, string) {
	switch reply(e.err) {
	case replyStatus, replyError:
		return fsm.ServerUp, faultOfUp(e)
	case replyShutdown:
		return fsm.ServerDown, FaultShuttingDown
	case replyRefused:
		if e.process.running {
			return fsm.ServerDown, FaultRefuses
		}
		return fsm.ServerDown, FaultNoProcess
	case replyNone:
		if e.process.gone {
			return fsm.ServerDown, FaultNoProcess
		}
		return judgeSilence(before, e, hungAfter)
	default:
		panic("probe: unknown reply")
	}
}

// judgeSilence judges a server that may still answer: until the time is up it stays what it was.
func judgeSilence(before fsm.ServerState, e evidence, hungAfter time.Duration) (fsm.ServerState, string) {
	reason := FaultSilent
	switch {
	case e.process.stopped:
		reason = FaultFrozen
	case e.disk.hung:
		reason = FaultDiskHung
	case e.disk.full:
		reason = FaultDiskFull
	}
	switch {
	case e.login.answered && !e.process.stopped:
		return fsm.ServerUp, FaultStatusHangs
	case e.silent >= hungAfter && e.login.failed:
		return fsm.ServerHung, reason
	default:
		return before, reason
	}
}

// faultOfUp names the most fundamental trouble of a server that answers.
func faultOfUp(e evidence) string {
	fault := mysqld.Classify(e.err)
	switch {
	case e.disk.hung:
		return FaultDiskHung
	case e.disk.full || fault == mysqld.FaultDiskFull:
		return FaultDiskFull
	case e.stalled:
		return FaultCommitsWait
	case e.login.tooMany || fault == mysqld.FaultTooManyConnections:
		return FaultTooManyConnections
	case e.login.hangs:
		return FaultLoginsHang
	case fault == mysqld.FaultAuth:
		return FaultManagerRefused + ": " + e.err.Error()
	case e.err != nil:
		return FaultErrors + ": " + e.err.Error()
	}
	return ""
}

// kindOfReply tells apart what came back for a question.
type kindOfReply int

const (
	replyNone     kindOfReply = iota // nothing, or a connection that ended
	replyStatus                      // what was asked for
	replyError                       // an error, but of the server's own making: it answers
	replyShutdown                    // it is going away
	replyRefused                     // nobody listens
)

// errShutdown is ER_SERVER_SHUTDOWN of both servers.
const errShutdown = 1053

// reply sorts the error of a question to the server.
func reply(err error) kindOfReply {
	number, fromServer := serverError(err)
	switch {
	case err == nil:
		return replyStatus
	case fromServer && number == errShutdown:
		return replyShutdown
	case fromServer:
		return replyError
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return replyRefused
	default:
		return replyNone
	}
}
