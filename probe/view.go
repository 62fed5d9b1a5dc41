package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
)

// down forgets what was true of a run that is no more. The version stays: it is the same program's.
func (v *view) down() {
	v.status = fsm.ServerStatus{State: fsm.ServerDown, Version: v.status.Version, LastEpoch: v.status.LastEpoch}
	v.generation, v.epochAt = "", ""
	v.silent, v.waiting = time.Time{}, time.Time{}
}

// lost says that the server is down. Whether it stopped in good order is judged of the run that was up, until that is gone: a failed start leaves the same
// behind. A hbd that has just started does not know and counts an absent socket: that costs one start in place. The caller holds mu.
func (p *Prober) lost(fault string, process processView) {
	v := &p.view
	stopped, ending := v.status.Stopped, v.ending
	switch v.status.State {
	case fsm.ServerUp, fsm.ServerHung, fsm.ServerUnknown:
		stopped, ending = false, v.status.Started
	default:
	}
	if ending != "" || v.status.State == fsm.ServerUnknown {
		stopped = stopped || fault == FaultShuttingDown || p.cfg.Socket != "" && isAbsent(p.cfg.Socket)
	}
	if !process.running || process.run != ending {
		ending = ""
	}
	p.publish(func(v *view) { v.down(); v.status.Stopped, v.ending = stopped, ending }, fault)
}

// isAbsent: a server takes its socket away when it is stopped, and leaves it when it is killed or crashes. Of a link its target counts.
func isAbsent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// keep changes the state and leaves what was read before, unless that was of another run.
func (v *view) keep(state fsm.ServerState, run string) {
	if run != "" && run != v.status.Started {
		v.down()
		v.status.Started = run
	}
	v.status.State = state
}

// fill takes over what a server said.
func (v *view) fill(r reading) {
	st, epoch := r.status, v.status.LastEpoch
	if r.epochAt != "" {
		epoch, v.epochAt = r.epoch, r.epochAt
	}
	v.status = fsm.ServerStatus{
		State: fsm.ServerUp, Version: st.Version, ServerID: st.OwnServerID(), Started: st.Incarnation, ReadOnly: st.ReadOnly,
		Executed: st.Executed, Received: st.Received,
		HasReplication: st.HasReplication, Leftover: st.Leftover, SourceHost: st.SourceHost, SourcePort: st.SourcePort, SourceID: st.SourceID,
		IORunning: st.IORunning != mysqld.ThreadNo, IOConnecting: st.IORunning == mysqld.ThreadConnecting, SQLRunning: st.SQLRunning, ReplError: replicationError(st), IOErrno: st.IOErrno, Lag: st.LagSeconds,
		SourceSync: st.SourceSemiSyncEnabled, Acks: acks(st), ReplicaSync: st.ReplicaSemiSyncActive, ReplicaSyncSet: st.ReplicaSemiSyncEnabled,
		Waiting:   st.WaitSessions,
		LastEpoch: epoch, Problems: st.Problems,
		ChannelDrift: st.ChannelDrift, LoginRefused: mysqld.LoginRefused(st.IOErrno), ApplyErrno: st.SQLErrno,
		Delay: st.Channel.Delay,
	}
	for _, one := range st.Weakened {
		v.status.Weakened = append(v.status.Weakened, one.String())
	}
	switch {
	case !v.status.IOConnecting:
		v.connecting = time.Time{}
	case v.connecting.IsZero() || v.receiver != st.ReceiverID: // one that was started anew has all its time to connect
		v.connecting = r.begun
	}
	v.receiver = st.ReceiverID
	v.status.IOStalled = v.status.IOConnecting && r.begun.Sub(v.connecting) >= connectAfter
	v.generation, v.dirs = st.Generation, directories(st)
}

// acks is how many acknowledgements a commit waits for.
func acks(st mysqld.Status) int {
	if !st.SourceSemiSyncEnabled {
		return 0
	}
	return st.Acks
}

// replicationError puts both threads' errors into one line.
func replicationError(st mysqld.Status) string {
	switch {
	case st.SQLErrno != 0:
		return fmt.Sprintf("applying: %d %s", st.SQLErrno, st.SQLError)
	case st.IOErrno != 0:
		return fmt.Sprintf("receiving: %d %s", st.IOErrno, st.IOError)
	}
	return ""
}

// decisive is what of a view is decided by: a change of it is signalled.
type decisive struct {
	state                                         fsm.ServerState
	fault, started, generation, sourceHost        string
	sourcePort                                    uint16
	replica, receives, stalled, applies, readOnly bool
	sourceSync, replicaSync, replicaSyncSet       bool
	acks                                          int
	applyErrno                                    int
	care                                          string
}

func (v *view) decisive() decisive {
	st := v.status
	return decisive{st.State, st.Fault, st.Started, v.generation, st.SourceHost, st.SourcePort,
		st.HasReplication, st.IORunning, st.IOStalled, st.SQLRunning, st.ReadOnly, st.SourceSync, st.ReplicaSync, st.ReplicaSyncSet, st.Acks,
		st.ApplyErrno, strings.Join(append(slices.Clone(st.Weakened), st.ChannelDrift...), "\n")}
}

// publish changes what is known, and tells about it if it matters. The caller holds mu.
func (p *Prober) publish(change func(*view), fault string) {
	v := &p.view
	before := v.decisive()
	change(v)
	v.status.Fault, v.status.CommitsWait = fault, fault == FaultCommitsWait
	after := v.decisive()
	if after == before {
		return
	}
	if after.state != before.state {
		v.since = time.Now()
	}
	if after.state != before.state || after.fault != before.fault || after.started != before.started {
		level := slog.LevelInfo
		if after.fault != "" {
			level = slog.LevelWarn
		}
		p.log.Log(context.Background(), level, "server changed", "state", after.state, "fault", after.fault, "was", before.state, "run", after.started)
	}
	signal(p.changed)
}
