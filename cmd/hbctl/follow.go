package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/highbase/highbase/cluster/api"
)

// begin sends a request and follows the operation it begins to its end, one line per phase on stderr.
// Ctrl-C and --timeout leave the operation running and say so.
func (a *app) begin(ctx context.Context, client *api.Client, send func(context.Context) (api.Result, error)) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	result, err := send(ctx)
	if err != nil {
		return err
	}
	if result.Running() {
		told, waits := 0, ""
		fmt.Fprintf(a.err, "operation %d begun\n", result.Operation)
		result, err = client.Follow(ctx, result, func(r api.Result) {
			for _, p := range r.Phases[min(told, len(r.Phases)):] {
				fmt.Fprintf(a.err, "  %-10s %s\n", cell(p.Name), millis(p.MS))
			}
			told = len(r.Phases)
			if r.Running() && r.Rule != "" && r.Rule != waits {
				waits = r.Rule
				fmt.Fprintf(a.err, "  %-10s %s (%s)\n", "waits", clean(r.Message), cell(r.Rule))
			}
		})
		if err != nil {
			return fmt.Errorf("%w: following operation %d: %w", api.ErrUnknownOutcome, result.Operation, err)
		}
	}
	return a.showResult(result)
}

// canAsk says whether a question may be asked and somebody is there to answer it.
func (a *app) canAsk() bool { return !a.yes && !a.noInput && isTerminal(a.in) }

// confirm asks a question that --yes answers.
func (a *app) confirm(ctx context.Context, question string) error {
	return a.demand(ctx, question+" [y/N] ", "y", "yes")
}

// demand asks for one of some words; --yes stands for them. Without a terminal nobody can answer: that is a
// usage error, and nothing is sent.
func (a *app) demand(ctx context.Context, question string, words ...string) error {
	if a.yes {
		return nil
	}
	if !a.canAsk() {
		return usageError{errors.New("this needs a confirmation and there is nobody to ask: add --yes")}
	}
	fmt.Fprint(a.err, question)
	answers := make(chan string, 1)
	go func() {
		// Ends with the process at the latest: a read of a terminal cannot be cancelled.
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answers <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
	case answer := <-answers:
		for _, w := range words {
			if strings.EqualFold(answer, w) {
				return nil
			}
		}
	}
	fmt.Fprintln(a.err, "not confirmed, nothing was done")
	return codeError(exitFailed)
}

// actor is who asks, for the incident's record: the person behind sudo where there is one.
func actor() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return name
	}
	if name == "" {
		name = "unknown"
	}
	return name + "@" + host
}
