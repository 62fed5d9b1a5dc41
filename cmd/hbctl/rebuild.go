package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newRebuild(a *app) *cobra.Command {
	var req api.RebuildRequest
	var wait bool
	cmd := &cobra.Command{
		Use:   "rebuild NODE",
		Short: "Replace a node's data by a copy of another node's",
		Long: `Replaces a node's data by a copy of another node's, and lets it follow the primary.
What only this node executed is written to a file on its host first. Never done to the primary or to a member of
the sync set. Confirmed (--yes, or the answer to the question), it is also done where the node may hold the only copy
of writes that were acknowledged before an epoch that was won by accepting a loss.`,
		Example: `  hbctl rebuild db3 --plan           the donor and the gates; changes nothing
  hbctl rebuild db3 --yes --wait     for scripts: returns when db3 follows again
  hbctl rebuild db3 --from db2`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node, req.Actor = args[0], actor()
			return a.rebuild(cmd.Context(), req, wait)
		},
	}
	cmd.Flags().StringVar(&req.From, "from", "", "`DONOR` to copy from (default the one that is missed least)")
	cmd.Flags().BoolVar(&req.Plan, "plan", false, "tell what would be done, and do nothing")
	cmd.Flags().BoolVar(&wait, "wait", false, "show the progress and return when the node follows again; --timeout bounds it")
	return cmd
}

func newRejoin(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rejoin NODE",
		Short: "Lift a node's quarantine: it tries to come back with the data it has",
		Long: `Lifts a node's quarantine after somebody has mended what it was kept out for. The node compares itself with the
primary again and is quarantined anew if it still has what the primary lacks.`,
		Example:           "  hbctl rejoin db3",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd.Context(), func(ctx context.Context, c *api.Client) (api.Result, error) {
				return c.Rejoin(ctx, api.RejoinRequest{Node: args[0], Actor: actor()})
			})
		},
	}
}

// rebuild shows the plan, asks, orders, and waits if asked to.
func (a *app) rebuild(ctx context.Context, req api.RebuildRequest, wait bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	send := func(ctx context.Context, req api.RebuildRequest) (api.Result, error) {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		return client.Rebuild(ctx, req)
	}
	if req.Plan || a.canAsk() {
		asked := req
		asked.Plan = true
		plan, err := send(ctx, asked)
		if err != nil {
			return err
		}
		if req.Plan {
			return a.showPlan(plan)
		}
		if err := a.writePlan(a.err, plan.Plan); err != nil {
			return err
		}
	}
	if err := a.confirm(ctx, fmt.Sprintf("Throw away the data of %s and replace it by a copy?", req.Node)); err != nil {
		return err
	}
	req.Confirmed = true
	result, err := send(ctx, req)
	if err != nil {
		return err
	}
	if result.Outcome != api.OutcomeDone || !wait {
		return a.showResult(result)
	}
	return a.awaitRebuild(ctx, client, req.Node, result)
}

// progressEvery is how often the progress is looked at.
const progressEvery = 500 * time.Millisecond

// awaitRebuild prints a line per change of the progress on stderr until the node's rebuild has ended.
func (a *app) awaitRebuild(ctx context.Context, client *api.Client, node string, result api.Result) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	told, seen := "", false
	for {
		st, err := client.Status(ctx)
		n, known := nodeOf(st, node)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%w: the rebuild of %s goes on: hbctl status shows it", api.ErrUnknownOutcome, node)
		case err != nil || !known:
			// A node that does not answer for a moment ends nothing.
		case n.Rebuild != nil:
			seen = true
			if line := progressLine(*n.Rebuild); line != told {
				told = line
				fmt.Fprintln(a.err, line)
			}
		case seen || n.Role == api.RoleReplica:
			return a.showResult(rebuildEnd(n, result))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// rebuildEnd judges by what became of the node.
func rebuildEnd(n api.Node, result api.Result) api.Result {
	result.Message = n.ID + " follows the primary on its copy"
	if n.Role != api.RoleReplica {
		result.Outcome, result.Message = api.OutcomeFailed, fmt.Sprintf("the rebuild of %s has ended, and it is %s: %s", n.ID, n.Role, n.Note)
	}
	return result
}

func nodeOf(st api.Status, id string) (api.Node, bool) {
	for _, n := range st.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return api.Node{}, false
}

// progressLine is a rebuild in one line.
func progressLine(r api.Rebuild) string {
	line := fmt.Sprintf("  %-10s from %s", cell(r.Phase), cell(r.From))
	switch {
	case r.Size > 0:
		line += fmt.Sprintf("  %3.0f %%  %d of about %d MiB", r.Percent, r.Bytes>>20, r.Size>>20)
	case r.Bytes > 0:
		line += fmt.Sprintf("  %d MiB", r.Bytes>>20)
	}
	if r.Rate > 0 {
		line += fmt.Sprintf("  %.0f MiB/s", r.Rate/(1<<20))
	}
	if r.LeftSeconds != nil {
		line += fmt.Sprintf("  %s left", (time.Duration(*r.LeftSeconds) * time.Second).Round(time.Second))
	}
	return line
}
