package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newStatus(a *app) *cobra.Command {
	var check, watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How the cluster is, and what would happen if the primary died now",
		Example: `  hbctl status
  hbctl status --check || page-somebody     exit 0 healthy, 10 degraded, 11 no primary
  hbctl status --watch
  hbctl status -o json | jq .primary`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check && watch {
				return usageError{errors.New("--check and --watch exclude each other")}
			}
			if interval <= 0 {
				return usageError{fmt.Errorf("--interval %s, expected more than 0", interval)}
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if watch {
				return a.watchStatus(cmd.Context(), client, interval)
			}
			status, err := a.askStatus(cmd.Context(), client)
			if err != nil {
				return err
			}
			if err := a.showStatus(status); err != nil {
				return err
			}
			if code := checkCode(status.Verdict); check && code != exitDone {
				return codeError(code)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "tell by the exit code: 0 healthy, 10 degraded, 11 no primary")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print again and again until interrupted; with -o json one object per line")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two prints of --watch")
	return cmd
}

func (a *app) askStatus(ctx context.Context, client *api.Client) (api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return client.Status(ctx)
}

func (a *app) showStatus(s api.Status) error {
	if a.asJSON() {
		return a.printJSON(s)
	}
	return writeStatus(a.out, s, time.Now(), a.colours(a.out))
}

// watchStatus prints the status until ctx ends, which is how it is meant to end. That no node answers
// is shown and asked again: the reason to watch is often that something is wrong.
func (a *app) watchStatus(ctx context.Context, client *api.Client, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		status, err := a.askStatus(ctx, client)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err != nil && exitCode(err) != exitNoAnswer:
			return err
		case err != nil:
			fmt.Fprintf(a.err, "%s  %s\n", time.Now().UTC().Format("15:04:05Z"), clean(err.Error()))
		default:
			if err := a.printWatched(status); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (a *app) printWatched(s api.Status) error {
	if a.asJSON() {
		data, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encoding the output: %w", err)
		}
		if _, err := fmt.Fprintf(a.out, "%s\n", data); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
		return nil
	}
	if isTerminal(a.out) && a.env("TERM") != "dumb" {
		// Home, print, clear what is below: no flicker as clearing first would make.
		if _, err := io.WriteString(a.out, "\x1b[H\x1b[2J"); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	}
	return a.showStatus(s)
}
