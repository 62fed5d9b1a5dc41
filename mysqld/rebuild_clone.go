package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Errors of MySQL's CLONE (errmsg-8.0 and later).
const (
	errNoSuchThread   = 1094 // ER_NO_SUCH_THREAD: it has ended by itself
	errRestartFailed  = 3707 // ER_RESTART_SERVER_FAILED: cloned; nobody but hbd starts the server again
	errCloneDonor     = 3862 // ER_CLONE_DONOR: also that it does not let us in
	errCloneConflicts = 3634 // ER_CLONE_TOO_MANY_CONCURRENT_CLONES
)

// donor is the address of the server that is cloned, as CLONE wants it.
func (m rebuildMark) donor() string { return net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))) }

// cloneTimeout bounds one clone; a statement without a bound of its own gets a short
// one.
const cloneTimeout = 48 * time.Hour

// receiveClone notes whom to clone from. MySQL replaces its own data while it
// clones, so that everything else is Place's; the donor's stream is empty.
func (r *Rebuild) receiveClone(_ context.Context, in Incoming) error {
	if in.Host == "" {
		return fmt.Errorf("%w: a clone needs the donor's address", ErrBackup)
	}
	if _, err := io.Copy(io.Discard, in.Stream); err != nil {
		return err
	}
	return r.setMark(rebuildMark{ID: in.ID, Stage: RebuildPrepared, Host: in.Host, Port: in.Port, Rate: in.Rate})
}

// cloneAnew notes whom another rebuild clones from, into what a clone that failed has
// left: the data was given up then, and there is no way back.
func (r *Rebuild) cloneAnew(m rebuildMark, in Incoming) error {
	if _, err := io.Copy(io.Discard, in.Stream); err != nil {
		return err
	}
	if m.ID != in.ID {
		// A clone that was completed for the other one does not count for this: its
		// donor may have lacked what this one's has applied.
		m.ID, m.Began, m.Again = in.ID, "", true
	}
	m.Host, m.Port, m.Rate = in.Host, in.Port, in.Rate
	return r.setMark(m)
}

// placeClone clones into the server's own data directory. The server ends when it
// is done. Repeated after a crash it waits for a clone that goes on without us, and
// takes one that has ended for done.
func (r *Rebuild) placeClone(ctx context.Context, m rebuildMark, silent func()) error {
	if err := r.seed(ctx, &m); err != nil {
		return err
	}
	if err := r.startToClone(ctx, &m); err != nil {
		return fmt.Errorf("starting the server to clone into: %w", err)
	}
	s := r.cfg.Server
	if err := r.isItsOwn(ctx); err != nil {
		return err
	}
	if m.Began == "" {
		begun, err := row(ctx, s.db, "SELECT CAST(NOW(3) AS CHAR) AS now_is")
		if err != nil {
			return fmt.Errorf("asking the server for the time: %w", err)
		}
		m.Stage, m.Began = RebuildPlacing, begun["now_is"]
		if err := r.setMark(m); err != nil {
			return err
		}
	}
	// Also while a clone goes on that was begun before this program was restarted.
	if st, err := s.Status(ctx); err == nil && silent != nil && st.IORunning == ThreadNo && !st.ReplicaSemiSyncEnabled && !st.ReplicaSemiSyncActive {
		silent()
	}
	done, err := s.cloned(ctx, m.Began, m.donor())
	if err == nil && !done {
		var told bool
		if told, err = s.clone(ctx, m, silent); err == nil {
			done, err = r.cloneEnded(ctx, m, told)
		}
	}
	if err != nil {
		return err
	}
	if !done {
		return fmt.Errorf("%w: the server ended before its clone of %s was complete (its own log says why)", ErrBackup, m.donor())
	}
	m.Stage = RebuildPlaced
	return r.setMark(m)
}

// cloneEnded waits until a server that clones has ended, starts it, and asks whether
// the clone is complete: one that was killed in the middle of it ends, too, and starts
// again, without its tables. Where it has told that it has cloned, and begins to shut
// down, it is not waited for: the copy is on disk before that, and what a shutdown of
// seconds would still write belongs to the data that is replaced.
func (r *Rebuild) cloneEnded(ctx context.Context, m rebuildMark, told bool) (bool, error) {
	if told {
		if err := r.cfg.Service.Kill(ctx); err != nil {
			return false, fmt.Errorf("killing the cloned server: %w", err)
		}
	}
	if err := poll(ctx, func() (bool, error) {
		_, running, err := r.cfg.Service.Running(ctx)
		return !running || !told && r.cfg.Server.cloneGaveUp(ctx), err
	}); err != nil {
		return false, fmt.Errorf("waiting for the cloned server to end: %w", err)
	}
	if err := r.cfg.Service.Start(ctx, StartOptions{}); err != nil {
		return false, fmt.Errorf("starting the cloned server: %w", err)
	}
	began := m.Began
	if told { // it is this one, whatever the clock says
		began = ""
	}
	return r.cfg.Server.cloned(ctx, began, m.donor())
}

// cloneGaveUp tells that the server lives and that nobody is at a clone which is not
// complete: only the session was ended.
func (s *Server) cloneGaveUp(ctx context.Context) bool {
	st, err := row(ctx, s.db, "SELECT PID=0 AND STATE<>'Completed' AS idle FROM performance_schema.clone_status")
	return err == nil && st.yes("idle")
}

// startToClone starts the server. One that does not start on what a clone of another
// rebuild left is given a new server's data, before a clone of this one has begun:
// afterwards the clone may be complete although the server does not start just now.
func (r *Rebuild) startToClone(ctx context.Context, m *rebuildMark) error {
	err := r.cfg.Service.Start(ctx, StartOptions{})
	if err == nil || !m.Again || m.Began != "" || m.Stage != RebuildPlacing || ctx.Err() != nil {
		return err
	}
	r.log.Warn("the server does not start on what a failed clone left: making a new one's data", "error", err.Error())
	if seeding := r.makeSeed(ctx, m); seeding != nil {
		return errors.Join(err, seeding)
	}
	return r.cfg.Service.Start(ctx, StartOptions{})
}

// isItsOwn makes sure that the server which is about to lose its data is the one
// whose data directory was looked at.
func (r *Rebuild) isItsOwn(ctx context.Context) error {
	st, err := r.cfg.Server.Status(ctx)
	if err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(st.DataDir)
	if err != nil {
		return fmt.Errorf("finding the server's data directory: %w", err)
	}
	if filepath.Clean(dir) != filepath.Clean(r.cfg.DataDir) {
		return fmt.Errorf("%w: the server's data is in %s, and hbd was told %s (server.data_dir): nothing is cloned into it", ErrUnsupported, dir, r.cfg.DataDir)
	}
	return nil
}

// Redirect names another donor to a copy that the server fetches itself.
func (r *Rebuild) Redirect(host string, port uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.mark()
	if err != nil || !r.clones() || m.Stage != RebuildPrepared && m.Stage != RebuildPlacing && m.Stage != RebuildEntering || m.Host == host && m.Port == port {
		return err
	}
	m.Host, m.Port = host, port
	return r.setMark(m)
}

// cloneConnect is how long a donor may take to let this server in, after it fell
// silent.
const cloneConnect = 2 * time.Second

// fallSilent ends replication and acknowledgements, and makes sure of it: the
// data is about to be thrown away, and nothing it receives may count any more.
func (s *Server) fallSilent(ctx context.Context) error {
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := execute(ctx, s.db, "STOP REPLICA", s.dialect.words().replicaSemiSyncOff); err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if st.IORunning != ThreadNo || st.ReplicaSemiSyncEnabled || st.ReplicaSemiSyncActive {
		return fmt.Errorf("the receiver is %s, replica semi-sync %t, in force %t", st.IORunning, st.ReplicaSemiSyncEnabled, st.ReplicaSemiSyncActive)
	}
	return nil
}

func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// clone runs CLONE INSTANCE to its end. It reports whether the server told that it has
// cloned; one whose connection has only ended may have.
func (s *Server) clone(ctx context.Context, m rebuildMark, silent func()) (told bool, err error) {
	plugin, err := row(ctx, s.db, "SELECT PLUGIN_STATUS AS status FROM information_schema.PLUGINS WHERE PLUGIN_NAME='clone'")
	if err != nil {
		return false, fmt.Errorf("looking for the clone plugin: %w", err)
	}
	if plugin["status"] != "ACTIVE" {
		return false, fmt.Errorf("%w: the plugin clone is not loaded; hbd loads it at every start it makes: restart the server through hbd", ErrUnsupported)
	}
	limit, donor := mibPerSecond(m.Rate), m.donor()
	if err := s.fallSilent(ctx); err != nil {
		return false, fmt.Errorf("before a clone: %w", err)
	}
	if silent != nil {
		silent()
	}
	if err := execute(ctx, s.db, fmt.Sprintf("SET GLOBAL clone_max_data_bandwidth=%d", limit)); err != nil {
		return false, err
	}
	if err := execArgs(ctx, s.db, "SET GLOBAL clone_valid_donor_list=?", donor); err != nil {
		return false, err
	}
	// CLONE removes what is here first, and super_read_only forbids that; read_only stays on.
	if err := s.setGlobals(ctx, &s.abandoned, s.dialect.words().barrierWritable); err != nil {
		return false, fmt.Errorf("before a clone: %w", err)
	}
	s.log.Info("cloning", "from", donor, "mib_per_second", limit)
	ctx, cancel := context.WithTimeout(ctx, cloneTimeout)
	defer cancel()
	until := time.Now().Add(cloneConnect)
	for {
		err = execArgs(ctx, s.db, fmt.Sprintf("CLONE INSTANCE FROM ?@?:%d IDENTIFIED BY ?", m.Port), s.cfg.ReplicationUser, m.Host, s.cfg.ReplicationPassword)
		if serverErrorNumber(err) != errCloneDonor || time.Now().After(until) || !sleepFor(ctx, cloneConnect/20) {
			break
		}
	}
	if number := serverErrorNumber(err); err == nil || number == errRestartFailed || number == 0 && Classify(err) == FaultDown {
		return number == errRestartFailed, nil
	}
	if ctx.Err() == nil { // else the clone goes on without us, and is waited for when this is due again
		c, end := context.WithTimeout(ctx, 5*time.Second)
		defer end()
		err = errors.Join(err, s.setGlobals(c, &s.abandoned, s.dialect.words().readOnly))
	}
	if serverErrorNumber(err) == errCloneConflicts {
		return false, fmt.Errorf("cloning from %s: a clone is under way already: %w", donor, err)
	}
	return false, fmt.Errorf("%w: cloning from %s: %w", ErrBackup, donor, err)
}

// mibPerSecond is a rate in bytes as the server wants it. 0 is no limit, so the least
// that limits is 1.
func mibPerSecond(rate int64) int64 {
	if rate <= 0 {
		return 0
	}
	return max(1, rate>>20)
}

// cloned reports whether the server's last clone began at or after a time (at any if
// that is empty) and was completed. While one is going on it waits for its end; one of another donor is ended,
// for the server would wait for it for minutes after it was lost. A server that was
// killed in the middle of one calls it in progress ever after: nobody is at it any more.
func (s *Server) cloned(ctx context.Context, began, donor string) (bool, error) {
	var done bool
	plain := strings.NewReplacer("[", "", "]", "") // the server writes none around an IPv6 address
	ended, ours := "", "1"
	if began != "" {
		ours = "BEGIN_TIME >= " + quotedList([]string{began})
	}
	err := poll(ctx, func() (bool, error) {
		st, err := row(ctx, s.db, "SELECT STATE='In Progress' AND PID<>0 AS going, PID AS session, SOURCE AS donor, STATE='Completed' AS completed, "+ours+" AS ours FROM performance_schema.clone_status")
		if err != nil {
			return false, fmt.Errorf("reading the clone's status: %w", err)
		}
		if st.yes("going") && plain.Replace(st["donor"]) != plain.Replace(donor) && ended != st["session"] {
			s.log.Info("ending the clone of a donor that was replaced", "from", st["donor"], "to", donor)
			if err := execute(ctx, s.db, "KILL QUERY "+st["session"]); err != nil && serverErrorNumber(err) != errNoSuchThread {
				return false, fmt.Errorf("ending the clone of %s: %w", st["donor"], err)
			}
			ended = st["session"]
		}
		done = st.yes("completed") && st.yes("ours")
		return !st.yes("going"), nil
	})
	return done, err
}

// CloneSize is about how many bytes a clone of this server has.
func (s *Server) CloneSize(ctx context.Context) (int64, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return 0, err
	}
	size, err := copySize(st.DataDir)
	if err != nil {
		return 0, fmt.Errorf("sizing the data: %w", err)
	}
	return size, nil
}

// CloneProgress is how far a clone into this server is; ok only while one is under
// way.
func (s *Server) CloneProgress(ctx context.Context) (received, size int64, ok bool) {
	if s.cfg.Dialect != "mysql" {
		return 0, 0, false
	}
	p, err := row(ctx, s.db, "SELECT SUM(DATA) AS data, SUM(ESTIMATE) AS estimate, SUM(STATE='In Progress') AS going FROM performance_schema.clone_progress")
	if err != nil || p.number("going") == 0 {
		return 0, 0, false // it is down for a moment, or has not begun
	}
	return int64(p.number("data")), int64(p.number("estimate")), true
}

// adoptHistory: a clone brings gtid_executed along, and what its donor knew of a
// source, which is not this server's.
func (mysqlDialect) adoptHistory(ctx context.Context, q querier, _ string) error {
	return execute(ctx, q, "STOP REPLICA", "RESET REPLICA ALL")
}
