package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
)

func newCheck(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "check [NODE...]",
		Short: "Whether hosts and servers are set up as the guarantees need, and what to mend",
		Long: `Looks at the settings of every server and host, and at what must fit between them, and prints what is
not as it must be with what to mend it. Changes nothing. Exits with 1 if anything failed; warnings are allowed.`,
		Example: `  hbctl check                every node, and what is between them
  hbctl check db2            one node
  hbctl check --all          also what is well
  hbctl check -o json | jq '.rows[] | select(.result == "failed")'`,
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
			defer cancel()
			out, err := client.Check(ctx, args...)
			if err != nil {
				return err
			}
			if err := a.showCheck(out, all); err != nil {
				return err
			}
			if !out.OK {
				return codeError(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "print also what is well")
	return cmd
}

func (a *app) showCheck(c api.Check, all bool) error {
	if a.asJSON() {
		return a.printJSON(c)
	}
	var rows [][]string
	count := map[string]int{}
	for _, r := range c.Rows {
		count[r.Result]++
		if all || r.Result != api.CheckOK {
			node := r.Node
			if node == "" {
				node = "all"
			}
			rows = append(rows, []string{node, r.Result, r.Rule, r.Variable, r.Current, r.Required, r.Mend})
		}
	}
	var b strings.Builder
	if len(rows) > 0 {
		if err := table(&b, "", []string{"NODE", "RESULT", "CHECK", "VARIABLE", "CURRENT", "REQUIRED", "MEND WITH"}, rows); err != nil {
			return err
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d failed, %d warnings, %d well; asked by %s\n", count[api.CheckFailed], count[api.CheckWarning], count[api.CheckOK], cell(c.ToldBy))
	for _, r := range c.Rows {
		if r.Rule == "check.lease-budget" {
			fmt.Fprintf(&b, "lease of %s: %s\n", cell(r.Node), cell(r.Current))
		}
	}
	if _, err := io.WriteString(a.out, b.String()); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
