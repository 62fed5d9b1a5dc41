package mysqld

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/highbase/highbase/fsm/gtid"
)

// ThreadState is the state of a replica's receiver (IO thread).
type ThreadState string

// The states of a receiver.
const (
	ThreadNo         ThreadState = "no"
	ThreadConnecting ThreadState = "connecting"
	ThreadYes        ThreadState = "yes"
)

// maxSemiSyncTimeout is the largest timeout both servers take, in ms (49 days):
// the nearest to "never fall back to asynchronous by yourself".
const maxSemiSyncTimeout = 4294967295

// Status is what a server says of itself at one moment.
type Status struct {
	// Version as the server gives it, Dialect as configured.
	Version, Dialect string
	// ServerID is the replication id, ServerUUID MySQL's (empty on MariaDB).
	ServerID   uint32
	ServerUUID string
	// GTIDDomain is MariaDB's domain of local writes; it must be the same on
	// all nodes. 0 on MySQL.
	GTIDDomain uint32
	// StartedAt is now minus the server's uptime, to the second, held steady
	// for one run of the server.
	StartedAt time.Time
	// Incarnation names this run of the server: boot id, process number and
	// start time. It changes with every restart, and never comes back.
	Incarnation string
	// DataDir and BinlogIndex are where the server keeps its files.
	DataDir, BinlogIndex string

	// ReadOnly refuses ordinary accounts, SuperReadOnly all (MySQL only).
	ReadOnly, SuperReadOnly bool
	// Executed is what the binary log holds: gtid_executed; on MariaDB the
	// union of gtid_binlog_pos and gtid_slave_pos. On a source it includes
	// transactions that still wait for acknowledgements.
	Executed string
	// Received is Executed and what the relay log holds complete.
	Received string

	// HasReplication tells whether a source is configured.
	HasReplication bool
	// Leftover tells that one is, of a replica that has become a source since:
	// ForgetSource removes it.
	Leftover   bool
	SourceHost string
	SourcePort uint16
	// SourceID names the server that the receiver was connected to last, as positions do: server_id on MariaDB, server_uuid on MySQL. It is
	// empty while the receiver has not connected since it was configured or mysqld started.
	SourceID string
	// SourceByGTID tells that the replica asks for transactions by GTID.
	SourceByGTID     bool
	IORunning        ThreadState
	SQLRunning       bool
	IOErrno          int
	SQLErrno         int
	IOError          string
	SQLError         string
	LagSeconds       *float64 // nil while the server does not know
	ReceiverID       uint64   // number of the IO thread, 0 while it is stopped
	ApplierID        uint64   // number of the SQL thread, 0 while it is stopped
	RelayLogFile     string   // where the applier reads
	RelayLogPosition uint64
	// Generation is the receive generation: it changes whenever the relay log
	// may have been dropped since the last Status, by whomever, and is empty
	// while both threads are stopped. See generationTracker. Two threads that
	// were both restarted between two Status calls also change it: unknown is
	// not the same.
	Generation string

	// Enabled is the setting, Active the state: on both servers they differ.
	SourceSemiSyncEnabled, SourceSemiSyncActive   bool
	ReplicaSemiSyncEnabled, ReplicaSemiSyncActive bool
	// SemiSyncClients is no evidence of who acknowledges: it counts replicas
	// that are gone until something is sent to them.
	SemiSyncClients int
	// WaitSessions counts commit groups, not clients: above 0 means an unknown
	// number of commits wait.
	WaitSessions      int
	Acks              int // acknowledgements a commit waits for; 0 while a statement about it that was given up may still take effect
	SemiSyncTimeoutMS uint64
	// WaitNoReplica: commits wait also while no replica is connected.
	WaitNoReplica bool
	WaitPoint     string

	SyncBinlog          int
	FlushLogAtTrxCommit int
	GTIDStrict          bool // MySQL: gtid_mode and enforce_gtid_consistency
	LogReplicaUpdates   bool
	LogBin              bool
	BinlogFormat        string

	// Channel is how this replica is set up; of a server that is none, how it was
	// last seen. ChannelDrift names what of it is not as configured.
	Channel      Channel
	ChannelDrift []string
	// Weakened are settings that break the guarantees and can be put back at run
	// time: MendSettings does.
	Weakened          []Setting
	persistedSettings []Setting // MySQL's, as they are and must be
	// Problems are settings that break the guarantees, each one sentence with
	// how to mend it.
	Problems []string
}

// BothThreadsStopped tells that a configured replica receives and applies
// nothing. On MariaDB the next START of any thread deletes its relay log, so it
// is the end of a receive generation.
func (st Status) BothThreadsStopped() bool {
	return st.HasReplication && st.IORunning == ThreadNo && !st.SQLRunning
}

// Status reads the server's state, using only statements that answer while
// commits wait for acknowledgements (SELECT of variables, SHOW STATUS, SHOW
// REPLICA STATUS and the process list; never SHOW MASTER STATUS).
func (s *Server) Status(ctx context.Context) (Status, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		before := s.peer.current()
		st, uptime, err := s.readStatus(ctx, !s.boot.knows(before))
		if err != nil {
			return Status{}, fmt.Errorf("reading the status of %s: %w", s.target(), err)
		}
		p := s.peer.current()
		if p != before && before != (process{}) {
			continue // restarted meanwhile: whose answer is it?
		}
		atBoot := s.boot.observe(&st, p, uptime, time.Now())
		st.Generation = s.generation.observe(st.Incarnation, st.ReceiverID, st.ApplierID)
		st.Problems = append(append(st.Problems, atBoot...), commonProblems(&st)...)
		s.judgeCare(&st)
		s.keepControl()
		return st, nil
	}
}

// readStatus asks over one connection, so that all answers are of one server.
func (s *Server) readStatus(ctx context.Context, withUptime bool) (Status, time.Duration, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return Status{}, 0, err
	}
	defer conn.Close()
	st, begun := Status{Dialect: s.cfg.Dialect, IORunning: ThreadNo}, time.Now()
	uptime, err := s.dialect.readStatus(ctx, conn, &st, withUptime)
	s.retired.apply(s.peer.current(), begun, &st)
	if err == nil && st.HasReplication {
		err = s.readReceiver(ctx, conn, &st)
	}
	if err != nil {
		return Status{}, 0, err
	}
	st.Received = s.joinPositions(st.Executed, st.Received)
	if len(s.abandonedSync.all()) > 0 { // what was read may not last: the caller sets it again
		st.Acks = 0
	}
	return st, uptime, nil
}

// readReceiver adds which threads run, and the heartbeat. That can only be changed
// while the receiver is stopped, so that one which runs on has the heartbeat that
// was read after it had begun.
func (s *Server) readReceiver(ctx context.Context, q querier, st *Status) (err error) {
	if err := s.dialect.readThreads(ctx, q, st); err != nil {
		return err
	}
	if st.Channel.Heartbeat = s.channel.heartbeatOf(s.peer.current(), st.ReceiverID); st.Channel.Heartbeat != "" {
		return nil
	}
	if st.Channel.Heartbeat, err = s.dialect.heartbeat(ctx, q); err == nil {
		s.channel.noteHeartbeat(s.peer.current(), st.ReceiverID, st.Channel.Heartbeat)
	}
	return err
}

// replicaStatus reads no more than where a replica stands: within a pause of the
// clients every statement counts, and a whole status is three times as many.
func (s *Server) replicaStatus(ctx context.Context) (Status, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	st, begun := Status{Dialect: s.cfg.Dialect, IORunning: ThreadNo}, time.Now()
	err := s.withConn(ctx, func(conn *sql.Conn) (err error) {
		if err = s.dialect.readReplication(ctx, conn, &st); err == nil && st.Executed == "" {
			st.Executed, err = s.dialect.executed(ctx, conn)
		}
		return err
	})
	if err != nil {
		return Status{}, fmt.Errorf("reading the replication of %s: %w", s.target(), err)
	}
	s.retired.apply(s.peer.current(), begun, &st)
	st.Received = s.joinPositions(st.Executed, st.Received)
	return st, nil
}

// joinPositions is everything in a or b. Where the two certainly belong to
// different histories (errant transactions) no position holds both; then what
// was received stands, because that is what is asked for.
func (s *Server) joinPositions(executed, received string) string {
	e, errE := gtid.Parse(s.dialect.flavor(), executed)
	r, errR := gtid.Parse(s.dialect.flavor(), received)
	if errE != nil || errR != nil {
		s.log.Warn("position not understood", "executed", executed, "received", received)
		return received
	}
	u, err := gtid.Union(e, r)
	if err != nil {
		s.log.Warn("executed and received belong to different histories", "executed", executed, "received", received)
		return received
	}
	return u.String()
}

// Alive asks the cheapest question over a kept connection.
func (s *Server) Alive(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var one int
	if err := s.db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("asking %s whether it lives: %w", s.target(), err)
	}
	s.keepControl()
	return nil
}

// History is what tells whether a position is in this server's past, in the
// form that gtid.ParseHistory and ReadTail take.
func (s *Server) History(ctx context.Context) (string, error) {
	text, err := s.dialect.history(ctx, s.db)
	if err != nil {
		return "", fmt.Errorf("reading the history of %s: %w", s.target(), err)
	}
	return text, nil
}

// Written is everything in this server's binary log, what waits there for its
// acknowledgement too: whatever was acknowledged before the call is in it.
func (s *Server) Written(ctx context.Context) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	position, err := s.dialect.written(ctx, s.db)
	if err != nil {
		return "", fmt.Errorf("reading what %s has written: %w", s.target(), err)
	}
	return position, nil
}

// Contains reports whether the server's executed history holds position: the
// very transactions, not others under the same numbers.
func (s *Server) Contains(ctx context.Context, position string) (bool, error) {
	want, err := gtid.Parse(s.dialect.flavor(), position)
	if err != nil {
		return false, fmt.Errorf("reading a position: %w", err)
	}
	text, err := s.History(ctx)
	if err != nil {
		return false, err
	}
	history, err := gtid.ParseHistory(s.dialect.flavor(), text)
	if err != nil {
		return false, err
	}
	return history.Holds(want), nil
}

// Checks names the settings that break the guarantees, as Status.Problems does.
// A server that cannot be asked is the one problem returned.
func (s *Server) Checks(ctx context.Context) []string {
	st, err := s.Status(ctx)
	if err != nil {
		return []string{fmt.Sprintf("The server cannot be asked: %v.", err)}
	}
	return append(st.Problems, s.privilegeProblems(ctx)...)
}

// privilegeProblems names accounts that bypass read_only.
func (s *Server) privilegeProblems(ctx context.Context) []string {
	accounts, err := s.dialect.bypassers(ctx, s.db, s.cfg)
	if err != nil {
		return []string{fmt.Sprintf("The accounts cannot be checked (%v); grant the manager SELECT ON mysql.* so that those who bypass read_only can be named.", err)}
	}
	var out []string
	for _, a := range accounts {
		out = append(out, fmt.Sprintf("Account %s may write although the server is read-only; take away ALL or the privilege that bypasses read_only.", a))
	}
	return out
}

// withConn runs f on one connection of the pool.
func (s *Server) withConn(ctx context.Context, f func(*sql.Conn) error) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("taking a connection to %s: %w", s.target(), err)
	}
	defer conn.Close()
	return f(conn)
}
