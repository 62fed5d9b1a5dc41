//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
)

// Verify is the check after a scenario: the workload and the sampler have been
// stopped, all hosts are up. It returns everything that is wrong, joined.
func (c *Cluster) Verify(ctx context.Context, w *Workload, s *Sampler) error {
	st, err := c.AwaitHealthy(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		c.checkWritable(ctx, st.Primary),
		c.checkRows(ctx, st.Primary, w),
		c.checkTablesEqual(ctx),
		checkObserved(c.DataHosts(), w, s),
	)
}

// checkWritable asks every server itself: the primary alone takes writes.
func (c *Cluster) checkWritable(ctx context.Context, primary string) error {
	var errs []error
	for host, db := range c.servers {
		var readOnly string
		if err := db.QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&readOnly); err != nil {
			errs = append(errs, fmt.Errorf("asking %s whether it takes writes: %w", host, err))
		} else if isOn(readOnly) == (host == primary) {
			errs = append(errs, fmt.Errorf("read_only is %s on %s, and the primary is %s", readOnly, host, primary))
		}
	}
	return errors.Join(errs...)
}

// position is what a server has executed, as it says itself.
func (c *Cluster) position(ctx context.Context, host string) (gtid.Set, error) {
	query := "SELECT @@global.gtid_executed"
	if c.Flavor() == gtid.MariaDB {
		query = "SELECT @@global.gtid_binlog_pos"
	}
	var text string
	if err := c.servers[host].QueryRowContext(ctx, query).Scan(&text); err != nil {
		return gtid.Set{}, fmt.Errorf("asking %s for its position: %w", host, err)
	}
	return gtid.Parse(c.Flavor(), text)
}

// awaitCaughtUp waits until every server is exactly where the primary is. A server
// that is ahead has something of its own: errant.
func (c *Cluster) awaitCaughtUp(ctx context.Context, primary string) error {
	return Await(ctx, "every server to be where the primary is", func(ctx context.Context) (bool, string) {
		at, err := c.position(ctx, primary)
		if err != nil {
			return false, err.Error()
		}
		for _, host := range c.DataHosts() {
			other, err := c.position(ctx, host)
			if err != nil {
				return false, err.Error()
			}
			if !at.Equal(other) {
				return false, fmt.Sprintf("%s at %s, %s at %s (%s)", primary, at, host, other, gtid.Compare(at, other))
			}
		}
		return true, ""
	})
}

// checkRows demands every acknowledged or read row on every server, and none that
// nobody sent.
func (c *Cluster) checkRows(ctx context.Context, primary string, w *Workload) error {
	if err := c.awaitCaughtUp(ctx, primary); err != nil {
		return err
	}
	var errs []error
	for host := range c.servers {
		present, err := c.rowsOn(ctx, host, w.run)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if lost := w.Lost(present); len(lost) > 0 {
			errs = append(errs, fmt.Errorf("G2: %d acknowledged or read rows are lost on %s, first %v", len(lost), host, lost[0]))
		}
		if invented := w.Invented(present); len(invented) > 0 {
			errs = append(errs, fmt.Errorf("%d rows on %s were never sent, one is %v", len(invented), host, invented[0]))
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) rowsOn(ctx context.Context, host string, run int64) (map[Key]bool, error) {
	rows, err := c.servers[host].QueryContext(ctx, "SELECT writer, seq FROM "+table+" WHERE run = ?", run)
	if err != nil {
		return nil, fmt.Errorf("reading the rows on %s: %w", host, err)
	}
	defer rows.Close()
	present := map[Key]bool{}
	for rows.Next() {
		var k Key
		if err := rows.Scan(&k.Writer, &k.Seq); err != nil {
			return nil, fmt.Errorf("reading the rows on %s: %w", host, err)
		}
		present[k] = true
	}
	return present, rows.Err()
}

// checkTablesEqual compares whole tables, also what no ledger knows.
func (c *Cluster) checkTablesEqual(ctx context.Context) error {
	sums := map[string]string{}
	for host, db := range c.servers {
		var name, sum string
		if err := db.QueryRowContext(ctx, "CHECKSUM TABLE "+table+" EXTENDED").Scan(&name, &sum); err != nil {
			return fmt.Errorf("adding up the table on %s: %w", host, err)
		}
		sums[host] = sum
	}
	var first string
	for _, sum := range sums {
		if first != "" && sum != first {
			return fmt.Errorf("the tables differ: %v", sums)
		}
		first = sum
	}
	return nil
}

// checkObserved judges what clients and the sampler saw on the way (G1), and that
// they looked at all.
func checkObserved(hosts []string, w *Workload, s *Sampler) error {
	samples := append(s.Samples(), w.Samples()...)
	var errs []error
	for _, v := range TwoServing(samples, maxBlind) {
		errs = append(errs, fmt.Errorf("G1: %s", v))
	}
	for i, v := range w.Violations() {
		if i == 5 {
			errs = append(errs, fmt.Errorf("G1: ... and %d more reads", len(w.Violations())-i))
			break
		}
		errs = append(errs, fmt.Errorf("G1: %s", v))
	}
	looks := Looks(s.Samples())
	for _, host := range hosts {
		if looks[host] < 10 {
			errs = append(errs, fmt.Errorf("the sampler looked at %s only %d times: nothing is proven", host, looks[host]))
		}
	}
	if n := w.Counts(); n.Acked < 20 || n.Reads < 10 {
		errs = append(errs, fmt.Errorf("the workload did too little to prove anything: %+v", n))
	}
	return errors.Join(errs...)
}

// Incidents are the closed incidents numbered above after, oldest first.
func (c *Cluster) Incidents(ctx context.Context, after uint64) ([]api.Incident, error) {
	history, err := c.api.History(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for the history: %w", err)
	}
	var recent []api.Incident
	for _, i := range history.Incidents {
		if i.ID > after {
			recent = append(recent, i)
		}
	}
	slices.SortFunc(recent, func(a, b api.Incident) int { return int(a.ID) - int(b.ID) })
	return recent, nil
}

// causeOf lists, by kind of incident, words of which its cause must have one: what was
// seen that led to it.
var causeOf = map[string][]string{
	api.KindRestart:    {"mysqld"},
	api.KindFailover:   {"mysqld", "attempt", "could not serve", "asked for"},
	api.KindTakeover:   {"voters", "hbd", "was lost"},
	api.KindSwitchover: {"asked for"},
}

// explained says what an incident's record lacks to tell its story, nil if nothing.
func explained(i api.Incident) error {
	var missing []string
	if i.Cause == "" {
		missing = append(missing, "a cause")
	}
	if i.Actor == "" {
		missing = append(missing, "an actor")
	}
	if i.Started.IsZero() {
		missing = append(missing, "a beginning")
	}
	if len(i.Phases) == 0 {
		missing = append(missing, "phases")
	}
	if len(i.Timeline) == 0 {
		missing = append(missing, "a timeline")
	}
	if words := causeOf[i.Kind]; i.Outcome == api.OutcomeDone && len(words) > 0 &&
		!slices.ContainsFunc(words, func(w string) bool { return strings.Contains(i.Cause, w) }) {
		missing = append(missing, fmt.Sprintf("a cause that speaks of %v (it is %q)", words, i.Cause))
	}
	unplanned := i.Kind == api.KindFailover || i.Kind == api.KindTakeover
	if i.Outcome == api.OutcomeDone && unplanned &&
		!slices.ContainsFunc(i.Timeline, func(e api.Event) bool { return strings.Contains(e.Text, "fence evidence (") }) {
		missing = append(missing, "the evidence of the fence")
	}
	if len(missing) > 0 {
		return fmt.Errorf("incident %d (%s) lacks %s", i.ID, i.Kind, strings.Join(missing, ", "))
	}
	return nil
}

// Tell is an incident in one line.
func Tell(i api.Incident) string {
	s := fmt.Sprintf("incident %d: %s of %s to %q, epoch %d, %s, by %s because %s", i.ID, i.Kind, i.From, i.To, i.Epoch, i.Outcome, i.Actor, i.Cause)
	for _, p := range i.Phases {
		s += fmt.Sprintf(", %s %.0f ms", p.Name, p.MS)
	}
	return s
}
