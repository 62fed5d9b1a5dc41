package mysqld

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// retirement is the channel of a server that has become a source and not yet
// forgotten whom it replicated from. Forgetting takes up to 15 ms (MySQL), in which
// clients would wait: it is done after they have come back (ForgetSource). A
// channel is retired only while its receiver is stopped with everything applied,
// and its applier as it was left; a restart of the server or of this process
// ends that, and then it is a replica again until it is forgotten.
type retirement struct {
	mu      sync.Mutex
	of      process
	host    string
	port    uint16
	applier bool // runs on, with nothing to apply
	at      time.Time
}

// retire notes that a replica has become a source, and how st leaves it.
func (r *retirement) retire(p process, st Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of, r.host, r.port, r.applier, r.at = p, st.SourceHost, st.SourcePort, st.SQLRunning, time.Now()
}

// leftRunning tells whether the applier was.
func (r *retirement) leftRunning() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applier
}

// end forgets it: the channel is about to be used again.
func (r *retirement) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of = process{}
}

// apply makes of a status that was begun to be read at some time from process p
// that of a source, if its channel is retired.
func (r *retirement) apply(p process, begun time.Time, st *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !st.HasReplication || r.of == (process{}) || begun.Before(r.at) {
		return
	}
	if p != r.of || st.SourceHost != r.host || st.SourcePort != r.port || st.IORunning != ThreadNo || st.SQLRunning && !r.applier {
		r.of = process{}
		return
	}
	*st = st.withoutChannel()
	st.Leftover = true
}

// withoutChannel is a status as it is after a source was forgotten.
func (st Status) withoutChannel() Status {
	st.SQLRunning = false
	st.HasReplication, st.SourceHost, st.SourcePort, st.SourceID, st.SourceByGTID = false, "", 0, "", false
	st.IOErrno, st.IOError, st.SQLErrno, st.SQLError, st.LagSeconds = 0, "", 0, "", nil
	st.Received, st.RelayLogFile, st.RelayLogPosition = "", "", 0
	return st
}

// ForgetSource ends what BecomeSource left to be done. There is nothing to do on
// any other server.
func (s *Server) ForgetSource(ctx context.Context) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := s.replicaStatus(ctx)
	if err != nil || !st.Leftover {
		return err
	}
	// It stays retired: a status that is being read may have seen it a moment ago.
	if s.retired.leftRunning() {
		if err := s.stopApplier(ctx); err != nil {
			return fmt.Errorf("stopping the applier of the source that was: %w", err)
		}
	}
	if err := execute(ctx, s.db, s.dialect.words().forgetSource); err != nil {
		return fmt.Errorf("forgetting the source: %w", err)
	}
	return nil
}
