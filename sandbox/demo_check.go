package sandbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"
)

// socketAnswer bounds a statement over a host's own socket.
const socketAnswer = 5 * time.Second

// Copy is what one server holds of a Load.
type Copy struct {
	Host string
	Rows int
	Lost []Acknowledged // acknowledged and not there
}

// Check reads what each host's server holds, over its own socket, once all of them hold the same rows. When they still
// differ as ctx ends, the copies as they are then come with an error that says so. Stop comes first.
func (l *Load) Check(ctx context.Context, hosts []string) ([]Copy, error) {
	held := map[string]map[rowKey]bool{}
	look := func(ctx context.Context) error {
		sums := map[string]string{}
		for _, host := range hosts {
			rows, sum, err := l.read(ctx, host)
			if err != nil {
				return fmt.Errorf("reading the rows of %s: %w", host, err)
			}
			held[host], sums[host] = rows, sum
		}
		for _, host := range hosts {
			if sums[host] != sums[hosts[0]] {
				return fmt.Errorf("%s holds %d rows, %s %d (checksums %s and %s)", hosts[0], len(held[hosts[0]]), host, len(held[host]), sums[hosts[0]], sums[host])
			}
		}
		return nil
	}
	err := retry(ctx, "all servers hold the same rows", look)
	var copies []Copy
	for _, host := range hosts {
		if rows, ok := held[host]; ok {
			copies = append(copies, Copy{Host: host, Rows: len(rows), Lost: l.ledger.missing(rows)})
		}
	}
	return copies, err
}

// Lost merges the losses of several copies: every row that at least one of them lacks, by the instant of its
// acknowledgement.
func Lost(copies []Copy) []Acknowledged {
	var all []Acknowledged
	seen := map[Acknowledged]bool{}
	for _, c := range copies {
		for _, a := range c.Lost {
			if !seen[a] {
				seen[a] = true
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, func(a, b Acknowledged) int { return cmp.Compare(a.At, b.At) })
	return all
}

// read gives a server's rows and the checksum of its table.
func (l *Load) read(ctx context.Context, host string) (map[rowKey]bool, string, error) {
	h, err := l.sb.plan.host(host)
	if err != nil {
		return nil, "", err
	}
	cfg := l.config.Clone()
	cfg.Net, cfg.Addr, cfg.DialFunc = "unix", l.sb.plan.socket(h.Name), nil
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = socketAnswer, socketAnswer, socketAnswer
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("making a connector: %w", err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	var table, sum string
	if err := db.QueryRowContext(ctx, "CHECKSUM TABLE "+loadTable+" EXTENDED").Scan(&table, &sum); err != nil {
		return nil, "", err
	}
	result, err := db.QueryContext(ctx, "SELECT writer, seq FROM "+loadTable)
	if err != nil {
		return nil, "", err
	}
	defer result.Close()
	rows := map[rowKey]bool{}
	for result.Next() {
		var k rowKey
		if err := result.Scan(&k.writer, &k.seq); err != nil {
			return nil, "", err
		}
		rows[k] = true
	}
	return rows, sum, result.Err()
}

// LogTail is the end of one log file.
type LogTail struct{ Path, Text string }

// LogTails reads the last n bytes at most of the logs of every hbd and every database server, and of the sandbox
// itself. Logs that are not there are left out.
func (s *Sandbox) LogTails(n int) ([]LogTail, error) {
	paths := []string{s.plan.runnerLog()}
	for _, h := range s.plan.Hosts {
		paths = append(paths, s.plan.hbdLog(h.Name), s.plan.serverLog(h.Name))
	}
	var tails []LogTail
	var errs []error
	for _, path := range paths {
		text, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			errs = append(errs, fmt.Errorf("reading a log: %w", err))
		case len(text) > 0:
			tails = append(tails, LogTail{Path: path, Text: tail(text, n)})
		}
	}
	return tails, errors.Join(errs...)
}
