//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// measured is one line of the benchmark's table.
type measured struct {
	Case   string  `json:"case"`
	Timing string  `json:"timing"`
	Runs   int     `json:"runs"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

// benchCases are what is broken and how it is mended again.
var benchCases = []struct {
	name  string
	fault func(*scenario) // and wait for the end
	mend  func(*scenario)
}{
	{"switchover", func(s *scenario) {
		if answer := s.ctl("promote", s.others(s.primary())[0]); answer.Result.Outcome != api.OutcomeDone {
			s.Errorf("hbctl promote: exit %d, %+v, %s", answer.Exit, answer.Result, answer.Stderr)
		}
	}, nil},
	{"mysqld crash, restart in place", func(s *scenario) {
		s.fault("kill-mysqld", s.primary())
		s.awaitIncident(api.KindRestart)
	}, nil},
	{"host killed", func(s *scenario) {
		s.fault("kill-host", s.primary())
		s.awaitNewPrimary(s.primary())
	}, func(s *scenario) { s.fault("start-host", s.primary()) }},
	{"link cut", func(s *scenario) {
		s.fault("cut", s.primary())
		s.awaitNewPrimary(s.primary())
	}, func(s *scenario) { s.fault("heal", s.primary()) }},
}

// TestBenchGaps measures the write gap that clients see, ten runs for each case and
// profile; HIGHBASE_BENCH=1 lets it run, HIGHBASE_BENCH_RUNS changes the number, HIGHBASE_BENCH_CASE
// picks one case. Each
// run is checked like a scenario: a number from a run that lost a write is no number.
func TestBenchGaps(t *testing.T) {
	if os.Getenv("HIGHBASE_BENCH") == "" {
		t.Skip("skipping, a benchmark: set HIGHBASE_BENCH=1")
	}
	runs := 10
	if v := os.Getenv("HIGHBASE_BENCH_RUNS"); v != "" {
		var err error
		if runs, err = strconv.Atoi(v); err != nil || runs < 1 {
			t.Fatalf("HIGHBASE_BENCH_RUNS = %q: want a number above 0", v)
		}
	}
	var table []measured
	for _, timing := range []string{"lan", "fast"} {
		g := newGroup(t, sandbox.Options{Timing: timing, Settings: map[string]string{"restart_attempts": "1000"}})
		// Clients that give up on a silent address soon: else it is their patience that is measured.
		g.load = Load{Connect: 100 * time.Millisecond, Answer: 300 * time.Millisecond}
		for _, c := range benchCases {
			if only := os.Getenv("HIGHBASE_BENCH_CASE"); only != "" && only != c.name {
				continue
			}
			var gaps []time.Duration
			for n := range runs {
				g.run(t, fmt.Sprintf("%s/%s/%d", timing, c.name, n+1), func(s *scenario) {
					s.at = s.load.Now()
					c.fault(s)
					s.writesGoOn()
					gap, ok := s.load.Gap(s.at, s.load.Now())
					if !ok {
						s.Fatal("writes did not come back")
					}
					gaps = append(gaps, gap)
					if c.mend != nil {
						c.mend(s)
					}
				})
			}
			if len(gaps) > 0 {
				table = append(table, summarise(c.name, timing, gaps))
			}
		}
		g.discard(t)
	}
	report(t, table)
}

func summarise(name, timing string, gaps []time.Duration) measured {
	slices.Sort(gaps)
	at := func(share float64) float64 {
		// Nearest rank: with ten runs the 99th percentile is the maximum, and says so.
		i := min(len(gaps)-1, int(share*float64(len(gaps))))
		return float64(gaps[i].Microseconds()) / 1000
	}
	return measured{Case: name, Timing: timing, Runs: len(gaps), P50: at(0.5), P99: at(0.99), Max: at(1)}
}

func report(t *testing.T, table []measured) {
	fmt.Printf("\n%-32s %-6s %5s %10s %10s %10s\n", "write gap, ms", "timing", "runs", "p50", "p99", "max")
	for _, m := range table {
		fmt.Printf("%-32s %-6s %5d %10.1f %10.1f %10.1f\n", m.Case, m.Timing, m.Runs, m.P50, m.P99, m.Max)
	}
	if path := os.Getenv("HIGHBASE_BENCH_JSON"); path != "" {
		data, err := json.MarshalIndent(table, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
