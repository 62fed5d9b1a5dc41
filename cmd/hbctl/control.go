package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newBootstrap(a *app) *cobra.Command {
	var primary string
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Make a new cluster, once, and name its first primary",
		Long: `Makes a new cluster of the members in the settings file, once, and names its first primary.
Any other node with data of its own stays out until it is rebuilt.`,
		Example: `  hbctl bootstrap                  the node that is asked becomes the first primary
  hbctl bootstrap --primary db1`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.simple(cmd.Context(), func(ctx context.Context, c *api.Client) (api.Result, error) {
				return c.Bootstrap(ctx, api.BootstrapRequest{Primary: primary, Actor: actor()})
			})
		},
	}
	cmd.Flags().StringVar(&primary, "primary", "", "`NODE` whose data the cluster starts with (default the node that is asked)")
	return cmd
}

func newPause(a *app) *cobra.Command {
	var duration time.Duration
	var why string
	cmd := &cobra.Command{
		Use:     "pause",
		Short:   "Forbid new operations; leases, fencing and what is under way go on",
		Example: `  hbctl pause --why "switch upgrade in rack 3"    until hbctl resume`,
		Args:    usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("for") && duration < time.Second {
				return usageError{fmt.Errorf("--for %s, expected at least 1s", duration)}
			}
			return a.simple(cmd.Context(), func(ctx context.Context, c *api.Client) (api.Result, error) {
				// Rounded up: a pause that ends early is the worse mistake.
				seconds := int64((duration + time.Second - 1) / time.Second)
				return c.Pause(ctx, api.PauseRequest{ForSeconds: seconds, Why: why, Actor: actor()})
			})
		},
	}
	cmd.Flags().DurationVar(&duration, "for", 0, "end the pause by itself after this long, like 1h30m (default until resumed); not carried out by hbd yet: refused")
	cmd.Flags().StringVar(&why, "why", "", "`TEXT` shown to whoever looks at the cluster meanwhile")
	return cmd
}

func newResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "End a pause",
		Example: "  hbctl resume",
		Args:    usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.simple(cmd.Context(), func(ctx context.Context, c *api.Client) (api.Result, error) {
				return c.Resume(ctx, api.ResumeRequest{Actor: actor()})
			})
		},
	}
}

// simple sends one request that needs no confirmation and follows it.
func (a *app) simple(ctx context.Context, send func(context.Context, *api.Client) (api.Result, error)) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return a.begin(ctx, client, func(ctx context.Context) (api.Result, error) { return send(ctx, client) })
}
