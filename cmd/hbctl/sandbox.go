package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/sandbox"
)

// sandboxPlace is which sandbox a verb means; every verb has these flags.
type sandboxPlace struct{ name, dir string }

func (p *sandboxPlace) open() (*sandbox.Sandbox, error) {
	sb, err := sandbox.OpenIn(p.dir, p.name)
	if errors.Is(err, sandbox.ErrNotUp) {
		return nil, fmt.Errorf("%w; build it with hbctl sandbox up", err)
	}
	return sb, sandboxError(err)
}

// sandboxError gives a mistake of the caller the exit code of one.
func sandboxError(err error) error {
	if errors.Is(err, sandbox.ErrUsage) {
		return usageError{err}
	}
	return err
}

// newSandboxCommand returns `hbctl sandbox` with all its verbs.
func newSandboxCommand() *cobra.Command {
	var place sandboxPlace
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "A whole cluster on this machine, to try and to break",
		Long: "Builds database hosts db1.., witnesses w1.. and a client as network namespaces on this machine, each with a\n" +
			"real server and hbd, and breaks them on request. Works without root where user namespaces are allowed.",
		Example: `  hbctl sandbox up                            three database hosts and a client
  hbctl sandbox exec client -- mariadb app    an application, through the VIP
  hbctl sandbox fault kill-host db1           and then?
  hbctl sandbox down`,
		Args: groupArgs,
		RunE: showHelp,
	}
	cmd.PersistentFlags().StringVar(&place.name, "name", sandbox.DefaultName, "which sandbox")
	cmd.PersistentFlags().StringVar(&place.dir, "dir", "", "directory that holds sandboxes (default: /var/lib/highbase/sandbox, without root below ~/.local/state)")
	cmd.AddCommand(newSandboxUp(&place), newSandboxDown(&place), newSandboxStatus(&place), newSandboxExec(&place),
		newSandboxFault(&place), newSandboxDemo(&place), newSandboxRun())
	return cmd
}

// newSandboxRun is how the sandbox starts its own processes; see sandbox.RunChild.
func newSandboxRun() *cobra.Command {
	return &cobra.Command{
		Use: "_run KIND ...", Hidden: true, Args: cobra.ArbitraryArgs, DisableFlagParsing: true,
		Run: func(_ *cobra.Command, args []string) { os.Exit(sandbox.RunChild(args)) },
	}
}

func newSandboxUp(place *sandboxPlace) *cobra.Command {
	var o sandbox.Options
	var diskSize string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build the sandbox and bootstrap its cluster",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Nodes == 0 { // to the sandbox it means the default, to whoever typed it not
				return usageError{errors.New("--nodes 0, expected 1 to 9")}
			}
			var err error
			if o.DiskSize, err = parseSize(diskSize); err != nil {
				return usageError{err}
			}
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			o.Name, o.Dir = place.name, place.dir
			o.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			sb, err := sandbox.Up(cmd.Context(), o)
			if err != nil {
				return sandboxError(err)
			}
			if wantsJSON(cmd) {
				return printSandboxJSON(cmd, sb)
			}
			return printTryThis(cmd.Context(), cmd.OutOrStdout(), place, sb, o.Bare)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 3, "database hosts, 1 to 9")
	f.IntVar(&o.Witnesses, "witnesses", 0, "hosts with hbd and no server, 0 to 9")
	f.StringVar(&o.Server, "server", "mariadb", "database server: mariadb or mysql")
	f.StringVar(&o.ServerPath, "server-path", "", "directory with the server's programs, or root of its unpacked packages (default: $PATH; MySQL: see scripts/unpack-server.sh)")
	f.StringVar(&o.Timing, "timing", "lan", "timing profile: lan or fast")
	f.StringVar(&o.OnServiceDown, "on-service-down", "restart", "what a dead server means: restart or failover")
	f.IntVar(&o.MinReplicas, "min-replicas", 0, "acknowledgements that are never given up: with too few replicas writes wait")
	f.DurationVar(&o.DegradeAfter, "degrade-after", 0, "without replicas for so long writes go on without them (default: the timing profile's)")
	f.StringVar(&o.LogLevel, "log-level", "info", "hbd's log level: debug, info, warn or error")
	f.BoolVar(&o.VIP6, "vip6", false, "an IPv6 VIP as well")
	f.BoolVar(&o.Bare, "bare", false, "hosts with a server and no hbd; replication is not set up")
	f.BoolVar(&o.NoBootstrap, "no-bootstrap", false, "start hbd but leave the cluster without a first primary")
	f.StringVar(&diskSize, "disk-size", "", "memory disk of this size for each data directory, such as 300M; fill-disk needs it")
	f.StringVar(&o.HBD, "hbd", "", "the hbd program (default: beside hbctl, else in $PATH)")
	completeWords(cmd, "server", "mariadb", "mysql")
	completeWords(cmd, "timing", "lan", "fast")
	completeWords(cmd, "on-service-down", "restart", "failover")
	completeWords(cmd, "log-level", "debug", "info", "warn", "error")
	f.BoolVar(&o.KeepFailed, "keep", false, "leave the sandbox running if its bootstrap fails, to look at it")
	return cmd
}

// parseSize reads a number of bytes with an optional suffix K, M or G (powers of 1024); "" is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number, shift := text, 0
	for i, suffix := range []string{"K", "M", "G"} {
		if cut, ok := strings.CutSuffix(strings.ToUpper(text), suffix); ok {
			number, shift = cut, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("size %q: want a number with K, M or G, such as 300M", text)
	}
	return n << shift, nil
}

func printTryThis(ctx context.Context, out io.Writer, place *sandboxPlace, sb *sandbox.Sandbox, bare bool) error {
	st, err := sb.Status(ctx)
	if err != nil {
		return err
	}
	verb := "hbctl sandbox"
	if place.name != sandbox.DefaultName {
		verb += " --name " + place.name
	}
	if place.dir != "" {
		verb += " --dir " + place.dir
	}
	fmt.Fprintf(out, "sandbox %s is up in %s\n", st.Name, st.Dir)
	try := []string{"exec client -- mariadb app        # an application, through the VIP", "exec client -- hbctl status",
		"fault kill-host db1                # then look at the status again"}
	if bare {
		try = []string{"exec db1 -- mariadb                # root on the server of db1", "status", "fault cut db1"}
	} else {
		fmt.Fprintf(out, "VIP  %s (reachable on the sandbox's hosts)\nDSN  %s\n", st.VIP, st.DSN)
	}
	fmt.Fprintln(out, "Try:")
	for _, line := range append(try, "down") {
		fmt.Fprintf(out, "  %s %s\n", verb, line)
	}
	return nil
}

func newSandboxDown(place *sandboxPlace) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the sandbox and remove everything of it",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := sandbox.Down(cmd.Context(), place.dir, place.name)
			wasUp := !errors.Is(err, sandbox.ErrNotUp)
			switch {
			case wasUp && err != nil:
				return sandboxError(err)
			case wantsJSON(cmd):
				return encodeJSON(cmd.OutOrStdout(), sandboxDown{Name: place.name, WasUp: wasUp})
			case !wasUp: // what was asked for is the case
				fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			return nil
		},
	}
}

func newSandboxStatus(place *sandboxPlace) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Hosts, addresses and processes of the sandbox",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			sb, err := place.open()
			if err != nil {
				return err
			}
			if wantsJSON(cmd) {
				return printSandboxJSON(cmd, sb)
			}
			st, err := sb.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printSandbox(cmd.OutOrStdout(), st)
		},
	}
}

func printSandbox(out io.Writer, st sandbox.Status) error {
	vips := strings.TrimSpace(st.VIP + " " + st.VIP6)
	fmt.Fprintf(out, "sandbox %s (%s) in %s\nVIP  %s\nDSN  %s\n", st.Name, st.Server, st.Dir, vips, st.DSN)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tROLE\tSTATE\tADDRESS\tHBD\tMYSQLD\tLOG")
	for _, h := range st.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, h.Role, h.State, h.Address, pidText(h.PIDs.HBD), pidText(h.PIDs.Mysqld), cell(h.Log))
	}
	return w.Flush()
}

func pidText(pid int) string {
	if pid == 0 {
		return "-"
	}
	return strconv.Itoa(pid)
}
