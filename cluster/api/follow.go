package api

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// followWait is one long poll. Short enough that a node which dies silently is left after
	// followWait + ReadTimeout.
	followWait = 5 * time.Second
	// followPause is the rest between two polls after one that told nothing new, so that a node that
	// answers at once every time is not asked in a tight loop.
	followPause = 100 * time.Millisecond
)

// Follow asks for the operation of first until it has ended or ctx is done, and calls seen for every
// result that tells more phases than the one before, or something else that is waited for (first
// included; seen may be nil). Nodes that do
// not answer or do not know the operation yet are asked again: in a failover that is expected.
//
// When ctx ends first the result's outcome is OutcomeUnknown with the operation's id: it continues; its
// message says what it waits for, if that is known.
// The error is not nil only for ErrNotAuthorised.
func (c *Client) Follow(ctx context.Context, first Result, seen func(Result)) (Result, error) {
	last, told, said := first, -1, ""
	tell := func() {
		if seen != nil && (len(last.Phases) > told || last.Rule != "" && last.Message != said) {
			told, said = max(told, len(last.Phases)), last.Message
			seen(last)
		}
	}
	tell()
	for last.Running() {
		next, err := c.Operation(ctx, last.Operation, followWait)
		switch {
		case errors.Is(err, ErrNotAuthorised):
			return last, err
		case err == nil:
			next.Operation = first.Operation
			changed := len(next.Phases) > len(last.Phases)
			last = next
			tell()
			if changed {
				continue
			}
		}
		if !last.Running() {
			break
		}
		if !rest(ctx, followPause) {
			if last.Rule == "" { // else it says what it waits for
				last.Message = fmt.Sprintf("outcome unknown, operation %d continues", first.Operation)
			}
			return last, nil
		}
	}
	return last, nil
}

// rest waits for d and reports whether ctx is still alive.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
