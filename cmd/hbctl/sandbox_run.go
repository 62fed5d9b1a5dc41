package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/sandbox"
)

func newSandboxExec(place *sandboxPlace) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "exec HOST -- CMD [ARG...]",
		Short:             "Run a command on a host; its exit status is ours",
		Args:              usage(cobra.MinimumNArgs(2)),
		ValidArgsFunction: completeHost(place),
		RunE: func(cmd *cobra.Command, args []string) error {
			sb, err := place.open()
			if err != nil {
				return err
			}
			host, argv := args[0], args[1:]
			if argv[0] == "--" { // flags are not looked for behind HOST, so neither is this
				argv = argv[1:]
			}
			exit, err := sb.Exec(cmd.Context(), host, argv, os.Stdin, os.Stdout, os.Stderr)
			if err != nil {
				return sandboxError(err)
			}
			if exit != 0 {
				return codeError(exit) // the command has said what it had to say
			}
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false) // flags behind HOST are the command's, with or without --
	return cmd
}

func newSandboxFault(place *sandboxPlace) *cobra.Command {
	var help strings.Builder
	for _, f := range sandbox.Faults() {
		fmt.Fprintf(&help, "  %-26s %s\n", f.Verb+" "+f.Args, f.Help)
	}
	return &cobra.Command{
		Use:               "fault VERB [ARG...]",
		Short:             "Break something, or mend it",
		Long:              "Breaks or mends one thing and returns when that has had its effect:\n\n" + help.String(),
		Args:              usage(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeFault(place),
		RunE: func(cmd *cobra.Command, args []string) error {
			sb, err := place.open()
			if err != nil {
				return err
			}
			if err := sb.Fault(cmd.Context(), args[0], args[1:]...); err != nil {
				return sandboxError(err)
			}
			if wantsJSON(cmd) {
				return encodeJSON(cmd.OutOrStdout(), sandboxFault{Verb: args[0], Args: args[1:]})
			}
			return nil
		},
	}
}
