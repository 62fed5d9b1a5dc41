package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FaultVerb describes one fault that Sandbox.Fault knows.
type FaultVerb struct {
	Verb string // as in DESIGN: kill-host, cut, ...
	Args string // what it takes: "HOST", "A B", "GROUP/GROUP", or nothing
	Help string // one line
}

// stopTimeout is how long stop-hbd waits for hbd to end by itself; giving up a role in order takes a while.
const stopTimeout = 30 * time.Second

// fault is a row of the table: one of onHost (after looking its one host up) or onAll is set.
type fault struct {
	FaultVerb
	onHost func(*runner, context.Context, *host) error
	onAll  func(*runner, context.Context, []string) error
}

// faults lists every fault, in the order in which help shows them.
func faults() []fault {
	return []fault{
		{FaultVerb{"kill-host", "HOST", "power loss: the host and its link vanish at once"}, (*runner).killHost, nil},
		{FaultVerb{"start-host", "HOST", "boot a killed host again, same disk, address and MAC"}, (*runner).startHost, nil},
		{FaultVerb{"cut", "HOST", "pull the cable: eth0 loses its carrier"}, (*runner).cut, nil},
		{FaultVerb{"heal", "HOST", "undo cut, and every partition and oneway of this host"}, (*runner).heal, nil},
		{FaultVerb{"freeze", "HOST", "stop every process; the kernel still answers"}, (*runner).freeze, nil},
		{FaultVerb{"thaw", "HOST", "undo freeze"}, (*runner).thaw, nil},
		{FaultVerb{"kill-mysqld", "HOST", "SIGKILL the database server"}, signalFault("mysqld", unix.SIGKILL), nil},
		{FaultVerb{"pause-mysqld", "HOST", "SIGSTOP the database server"}, signalFault("mysqld", unix.SIGSTOP), nil},
		{FaultVerb{"resume-mysqld", "HOST", "undo pause-mysqld"}, signalFault("mysqld", unix.SIGCONT), nil},
		{FaultVerb{"break-mysqld", "HOST", "make the server's next start fail"}, (*runner).breakMysqld, nil},
		{FaultVerb{"mend-mysqld", "HOST", "undo break-mysqld"}, (*runner).mendMysqld, nil},
		{FaultVerb{"start-mysqld", "HOST", "start the server again (bare sandbox only)"}, hostOp("start-mysqld"), nil},
		{FaultVerb{"kill-hbd", "HOST", "SIGKILL hbd; it is started again after 50 ms"}, signalFault("hbd", unix.SIGKILL), nil},
		{FaultVerb{"pause-hbd", "HOST", "SIGSTOP hbd"}, signalFault("hbd", unix.SIGSTOP), nil},
		{FaultVerb{"resume-hbd", "HOST", "undo pause-hbd"}, signalFault("hbd", unix.SIGCONT), nil},
		{FaultVerb{"stop-hbd", "HOST", "SIGTERM hbd, wait for its end and leave it stopped"}, hostOp("stop-hbd"), nil},
		{FaultVerb{"start-hbd", "HOST", "undo stop-hbd"}, hostOp("start-hbd"), nil},
		{FaultVerb{"fill-disk", "HOST", "leave no free byte on the data disk (needs --disk-size)"}, (*runner).fillDisk, nil},
		{FaultVerb{"free-disk", "HOST", "undo fill-disk"}, (*runner).freeDisk, nil},
		{FaultVerb{"drop-vip", "HOST", "delete the VIP from the host's interface"}, (*runner).dropVIP, nil},
		{FaultVerb{"partition", "GROUP/GROUP", "nothing passes between the groups, as in db1,db2/db3"}, nil, (*runner).partition},
		{FaultVerb{"oneway", "A B", "nothing of A reaches B, ARP neither"}, nil, (*runner).oneway},
		{FaultVerb{"heal-all", "", "undo every fault, boot killed hosts too"}, nil, (*runner).healAll},
	}
}

// Faults lists what Sandbox.Fault accepts.
func Faults() []FaultVerb {
	var list []FaultVerb
	for _, f := range faults() {
		list = append(list, f.FaultVerb)
	}
	return list
}

// findFault returns the row for verb after counting args; the error wraps ErrUsage.
func findFault(verb string, args []string) (fault, error) {
	var verbs []string
	for _, f := range faults() {
		verbs = append(verbs, f.Verb)
		if f.Verb != verb {
			continue
		}
		if want := len(strings.Fields(f.Args)); len(args) != want {
			return f, usagef("%s takes %d arguments (%s), got %d", verb, want, f.Args, len(args))
		}
		return f, nil
	}
	return fault{}, usagef("unknown fault %q: want one of %s", verb, strings.Join(verbs, ", "))
}

func (r *runner) fault(ctx context.Context, verb string, args []string) error {
	f, err := findFault(verb, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if f.onAll != nil {
		return f.onAll(r, ctx, args)
	}
	h, err := r.host(args[0])
	if err != nil {
		return err
	}
	h.op.Lock()
	defer h.op.Unlock()
	return f.onHost(r, ctx, h)
}

func (r *runner) killHost(_ context.Context, h *host) error  { return h.kill() }
func (r *runner) startHost(_ context.Context, h *host) error { return h.start() }
func (r *runner) freeze(ctx context.Context, h *host) error  { return h.freeze(ctx) }
func (r *runner) thaw(_ context.Context, h *host) error      { return h.thaw() }

func (r *runner) cut(_ context.Context, h *host) error {
	if err := h.checkUp(); err != nil {
		return err
	}
	return setPort(h.Name, false)
}

func (r *runner) heal(_ context.Context, h *host) error {
	err := r.filter.unblock(func(d direction) bool { return d.from == h.Name || d.to == h.Name })
	if h.pid() == 0 {
		return err // a host gets a fresh port when it is started
	}
	return errors.Join(err, setPort(h.Name, true))
}

// signalFault signals one process of a host and returns when the signal has had its effect.
func signalFault(process string, sig unix.Signal) func(*runner, context.Context, *host) error {
	return func(_ *runner, ctx context.Context, h *host) error {
		check := h.checkRunning // pausing and resuming would be mixed up with the freeze
		if sig == unix.SIGKILL {
			check = h.checkUp
		}
		if err := check(); err != nil {
			return err
		}
		_, p := h.look()
		pid := p.mysqld
		if process == "hbd" {
			pid = p.hbd
		}
		if pid == 0 {
			return fmt.Errorf("no %s is running on %s", process, h.Name)
		}
		if sig == unix.SIGKILL {
			return killAndWait(ctx, pid)
		}
		if err := signalProcess(pid, sig); err != nil {
			return err
		}
		return waitUntil(ctx, process+" of "+h.Name+" has stopped or resumed", func() bool {
			p, ok := readProcess(pid)
			return !ok || (p.state == 'T') == (sig == unix.SIGSTOP)
		})
	}
}

// hostOp asks the host's init to do it.
func hostOp(op string) func(*runner, context.Context, *host) error {
	return func(r *runner, ctx context.Context, h *host) error {
		if err := h.checkRunning(); err != nil {
			return err
		}
		_, _, err := call(ctx, r.plan.hostSocket(h.Name), request{Op: op})
		return err
	}
}

func (h *host) checkData() error {
	if h.Role != RoleData {
		return usagef("%s has no database server", h.Name)
	}
	return nil
}

func (r *runner) breakMysqld(_ context.Context, h *host) error {
	if err := h.checkData(); err != nil {
		return err
	}
	return os.WriteFile(r.plan.breakFile(h.Name), []byte(r.server.brokenOptions()), 0o600)
}

func (r *runner) mendMysqld(_ context.Context, h *host) error {
	if err := h.checkData(); err != nil {
		return err
	}
	return os.WriteFile(r.plan.breakFile(h.Name), nil, 0o600)
}

func (r *runner) fillDisk(_ context.Context, h *host) error {
	if err := h.checkData(); err != nil {
		return err
	}
	return fillDisk(r.plan, h.Name)
}

func (r *runner) freeDisk(_ context.Context, h *host) error { return freeDisk(r.plan, h.Name) }

func (r *runner) dropVIP(_ context.Context, h *host) error {
	if err := h.checkUp(); err != nil {
		return err
	}
	var vips []string
	for _, v := range r.plan.vips() {
		ip, err := netip.ParseAddr(v)
		if err != nil {
			return fmt.Errorf("parsing a VIP: %w", err)
		}
		vips = append(vips, ip.String())
	}
	dropped, err := dropAddresses(h.pid(), vips)
	if err == nil && dropped == 0 {
		return fmt.Errorf("%s does not hold the VIP", h.Name)
	}
	return err
}

func (r *runner) partition(_ context.Context, args []string) error {
	list, err := r.plan.parsePartition(args[0])
	if err != nil {
		return err
	}
	return r.filter.block(list)
}

func (r *runner) oneway(_ context.Context, args []string) error {
	for _, name := range args {
		if _, err := r.host(name); err != nil {
			return err
		}
	}
	if args[0] == args[1] {
		return usagef("oneway %s %s: want two hosts", args[0], args[1])
	}
	return r.filter.block([]direction{{args[0], args[1]}})
}

// healAll undoes faults in the order in which later steps need earlier ones.
func (r *runner) healAll(ctx context.Context, _ []string) error {
	errs := []error{r.filter.unblock(func(direction) bool { return true })}
	for _, ph := range r.plan.Hosts {
		errs = append(errs, r.healHost(ctx, r.hosts[ph.Name]))
	}
	return errors.Join(errs...)
}

func (r *runner) healHost(ctx context.Context, h *host) error {
	h.op.Lock()
	defer h.op.Unlock()
	var errs []error
	if h.Role == RoleData {
		errs = append(errs, r.mendMysqld(ctx, h), freeDisk(r.plan, h.Name))
	}
	if h.pid() == 0 {
		return errors.Join(append(errs, h.start())...)
	}
	errs = append(errs, setPort(h.Name, true))
	if h.checkRunning() != nil {
		errs = append(errs, h.thaw())
	}
	_, p := h.look()
	for _, pid := range []int{p.hbd, p.mysqld} {
		if pid != 0 {
			errs = append(errs, signalProcess(pid, unix.SIGCONT))
		}
	}
	switch {
	case h.Role == RoleClient:
	case !r.plan.Bare:
		errs = append(errs, hostOp("start-hbd")(r, ctx, h))
	case h.Role == RoleData:
		errs = append(errs, hostOp("start-mysqld")(r, ctx, h))
	}
	return errors.Join(errs...)
}
