package mysqld

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// freeAfter is how long STOP of the applier may take before it is looked at whether
// it waits for the rest of a transaction.
const freeAfter = 20 * time.Millisecond

// StopReplication ends replication on a drained server and forgets its source,
// so that it can be one. It refuses with ErrNotDrained while something received
// is not applied, because forgetting drops the relay log. A server without a
// source is left as it is. MariaDB numbers its own transactions after the
// highest it has applied, so nothing is to be set there.
func (s *Server) StopReplication(ctx context.Context) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	w := s.dialect.words()
	st, err := s.Status(ctx)
	if err != nil || !st.HasReplication {
		return err
	}
	s.retired.end()
	if st.IORunning != ThreadNo {
		if err := s.stopReceiver(ctx, nil); err != nil {
			return err
		}
		if st, err = s.Status(ctx); err != nil {
			return err
		}
	}
	if !s.allApplied(st) {
		return fmt.Errorf("stopping replication: %w: received %s, executed %s", ErrNotDrained, st.Received, st.Executed)
	}
	if st.SQLRunning {
		if err := s.stopApplier(ctx); err != nil {
			return err
		}
	}
	return execute(ctx, s.db, w.forgetSource)
}

// Promotion says how a replica becomes a source.
type Promotion struct {
	// Position is what it must hold.
	Position string
	// Final tells that nothing was or will be sent behind Position: its source had
	// let go of it. Then nothing can have come in half, and on MySQL an applier that
	// has applied everything runs on, with nothing to do, until ForgetSource: STOP
	// takes up to 5 ms, in which clients would wait. MariaDB's is stopped: a source
	// that follows again needs it to be (gtid_slave_pos).
	Final bool
	// Acks is how many acknowledgements a commit waits for; 0 is semi-sync off.
	Acks int
	// Sever destroys the receiver's connection, as for Freeze.
	Sever func() error
}

// BecomeSource makes a replica a source: Freeze, Drain to the position and to all
// that was received, StopReplication and EnableSourceSemiSync (off for 0 acks)
// in as few statements as these need, because clients wait meanwhile. Nothing is
// stopped before everything received is applied, and forgetting the source is left
// to ForgetSource. Errors are those of the four.
//
// It may be repeated, also after any part of it. A server without a source must
// hold the position already. It returns the run of the server (Status.Incarnation)
// of which all this is true, empty if that cannot be told.
func (s *Server) BecomeSource(ctx context.Context, p Promotion) (run string, err error) {
	before := s.peer.current()
	if err := s.endReplication(ctx, p); err != nil {
		return "", fmt.Errorf("becoming a source: %w", err)
	}
	if p.Acks == 0 {
		err = s.DisableSourceSemiSync(ctx)
	} else {
		err = s.EnableSourceSemiSync(ctx, p.Acks)
	}
	if err != nil || before == (process{}) || s.peer.current() != before {
		return "", err
	}
	return before.incarnation(), nil
}

func (s *Server) endReplication(ctx context.Context, p Promotion) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	run := s.peer.current()
	st, err := s.replicaStatus(ctx)
	if err != nil {
		return err
	}
	if !st.HasReplication {
		if s.applied(st, p.Position) {
			return nil
		}
		return s.drain(ctx, p.Position)
	}
	if st, err = s.frozenAndDrained(ctx, st, p); err != nil {
		return err
	}
	// Of a run that cannot be told from the next nothing can be left for later.
	leave := run != (process{}) && s.peer.current() == run
	if st.SQLRunning && !(leave && p.Final && s.dialect.repointsWhileApplying()) {
		if err := s.stopApplier(ctx); err != nil {
			return err
		}
		st.SQLRunning = false
	}
	if !leave {
		return execute(ctx, s.db, s.dialect.words().forgetSource)
	}
	s.retired.retire(run, st)
	return nil
}

// frozenAndDrained stops the receiver of a replica, which says st, and waits until
// it has applied the position and all that was received. It returns what was read then.
func (s *Server) frozenAndDrained(ctx context.Context, st Status, p Promotion) (Status, error) {
	var err error
	// A receiver that was stopped beside the commit needs no second look: Position says all that it can have received.
	if !p.Final || st.IORunning != ThreadNo || !st.SQLRunning {
		if st, err = s.freeze(ctx, st, p.Sever); err != nil {
			return st, err
		}
	}
	// The receiver is stopped: what one reading shows as applied needs no wait. What is left of half a transaction is ended with the applier.
	if !s.applied(st, p.Position) || !s.allApplied(st) {
		for _, target := range slices.Compact([]string{p.Position, st.Received}) {
			if err := s.drain(ctx, target); err != nil {
				return st, err
			}
		}
		if st, err = s.replicaStatus(ctx); err != nil {
			return st, err
		}
	}
	if st.IORunning != ThreadNo || !s.allApplied(st) {
		return st, fmt.Errorf("%w: the receiver is %s, received %s, executed %s", ErrNotDrained, st.IORunning, st.Received, st.Executed)
	}
	return st, nil
}

// Purged is what this server has executed and can send to nobody any more: on
// MySQL gtid_purged. MariaDB has nothing like it, and the result is empty.
func (s *Server) Purged(ctx context.Context) (string, error) {
	if s.cfg.Dialect != "mysql" {
		return "", nil
	}
	r, err := row(ctx, s.db, "SELECT @@global.gtid_purged AS purged")
	if err != nil {
		return "", fmt.Errorf("reading gtid_purged: %w", err)
	}
	return withoutSpace(r["purged"]), nil
}

// Discard ends replication and drops what was received and is not applied,
// whatever the applier thinks of it: only for what nobody needs. sever destroys
// the connection to the source.
func (s *Server) Discard(ctx context.Context, sever func() error) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := s.replicaStatus(ctx)
	if err != nil || !st.HasReplication {
		return err
	}
	if st.IORunning != ThreadNo {
		if err := s.stopReceiver(ctx, sever); err != nil {
			return err
		}
	}
	if st.SQLRunning {
		if err := s.stopApplier(ctx); err != nil {
			return err
		}
	}
	return execute(ctx, s.db, s.dialect.words().forgetSource)
}

// stopApplier stops the SQL thread; the receiver is stopped and what came whole
// is applied. An applier that waits for the rest of a transaction is killed, and
// gone, before STOP: a STOP that comes first makes MySQL wait for 60 s, whatever
// is killed then.
func (s *Server) stopApplier(ctx context.Context) error {
	if s.dialect.stopsInHalf() {
		gone := func() (bool, error) {
			open, err := s.dialect.freeApplier(ctx, s.db)
			return !open, err
		}
		if err := poll(ctx, gone); err != nil && ctx.Err() != nil {
			return fmt.Errorf("ending the applier inside half a transaction: %w", err)
		} else if err != nil { // without the right to kill STOP takes its time
			s.log.Warn("an applier inside half a transaction could not be ended before STOP", "server", s.target(), "error", err)
		}
	}
	return s.stopApplierNow(ctx)
}

// stopApplierNow is STOP. An applier that has taken up half a transaction since it
// was looked at is killed for as long as STOP takes: its reading fails then.
func (s *Server) stopApplierNow(ctx context.Context) error {
	var free func() error
	if s.dialect.stopsInHalf() {
		free = func() error {
			_, err := s.dialect.freeApplier(ctx, s.db)
			return err
		}
	}
	return s.helped(ctx, s.dialect.words().stopApplier, freeAfter, free)
}

// Errors of both servers for what is missing (ER_NO_SUCH_TABLE, ER_BAD_DB_ERROR).
const (
	noSuchTable  = 1146
	noSuchSchema = 1049
)

// The tables this package keeps. Each statement stands alone so that it is one
// transaction in the binary log.
const (
	createSchema = "CREATE DATABASE IF NOT EXISTS highbase"
	createEpoch  = "CREATE TABLE IF NOT EXISTS highbase.epoch (epoch BIGINT UNSIGNED NOT NULL PRIMARY KEY, node VARCHAR(64) NOT NULL," +
		" at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB"
	createNudge = "CREATE TABLE IF NOT EXISTS highbase.nudge (slot SMALLINT UNSIGNED NOT NULL PRIMARY KEY," +
		" at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB"
)

// EnsureEpochTable creates what is missing of the schema highbase: the epoch
// rows (barrier) and the nudge rows. Where nothing is missing nothing is
// written, so that it can be called at every promotion; once they were seen they
// are not looked for again, until a barrier misses its table. On a writable source
// only: what it creates gets a GTID.
func (s *Server) EnsureEpochTable(ctx context.Context) error {
	if s.tables.Load() {
		return nil
	}
	for _, t := range []struct{ table, create string }{{"highbase.epoch", createEpoch}, {"highbase.nudge", createNudge}} {
		_, err := rows(ctx, s.db, "SELECT 1 FROM "+t.table+" LIMIT 1")
		if number := serverErrorNumber(err); number == noSuchSchema || number == noSuchTable {
			err = execute(ctx, s.db, createSchema, t.create)
		}
		if err != nil {
			return err
		}
	}
	s.tables.Store(true)
	return nil
}

// WriteBarrier writes the row of an epoch and returns when the commit has: under
// semi-sync that is when it is acknowledged, and with it everything before it.
// A restart in place writes the same row again, as a new transaction.
//
// If ctx ends first the outcome is unknown: the commit goes on waiting in the
// server, and another try waits behind it. A lost acknowledgement is answered
// with Nudge, not with a second barrier.
func (s *Server) WriteBarrier(ctx context.Context, epoch uint64, node string) error {
	var err error
	if epoch == 1 {
		// Rows of an earlier life of the cluster, or of another that the data comes from, are no barriers of this one.
		err = execute(ctx, s.db, "DELETE FROM highbase.epoch WHERE epoch > 1")
	}
	if err == nil {
		// The row must differ from what it replaces, or nothing is logged.
		err = execArgs(ctx, s.db, "INSERT INTO highbase.epoch (epoch, node, at) VALUES (?, ?, NOW(6))"+
			" ON DUPLICATE KEY UPDATE node=VALUES(node), at=GREATEST(NOW(6), at + INTERVAL 1 MICROSECOND)", epoch, node)
	}
	if number := serverErrorNumber(err); number == noSuchSchema || number == noSuchTable {
		s.tables.Store(false)
	}
	if err != nil {
		return fmt.Errorf("writing the barrier of epoch %d: %w", epoch, err)
	}
	return nil
}

// nudgeSlots bounds the table; a nudge picks one at random so that it seldom
// waits for the row lock of another that hangs.
const nudgeSlots = 4096

// Nudge writes one row and returns when its commit has. An acknowledgement that
// was lost stays lost until a later transaction is acknowledged (docs/SERVERS.md, lost acknowledgement).
func (s *Server) Nudge(ctx context.Context) error {
	return execArgs(ctx, s.db, "INSERT INTO highbase.nudge (slot, at) VALUES (?, NOW(6))"+
		" ON DUPLICATE KEY UPDATE at=GREATEST(NOW(6), at + INTERVAL 1 MICROSECOND)", rand.IntN(nudgeSlots))
}

// LastEpoch reads the newest epoch row: the last primary whose barrier reached
// this server. Zero and empty if there is none.
func (s *Server) LastEpoch(ctx context.Context) (epoch uint64, node string, err error) {
	r, err := row(ctx, s.db, "SELECT epoch, node FROM highbase.epoch ORDER BY epoch DESC LIMIT 1")
	switch {
	case serverErrorNumber(err) == noSuchTable, serverErrorNumber(err) == noSuchSchema:
		return 0, "", nil
	case err != nil:
		return 0, "", err
	case r == nil:
		return 0, "", nil
	}
	epoch, err = strconv.ParseUint(r["epoch"], 10, 64)
	if err != nil {
		return 0, "", fmt.Errorf("reading the last epoch: %w", err)
	}
	return epoch, r["node"], nil
}

// FinishRewind follows a start that rolled back the tail: MariaDB's replica
// position, old on a former source, becomes what is left in the binary log.
// The caller has checked that this is within the cluster's history.
func (s *Server) FinishRewind(ctx context.Context) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.dialect.finishRewind(ctx, s.db)
}
