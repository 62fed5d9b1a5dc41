package sandbox

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

// How the writers of a Load behave: as an application with short timeouts that gives up a connection at any error.
const (
	// loadConnect bounds a connect. Longer than a busy machine needs, shorter than the second after which a kernel
	// sends a lost SYN again.
	loadConnect = 100 * time.Millisecond
	// loadAnswer bounds a statement: how long a writer hangs on a host that vanished without a word. Each writer has a part
	// of loadConnect more than the one before: in step, they would all meet a new holder up to loadConnect late.
	loadAnswer = 250 * time.Millisecond
	// loadPause is between two rows of one writer. A few writers then stay below what a replica applies one after another
	// on a small machine: the lag of replicas is not what is measured.
	loadPause = 20 * time.Millisecond
)

// loadTable holds the rows of a Load, in the application's database.
const loadTable = "demo_ledger"

const createLoadTable = "CREATE TABLE IF NOT EXISTS " + loadTable +
	" (writer INT NOT NULL, seq INT NOT NULL, PRIMARY KEY (writer, seq)) ENGINE=InnoDB"

// Load is a few clients on the client host that insert row after row and remember every acknowledgement, over a new
// connection after any error. It is safe for concurrent use.
type Load struct {
	sb     *Sandbox
	config *mysql.Config
	outlet *Outlet
	ledger *ledger
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// StartLoad creates the table and lets writers clients loose on dsn (Status.DSN to go through the VIP) until Stop. It
// returns when the first row is acknowledged; the error says what was last seen if ctx ends before.
func (s *Sandbox) StartLoad(ctx context.Context, dsn string, writers int) (*Load, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("reading the DSN of the load: %w", err)
	}
	cfg.ReadTimeout, cfg.WriteTimeout = loadAnswer, loadAnswer
	cfg.Logger = &mysql.NopLogger{} // broken connections are what this is about, and are counted
	outlet := s.Outlet("client")
	cfg.DialFunc = func(ctx context.Context, _, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, loadConnect)
		defer cancel()
		return outlet.Dial(ctx, addr)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Load{sb: s, config: cfg, outlet: outlet, ledger: newLedger(), stop: stop}
	if err := retry(ctx, "the table for the load is there", l.createTable); err != nil {
		stop()
		outlet.Close()
		return nil, err
	}
	for i := 1; i <= writers; i++ {
		own := cfg.Clone()
		own.ReadTimeout += loadConnect * time.Duration(i-1) / time.Duration(writers)
		l.done.Go(func() { l.write(work, own, i) })
	}
	if err := l.AwaitAck(ctx, 0); err != nil {
		l.Stop()
		return nil, err
	}
	return l, nil
}

// Stop ends the clients; each finishes the statement in hand. It may be called twice.
func (l *Load) Stop() {
	l.stop()
	l.done.Wait()
	l.outlet.Close()
}

// Now is the instant on the clock of this Load, monotonic and 0 at its beginning.
func (l *Load) Now() time.Duration { return l.ledger.now() }

// Counts adds up the rows so far.
func (l *Load) Counts() LoadCounts { return l.ledger.total() }

// Acknowledged counts the rows acknowledged in [from, to).
func (l *Load) Acknowledged(from, to time.Duration) int { return l.ledger.between(from, to) }

// Gap is the write gap of what happened between from and to: the longest silence between two acknowledgements, from the
// last one before from to the first one after to.
func (l *Load) Gap(from, to time.Duration) time.Duration { return l.ledger.gap(from, to) }

// AwaitAck returns when a row has been acknowledged after the instant.
func (l *Load) AwaitAck(ctx context.Context, after time.Duration) error {
	for {
		last, fresh := l.ledger.last()
		if last > after {
			return nil
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return fmt.Errorf("waiting for an acknowledged write: %w; the last one was %v before", context.Cause(ctx), (l.Now() - last).Round(time.Millisecond))
		}
	}
}

func (l *Load) createTable(ctx context.Context) error {
	conn, err := connect(ctx, l.config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.ExecContext(ctx, createLoadTable, nil)
	return err
}

// session is one connection of the driver itself. database/sql would send a statement again over another one, and
// what became of the first would stay hidden.
type session interface {
	driver.Conn
	driver.ExecerContext
}

func connect(ctx context.Context, cfg *mysql.Config) (session, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a connector: %w", err)
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	s, ok := conn.(session)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's connection %T runs no statements", conn), conn.Close())
	}
	return s, nil
}

// write inserts row after row until ctx ends. A number is used once, whatever became of its row.
func (l *Load) write(ctx context.Context, cfg *mysql.Config, writer int) {
	var conn session
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	tick := time.NewTicker(loadPause)
	defer tick.Stop()
	for seq := 1; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn == nil {
			fresh, err := connect(ctx, cfg)
			if err != nil {
				continue // nobody at the address: the next tick tries again
			}
			conn = fresh
		}
		// Not ctx: a statement in hand is finished, or its row would be unknown at every stop.
		_, err := conn.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf("INSERT INTO %s VALUES (%d, %d)", loadTable, writer, seq), nil)
		if err == nil {
			l.ledger.acknowledge(rowKey{writer, seq})
		} else {
			l.ledger.note(ruledOut(err))
			conn.Close()
			conn = nil
		}
		seq++
	}
}

// ruledOut tells whether an INSERT's error means that its row is not there. Anything that ends a statement which may
// have been waiting for its acknowledgement does not: the row may be committed.
func ruledOut(err error) bool {
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		switch answer.Number {
		case 1053, 1180, 1317, 1927, 1969, 3024: // shutdown, error in commit, interrupted, killed, two kinds of timeout
			return false
		}
		return true
	}
	return errors.Is(err, driver.ErrBadConn) // the driver's word for "nothing was sent"
}
