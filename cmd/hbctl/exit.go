package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

// Exit codes. They are a promise to scripts; docs/hbctl.md has the same list.
const (
	exitDone          = 0  // done, or healthy
	exitFailed        = 1  // refused or failed
	exitUsage         = 2  // the command line is wrong
	exitNoAnswer      = 3  // no node answered
	exitUnknown       = 4  // the outcome is unknown; an operation may continue
	exitNotAuthorised = 5  // a node refused to talk to us
	exitDegraded      = 10 // status --check: degraded
	exitNoPrimary     = 11 // status --check: no primary, or nobody knows
)

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// errShown stands for an error whose text was already printed.
var errShown = errors.New("already shown")

// codeError ends the program with a code after everything has been printed.
type codeError int

func (e codeError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// ExitCode is the code to end with.
func (e codeError) ExitCode() int { return int(e) }

// finish prints what went wrong, if anything, and gives the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	var coded codeError
	if errors.As(err, &coded) {
		return int(coded)
	}
	if !errors.Is(err, errShown) {
		fmt.Fprintf(a.err, "hbctl: %s\n", clean(err.Error()))
	}
	code := exitCode(err)
	if code == exitUsage && !errors.Is(err, errShown) && cmd != nil {
		fmt.Fprintf(a.err, "%q tells more\n", cmd.CommandPath()+" --help")
	}
	return code
}

// exitCode maps an error to its code. Anything with an ExitCode of its own (a command run in a
// sandbox host) keeps it.
func exitCode(err error) int {
	var usage usageError
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &coded):
		return coded.ExitCode()
	case errors.Is(err, api.ErrUnknownOutcome):
		return exitUnknown
	case errors.Is(err, api.ErrNotAuthorised):
		return exitNotAuthorised
	case errors.Is(err, api.ErrNoAnswer):
		return exitNoAnswer
	default:
		return exitFailed
	}
}

// outcomeCode maps the outcome of a request to its code.
func outcomeCode(o api.Outcome) int {
	switch o {
	case api.OutcomeDone:
		return exitDone
	case api.OutcomeUnknown:
		return exitUnknown
	default:
		return exitFailed
	}
}

// checkCode is the code of status --check.
func checkCode(v api.Standing) int {
	switch v {
	case api.StandingHealthy:
		return exitDone
	case api.StandingDegraded:
		return exitDegraded
	default:
		return exitNoPrimary
	}
}
