package api

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels a caller branches on. The errors returned wrap them and say address, step and expectation.
var (
	// ErrNoAnswer: none of the addresses answered; nothing was asked of the cluster.
	ErrNoAnswer = errors.New("no node answered")
	// ErrUnknownOutcome: the request was sent and the answer never came; it may or may not have happened.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNotAuthorised: a node answered 401 or 403.
	ErrNotAuthorised = errors.New("not authorised")
	// ErrRejected: a node answered that the request itself is wrong (400, 404, 405, 413, 415).
	ErrRejected = errors.New("request rejected")
	// ErrUnavailable: nodes answered, and none could serve the request now (no leader, shutting down).
	ErrUnavailable = errors.New("cannot be served now")
)

// Steps of a call, as in CallError.Step.
const (
	StepResolve = "resolve"
	StepConnect = "connect"
	StepRequest = "request" // writing the request or waiting for the answer
	StepRead    = "read"    // reading the answer's body
	StepDecode  = "decode"  // the answer is not the JSON of this API
	StepAnswer  = "answer"  // a well-formed answer that says no
)

// CallError is one address's failure: which address, at which step, what was expected there.
type CallError struct {
	Addr     string
	Step     string
	Expected string
	// Status is the HTTP status, 0 when no answer came.
	Status int
	// How is the node's own advice, "" when it gave none.
	How string
	// Err is the cause; it wraps one of the sentinels when the step is StepAnswer.
	Err error
}

// Error names address, step, cause and expectation in one line.
func (e *CallError) Error() string {
	var b strings.Builder
	if e.Step == StepAnswer {
		fmt.Fprintf(&b, "%s answered: %v", e.Addr, e.Err)
	} else {
		fmt.Fprintf(&b, "%s, step %s: %v", e.Addr, e.Step, e.Err)
	}
	if e.Expected != "" {
		fmt.Fprintf(&b, " (expected %s)", e.Expected)
	}
	if e.How != "" {
		fmt.Fprintf(&b, "; %s", e.How)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *CallError) Unwrap() error { return e.Err }

// answerError is what a node said, kept apart from the sentinel so that the text reads well.
type answerError struct {
	text string
	kind error
}

func (e *answerError) Error() string { return e.text }
func (e *answerError) Unwrap() error { return e.kind }

// AllError is the failure of every address that was tried, in order.
type AllError struct {
	kind  error
	Calls []*CallError
}

// Error lists each address with its own failure.
func (e *AllError) Error() string {
	parts := make([]string, len(e.Calls))
	for i, c := range e.Calls {
		parts[i] = c.Error()
	}
	return fmt.Sprintf("%v: %s", e.kind, strings.Join(parts, "; "))
}

// Unwrap gives the kind (ErrNoAnswer or ErrUnavailable) and each address's error.
func (e *AllError) Unwrap() []error {
	out := []error{e.kind}
	for _, c := range e.Calls {
		out = append(out, c)
	}
	return out
}
