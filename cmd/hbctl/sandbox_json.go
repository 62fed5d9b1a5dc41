package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/sandbox"
)

// sandboxDown is the answer of sandbox down -o json.
type sandboxDown struct {
	Name  string `json:"name"`
	WasUp bool   `json:"was_up"` // false: there was nothing to remove
}

// sandboxFault is the answer of sandbox fault -o json: what has had its effect.
type sandboxFault struct {
	Verb string   `json:"verb"`
	Args []string `json:"args"`
}

// wantsJSON says that -o json was given. It is a flag of the root command.
func wantsJSON(cmd *cobra.Command) bool {
	o := cmd.Flag("output")
	return o != nil && o.Value.String() == "json"
}

// printSandboxJSON writes what is known of a sandbox.
func printSandboxJSON(cmd *cobra.Command, sb *sandbox.Sandbox) error {
	st, err := sb.Status(cmd.Context())
	if err != nil {
		return err
	}
	return encodeJSON(cmd.OutOrStdout(), st)
}

func encodeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
