package mysqld

import (
	"context"
	"fmt"
)

// EnableSourceSemiSync makes every commit wait, for ever, until acks replicas
// have received it, also while none is connected: AFTER_SYNC, the longest
// timeout, wait_no_replica on, and only then enabled. ErrAcks if the server
// cannot wait for that many (MariaDB: exactly 1).
func (s *Server) EnableSourceSemiSync(ctx context.Context, acks int) error {
	statements, err := s.dialect.enableSource(acks)
	if err != nil {
		return err
	}
	if err := s.dialect.loadSemiSync(ctx, s.db); err != nil {
		return fmt.Errorf("loading semi-sync: %w", err)
	}
	return execute(ctx, s.db, statements...)
}

// DisableSourceSemiSync is only legal on a node that has held no lease since it
// became a replica, because it tells every waiting client success; the caller
// answers for that. It refuses a writable server (ErrWritable), and one that is
// no replica while commits wait (ErrWaiting).
func (s *Server) DisableSourceSemiSync(ctx context.Context) error {
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	return s.disableSource(ctx, st)
}

// disableSource judges by a status read just now. Waiting appliers of a replica
// do no harm: what they apply was acknowledged upstream.
func (s *Server) disableSource(ctx context.Context, st Status) error {
	switch {
	case !st.SourceSemiSyncEnabled:
		return nil
	case !st.ReadOnly:
		return fmt.Errorf("switching source semi-sync off: %w", ErrWritable)
	case st.WaitSessions > 0 && !st.HasReplication:
		return fmt.Errorf("switching source semi-sync off: %w (wait_sessions %d)", ErrWaiting, st.WaitSessions)
	}
	return execute(ctx, s.db, s.dialect.words().disableSource)
}

// ReplicaSemiSync makes this replica's acknowledgements count, or not. The
// variable alone changes nothing on a connected replica, so if the running
// receiver differs it is restarted, and it alone: the applier is made to run
// before. With the receiver stopped only the variable is set, for its next
// start. ErrApplierStopped if the applier cannot be made to run.
func (s *Server) ReplicaSemiSync(ctx context.Context, on bool) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	w := s.dialect.words()
	statement := w.replicaSemiSyncOff
	if on {
		if err := s.dialect.loadSemiSync(ctx, s.db); err != nil {
			return fmt.Errorf("loading semi-sync: %w", err)
		}
		statement = w.replicaSemiSyncOn
	}
	s.boot.interfere()
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if st.ReplicaSemiSyncEnabled != on {
		if err := execute(ctx, s.db, statement); err != nil {
			return err
		}
	}
	// A receiver that is not connected takes the setting along when it connects.
	if st.IORunning != ThreadYes || st.ReplicaSemiSyncActive == on {
		return nil
	}
	if _, err := s.ensureApplier(ctx, st); err != nil {
		return err
	}
	return execute(ctx, s.db, w.stopReceiver, w.startReceiver)
}
