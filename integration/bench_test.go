//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// measured is one line of the benchmark's table.
type measured struct {
	Server string  `json:"server"`
	Case   string  `json:"case"`
	Timing string  `json:"timing"`
	Runs   int     `json:"runs"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

// benchCase is what is broken and how it is mended again.
type benchCase struct {
	name     string
	failover bool            // the cluster does not restart a server in place
	fault    func(*scenario) // and wait for the end
	mend     func(*scenario)
	returns  bool // how long the old primary takes, once mended, to follow again is told, too
}

var benchCases = []benchCase{
	{name: "switchover", fault: func(s *scenario) {
		if answer := s.ctl("promote", s.others(s.primary())[0]); answer.Result.Outcome != api.OutcomeDone {
			s.Errorf("hbctl promote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
	}},
	{name: "mysqld crash, restart in place", fault: func(s *scenario) {
		s.fault("kill-mysqld", s.primary())
		s.awaitIncident(api.KindRestart)
	}},
	{name: "host killed", returns: true, fault: func(s *scenario) {
		s.fault("kill-host", s.primary())
		s.awaitNewPrimary(s.primary())
	}, mend: func(s *scenario) { s.fault("start-host", s.primary()) }},
	{name: "link cut", returns: true, fault: func(s *scenario) {
		s.fault("cut", s.primary())
		s.awaitNewPrimary(s.primary())
	}, mend: func(s *scenario) { s.fault("heal", s.primary()) }},
	{name: "mysqld crash, failover", failover: true, returns: true, fault: func(s *scenario) {
		s.fault("kill-mysqld", s.primary())
		s.awaitNewPrimary(s.primary())
	}, mend: func(*scenario) {}},
}

// benchLoad is 4 clients that write some 200 rows a second together. They give up connecting to a silent address soon, but wait for an answer as
// clients do: whoever takes over frees them. They are looked at seldom: else what looking costs would be measured, on a machine that all hosts share.
var benchLoad = Load{Every: 20 * time.Millisecond, Pause: 18 * time.Millisecond, Retry: 4 * time.Millisecond, Connect: 100 * time.Millisecond, Answer: 2 * time.Second, Look: 50 * time.Millisecond}

// benchRuns is how often something is measured unless HIGHBASE_BENCH_RUNS says otherwise; it skips the test if no
// benchmark is asked for.
func benchRuns(t *testing.T, runs int) int {
	t.Helper()
	if os.Getenv("HIGHBASE_BENCH") == "" {
		t.Skip("skipping, a benchmark: set HIGHBASE_BENCH=1")
	}
	if v := os.Getenv("HIGHBASE_BENCH_RUNS"); v != "" {
		var err error
		if runs, err = strconv.Atoi(v); err != nil || runs < 1 {
			t.Fatalf("HIGHBASE_BENCH_RUNS = %q: want a number above 0", v)
		}
	}
	return runs
}

// TestBenchGaps measures the write gap that clients see and how soon the old primary follows again, twenty runs for each case and profile.
// HIGHBASE_BENCH=1 lets it run, HIGHBASE_BENCH_RUNS changes the number, HIGHBASE_BENCH_CASE and HIGHBASE_BENCH_TIMING pick one case and one
// profile, HIGHBASE_SERVER the server. Each run is checked like a scenario: a number from a run that lost a write is no number.
func TestBenchGaps(t *testing.T) {
	b := &gapBench{runs: benchRuns(t, 20)}
	began := time.Now()
	for _, timing := range []string{"lan", "fast"} {
		if only := os.Getenv("HIGHBASE_BENCH_TIMING"); only != "" && only != timing {
			continue
		}
		for _, failover := range []bool{false, true} {
			o := sandbox.Options{Timing: timing, Settings: map[string]string{"restart_attempts": "1000"}}
			if failover {
				o.OnServiceDown = "failover"
			}
			g := newGroup(t, o)
			g.load = benchLoad
			for _, c := range benchCases {
				if only := os.Getenv("HIGHBASE_BENCH_CASE"); c.failover == failover && (only == "" || only == c.name) {
					b.measure(t, g, timing, c)
				}
			}
			keepLogs(t, g, timing)
			g.discard(t)
		}
	}
	report(t, b.gaps, b.returns)
	fmt.Printf("total %v\n", time.Since(began).Round(time.Second))
}

type gapBench struct {
	runs          int
	gaps, returns []measured
}

func (b *gapBench) measure(t *testing.T, g *group, timing string, c benchCase) {
	var gaps, returns []time.Duration
	for n := range b.runs {
		g.run(t, fmt.Sprintf("%s/%s/%d", timing, c.name, n+1), func(s *scenario) {
			s.at = s.load.Now()
			c.fault(s)
			s.writesGoOn()
			gap, ok := s.load.Gap(s.at, s.load.Now())
			if !ok {
				s.Fatal("writes did not come back")
			}
			gaps = append(gaps, gap)
			if c.mend == nil {
				return
			}
			from := s.load.Now()
			c.mend(s)
			s.await(s.primary()+" to follow again", func(st api.Status) bool { return nodeWell(st, nodeIn(st, s.primary())) })
			returns = append(returns, s.load.Now()-from)
		})
	}
	if len(gaps) > 0 {
		b.gaps = append(b.gaps, summarise(c.name, timing, gaps))
	}
	if len(returns) > 0 && c.returns {
		b.returns = append(b.returns, summarise(c.name, timing, returns))
	}
}

func summarise(name, timing string, took []time.Duration) measured {
	slices.Sort(took)
	at := func(share float64) float64 {
		// Nearest rank: with twenty runs the 99th percentile is the maximum, and says so.
		i := min(len(took)-1, int(share*float64(len(took))))
		return float64(took[i].Microseconds()) / 1000
	}
	return measured{Server: server(), Case: name, Timing: timing, Runs: len(took), P50: at(0.5), P99: at(0.99), Max: at(1)}
}

func report(t *testing.T, gaps, returns []measured) {
	printTable("write gap, ms", gaps)
	printTable("old primary follows again, ms", returns)
	if path := os.Getenv("HIGHBASE_BENCH_JSON"); path != "" {
		data, err := json.MarshalIndent(map[string][]measured{"write_gap": gaps, "follows_again": returns}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func printTable(title string, table []measured) {
	if len(table) == 0 {
		return
	}
	fmt.Printf("\n%-8s %-32s %-6s %5s %10s %10s %10s\n", "server", title, "timing", "runs", "p50", "p99", "max")
	for _, m := range table {
		fmt.Printf("%-8s %-32s %-6s %5d %10.1f %10.1f %10.1f\n", m.Server, m.Case, m.Timing, m.Runs, m.P50, m.P99, m.Max)
	}
}

// keepLogs copies hbd's logs to HIGHBASE_BENCH_LOGS, if set: what a run spent its time on stands there.
func keepLogs(t *testing.T, g *group, timing string) {
	dir := os.Getenv("HIGHBASE_BENCH_LOGS")
	if dir == "" || g.cluster == nil {
		return
	}
	for _, host := range g.cluster.DataHosts() {
		found, err := filepath.Glob(filepath.Join(g.options.Dir, "*", host, "hbd.log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, timing+"-"+host+".log"), text, 0o644)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}
