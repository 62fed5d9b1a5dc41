package rpc

import (
	"errors"
	"fmt"
	"net/http"
)

// Error is an answer that says no. Code is stable and for programs, Message is for people.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// Is makes errors equal when their codes are, so that an error decoded from the wire matches a sentinel.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code
}

// Errorf makes an error of the same code with a message of its own.
func (e *Error) Errorf(format string, args ...any) *Error {
	return &Error{Code: e.Code, Message: fmt.Sprintf(format, args...)}
}

// Errors the transport itself answers with. Handlers answer with errors of their own codes.
var (
	// ErrWrongCluster: the caller belongs to another cluster, or to none.
	ErrWrongCluster = &Error{Code: "wrong_cluster"}
	// ErrWrongNode: another node than the wanted one listens here.
	ErrWrongNode = &Error{Code: "wrong_node"}
	// ErrWrongInstance: the wanted node listens here, with another store than the caller knows.
	ErrWrongInstance = &Error{Code: "wrong_instance"}
	// ErrUnauthorized: the caller is not acceptable to Server.Authorize.
	ErrUnauthorized = &Error{Code: "unauthorized"}
	// ErrUnknownMethod: this version has no such method.
	ErrUnknownMethod = &Error{Code: "unknown_method"}
	// ErrBadRequest: the request cannot be read.
	ErrBadRequest = &Error{Code: "bad_request"}
	// ErrTooLarge: the request or the answer exceeds the limit.
	ErrTooLarge = &Error{Code: "too_large"}
	// ErrBusy: too many requests are being served. Nothing was done.
	ErrBusy = &Error{Code: "busy"}
	// ErrFailed: the handler failed with an error that has no code.
	ErrFailed = &Error{Code: "failed"}
)

// Errors of a call that got no answer.
var (
	// ErrUnreachable: no connection could be made, so the peer certainly did nothing.
	ErrUnreachable = errors.New("peer is unreachable")
	// ErrNoAnswer: the request may have arrived and nothing readable came back. The peer may have acted,
	// or may act yet.
	ErrNoAnswer = errors.New("no answer from peer")
	// ErrNoDeadline: the context has none. Nothing was sent.
	ErrNoDeadline = errors.New("context has no deadline")
)

// status maps a code to the HTTP status for people with curl; programs look at the code alone.
func (e *Error) status() int {
	switch e.Code {
	case ErrWrongCluster.Code, ErrWrongNode.Code, ErrWrongInstance.Code, ErrUnauthorized.Code:
		return http.StatusForbidden
	case ErrUnknownMethod.Code:
		return http.StatusNotFound
	case ErrBadRequest.Code:
		return http.StatusBadRequest
	case ErrTooLarge.Code:
		return http.StatusRequestEntityTooLarge
	case ErrBusy.Code:
		return http.StatusServiceUnavailable
	case ErrFailed.Code:
		return http.StatusInternalServerError
	default:
		return http.StatusConflict
	}
}
