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
		told := 0
		fmt.Fprintf(a.err, "operation %d begun\n", result.Operation)
		result, err = client.Follow(ctx, result, func(r api.Result) {
			for _, p := range r.Phases[min(told, len(r.Phases)):] {
				fmt.Fprintf(a.err, "  %-10s %s\n", cell(p.Name), millis(p.MS))
			}
			told = len(r.Phases)
		})
		if err != nil {
			return fmt.Errorf("%w: following operation %d: %w", api.ErrUnknownOutcome, result.Operation, err)
		}
	}
	return a.showResult(result)
}

// canAsk says whether a question may be asked and somebody is there to answer it.
func (a *app) canAsk() bool { return !a.yes && !a.noInput && isTerminal(a.in) }

// confirm asks a question that --yes answers. Without a terminal nobody can answer: that is a usage
// error, and nothing is sent.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.yes {
		return nil
	}
	if !a.canAsk() {
		return usageError{errors.New("this needs a confirmation and there is nobody to ask: add --yes")}
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answers := make(chan string, 1)
	go func() {
		// Ends with the process at the latest: a read of a terminal cannot be cancelled.
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
	case answer := <-answers:
		if answer == "y" || answer == "yes" {
			return nil
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
