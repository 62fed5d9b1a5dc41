//go:build integration

package integration

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/highbase/highbase/sandbox"
)

// stormTime is how long the storm blows; HIGHBASE_STORM overrides it (a Go duration).
const stormTime = 60 * time.Second

// leastStorm is the shortest that counts, several times what detection takes: a storm of
// no length would pass. HIGHBASE_DEVELOPER=1 allows less, to try the test itself.
const leastStorm = 15 * time.Second

// TestStorm: the machine has four times more to do than it can, and its disk as well.
// With the lan profile that is no reason to fail over. HIGHBASE_STORM_TIMING names another.
func TestStorm(t *testing.T) {
	d := stormTime
	if v := os.Getenv("HIGHBASE_STORM"); v != "" {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			t.Fatalf("HIGHBASE_STORM: %v", err)
		}
		if d < leastStorm && os.Getenv("HIGHBASE_DEVELOPER") == "" {
			t.Fatalf("HIGHBASE_STORM=%v proves nothing about false failovers: want at least %v (HIGHBASE_DEVELOPER=1 lets it pass)", d, leastStorm)
		}
	}
	g := newGroup(t, sandbox.Options{Timing: cmp.Or(os.Getenv("HIGHBASE_STORM_TIMING"), "lan")})
	g.limit = d + 3*time.Minute
	g.run(t, "CPU oversubscribed and fsync storms", func(s *scenario) {
		calm := s.storm()
		defer calm()
		end := s.load.Now() + d
		for s.load.Now() < end {
			s.writesGoOn()
		}
		calm()
		for _, h := range s.Facts.Hosts {
			if h.Name != clientHost {
				s.Logf("%s saw the Raft leader change %v times", h.Name, s.metric(h.Name, "highbase_raft_leader_changes_total"))
			}
		}
		s.nothingHappened()
	})
}

// storm starts four busy processes for each core and two that write and fsync in the
// sandbox's directory; the result ends them and may be called again. The processes
// live on the client host, so nothing outlives the sandbox.
func (s *scenario) storm() (calm func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	calm = func() {
		cancel()
		running.Wait()
	}
	for range 4 * runtime.NumCPU() {
		running.Go(func() {
			_, err := s.Exec(ctx, clientHost, []string{"sh", "-c", "while :; do :; done"}, strings.NewReader(""), io.Discard, io.Discard)
			if ctx.Err() == nil {
				s.Errorf("a busy process ended early: %v", err)
			}
		})
	}
	for i := range 2 {
		path := filepath.Join(s.Facts.Dir, fmt.Sprintf("storm%d", i))
		running.Go(func() {
			if err := fsyncStorm(ctx, path); err != nil {
				s.Errorf("the storm on the disk: %v", err)
			}
		})
	}
	return calm
}

func fsyncStorm(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	block := make([]byte, 256<<10)
	for n := int64(0); ctx.Err() == nil; n++ {
		if _, err := f.WriteAt(block, n%64*int64(len(block))); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}
