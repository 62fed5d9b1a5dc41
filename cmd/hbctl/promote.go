package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newPromote(a *app) *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "promote NODE",
		Short: "Make a node the primary by a planned switchover, losing nothing",
		Example: `  hbctl promote db2 --plan     the steps, the gates and the expected pause; changes nothing
  hbctl promote db2            asks first, then follows to the end
  hbctl promote db2 --wait 30s clients in the middle of something may finish first
  hbctl promote db2 --yes      for scripts`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(api.SwitchoverRequest{To: args[0], Actor: actor()})
			if err != nil {
				return err
			}
			return a.switchover(cmd.Context(), req, (*api.Client).Promote, fmt.Sprintf("Make %s the primary?", args[0]))
		},
	}
	f.register(cmd)
	return cmd
}

func newDemote(a *app) *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "demote [NODE]",
		Short: "Move the primary role away from a node, to the best other candidate",
		Example: `  hbctl demote           away from whoever is the primary
  hbctl demote db1       only if db1 is the primary
  hbctl demote --plan    changes nothing`,
		Args:              usage(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(api.SwitchoverRequest{Actor: actor()})
			if err != nil {
				return err
			}
			question := "Move the primary role to the best other candidate?"
			if len(args) == 1 {
				req.From = args[0]
				question = fmt.Sprintf("Move the primary role away from %s?", args[0])
			}
			return a.switchover(cmd.Context(), req, (*api.Client).Demote, question)
		},
	}
	f.register(cmd)
	return cmd
}

// planFlags are those of promote and demote.
type planFlags struct {
	plan, kill bool
	wait       time.Duration
	ifPlan     string
}

func (f *planFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.plan, "plan", false, "tell what would be done, and do nothing")
	cmd.Flags().StringVar(&f.ifPlan, "if-plan", "", "only if the plan with this token still holds")
	cmd.Flags().DurationVar(&f.wait, "wait", 0, "wait so long for clients in the middle of a long transaction or DDL, instead of refusing")
	cmd.Flags().BoolVar(&f.kill, "kill", false, "end such clients at the pause: their transactions are rolled back")
}

// request adds the flags to a request.
func (f *planFlags) request(req api.SwitchoverRequest) (api.SwitchoverRequest, error) {
	switch {
	case f.wait < 0:
		return req, usageError{fmt.Errorf("--wait is %v, it must not be negative", f.wait)}
	case f.kill && f.wait > 0:
		return req, usageError{errors.New("--kill and --wait exclude each other: clients are either ended or waited for")}
	}
	req.Plan, req.IfPlan, req.WaitSeconds, req.Kill = f.plan, f.ifPlan, f.wait.Seconds(), f.kill
	return req, nil
}

// switchover shows the plan when that is all that was asked for; else asks, begins and follows.
func (a *app) switchover(ctx context.Context, req api.SwitchoverRequest,
	send func(*api.Client, context.Context, api.SwitchoverRequest) (api.Result, error), question string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if req.Plan {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		result, err := send(client, ctx, req)
		if err != nil {
			return err
		}
		return a.showPlan(result)
	}
	if a.canAsk() {
		// Who is asked should see what the answer does, and no question is asked for what is refused.
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		asked := req
		asked.Plan = true
		plan, err := send(client, ctx, asked)
		if err != nil {
			return err
		}
		if plan.Outcome != api.OutcomeDone {
			return a.showResult(plan)
		}
		if err := a.writePlan(a.err, plan.Plan); err != nil {
			return err
		}
	}
	if err := a.confirm(ctx, question); err != nil {
		return err
	}
	// What is waited for takes time beyond that of the change itself.
	a.timeout += time.Duration(req.WaitSeconds * float64(time.Second))
	return a.begin(ctx, client, func(ctx context.Context) (api.Result, error) { return send(client, ctx, req) })
}

// showPlan prints what a switchover would do, or why it would be refused.
func (a *app) showPlan(r api.Result) error {
	if a.asJSON() || r.Plan == nil {
		return a.showResult(r)
	}
	if err := a.writePlan(a.out, r.Plan); err != nil {
		return err
	}
	return a.showResult(r)
}

// writePlan prints a plan, if there is one.
func (a *app) writePlan(w io.Writer, p *api.Plan) error {
	if p == nil {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Plan: %s -> %s, expected write pause %s", cell(p.From), cell(p.To), millis(p.PauseMS))
	if p.PrepareMS > 0 {
		fmt.Fprintf(&b, " after %s of preparation", millis(p.PrepareMS))
	}
	b.WriteString("\n")
	for i, step := range p.Steps {
		fmt.Fprintf(&b, "  %2d. %s\n", i+1, cell(step))
	}
	if err := table(&b, "  ", verdictHead, verdictRows(p.Gates)); err != nil {
		return err
	}
	if p.Token != "" {
		fmt.Fprintf(&b, "Only if nothing has changed: --if-plan %s\n", cell(p.Token))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	return nil
}
