package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "The changes of the primary, newest first: what, why, by whom, how long",
		Example: `  hbctl history
  hbctl history -o json | jq '.incidents[] | select(.kind != "switchover")'`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(cmd.Context(), a, (*api.Client).History, a.showHistory)
		},
	}
}

func (a *app) showHistory(h api.History) error {
	if len(h.Incidents) == 0 {
		fmt.Fprintln(a.err, "no incident is on record")
		return nil
	}
	rows := make([][]string, len(h.Incidents))
	for i, n := range h.Incidents {
		rows[i] = []string{strconv.FormatUint(n.ID, 10), instant(n.Started), n.Kind, n.From, n.To,
			strconv.FormatUint(n.Epoch, 10), gapText(n), incidentOutcome(n), n.Actor, n.Cause}
	}
	return table(a.out, "", []string{"ID", "STARTED", "KIND", "FROM", "TO", "EPOCH", "GAP", "OUTCOME", "ACTOR", "CAUSE"}, rows)
}

// incidentOutcome marks for ever what may have lost acknowledged writes.
func incidentOutcome(i api.Incident) string {
	if i.Lossy {
		return string(i.Outcome) + ", LOSSY"
	}
	return string(i.Outcome)
}

func newIncident(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "incident",
		Short:   "Look at one change of the primary",
		Example: "  hbctl incident show 17",
		Args:    groupArgs,
		RunE:    showHelp,
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "show N",
		Short:   "What happened in an incident, phase by phase",
		Example: "  hbctl incident show 17\n  hbctl incident show 17 -o json",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || id == 0 {
				return usageError{fmt.Errorf("%q is not an incident's number; hbctl history lists them", args[0])}
			}
			return ask(cmd.Context(), a, func(c *api.Client, ctx context.Context) (api.Incident, error) {
				return c.Incident(ctx, id)
			}, a.showIncident)
		},
	})
	return cmd
}

func (a *app) showIncident(i api.Incident) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Incident %d  %s %s -> %s  %s\n", i.ID, cell(i.Kind), cell(i.From), cell(i.To), cell(incidentOutcome(i)))
	fmt.Fprintf(&b, "  cause      %s\n  actor      %s\n  started    %s\n  epoch      %d\n  write gap  %s\n",
		cell(i.Cause), cell(i.Actor), instant(i.Started), i.Epoch, gapText(i))
	fmt.Fprintf(&b, "  phases     %s\n", cell(phaseBar(i.Phases)))
	if len(i.Timeline) > 0 {
		b.WriteString("\n")
		rows := make([][]string, len(i.Timeline))
		for n, e := range i.Timeline {
			rows[n] = []string{fmt.Sprintf("%+.1f ms", e.MS), e.Node, e.Text}
		}
		if err := table(&b, "  ", []string{"AT", "NODE", "WHAT"}, rows); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprint(a.out, b.String()); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

func newWhyNot(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "why-not NODE",
		Short: "What speaks for and against a node as the next primary, rule by rule",
		Example: `  hbctl why-not db3
  hbctl why-not db3 -o json | jq '.verdicts[] | select(.ok | not)'`,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd.Context(), a, func(c *api.Client, ctx context.Context) (api.WhyNot, error) {
				return c.WhyNot(ctx, args[0])
			}, a.showWhyNot)
		},
	}
}

func (a *app) showWhyNot(w api.WhyNot) error {
	refusing := 0
	for _, v := range w.Verdicts {
		if !v.OK {
			refusing++
		}
	}
	line := fmt.Sprintf("%s can take over: no rule refuses it", cell(w.Node))
	if !w.Eligible {
		line = fmt.Sprintf("%s cannot take over: %d of %d rules refuse it", cell(w.Node), refusing, len(w.Verdicts))
	}
	fmt.Fprintf(a.out, "%s\n", line)
	return table(a.out, "  ", verdictHead, verdictRows(w.Verdicts))
}

var verdictHead = []string{"RULE", "NODE", "OK", "VALUE", "THRESHOLD", "WHY"}

// verdictRows puts the refusing rules first: they are what was asked for.
func verdictRows(verdicts []api.Verdict) [][]string {
	var refused, passed [][]string
	for _, v := range verdicts {
		value, threshold := shorten(v.Value), shorten(v.Threshold)
		if v.OK {
			passed = append(passed, []string{v.Rule, v.Node, "yes", value, threshold, v.Why})
		} else {
			refused = append(refused, []string{v.Rule, v.Node, "NO", value, threshold, v.Why})
		}
	}
	return append(refused, passed...)
}

// widest is how much of a value a table of verdicts shows; -o json has all of it.
const widest = 32

// shorten cuts the middle out of long values such as GTID sets and run ids: their ends tell them apart.
func shorten(s string) string {
	r := []rune(s)
	if len(r) <= widest {
		return s
	}
	return string(r[:widest/2]) + "…" + string(r[len(r)-widest/2+1:])
}

// ask makes one read and shows its answer as JSON or by show.
func ask[T any](ctx context.Context, a *app, get func(*api.Client, context.Context) (T, error), show func(T) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	answer, err := get(client, ctx)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return a.printJSON(answer)
	}
	return show(answer)
}
