package mysqld

import (
	"context"
	"errors"
	"fmt"
	"time"
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
	if err := s.endAbandoned(ctx, &s.abandonedSync); err != nil {
		return err
	}
	if err := s.loadSemiSync(ctx); err != nil {
		return err
	}
	return s.withSemiSync(ctx, statements...)
}

// loadSemiSync looks once in each run of the server whether semi-sync is there.
func (s *Server) loadSemiSync(ctx context.Context) error {
	run := s.peer.current()
	if known := s.semiSyncIn.Load(); known != nil && *known == run && run != (process{}) {
		return nil
	}
	if err := s.dialect.loadSemiSync(ctx, s.db); err != nil {
		return fmt.Errorf("loading semi-sync: %w", err)
	}
	s.semiSyncIn.Store(&run)
	return nil
}

// withSemiSync runs statements that need it. After one that failed it is looked
// for again: somebody may have taken it out.
func (s *Server) withSemiSync(ctx context.Context, statements ...string) error {
	err := s.setGlobals(ctx, &s.abandonedSync, statements)
	if err != nil {
		s.semiSyncIn.Store(nil)
	}
	return err
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
	return s.setGlobals(ctx, &s.abandonedSync, []string{s.dialect.words().disableSource})
}

// Degrade switches semi-sync off at a source, also while it is writable and
// while commits wait: every waiting client is told success, and from here nobody
// but this server holds what it acknowledges. It is legitimate only after the
// log says that the cluster is degraded; the caller answers for that. A replica
// is refused (ErrReplica): there DisableSourceSemiSync is the one to use.
func (s *Server) Degrade(ctx context.Context) error {
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	switch {
	case st.HasReplication:
		return fmt.Errorf("degrading: %w of %s:%d", ErrReplica, st.SourceHost, st.SourcePort)
	case !st.SourceSemiSyncEnabled:
		return nil
	}
	s.log.Warn("commits no longer wait for acknowledgements", "server", s.target(), "waiting", st.WaitSessions)
	if err := s.setGlobals(ctx, &s.abandonedSync, []string{s.dialect.words().disableSource}); err != nil {
		return fmt.Errorf("degrading: %w", err)
	}
	return nil
}

// ReplicaSemiSync makes this replica's acknowledgements count, or not. The
// variable alone changes nothing on a connected replica, so if the running
// receiver differs it is restarted, and it alone: the applier is made to run
// before. With the receiver stopped only the variable is set, for its next
// start. ErrApplierStopped if the applier cannot be made to run.
func (s *Server) ReplicaSemiSync(ctx context.Context, on bool) error {
	return s.replicaSemiSync(ctx, on, 0, nil)
}

// AcknowledgeIn is ReplicaSemiSync(true) for a replica in an epoch, as the rows of
// WriteBarrier name them. Where its barrier is applied nothing of this server's own
// is left to be received, and it takes its own server_id back without applying
// everything first: a replica that lags acknowledges at once. sever destroys the
// receiver's socket to the source, as in Freeze.
func (s *Server) AcknowledgeIn(ctx context.Context, epoch uint64, sever func() error) error {
	return s.replicaSemiSync(ctx, true, epoch, sever)
}

func (s *Server) replicaSemiSync(ctx context.Context, on bool, epoch uint64, sever func() error) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if on {
		// A receiver that stops with the setting on logs in to its source to end its old connection there (MariaDB), and waits for that: it stops first.
		if stopped, err := s.stopSilent(ctx, epoch, sever); err != nil || stopped {
			return err
		}
	}
	st, err := s.setReplicaSemiSync(ctx, on)
	if err != nil {
		return err
	}
	if on && len(s.dialect.takeBack(st.ServerID)) > 0 {
		receives := st.IORunning != ThreadNo
		if err = s.takeBackID(ctx, st, sever, epoch); receives {
			err = errors.Join(err, s.receiveAgain(ctx))
		}
		return err
	}
	// A receiver that is not connected takes the setting along when it connects; one that has asked its source just before does not, and is found
	// connected without it by whoever looks next (replica.acks).
	if st.IORunning != ThreadYes || st.ReplicaSemiSyncActive == on {
		return nil
	}
	return s.restartReceiver(ctx, st, nil)
}

// stopSilent turns a receiver that is connected and does not acknowledge into one that does, if it can be restarted beside its applier.
func (s *Server) stopSilent(ctx context.Context, epoch uint64, sever func() error) (done bool, err error) {
	st, err := s.Status(ctx)
	if err != nil || st.IORunning != ThreadYes || st.ReplicaSemiSyncActive || st.ReplicaSemiSyncEnabled || !st.SQLRunning {
		return false, err
	}
	if err := s.stopReceiver(ctx, sever); err != nil {
		return false, err
	}
	own := st.OwnServerID()
	if st, err = s.setReplicaSemiSync(ctx, true); err == nil {
		err = s.takeBackID(ctx, st, sever, epoch)
	}
	if err != nil { // it is as silent as it was, and under its other id
		return true, errors.Join(err, s.receiveAgain(ctx, append(s.dialect.acceptOwn(own), s.dialect.words().replicaSemiSyncOff)...))
	}
	return true, s.receiveAgain(ctx)
}

// receiveAgain starts the receiver that was stopped for a change, after what undoes
// that, also when ctx has ended meanwhile: a replica that stayed without a receiver
// would wait for a repair, and lag more and more. Beside an applier that has stopped
// it starts nothing: MariaDB would drop the relay log, and Follow, which comes next,
// makes it run first.
func (s *Server) receiveAgain(ctx context.Context, undo ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if len(undo) > 0 { // what it undoes may have been given up
		if err := s.endAbandoned(ctx, &s.abandonedSync); err != nil {
			return err
		}
	}
	if err := execute(ctx, s.db, undo...); err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil || !st.SQLRunning || st.IORunning != ThreadNo || !st.SourceByGTID {
		return err
	}
	return execute(ctx, s.db, s.dialect.words().startReceiver)
}

// undoTimeout bounds what is done after a caller has given up: a newer order waits for it.
const undoTimeout = 2 * time.Second

// StopAcknowledging switches replica semi-sync off and returns nil only when a
// status read after that says that both the setting and the state are off. The
// receiver is restarted if it acknowledges, the applier running throughout; one
// that connects counts too, because the state outlives a lost connection. sever
// destroys the receiver's socket to the source, as in Freeze. It works also on a
// server that is no replica or does not receive. ErrApplierStopped if the
// receiver would have to be restarted beside an applier that does not run.
func (s *Server) StopAcknowledging(ctx context.Context, sever func() error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// One that was given up and switches it on would do so after this has said that it is off.
	if err := s.endAbandoned(ctx, &s.abandonedSync); err != nil {
		return err
	}
	err = poll(ctx, func() (bool, error) {
		st, err := s.setReplicaSemiSync(ctx, false)
		if err != nil {
			return false, err
		}
		if !st.ReplicaSemiSyncEnabled && !st.ReplicaSemiSyncActive {
			return true, nil
		}
		if st.IORunning == ThreadNo {
			return false, nil // it is about to say that it is off
		}
		return false, s.restartReceiver(ctx, st, sever)
	})
	if err != nil {
		return fmt.Errorf("switching acknowledgements off: %w", err)
	}
	return nil
}

// setReplicaSemiSync sets the variable and returns a status read after that: a
// receiver that starts or connects later takes the setting along. The caller
// holds the right to change replication.
func (s *Server) setReplicaSemiSync(ctx context.Context, on bool) (Status, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return st, err
	}
	if !on {
		if err := execute(ctx, s.db, s.dialect.acceptOwn(st.ServerID)...); err != nil {
			return st, fmt.Errorf("taking another server_id: %w", err)
		}
	}
	if st.ReplicaSemiSyncEnabled == on {
		return st, nil
	}
	statement := s.dialect.words().replicaSemiSyncOff
	if on {
		if err := s.loadSemiSync(ctx); err != nil {
			return st, err
		}
		statement = s.dialect.words().replicaSemiSyncOn
	}
	s.boot.interfere()
	if err := s.withSemiSync(ctx, statement); err != nil {
		return st, err
	}
	return s.Status(ctx)
}

// restartReceiver restarts the receiver and nothing else, so that nothing
// received is forgotten.
func (s *Server) restartReceiver(ctx context.Context, st Status, sever func() error) error {
	if running, err := s.ensureApplier(ctx, st); err != nil {
		return err
	} else if !running {
		return fmt.Errorf("restarting the receiver: %w: %d %s", ErrApplierStopped, st.SQLErrno, st.SQLError)
	}
	if err := s.stopReceiver(ctx, sever); err != nil {
		return err
	}
	return execute(ctx, s.db, s.dialect.words().startReceiver)
}
