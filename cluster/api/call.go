package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxAnswer bounds the body of an answer: a history of many incidents stays far below it, and a
// stranger on the port cannot fill our memory.
const maxAnswer = 8 << 20

// get tries each address in turn until one answers the read.
func (c *Client) get(ctx context.Context, path string, wait time.Duration, out any) error {
	var calls []*CallError
	for _, addr := range c.order() {
		callErr := c.try(ctx, addr, http.MethodGet, path, nil, c.read+wait, out)
		if callErr == nil {
			c.answered(addr)
			return nil
		}
		if final(callErr) {
			return callErr
		}
		calls = append(calls, callErr)
		if ctx.Err() != nil {
			break
		}
	}
	return allFailed(calls)
}

// post finds an address that answers a read, then sends it the request, once. What was sent and not
// answered is ErrUnknownOutcome and never sent again: the node may have begun it. The read first
// keeps that rare: a frozen hbd's kernel would accept the request and leave us not knowing.
func (c *Client) post(ctx context.Context, path string, in any) (Result, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return Result{}, fmt.Errorf("encoding the request for %s: %w", path, err)
	}
	var calls []*CallError
	for _, addr := range c.order() {
		var ignored json.RawMessage
		callErr := c.try(ctx, addr, http.MethodGet, PathStatus, nil, c.read, &ignored)
		if callErr == nil {
			var out Result
			callErr = c.try(ctx, addr, http.MethodPost, path, body, 0, &out)
			if callErr == nil {
				c.answered(addr)
				return out, nil
			}
			if !neverBegun(callErr) && !final(callErr) {
				return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, callErr)
			}
		}
		if final(callErr) {
			return Result{}, callErr
		}
		calls = append(calls, callErr)
		if ctx.Err() != nil {
			break
		}
	}
	return Result{}, allFailed(calls)
}

// try makes one request to one address. timeout 0 leaves the bound to ctx.
func (c *Client) try(ctx context.Context, addr, method, path string, body []byte, timeout time.Duration, out any) *CallError {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return &CallError{Addr: addr, Step: StepRequest, Err: err}
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		// net/http may repeat a request on a fresh connection when this is set; a change is sent once.
		req.GetBody = nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return transportError(addr, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return &CallError{Addr: addr, Step: StepRead, Status: resp.StatusCode, Expected: "the whole answer", Err: err}
	}
	if len(data) > maxAnswer {
		return &CallError{Addr: addr, Step: StepRead, Status: resp.StatusCode,
			Expected: fmt.Sprintf("at most %d bytes", maxAnswer), Err: errors.New("the answer is too long")}
	}
	return decodeAnswer(addr, resp.StatusCode, data, out)
}

// decodeAnswer tells an answer (any status, when it carries an outcome) from an error body.
func decodeAnswer(addr string, status int, data []byte, out any) *CallError {
	var probe struct {
		Outcome *Outcome `json:"outcome"`
		Error   *string  `json:"error"`
		How     string   `json:"how"`
	}
	if err := json.Unmarshal(data, &probe); err != nil || status >= 300 && probe.Outcome == nil && probe.Error == nil {
		if err == nil {
			err = errors.New("the answer has neither an outcome nor an error")
		}
		return &CallError{Addr: addr, Step: StepDecode, Status: status, Expected: "the JSON of hbd's API",
			How: "is this hbd's API port (default " + DefaultPort + ")?", Err: fmt.Errorf("HTTP status %d: %w", status, err)}
	}
	if status >= 300 && probe.Error != nil {
		return &CallError{Addr: addr, Step: StepAnswer, Status: status, How: probe.How,
			Err: &answerError{text: *probe.Error, kind: sentinelOf(status)}}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return &CallError{Addr: addr, Step: StepDecode, Status: status, Expected: fmt.Sprintf("a %T", out),
			How: "do hbd and this program have the same version?", Err: err}
	}
	return nil
}

// errBroken: a node answered with an error of its own (5xx but 503). A read goes on to the next
// address; a change that met it has an unknown outcome.
var errBroken = errors.New("internal error of hbd")

func sentinelOf(status int) error {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return ErrNotAuthorised
	case status == http.StatusServiceUnavailable:
		return ErrUnavailable
	case status >= 500:
		return errBroken
	default:
		return ErrRejected
	}
}

// transportError names the step at which no answer came.
func transportError(addr string, err error) *CallError {
	out := &CallError{Addr: addr, Step: StepRequest, Expected: "an answer of hbd", Err: err}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		out.Step, out.Expected, out.Err = StepResolve, "a host name that resolves", dns
	case errors.As(err, &op) && op.Op == "dial":
		out.Step, out.Expected, out.Err = StepConnect, "hbd listening there", op.Err
	case errors.Is(err, context.DeadlineExceeded):
		out.Err = errors.New("no answer in time")
	case errors.Is(err, context.Canceled):
		out.Err = context.Canceled
	}
	return out
}

// final says that another address would answer the same.
func final(e *CallError) bool {
	return errors.Is(e, ErrNotAuthorised) || errors.Is(e, ErrRejected)
}

// neverBegun says that a request which ended like this has certainly changed nothing: it was not
// sent, or the node answered 503, which hbd promises to use only for what it did not begin.
func neverBegun(e *CallError) bool {
	return e.Step == StepResolve || e.Step == StepConnect || errors.Is(e, ErrUnavailable)
}

func allFailed(calls []*CallError) error {
	kind := ErrNoAnswer
	for _, c := range calls {
		if c.Step == StepAnswer {
			kind = ErrUnavailable
		}
	}
	return &AllError{kind: kind, Calls: calls}
}

// order gives the addresses, the one that answered last first.
func (c *Client) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(append([]string(nil), c.addrs[c.next:]...), c.addrs[:c.next]...)
}

func (c *Client) answered(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range c.addrs {
		if a == addr {
			c.next = i
		}
	}
}
