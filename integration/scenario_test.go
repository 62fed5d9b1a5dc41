//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// patience bounds every wait for a condition. It is no expectation of how long things
// take (the benchmark measures that), only the end of hope on a crowded machine.
var patience = 90 * time.Second

func TestMain(m *testing.M) {
	sandbox.RunIfChild()
	if v := os.Getenv("HIGHBASE_PATIENCE"); v != "" {
		// A control waits in vain for what was broken on purpose: it need not wait long.
		d, err := time.ParseDuration(v)
		if err != nil {
			fmt.Fprintf(os.Stderr, "HIGHBASE_PATIENCE=%q: %v\n", v, err)
			os.Exit(2)
		}
		patience = d
	}
	claimIfAsked()
	os.Exit(m.Run())
}

// server is what the scenarios run on: HIGHBASE_SERVER, by default MariaDB. One run
// of the tests is about one server; `make integration` runs them for each.
func server() string {
	if s := os.Getenv("HIGHBASE_SERVER"); s != "" {
		return s
	}
	return "mariadb"
}

// group runs scenarios on one cluster, built when the first needs it and built anew
// after one that failed: what a failure left behind must not blame the next.
type group struct {
	options sandbox.Options
	load    Load          // of every scenario
	limit   time.Duration // of one scenario; 4 minutes if 0
	cluster *Cluster
}

func newGroup(t *testing.T, o sandbox.Options) *group {
	t.Helper()
	if o.Server == "" {
		o.Server = server()
	}
	if err := sandbox.CheckServer(o); err != nil {
		if os.Getenv("HIGHBASE_REQUIRE") != "" {
			t.Fatalf("HIGHBASE_REQUIRE is set: %v", err)
		}
		t.Skipf("skipping, no database server to test with: %v", err)
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("it-%d", os.Getpid())
	}
	if o.Dir == "" {
		// Not t.TempDir: its long path would not leave room for a socket's name.
		dir, err := os.MkdirTemp("", "hb")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("removing the sandbox's directory: %v", err)
			}
		})
		o.Dir = dir
	}
	o.Settings = controlSettings(o.Settings)
	g := &group{options: o}
	t.Cleanup(func() { g.discard(t) })
	return g
}

func (g *group) ensure(t *testing.T) *Cluster {
	t.Helper()
	if g.cluster == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := Up(ctx, g.options)
		if err != nil {
			t.Fatal(err)
		}
		g.cluster = c
	}
	return g.cluster
}

func (g *group) discard(t *testing.T) {
	if g.cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.cluster.Close(ctx); err != nil {
		t.Errorf("removing the sandbox: %v", err)
	}
	g.cluster = nil
}

// scenario is one row of the table: a healthy cluster under load, to be broken.
type scenario struct {
	*testing.T
	*Cluster
	ctx     context.Context
	clients Load
	load    *Workload
	sampler *Sampler
	beside  []*Workload // further clients, whose rows must survive, too
	before  api.Status
	last    uint64        // the latest incident before the fault
	at      time.Duration // the fault, on the ledger's clock
	told    []uint64      // incidents that the scenario waited for: the history keeps them
	changed bool          // another primary was awaited: the history must tell why
}

// run brings the cluster to health and under load, lets fn break and mend it, and
// then demands what must hold in every case.
func (g *group) run(t *testing.T, name string, fn func(*scenario)) {
	t.Run(name, func(t *testing.T) {
		c := g.ensure(t)
		s := &scenario{T: t, Cluster: c, clients: g.load}
		var cancel context.CancelFunc
		s.ctx, cancel = context.WithTimeout(t.Context(), max(g.limit, 4*time.Minute))
		defer cancel()
		// Also after FailNow: whatever happens, the clients end, and a failure is told.
		t.Cleanup(func() {
			s.stopClients()
			if t.Failed() {
				c.Tell(t)
				g.discard(t)
			}
		})
		s.begin()
		fn(s)
		s.finish()
	})
}

func (s *scenario) begin() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var err error
	if s.before, err = s.AwaitHealthy(ctx); err != nil {
		s.Fatal(err)
	}
	if i := s.before.LastIncident; i != nil {
		s.last = i.ID
	}
	if s.load, err = s.StartWorkload(ctx, s.clients); err != nil {
		s.Fatal(err)
	}
	s.sampler = s.StartSampler(ctx, s.load.Ledger, s.clients.Look)
	s.writesGoOn()
	s.at = s.load.Now()
}

func (s *scenario) stopClients() {
	if s.sampler != nil {
		s.sampler.Stop()
	}
	if s.load != nil {
		s.load.Stop()
	}
	for _, w := range s.beside {
		w.Stop()
	}
}

// finish waits for health and for clients that write again, then checks everything.
func (s *scenario) finish() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := s.AwaitHealthy(ctx); err != nil {
		s.Fatal(err)
	}
	s.writesGoOn()
	s.sampled(10)
	end := s.load.Now()
	s.stopClients()
	if err := s.Verify(ctx, s.load, s.sampler); err != nil {
		s.Error(err)
	}
	for _, w := range s.beside {
		if err := s.checkRows(ctx, s.await("an answer", steady).Primary, w); err != nil {
			s.Errorf("past the address: %v", err)
		}
		s.Logf("past the address: %+v", w.Counts())
	}
	s.explain(ctx)
	gap, _ := s.load.Gap(s.at, end)
	s.Logf("write gap %v, %+v", gap.Round(time.Millisecond), s.load.Counts())
}

// explain demands that the history tells every incident since the fault.
func (s *scenario) explain(ctx context.Context) {
	s.Helper()
	incidents, err := s.Incidents(ctx, s.last)
	if err != nil {
		s.Error(err)
	}
	for _, id := range s.told {
		if !slices.ContainsFunc(incidents, func(i api.Incident) bool { return i.ID == id }) {
			s.Errorf("the history told of incident %d and has forgotten it: %d incidents after %d", id, len(incidents), s.last)
		}
	}
	if len(incidents) == 0 && s.changed {
		s.Errorf("the primary changed, and the history tells nothing")
	}
	for _, i := range incidents {
		s.Log(Tell(i))
		if err := explained(i); err != nil {
			s.Error(err)
		}
	}
}

// fault does something to the cluster that must itself succeed.
func (s *scenario) fault(verb string, args ...string) {
	s.Helper()
	if err := s.Fault(s.ctx, verb, args...); err != nil {
		s.Fatalf("%s %v: %v", verb, args, err)
	}
}

// primary is the primary before the fault.
func (s *scenario) primary() string { return s.before.Primary }

// others are the data hosts but the given ones.
func (s *scenario) others(not ...string) []string {
	var names []string
	for _, host := range s.DataHosts() {
		if !contains(not, host) {
			names = append(names, host)
		}
	}
	return names
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// await waits for a status; it ends the test if that never comes.
func (s *scenario) await(what string, cond func(api.Status) bool) api.Status {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	st, err := s.AwaitStatus(ctx, what, cond)
	if err != nil {
		s.Fatal(err)
	}
	return st
}

// awaitIncident waits for a new incident that ended, and demands its kind.
func (s *scenario) awaitIncident(kinds ...string) api.Incident {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var found api.Incident
	err := Await(ctx, fmt.Sprintf("an incident of kind %v", kinds), func(ctx context.Context) (bool, string) {
		incidents, err := s.Incidents(ctx, s.last)
		if err != nil {
			return false, err.Error()
		}
		var saw []string
		for _, i := range incidents {
			if contains(kinds, i.Kind) && i.Outcome == api.OutcomeDone {
				found = i
				s.told = append(s.told, i.ID)
				return true, ""
			}
			saw = append(saw, Tell(i))
		}
		return false, fmt.Sprintf("incidents %q", saw)
	})
	if err != nil {
		s.Fatal(err)
	}
	return found
}

// awaitNewPrimary waits until a node other than old is the primary of a later epoch
// and clients write again.
func (s *scenario) awaitNewPrimary(old string) api.Status {
	s.Helper()
	st := s.await("another primary than "+old, func(st api.Status) bool {
		return st.Epoch > s.before.Epoch && st.Primary != "" && st.Primary != old &&
			(st.Phase == api.PhaseSteady || st.Phase == api.PhaseSettling)
	})
	s.changed = true
	s.writesGoOn()
	return st
}

// writesGoOn waits until clients get acknowledgements for rows that were sent from now on.
func (s *scenario) writesGoOn() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	from := s.load.Now()
	err := Await(ctx, "clients to write through the address", func(context.Context) (bool, string) {
		n := s.load.AckedSince(from)
		failures, example := s.load.Errors(from, s.load.Now())
		return n >= 40, fmt.Sprintf("%d acknowledged, %d errors %s", n, failures, example)
	})
	if err != nil {
		s.Fatal(err)
	}
}

// nothingHappened demands that no operation began since the fault: same epoch, same
// primary, no incident. It first lets the sampler look: a scenario that is over in a
// moment proves nothing.
func (s *scenario) nothingHappened() {
	s.Helper()
	s.sampled(20)
	st := s.await("an answer", func(st api.Status) bool { return st.Leader != "" })
	if st.Epoch != s.before.Epoch || st.Primary != s.before.Primary {
		s.Errorf("epoch %d with primary %s became epoch %d with %s", s.before.Epoch, s.before.Primary, st.Epoch, st.Primary)
	}
	incidents, err := s.Incidents(s.ctx, s.last)
	if err != nil {
		s.Error(err)
	}
	for _, i := range incidents {
		s.Errorf("nothing was to happen, but %s", Tell(i))
	}
}

// sampled waits until the sampler has looked n times at every database host.
func (s *scenario) sampled(n int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, fmt.Sprintf("%d looks at every host", n), func(context.Context) (bool, string) {
		looks := Looks(s.sampler.Samples())
		for _, host := range s.DataHosts() {
			if looks[host] < n {
				return false, fmt.Sprintf("looks so far: %v", looks)
			}
		}
		return true, ""
	})
	if err != nil {
		s.Fatal(err)
	}
}

// noErrors demands that no client met an error since from.
func (s *scenario) noErrors(from time.Duration) {
	s.Helper()
	if n, example := s.load.Errors(from, s.load.Now()); n > 0 {
		s.Errorf("clients met %d errors, one is %s", n, example)
	}
}

// Tell prints what is needed to understand a failure: what the nodes think, what the
// history says, and the ends of the daemons' logs.
func (c *Cluster) Tell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, h := range c.Facts.Hosts {
		if h.API == "" {
			continue
		}
		client, err := api.NewClient([]string{h.API}, api.ClientOptions{ReadTimeout: time.Second, DialContext: c.dialer(h.Name)})
		if err != nil {
			t.Error(err)
			continue
		}
		if st, err := client.Status(ctx); err != nil {
			t.Logf("%s does not say what it thinks: %v", h.Name, err)
		} else {
			t.Logf("%s", Describe(st))
		}
		client.Close()
	}
	if incidents, err := c.Incidents(ctx, 0); err != nil {
		t.Logf("no history: %v", err)
	} else {
		for _, i := range incidents {
			t.Log(Tell(i))
			for _, e := range i.Timeline {
				t.Logf("  %8.1f ms %s %s", e.MS, e.Node, e.Text)
			}
		}
	}
	for _, h := range c.Facts.Hosts {
		if h.Log != "" {
			t.Logf("end of the log of %s:\n%s", h.Name, tail(h.Log, 40))
		}
		if h.Socket != "" {
			t.Logf("end of the server's log of %s:\n%s", h.Name, tail(filepath.Join(filepath.Dir(h.Socket), "mysqld.log"), 20))
		}
	}
}

func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
