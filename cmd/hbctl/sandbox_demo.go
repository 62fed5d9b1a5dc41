package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// Bounds of the parts of a demo. They are for machines that do other things at the same time; a part that needs this
// long has failed.
const (
	demoUpLimit    = 75 * time.Second
	demoStepLimit  = 30 * time.Second
	demoCheckLimit = 20 * time.Second
	demoDownLimit  = 30 * time.Second
)

// demoWriters is how many clients write through the VIP. They notice a new holder within 100 ms divided by this.
const demoWriters = 4

// demoLogTail is how much of each log a failed demo shows, in bytes.
const demoLogTail = 3000

// demo is one run of `hbctl sandbox demo`.
type demo struct {
	a       *app
	say     *narrator
	opt     sandbox.Options
	keep    bool
	sb      *sandbox.Sandbox
	facts   sandbox.Status
	client  *api.Client
	load    *sandbox.Load
	last    uint64 // number of the latest incident that was told
	removed bool
	begun   []time.Duration // when each step of the report began, on the load's clock
	report  demoReport
}

func newSandboxDemo(place *sandboxPlace) *cobra.Command {
	var o sandbox.Options
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Break a cluster in four ways while clients write, and count what was lost",
		Long: "Builds a sandbox of its own, writes through the VIP all the while, and shows one after another: the server\n" +
			"killed, the primary's host killed, that host coming back, and a planned switchover. Ends with a table and exit\n" +
			"code 0 only if everything held, and removes everything.",
		Example: `  hbctl sandbox demo                  about a minute
  hbctl sandbox demo --timing fast    the same with the short timeouts
  hbctl sandbox demo -o json          as data on stdout, the story on stderr`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a := &app{out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), env: os.Getenv, output: cmd.Flag("output").Value.String()}
			o.Name, o.Dir = fmt.Sprintf("demo-%d", os.Getpid()), place.dir
			if cmd.Flag("name").Changed {
				o.Name = place.name
			}
			d := &demo{a: a, opt: o, keep: keep}
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Timing, "timing", "lan", "timing profile: lan or fast")
	f.StringVar(&o.Server, "server", "mariadb", "database server: mariadb or mysql")
	f.StringVar(&o.HBD, "hbd", "", "the hbd program (default: beside hbctl, else in $PATH)")
	f.BoolVar(&keep, "keep", false, "leave the sandbox running at the end, or after a failure, to look at it")
	return cmd
}

// run plays the demo and takes everything away again, however it went.
func (d *demo) run(ctx context.Context) error {
	// A closed terminal would end us at once and leave files behind; Ctrl-C is seen to by main.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	d.say = newNarrator(d.a)
	if err := d.prepare(); err != nil {
		return err
	}
	if err := sweepDemos(ctx, d.opt.Dir); err != nil {
		return err
	}
	begin := time.Now()
	err := d.play(ctx)
	switch {
	case err == nil:
	case d.sb == nil && errors.Is(err, sandbox.ErrUsage):
		return usageError{err}
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: %w", err)
	default:
		d.showLogs()
	}
	err = errors.Join(err, d.end(context.WithoutCancel(ctx)))
	d.report.ElapsedMS = float64(time.Since(begin).Milliseconds())
	d.report.OK = err == nil
	if err != nil {
		d.report.Reason = err.Error()
	}
	if err := d.print(); err != nil {
		return err
	}
	if !d.report.OK {
		return codeError(exitFailed)
	}
	return nil
}

func (d *demo) prepare() error {
	var err error
	if d.opt.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	d.opt.TieToCaller = !d.keep
	d.opt.NoBootstrap = true // it comes later: of a failed one the logs are shown before they are removed
	headed := false
	d.opt.Progress = func(line string) { // what is called before the first line is refused options
		if !headed {
			d.say.head("A cluster of three hosts with %s, timing %s", d.opt.Server, d.opt.Timing)
			headed = true
		}
		d.say.detail(line)
	}
	d.report = demoReport{Sandbox: d.opt.Name, Server: d.opt.Server, Timing: d.opt.Timing, Steps: []demoStep{}, Nodes: []demoNode{}, Writes: demoWrites{Writers: demoWriters}}
	return nil
}

// play does everything but the cleaning up. What failed is the error; what was seen until then is in the report.
func (d *demo) play(ctx context.Context) error {
	if err := d.up(ctx); err != nil {
		return err
	}
	var problems []error
	for _, step := range []func(context.Context) error{d.crashServer, d.killHost, d.startHost, d.switchBack} {
		err := step(ctx)
		problems = append(problems, err)
		var odd unexpected
		if err != nil && !errors.As(err, &odd) {
			break // the cluster did not come through: what follows would only add noise
		}
	}
	if ctx.Err() != nil { // nothing is compared then, and no table printed
		d.report.count(d.load, d.begun, nil)
		return errors.Join(problems...)
	}
	return errors.Join(append(problems, d.check(ctx))...)
}

// up builds the cluster and starts the clients.
func (d *demo) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoUpLimit, fmt.Errorf("not ready after %v", demoUpLimit))
	defer cancel()
	begin := time.Now()
	var err error
	if d.sb, err = sandbox.Up(ctx, d.opt); err != nil {
		return fmt.Errorf("building the sandbox: %w", err)
	}
	d.say.detail("bootstrapping the cluster")
	if err := d.sb.Bootstrap(ctx); err != nil {
		return fmt.Errorf("bootstrapping the cluster: %w", err)
	}
	if d.facts, err = d.sb.Status(ctx); err != nil {
		return fmt.Errorf("asking the sandbox what it built: %w", err)
	}
	if err := d.connect(); err != nil {
		return err
	}
	st, err := d.awaitWhole(ctx, "the new cluster to be healthy")
	if err != nil {
		return err
	}
	if d.last, err = d.latestIncident(ctx); err != nil {
		return err
	}
	if d.load, err = d.sb.StartLoad(ctx, d.facts.DSN, demoWriters); err != nil {
		return fmt.Errorf("starting the clients: %w", err)
	}
	d.report.VIP = d.facts.VIP
	for _, n := range st.Nodes {
		if n.ID == st.Primary {
			d.report.Version = n.Version
		}
	}
	d.say.line("ready", "%s (%s) is primary and holds %s, %d replicas follow; %s", st.Primary, d.report.Version, d.facts.VIP, d.following(st), millis(msSince(begin)))
	d.say.line("clients", "%d write through %s all the while and remember every acknowledgement", demoWriters, d.facts.VIP)
	return d.moreWrites(ctx)
}

// print writes the table, or the report as JSON.
func (d *demo) print() error {
	if d.a.asJSON() {
		return d.a.printJSON(d.report)
	}
	var b strings.Builder
	if err := d.report.text(&b, d.say.paint, d.removed); err != nil {
		return err
	}
	if _, err := io.WriteString(d.a.out, b.String()); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
