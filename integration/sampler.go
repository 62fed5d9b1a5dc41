//go:build integration

package integration

import (
	"context"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

// maxBlind is the longest time between two looks over which a host is taken to have
// gone on serving. Giving the role away and getting it back takes two operations.
const maxBlind = 60 * time.Millisecond

// Sampler looks, from inside every host, whether that host would serve a writing client
// of the virtual address: a connection to the address that ends at the host's own
// server, which is not read-only. The kernel gate and the address decide the first,
// so a frozen daemon is seen as it really is.
type Sampler struct {
	ledger *Ledger // for the clock, so that its samples and the clients' compare
	every  time.Duration
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	samples []Sample
}

// StartSampler begins to look, every so often at each host, until Stop.
func (c *Cluster) StartSampler(ctx context.Context, ledger *Ledger, every time.Duration) *Sampler {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	setDefault(&every, 15*time.Millisecond)
	s := &Sampler{ledger: ledger, every: every, stop: stop}
	for _, host := range c.DataHosts() {
		// Short bounds: a host that does not hold the address would wait for the network.
		cfg := c.viaAddress(host, 100*time.Millisecond, 200*time.Millisecond)
		s.done.Go(func() { s.watch(ctx, host, c.ids, cfg) })
	}
	return s
}

// Stop ends the looking.
func (s *Sampler) Stop() {
	s.stop()
	s.done.Wait()
}

// Samples are the looks so far.
func (s *Sampler) Samples() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Sample(nil), s.samples...)
}

func (s *Sampler) watch(ctx context.Context, host string, ids map[uint32]string, cfg *mysql.Config) {
	var conn *connection
	drop := func() {
		if conn != nil {
			conn.Close()
			conn = nil
		}
	}
	defer drop()
	for ; ctx.Err() == nil; pause(ctx, s.every) {
		from := s.ledger.Now()
		if conn == nil {
			conn, _ = connect(ctx, cfg) // not to be reached is one of the answers
		}
		serving := false
		if conn != nil {
			var readOnly string
			err := conn.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly)
			serving = err == nil && ids[conn.server] == host && !isOn(readOnly)
			if err != nil || ids[conn.server] != host {
				// A connection that ended elsewhere would never notice this host taking over.
				drop()
			}
		}
		if ctx.Err() != nil {
			return // the look was cut short by Stop
		}
		s.mu.Lock()
		s.samples = append(s.samples, Sample{Host: host, From: from, To: s.ledger.Now(), Serving: serving})
		s.mu.Unlock()
	}
}

// isOn reads a boolean server variable; MariaDB 12 gives read_only a word.
func isOn(v string) bool { return v != "0" && v != "OFF" }
