//go:build integration

package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/sandbox"
)

// table is where the workload writes. Each workload has a run number of its own, so
// scenarios can share a cluster.
const table = "ledger"

const createTable = `CREATE TABLE IF NOT EXISTS ` + table + ` (
	run BIGINT NOT NULL, writer INT NOT NULL, seq INT NOT NULL, server INT UNSIGNED NOT NULL,
	PRIMARY KEY (run, writer, seq)) ENGINE=InnoDB`

// Load says how the workload behaves. Zero values are replaced by defaults.
type Load struct {
	Writers int           // connections that write; 4
	Pause   time.Duration // between two rows of one writer, and twice that between two reads; 3 ms, so that the machine is not the limit
	Every   time.Duration // a writer's instead of Pause: from one row to its next, by the clock; the writers take turns in it
	Retry   time.Duration // before a client that was reset tries again; 2 ms, as a pool does: what is measured is the service, not a sleep
	Connect time.Duration // bound of a connect; 200 ms, as a pool with a short timeout has
	Answer  time.Duration // bound of a statement; 2 s
	From    string        // host that the clients run on; the client host
	At      string        // what they connect to, HOST:PORT; the virtual address
	Blind   bool          // nobody reads
	Look    time.Duration // between two looks of the sampler at a host; 15 ms
}

// Workload is clients at work: writers and one reader on the client host, all through
// the virtual address unless Load says otherwise.
type Workload struct {
	*Ledger
	run    int64
	config *mysql.Config
	hosts  map[uint32]string
	load   Load
	outlet *sandbox.Outlet // of clients on the client host
	stop   context.CancelFunc
	done   sync.WaitGroup

	silences atomic.Int64
}

// patientConnect is as long as a client can wait for its first packet to be answered before its kernel sends it again, after a second (Linux).
const patientConnect = 900 * time.Millisecond

// Silences counts the connects that were neither accepted nor refused in time: nobody had the address. A client's kernel tries again only after a second, so that
// this is asked of clients that wait for patientConnect.
func (w *Workload) Silences() int { return int(w.silences.Load()) }

// StartWorkload creates the table and lets the clients loose until Stop.
func (c *Cluster) StartWorkload(ctx context.Context, load Load) (*Workload, error) {
	setDefault(&load.Writers, 4)
	setDefault(&load.Pause, 3*time.Millisecond)
	setDefault(&load.Retry, 2*time.Millisecond)
	setDefault(&load.Connect, 200*time.Millisecond)
	setDefault(&load.Answer, 2*time.Second)
	w := &Workload{Ledger: NewLedger(), run: time.Now().UnixNano(), hosts: c.ids, load: load}
	setDefault(&load.From, clientHost)
	w.config = c.viaAddress(load.From, load.Connect, load.Answer)
	if load.From == clientHost {
		w.outlet = c.Outlet(clientHost)
		w.config.DialFunc = func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, load.Connect)
			defer cancel()
			conn, err := w.outlet.Dial(ctx, addr)
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				w.silences.Add(1)
			}
			return conn, err
		}
	}
	if load.At != "" {
		w.config.Addr = load.At
	}
	err := Await(ctx, "the workload's table", func(ctx context.Context) (bool, string) {
		conn, err := connect(ctx, w.config)
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close()
		if _, err := conn.ExecContext(ctx, createTable); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	if err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	for i := 1; i <= load.Writers; i++ {
		w.done.Go(func() { w.write(work, i) })
	}
	if !load.Blind {
		w.done.Go(func() { w.read(work) })
	}
	return w, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Stop ends the clients; each finishes the statement in hand.
func (w *Workload) Stop() {
	w.stop()
	w.done.Wait()
	if w.outlet != nil {
		w.outlet.Close()
	}
}

// viaAddress is a driver configuration for connections to the virtual address that
// leave from inside a host.
func (c *Cluster) viaAddress(host string, connect, answer time.Duration) *mysql.Config {
	cfg := c.app.Clone()
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = connect, answer, answer
	cfg.InterpolateParams = true // one round trip for each statement
	cfg.Logger = &mysql.NopLogger{}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connect)
		defer cancel()
		return c.Dial(ctx, host, network, addr)
	}
	return cfg
}

// connection is one session that is never silently replaced by another: database/sql
// would retry, and a retried statement hides what became of the first.
type connection struct {
	*sql.Conn
	db     *sql.DB
	server uint32 // who answers; 0 while it was not asked
}

// connect opens a session and asks who answers.
func connect(ctx context.Context, cfg *mysql.Config) (*connection, error) {
	c, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.ask(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func open(ctx context.Context, cfg *mysql.Config) (*connection, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &connection{Conn: conn, db: db}, nil
}

// ask learns who answers.
func (c *connection) ask(ctx context.Context) error {
	if err := c.QueryRowContext(ctx, "SELECT @@global.server_id").Scan(&c.server); err != nil {
		return fmt.Errorf("asking who answers: %w", err)
	}
	return nil
}

// Close drops the session; nothing is left to learn from an error here.
func (c *connection) Close() {
	_ = c.Conn.Close()
	_ = c.db.Close()
}

// write inserts row after row until ctx ends, over a new connection after any error. Who answers is asked after a connection's first row: an application
// would not ask before it, and how soon its rows are taken again is what is measured.
func (w *Workload) write(ctx context.Context, writer int) {
	var conn *connection
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	turn := w.turns(writer)
	for seq := 1; ctx.Err() == nil; {
		if conn == nil {
			var err error
			if conn, err = open(ctx, w.config); err != nil {
				conn = nil
				pause(ctx, w.load.Retry)
				continue
			}
		}
		k := Key{writer, seq}
		w.Begin(k, w.hosts[conn.server])
		// Not ctx: a statement in hand is finished, or its row would be unknown at every stop.
		_, err := conn.ExecContext(context.WithoutCancel(ctx), "INSERT INTO "+table+" VALUES (?, ?, ?, @@global.server_id)", w.run, writer, seq)
		o, reason := judge(err)
		w.End(k, o, reason)
		seq++
		if err == nil && conn.server == 0 {
			if err = conn.ask(context.WithoutCancel(ctx)); err == nil {
				w.EndedAt(k, w.hosts[conn.server])
			}
		}
		if err != nil {
			conn.Close()
			conn = nil
			pause(ctx, w.load.Retry)
			continue
		}
		pause(ctx, turn())
	}
}

// turns tells how long a writer waits after a row. With Every, rows are due by the clock, as what many clients ask for is: a pause after each answer would
// end with all writers in step (they share commits) and nobody writing in between. Turns that were missed are not made up for.
func (w *Workload) turns(writer int) func() time.Duration {
	if w.load.Every == 0 {
		return func() time.Duration { return w.load.Pause }
	}
	first := time.Now().Add(w.load.Every * time.Duration(writer-1) / time.Duration(w.load.Writers))
	return func() time.Duration { return w.load.Every - time.Since(first)%w.load.Every }
}

// Error numbers of a server that gives up a statement which may have been committed:
// a killed waiter of a semi-synchronous commit, a shutdown, a lost connection.
var maybeCommitted = map[uint16]bool{1053: true, 1180: true, 1317: true, 1927: true, 3024: true, 1969: true}

// judge tells what an INSERT's error says about its row.
func judge(err error) (Outcome, string) {
	var answer *mysql.MySQLError
	switch {
	case err == nil:
		return Acked, ""
	case errors.As(err, &answer) && !maybeCommitted[answer.Number]:
		return Refused, err.Error()
	case errors.Is(err, driver.ErrBadConn): // the driver's word for "nothing was sent"
		return Refused, err.Error()
	default:
		return Unknown, err.Error()
	}
}

// readWindow is how many of a writer's latest rows each read asks for.
const readWindow = 200

// read asks for each writer's latest rows in turn and notes what it is shown.
func (w *Workload) read(ctx context.Context) {
	var conn *connection
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	highest := map[int]int{}
	for turn := 0; ctx.Err() == nil; turn++ {
		if conn == nil {
			var err error
			if conn, err = connect(ctx, w.config); err != nil {
				conn = nil
				pause(ctx, w.load.Pause)
				continue
			}
		}
		writer := turn%w.load.Writers + 1
		floor := max(0, highest[writer]-readWindow)
		sent := w.Now()
		seqs, err := w.rows(context.WithoutCancel(ctx), conn, writer, floor)
		if err != nil {
			conn.Close()
			conn = nil
			continue
		}
		w.Read(writer, floor, seqs, sent, w.hosts[conn.server])
		for _, s := range seqs {
			highest[writer] = max(highest[writer], s)
		}
		pause(ctx, 2*w.load.Pause)
	}
}

func (w *Workload) rows(ctx context.Context, conn *connection, writer, floor int) ([]int, error) {
	rows, err := conn.QueryContext(ctx, "SELECT seq FROM "+table+" WHERE run = ? AND writer = ? AND seq > ?", w.run, writer, floor)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var seqs []int
	for rows.Next() {
		var s int
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		seqs = append(seqs, s)
	}
	return seqs, rows.Err()
}

// pause is a client's think time; it ends early with ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
