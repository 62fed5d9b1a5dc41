package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// completeTimeout bounds a question for names, completeConnect the wait for one address of it: whoever presses TAB waits.
const (
	completeTimeout = 1500 * time.Millisecond
	completeConnect = 300 * time.Millisecond
)

// completeNode offers the ids of the nodes that may become primary as the only argument. A cluster that does not answer
// offers nothing.
func (a *app) completeNode(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := a.clientWith(api.ClientOptions{ConnectTimeout: completeConnect})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	s, err := client.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []cobra.Completion
	for _, n := range s.Nodes {
		if n.Role != api.RoleWitness {
			ids = append(ids, cobra.CompletionWithDesc(n.ID, n.Role+", "+n.Health))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completeFault offers the verbs, then the hosts of the sandbox.
func completeFault(place *sandboxPlace) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return completeHosts(cmd, place)
		}
		var verbs []cobra.Completion
		for _, f := range sandbox.Faults() {
			verbs = append(verbs, cobra.CompletionWithDesc(f.Verb, f.Help))
		}
		return verbs, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeHost offers the hosts of the sandbox, then what the shell knows: commands and files.
func completeHost(place *sandboxPlace) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return completeHosts(cmd, place)
	}
}

func completeHosts(cmd *cobra.Command, place *sandboxPlace) ([]cobra.Completion, cobra.ShellCompDirective) {
	sb, err := place.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	st, err := sb.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	for _, h := range st.Hosts {
		names = append(names, cobra.CompletionWithDesc(h.Name, h.Role+", "+h.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeWords completes a flag that takes one of a few words. A flag that is not there is a fault of this program.
func completeWords(cmd *cobra.Command, flag string, words ...cobra.Completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}
