package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newFailover(a *app) *cobra.Command {
	var req api.FailoverRequest
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Replace a primary that is lost or cannot serve, if that loses nothing; or accept a loss",
		Long: `Asks for an unplanned change of the primary. Without --accept-data-loss it begins only if
enough replicas can prove that they hold every acknowledged write, and is refused otherwise.

With --accept-data-loss it first names what is known to be at risk, then demands the cluster's
name (or --yes), and positive evidence that the old primary is off: the word of its own hbd, the
external fence, or yours (--fenced). The epoch it leads to is marked lossy for ever.
A primary that serves and loses nothing is changed with hbctl promote.`,
		Example: `  hbctl failover                                   to the best replica
  hbctl failover --to db2
  hbctl failover --accept-data-loss --plan         what would be lost? changes nothing
  hbctl failover --accept-data-loss --fenced db1   db1 is switched off: I have seen to it`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Fenced != "" && !req.AcceptDataLoss {
				return usageError{errors.New("--fenced goes with --accept-data-loss: any other failover finds its evidence itself")}
			}
			req.Actor = actor()
			return a.failover(cmd.Context(), req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.To, "to", "", "`NODE` that is wanted as the primary (default the best)")
	f.BoolVar(&req.AcceptDataLoss, "accept-data-loss", false, "go on although acknowledged writes may be lost")
	f.StringVar(&req.Fenced, "fenced", "", "`NODE`: the old primary, which you know to be switched off")
	f.BoolVar(&req.Plan, "plan", false, "tell what would be done and what is at risk, and do nothing")
	for _, name := range []string{"to", "fenced"} {
		if err := cmd.RegisterFlagCompletionFunc(name, a.completeNode); err != nil {
			panic(fmt.Sprintf("hbctl: %v", err)) // the flag is defined above
		}
	}
	return cmd
}

// failover looks first when a loss is accepted or somebody can be asked: nobody should answer for what he has not seen.
func (a *app) failover(ctx context.Context, req api.FailoverRequest) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	send := func(ctx context.Context) (api.Result, error) { return client.Failover(ctx, req) }
	if !req.AcceptDataLoss && !req.Plan {
		if err := a.confirm(ctx, "Replace the primary?"); err != nil {
			return err
		}
		return a.begin(ctx, client, send)
	}
	look := req
	look.Plan = true
	name, plan, err := a.lookAtRisk(ctx, client, look)
	if err != nil {
		return err
	}
	if req.Plan || plan.Outcome != api.OutcomeDone {
		if err := a.writeRisk(plan.Risk); err != nil {
			return err
		}
		return a.showResult(plan)
	}
	if err := a.writeRisk(plan.Risk); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%s\n", clean(plan.Message))
	question := fmt.Sprintf("Acknowledged writes may be lost for good. Type the name of the cluster (%s) to accept that: ", cell(name))
	if err := a.demand(ctx, question, name); err != nil {
		return err
	}
	return a.begin(ctx, client, send)
}

// lookAtRisk asks for the name of the cluster and what a failover would risk.
func (a *app) lookAtRisk(ctx context.Context, client *api.Client, look api.FailoverRequest) (string, api.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	st, err := client.Status(ctx)
	if err != nil {
		return "", api.Result{}, err
	}
	plan, err := client.Failover(ctx, look)
	return st.Cluster, plan, err
}

// writeRisk says what is known to be at risk on stderr; with -o json it is in the answer.
func (a *app) writeRisk(r *api.Risk) error {
	if r == nil || a.asJSON() {
		return nil
	}
	if _, err := fmt.Fprint(a.err, riskText(*r)); err != nil {
		return fmt.Errorf("writing what is at risk: %w", err)
	}
	return nil
}

// riskText is what is known, and what is not, in sentences and a table.
func riskText(r api.Risk) string {
	var b strings.Builder
	fmt.Fprintf(&b, "AT RISK with %s:\n", orUnknown(r.Primary))
	if r.DegradedSince.IsZero() {
		b.WriteString("  not degraded: each acknowledged write is on other nodes too, perhaps only on those that do not answer\n")
	} else {
		fmt.Fprintf(&b, "  degraded since %s, what was acknowledged since may be on %s alone: %s\n", instant(r.DegradedSince), orUnknown(r.Primary), cell(r.DegradedWhy))
	}
	switch {
	case r.Position == "":
		fmt.Fprintf(&b, "  position of %s: unknown, nobody that answers has seen it\n", orUnknown(r.Primary))
	case r.AgeMS == nil:
		fmt.Fprintf(&b, "  position of %s: %s when the log last named one; what it wrote after that is unknown\n", orUnknown(r.Primary), cell(r.Position))
	default:
		fmt.Fprintf(&b, "  position of %s: %s as seen by %s %s ago; what it wrote after that is unknown\n", orUnknown(r.Primary), cell(r.Position), cell(r.SeenBy), millis(*r.AgeMS))
	}
	rows := make([][]string, len(r.Nodes))
	for i, n := range r.Nodes {
		missing := "unknown"
		if n.Missing != nil {
			missing = fmt.Sprintf("at least %d", *n.Missing)
		}
		answer := "yes"
		if n.Error != "" {
			answer = "no: " + n.Error
		}
		rows[i] = []string{n.ID, orUnknown(n.Position), missing, answer}
	}
	if err := table(&b, "  ", []string{"NODE", "RECEIVED", "MISSING", "ANSWER"}, rows); err != nil {
		return b.String() // a strings.Builder takes everything
	}
	return b.String()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return cell(s)
}
