//go:build integration

package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// costRound is how long one cluster is measured at a time.
const costRound = 5 * time.Second

// costWarm is how long they write before that.
const costWarm = time.Second

// costLoad is clients that write as fast as they are answered, or, every so often, the rows that are due by the clock.
type costLoad struct {
	clients int
	every   time.Duration
}

// costLoads: those of the other benchmarks, 200 rows a second; one client that leaves the processors time for everything else; and eight that take all of
// it: where three hosts share two of them, what hbd takes is taken from the clients' own commits.
var costLoads = []costLoad{{4, benchLoad.Every}, {1, 0}, {8, 0}}

func (l costLoad) String() string {
	if l.every == 0 {
		return fmt.Sprintf("%d clients as fast as they can", l.clients)
	}
	return fmt.Sprintf("%d clients, a row every %v each", l.clients, l.every)
}

func (l costLoad) load() Load {
	return Load{Writers: l.clients, Every: l.every, Pause: time.Nanosecond, Blind: true}
}

// TestBenchCost measures what hbd costs in normal service: the same clients write to three servers with hbd and to three with the same options
// and semi-synchronous replication set up by hand, in turns. While one cluster is measured every process of the other is stopped.
func TestBenchCost(t *testing.T) {
	rounds := benchRuns(t, 12)
	with := newGroup(t, sandbox.Options{Name: "cost-hbd"})
	without := newGroup(t, sandbox.Options{Name: "cost-bare", Bare: true})
	a, b := with.ensure(t), without.ensure(t)
	defer keepLogs(t, with, "cost")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	replicateByHand(ctx, t, b)
	for _, load := range costLoads {
		compareRates(ctx, t, a, b, load, rounds)
	}
}

// compareRates prints what such clients get written on either cluster, and how long they wait for it.
func compareRates(ctx context.Context, t *testing.T, a, b *Cluster, clients costLoad, rounds int) {
	t.Helper()
	load := clients.load()
	var ratios, rateWith, rateWithout, waitWith, waitWithout, share []float64
	for n := range rounds {
		// Who comes first alternates: what drifts favours nobody.
		var x, y rate
		if n%2 == 0 {
			x, y = writeRate(ctx, t, a, b, load), writeRate(ctx, t, b, a, load)
		} else {
			y, x = writeRate(ctx, t, b, a, load), writeRate(ctx, t, a, b, load)
		}
		ratios, rateWith, rateWithout = append(ratios, x.writes/y.writes), append(rateWith, x.writes), append(rateWithout, y.writes)
		waitWith, waitWithout, share = append(waitWith, x.wait), append(waitWithout, y.wait), append(share, x.hbd)
		t.Logf("%v, round %d: with hbd %v; without %v; ratio %.3f", clients, n+1, x, y, x.writes/y.writes)
	}
	fmt.Printf("\n%s, %v: writes/s with hbd %s, bare semi-synchronous replication %s, ratio of a round %s, ms for a write %s and %s, %% of a core that one hbd took %s\n",
		server(), clients, spread(rateWith, "%.0f"), spread(rateWithout, "%.0f"), spread(ratios, "%.3f"), spread(waitWith, "%.2f"), spread(waitWithout, "%.2f"), spread(share, "%.1f"))
}

// spread is the median of values, and between which they lie.
func spread(values []float64, format string) string {
	v := slices.Sorted(slices.Values(values))
	middle := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return fmt.Sprintf("median "+format+" ("+format+" to "+format+")", middle, v[0], v[len(v)-1])
}

// rate is what one cluster did in a round.
type rate struct {
	writes float64 // acknowledged in a second
	wait   float64 // milliseconds until a write was acknowledged, median
	hbd    float64 // per cent of a core that the hbd of one host took
	mysqld float64 // microseconds that all servers together took for one write
}

func (r rate) String() string {
	return fmt.Sprintf("%.0f writes/s, each %.2f ms (mysqld %.0f us of the processors for each, hbd %.1f %% of a core on each host)", r.writes, r.wait, r.mysqld, r.hbd)
}

// awaitService waits for a cluster to serve; one without hbd always does.
func awaitService(ctx context.Context, t *testing.T, c *Cluster) {
	t.Helper()
	if c.api == nil || len(c.Facts.Hosts) == 0 || c.Facts.Hosts[0].API == "" {
		return
	}
	if _, err := c.AwaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
}

// writeRate lets clients write to one cluster while the other stands still, and counts what is acknowledged in a second.
func writeRate(ctx context.Context, t *testing.T, c, still *Cluster, load Load) rate {
	t.Helper()
	for _, host := range still.DataHosts() {
		if err := still.Fault(ctx, "freeze", host); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, host := range still.DataHosts() {
			if err := still.Fault(ctx, "thaw", host); err != nil {
				t.Fatal(err)
			}
		}
		// It stood still, and its lease ran out. Who stands still again while it fences itself has let the deadline of that pass, and kills its server.
		awaitService(ctx, t, still)
	}()
	awaitService(ctx, t, c)
	w, err := c.StartWorkload(ctx, load)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := Await(ctx, "the clients to be warm", func(context.Context) (bool, string) { return w.AckedSince(0) > 25*load.Writers, "not yet" }); err != nil {
		t.Fatal(err)
	}
	pause(ctx, costWarm)
	from := w.Now()
	hbd, mysqld := cpuTaken(t, c)
	pause(ctx, costRound)
	hbdNow, mysqldNow := cpuTaken(t, c)
	n, took := w.AckedSince(from), w.Now()-from
	if n == 0 {
		t.Fatalf("nothing was acknowledged in %v", took)
	}
	return rate{
		writes: float64(n) / took.Seconds(),
		wait:   float64(w.WaitSince(from).Microseconds()) / 1000,
		hbd:    100 * (hbdNow - hbd).Seconds() / took.Seconds() / float64(len(c.DataHosts())),
		mysqld: float64((mysqldNow - mysqld).Microseconds()) / float64(n),
	}
}

// replicateByHand makes db1 of a bare cluster a semi-synchronous source of the others and gives it the address.
func replicateByHand(ctx context.Context, t *testing.T, c *Cluster) {
	t.Helper()
	s := &scenario{T: t, Cluster: c, ctx: ctx}
	source, _ := c.Host("db1")
	user, password := c.ReplicationAccount()
	w := wordsOf(c.Flavor())
	change := fmt.Sprintf("%s%s='%s', %s=%d, %s='%s', %s='%s'", w.change, w.host, source.Address, w.port, source.MySQLPort,
		strings.Replace(w.host, "HOST", "USER", 1), user, w.password, password)
	if c.Flavor() == gtid.MariaDB {
		change += ", MASTER_USE_GTID=slave_pos"
	} else {
		change += ", SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"
	}
	for _, host := range s.others("db1") {
		s.asManager(host, "SET GLOBAL "+w.replicaSync+"=1", change, "START "+w.replica)
	}
	s.asManager("db1", "SET GLOBAL "+w.syncPrefix+"enabled=1", "SET GLOBAL read_only=0")
	s.byHand("db1", "ip addr add "+c.Facts.VIP+"/32 dev eth0")
	name := "Rpl_semi_sync_source_clients"
	if c.Flavor() == gtid.MariaDB {
		name = "Rpl_semi_sync_master_clients"
	}
	err := Await(ctx, "two semi-synchronous replicas", func(ctx context.Context) (bool, string) {
		var n, value string
		err := c.servers["db1"].QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&n, &value)
		return value == "2", fmt.Sprint(value, err)
	})
	if err != nil {
		t.Fatal(err)
	}
}
