package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/highbase/highbase/cluster/api"
)

// envAddr is the environment variable with the addresses when --addr is not given.
const envAddr = "HBCTL_ADDR"

// defaultAddr is the node on this host.
const defaultAddr = "127.0.0.1:" + api.DefaultPort

// app is what the commands share: the streams and the global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string

	addr    string
	output  string
	yes     bool
	noInput bool
	timeout time.Duration
}

// newRoot builds the command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "hbctl",
		Short: "Look after a Highbase cluster",
		Long:  "hbctl asks a Highbase cluster how it is and tells it what to do, through any of its nodes.",
		Example: `  hbctl status                          how is the cluster, and what if the primary died now?
  hbctl promote db2 --plan              what would a switchover to db2 do?
  hbctl promote db2                     make db2 the primary
  hbctl why-not db3                     why would db3 not take over?
  hbctl --addr db1,db2,db3 history      ask whichever node answers`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// A command line that names no command is a mistake of its writer; the exit code says so.
		Args: groupArgs,
		RunE: showHelp,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetUsageTemplate(usageTemplate)
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", "", "API `HOST:PORT[,...]` of any nodes, tried in turn (default $"+envAddr+", then "+defaultAddr+")")
	f.VarP(newChoice(&a.output, "table", "json"), "output", "o", "`table|json`")
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask for confirmation")
	f.BoolVar(&a.noInput, "no-input", false, "never ask; fail where a question would be asked")
	f.DurationVar(&a.timeout, "timeout", time.Minute, "how long to wait for the outcome; an operation goes on without us")
	root.AddCommand(
		newStatus(a), newPromote(a), newDemote(a), newFailover(a), newPause(a), newResume(a), newRebuild(a), newRejoin(a),
		newHistory(a), newIncident(a), newWhyNot(a), newCheck(a), newBootstrap(a), newSandboxCommand(), newVersion(a),
	)
	completeWords(root, "output", "table", "json")
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" { // cobra's own ends with 0 for a shell it does not know
			c.Args, c.RunE = groupArgs, showHelp
			c.Example = "  hbctl completion bash > /etc/bash_completion.d/hbctl"
		}
	}
	return root
}

// usageTemplate is cobra's with the examples first: they are what people read.
const usageTemplate = `{{if .HasExample}}Examples:
{{.Example}}

{{end}}Usage:{{if .Runnable}}{{if not .HasAvailableSubCommands}}
  {{.UseLine}}{{end}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" tells more about a command.{{end}}
`

// groupArgs is for commands that only hold others: any argument is a mistyped command.
func groupArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("%s", text)}
}

// showHelp is for commands that only hold others, named without one.
func showHelp(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(cmd.ErrOrStderr())
	if err := cmd.Help(); err != nil {
		return fmt.Errorf("printing help: %w", err)
	}
	return usageError{errShown}
}

// usage makes what an argument check says a usage error.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w\nUsage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// noArgs is cobra.NoArgs without its talk of unknown commands.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("no argument is taken here, got %q", args[0])
	}
	return nil
}

// client makes a client for the addresses given by flag, environment or default.
func (a *app) client() (*api.Client, error) { return a.clientWith(api.ClientOptions{}) }

func (a *app) clientWith(o api.ClientOptions) (*api.Client, error) {
	if a.timeout <= 0 {
		return nil, usageError{fmt.Errorf("--timeout %s, expected more than 0", a.timeout)}
	}
	text, from := a.addr, "--addr"
	if text == "" {
		text, from = a.env(envAddr), envAddr
	}
	if text == "" {
		text = defaultAddr
	}
	addrs, err := api.ParseAddrs(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", from, err)}
	}
	return api.NewClient(addrs, o)
}

// choice is a flag that takes one of a few words.
type choice struct {
	value *string
	words []string
}

var _ pflag.Value = (*choice)(nil)

// newChoice makes a flag whose first word is the default.
func newChoice(value *string, words ...string) *choice {
	*value = words[0]
	return &choice{value: value, words: words}
}

// String is the current word.
func (c *choice) String() string { return *c.value }

// Type is what help calls the value.
func (c *choice) Type() string { return strings.Join(c.words, "|") }

// Set takes a word, or says which there are.
func (c *choice) Set(s string) error {
	for _, w := range c.words {
		if s == w {
			*c.value = s
			return nil
		}
	}
	return fmt.Errorf("expected %s", strings.Join(c.words, " or "))
}
