package mysqld

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	// controlConnections are opened beforehand and kept idle. A hung statement
	// takes one away until it returns: read_only, a drain, a barrier and the
	// readers of status may be under way at the same time.
	controlConnections = 6
	// statementTimeout bounds a statement whose caller gave no deadline.
	statementTimeout = 10 * time.Second
	// warmTimeout bounds one round of opening control connections.
	warmTimeout = 5 * time.Second
	// keepIdle is the session wait_timeout, in seconds: the longest the servers
	// take (one year), so that they never close a kept connection.
	keepIdle = "31536000"
)

// Config tells how to reach one server and as whom.
type Config struct {
	// Dialect is "mariadb" or "mysql".
	Dialect string
	// Socket is the server's unix socket. Host is used when it is empty;
	// without a socket Watch and Incarnation cannot see the process.
	Socket string
	// Host and Port are the server's own TCP address.
	Host string
	Port uint16
	// ManagerUser may bypass read_only; see ManagerGrants.
	ManagerUser, ManagerPassword string
	// ReplicationUser is what replicas log in to their source as.
	ReplicationUser, ReplicationPassword string
	// TLS is what replicas are told about it with every CHANGE; nil leaves their options as they are.
	TLS *ReplicationTLS
	// Logger gets what callers do not get as errors; nil discards it.
	Logger *slog.Logger
}

// Server is one database server. Its methods may be called at the same time;
// changes of replication are done one after the other.
type Server struct {
	cfg     Config
	log     *slog.Logger
	dialect dialect
	driver  *mysql.Config
	db      *sql.DB
	fresh   *sql.DB // logs in for every use and keeps no connection

	connector *readyConnector

	peer          peerTracker
	generation    generationTracker
	boot          bootTracker
	channel       lastChannel
	retired       retirement
	abandoned     abandonedStatements // about read_only
	abandonedSync abandonedStatements
	names         connectionNames

	transactionsRead restingReads
	tables           atomic.Bool             // the tables this package keeps were seen
	semiSyncIn       atomic.Pointer[process] // the run of the server in which semi-sync was seen
	onArmed          func()                  // for tests: the watch sleeps from here

	// replication holds one token: who has it may change replication.
	replication chan struct{}

	warm    chan struct{}
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// Open prepares to speak to a server. It needs no connection yet: the control
// connections are opened as soon as the server answers, and again after it
// returns from a crash. Errors concern the configuration only.
func Open(cfg Config) (*Server, error) {
	d, err := dialectFor(cfg.Dialect)
	if err != nil {
		return nil, err
	}
	if cfg.Socket == "" && cfg.Host == "" {
		return nil, errors.New("mysqld: neither socket nor host is given")
	}
	if cfg.ManagerUser == "" {
		return nil, errors.New("mysqld: no manager account is given")
	}
	s := &Server{cfg: cfg, log: cfg.Logger, dialect: d, replication: make(chan struct{}, 1), warm: make(chan struct{}, 1)}
	s.abandoned.about, s.abandonedSync.about = aboutReadOnly, aboutSemiSync
	s.boot.since = time.Now()
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.driver = s.driverConfig()
	connector, err := mysql.NewConnector(s.driver)
	if err != nil {
		return nil, fmt.Errorf("preparing connections to %s: %w", s.target(), err)
	}
	s.connector = &readyConnector{Connector: connector, ready: make(chan driver.Conn, controlConnections)}
	s.db = sql.OpenDB(s.connector)
	s.db.SetMaxIdleConns(controlConnections)
	s.fresh = sql.OpenDB(connector)
	s.fresh.SetMaxIdleConns(-1)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.stopped.Add(1)
	go s.keepWarm(ctx)
	s.wantWarm()
	return s, nil
}

// Close ends the control connections. It does not touch the server.
func (s *Server) Close() error {
	s.stop()
	s.stopped.Wait()
	return errors.Join(s.fresh.Close(), s.db.Close())
}

// target names the server for messages.
func (s *Server) target() string {
	if s.cfg.Socket != "" {
		return s.cfg.Socket
	}
	return net.JoinHostPort(s.cfg.Host, strconv.Itoa(int(s.cfg.Port)))
}

// driverConfig builds the driver's configuration. Arguments are put into the
// text by the driver, because a prepared statement costs a round trip and some
// administrative statements cannot be prepared.
func (s *Server) driverConfig() *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd = s.cfg.ManagerUser, s.cfg.ManagerPassword
	c.Net, c.Addr = "tcp", net.JoinHostPort(s.cfg.Host, strconv.Itoa(int(s.cfg.Port)))
	if s.cfg.Socket != "" {
		c.Net, c.Addr = "unix", s.cfg.Socket
	}
	c.DBName = s.dialect.database()
	c.InterpolateParams = true
	c.Params = map[string]string{"wait_timeout": keepIdle}
	c.Logger = driverLogger{s.log}
	c.DialFunc = s.dial
	return c
}

// dial connects and notes which process answers.
func (s *Server) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if err := s.peer.note(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("finding out which mysqld answers at %s: %w", addr, err), conn.Close())
	}
	return conn, nil
}

// driverLogger sends what the driver says to slog. All of it is also returned
// as errors, so it is detail.
type driverLogger struct{ log *slog.Logger }

// Print implements the driver's Logger.
func (l driverLogger) Print(v ...any) { l.log.Debug("database driver", "message", fmt.Sprint(v...)) }

// lockReplication waits for the right to change replication.
func (s *Server) lockReplication(ctx context.Context) (unlock func(), err error) {
	select {
	case s.replication <- struct{}{}:
		return func() { <-s.replication }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another change of replication: %w", ctx.Err())
	}
}

// bounded gives every statement a deadline.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, statementTimeout)
}
