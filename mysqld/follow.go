package mysqld

import (
	"context"
	"fmt"
	"time"
)

// Source is what a replica follows, and how to get there.
type Source struct {
	Host string
	Port uint16
	// Sever destroys the receiver's socket to the old source, as in Freeze;
	// nil if there is nothing to destroy.
	Sever func() error
	// DiscardReceived drops what was received and is not applied instead of
	// draining it. Only for a node that counts in no sync set, towards a source
	// known to hold everything that was acknowledged: one that is delayed on
	// purpose, where draining takes as long as the delay.
	DiscardReceived bool
}

// FollowResult says what Follow had to do.
type FollowResult struct {
	// Repointed: the source was changed, or given for the first time.
	Repointed bool
	// GenerationChanged: the relay log was started anew, so that this replica
	// counts in a sync set only after it has caught up and is committed anew.
	GenerationChanged bool
}

// Follow makes the server a read-only replica of src. It is idempotent: called
// on a replica that follows src it starts what does not run, applier first, and
// changes nothing else. Otherwise the applier must run, and the receiver alone is
// stopped. MariaDB then applies all that was received, and only then the applier
// is stopped and the source changed; MySQL changes the source under the running
// applier, which keeps the relay log. Source semi-sync is switched off first.
// Whether this replica's acknowledgements count is left as it is: ReplicaSemiSync,
// called before, needs no extra restart of the receiver.
//
// It returns once the threads are started, not once they are connected. On
// MariaDB the source must not be behind this server (error 1236 otherwise).
// Errors: ErrApplierStopped and ErrRescue leave the relay log as it was;
// ErrForgotten says that what was received and not applied may be gone.
func (s *Server) Follow(ctx context.Context, src Source) (FollowResult, error) {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return FollowResult{}, err
	}
	defer unlock()
	result, err := s.follow(ctx, src)
	if err != nil {
		return result, fmt.Errorf("following %s:%d: %w", src.Host, src.Port, err)
	}
	return result, nil
}

func (s *Server) follow(ctx context.Context, src Source) (FollowResult, error) {
	// On a server that is read-only already this takes no lock.
	if err := s.SetReadOnly(ctx); err != nil {
		return FollowResult{}, err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return FollowResult{}, err
	}
	if err := s.disableSource(ctx, st); err != nil {
		return FollowResult{}, err
	}
	if !st.HasReplication {
		return s.repoint(ctx, src)
	}
	if src.DiscardReceived && (!s.follows(st, src) || st.BothThreadsStopped()) {
		return s.discard(ctx, src, st)
	}
	if st.SQLErrno != 0 && !st.SQLRunning && st.IORunning != ThreadNo && s.follows(st, src) {
		// Somebody may have mended what it stopped at. The receiver runs on, so nothing is forgotten.
		return FollowResult{}, execute(ctx, s.db, s.dialect.words().startApplier)
	}
	running, err := s.ensureApplier(ctx, st)
	if err != nil {
		return FollowResult{}, err
	}
	if running && s.follows(st, src) {
		if st.IORunning != ThreadNo {
			return FollowResult{}, nil
		}
		return FollowResult{}, execute(ctx, s.db, s.dialect.words().startReceiver)
	}
	return s.drainAndRepoint(ctx, src, st, running)
}

// follows reports whether st already is of a replica of src, set up as configured.
// One whose source refuses its login needs the account and TLS anew.
func (s *Server) follows(st Status, src Source) bool {
	return st.SourceHost == src.Host && st.SourcePort == src.Port && st.SourceByGTID && len(st.ChannelDrift) == 0 && !LoginRefused(st.IOErrno)
}

// drainAndRepoint leaves nothing received behind. A server whose applier runs on
// through the change of source keeps its relay log: there is nothing to wait for,
// and a replica that lags acknowledges to its new source at once.
func (s *Server) drainAndRepoint(ctx context.Context, src Source, st Status, running bool) (FollowResult, error) {
	if running {
		if st.IORunning != ThreadNo {
			if err := s.stopReceiver(ctx, src.Sever); err != nil {
				return FollowResult{}, err
			}
		}
		frozen, err := s.Status(ctx)
		if err != nil {
			return FollowResult{}, err
		}
		if frozen.SourceByGTID && s.dialect.repointsWhileApplying() {
			return s.repointApplying(ctx, src, frozen)
		}
		if err := s.drain(ctx, frozen.Received); err != nil {
			return FollowResult{}, err
		}
	}
	return s.repoint(ctx, src)
}

// discard stops the receiver first all the same, so that nothing is
// acknowledged that is then dropped.
func (s *Server) discard(ctx context.Context, src Source, st Status) (FollowResult, error) {
	if st.IORunning != ThreadNo {
		if err := s.stopReceiver(ctx, src.Sever); err != nil {
			return FollowResult{}, err
		}
	}
	s.log.Warn("discarding what was received and not applied", "received", st.Received, "executed", st.Executed)
	return s.repoint(ctx, src)
}

// repoint gives the source. The receiver is stopped, and everything is applied or
// the applier runs: that of a source which has not forgotten its own source, too.
func (s *Server) repoint(ctx context.Context, src Source) (FollowResult, error) {
	s.retired.end()
	st, err := s.Status(ctx)
	if err != nil {
		return FollowResult{}, err
	}
	w := s.dialect.words()
	if st.SQLRunning && st.SourceByGTID && s.dialect.repointsWhileApplying() {
		return s.changeUnderApplier(ctx, src, st)
	}
	result := FollowResult{GenerationChanged: true}
	if st.SQLRunning {
		if err := s.stopApplier(ctx); err != nil {
			return result, err
		}
	}
	if st, err = s.Status(ctx); err != nil {
		return result, err
	}
	if err := s.dialect.prepareFollow(ctx, s.db, st); err != nil {
		return result, err
	}
	statement, args := s.dialect.change(src, s.cfg, st, false)
	if err := execArgs(ctx, s.db, statement, args...); err != nil {
		return result, err
	}
	result.Repointed = true
	return result, execute(ctx, s.db, w.startApplier, w.startReceiver)
}

// repointApplying gives the source to a replica whose receiver is stopped. With both
// threads stopped the change would drop what is not applied. An applier that is
// ending says that it runs, and has no number.
func (s *Server) repointApplying(ctx context.Context, src Source, frozen Status) (FollowResult, error) {
	switch {
	case frozen.SQLRunning && frozen.ApplierID != 0:
		s.retired.end()
		return s.changeUnderApplier(ctx, src, frozen)
	case !s.allApplied(frozen):
		return FollowResult{}, fmt.Errorf("%w: %d %s", ErrApplierStopped, frozen.SQLErrno, frozen.SQLError)
	}
	return s.repoint(ctx, src)
}

// changeUnderApplier changes the source while the applier runs, which st says it
// does. Had it stopped by itself just before, the server took the change for one
// with both threads stopped and dropped the relay log: an applier that runs on
// under its number proves that it did not.
func (s *Server) changeUnderApplier(ctx context.Context, src Source, st Status) (FollowResult, error) {
	if st.ApplierID == 0 {
		return FollowResult{}, fmt.Errorf("%w: it is ending: %d %s", ErrApplierStopped, st.SQLErrno, st.SQLError)
	}
	statement, args := s.dialect.change(src, s.cfg, st, true)
	if err := execArgs(ctx, s.db, statement, args...); err != nil {
		return FollowResult{}, err
	}
	now, err := s.Status(ctx)
	if err != nil {
		return FollowResult{Repointed: true}, err
	}
	if !now.SQLRunning || now.ApplierID != st.ApplierID {
		return FollowResult{Repointed: true, GenerationChanged: true}, fmt.Errorf("%w: %d %s", ErrForgotten, now.SQLErrno, now.SQLError)
	}
	return FollowResult{Repointed: true}, execute(ctx, s.db, s.dialect.words().startReceiver)
}

// drainSlice is how long one wait for the applier lasts before it is looked at
// whether the applier still runs.
const drainSlice = 500 * time.Millisecond

// Drain waits until the executed position holds received. What came in half
// behind it is left alone: whoever ends replication ends that, and a replica that
// goes on as one keeps its applier, and with it its receive generation. Errors:
// ErrApplierStopped if the applier stops on the way, ctx's error at its end.
func (s *Server) Drain(ctx context.Context, received string) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.drain(ctx, received)
}

func (s *Server) drain(ctx context.Context, received string) error {
	for {
		applied, err := s.dialect.waitApplied(ctx, s.db, received, drainSlice)
		if err != nil {
			return fmt.Errorf("draining to %s: %w", received, err)
		}
		if applied {
			return nil
		}
		st, err := s.replicaStatus(ctx)
		if err != nil {
			return err
		}
		switch {
		case !st.HasReplication:
			holds, err := s.Contains(ctx, received)
			if err != nil || holds {
				return err
			}
			return fmt.Errorf("draining to %s: %w", received, ErrNoReplication)
		case !st.SQLRunning:
			return fmt.Errorf("draining to %s: %w: %d %s", received, ErrApplierStopped, st.SQLErrno, st.SQLError)
		}
	}
}
