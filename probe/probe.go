package probe

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
)

// Database is what is asked of the server. *mysqld.Server is one.
type Database interface {
	Status(ctx context.Context) (mysqld.Status, error)
	LastEpoch(ctx context.Context) (epoch uint64, node string, err error)
	Watch(ctx context.Context, onDown func())
}

// Process is what is asked about the server's process. Every mysqld.Service is one.
type Process interface {
	Running(ctx context.Context) (pid int, running bool, err error)
	Watch(ctx context.Context, onExit func())
}

var (
	_ Database = (*mysqld.Server)(nil)
	_ Process  = (mysqld.Service)(nil)
)

// Config is what a Prober needs.
type Config struct {
	Database Database
	// Process may be nil: then the process is known only from the connections.
	Process Process
	// Login is the account of Reach and of the fresh connections.
	Login Account
	// Socket is where the server is logged in to afresh; empty leaves that out.
	Socket string
	// Interval is the time from the end of one look to the next, 100 ms by default. Half of it doubles the cost: a look
	// is five statements.
	Interval time.Duration
	// Pause, if it is set, is asked after each look how long to wait for the next, instead of Interval.
	Pause func() time.Duration
	// HungAfter is how long a server with a live process may answer nothing before it is hung, 3 s by default. Below a
	// second a busy host's server is called hung.
	HungAfter time.Duration
	// Logger gets one line per change; nil discards them.
	Logger *slog.Logger
}

const (
	defaultInterval  = 100 * time.Millisecond
	defaultHungAfter = 3 * time.Second
	// loginEvery and diskEvery are for quiet times; a silent server is looked at with each look.
	loginEvery = time.Second
	diskEvery  = 2 * time.Second
	// stalledAfter is how long no commit may get through, with one waiting, before that is called a fault. Ordinary
	// waits are a millisecond.
	stalledAfter = 500 * time.Millisecond

	// connectAfter is how long a receiver may take to connect before it counts as waiting for its next try. Connecting
	// takes a few milliseconds; the next try comes after a second.
	connectAfter = 150 * time.Millisecond
	// processTimeout bounds asking the service manager.
	processTimeout = 200 * time.Millisecond
)

// Prober looks after one server. All its methods may be called at any time by anybody.
type Prober struct {
	cfg     Config
	log     *slog.Logger
	limit   time.Duration // of one look
	changed chan struct{}
	kicked  chan struct{} // asks the loop for a look now
	logins  task[error]
	disk    task[diskResult]

	mu      sync.Mutex
	flight  *flight
	flights uint64 // looks begun
	view    view
}

// view is what is known. Instants are of Go's monotonic clock: nothing here outlives a suspend.
type view struct {
	status     fsm.ServerStatus // For is filled in when it is read
	since      time.Time        // beginning of its state
	generation string
	died       time.Time // newest death noticed: older looks prove nothing
	became     time.Time // newest change taken over without a look: older looks are of before
	silent     time.Time // beginning of the silence, zero while it answers or refuses
	connecting time.Time // since when the receiver tries to connect
	receiver   uint64    // the number of the receiver that connecting is about
	waiting    time.Time // beginning of a wait of commits without progress
	ending     string    // the run that was up, while it is down and its process is still there
	dirs       []string  // where the server writes
	epochAt    string    // run and position at which the newest epoch row was read
}

// New makes a prober; Run starts it.
func New(cfg Config) (*Prober, error) {
	if cfg.Database == nil {
		return nil, errors.New("probe: no database")
	}
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Pause == nil {
		cfg.Pause = func() time.Duration { return cfg.Interval }
	}
	if cfg.HungAfter == 0 {
		cfg.HungAfter = defaultHungAfter
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Prober{cfg: cfg, log: cfg.Logger, changed: make(chan struct{}, 1), kicked: make(chan struct{}, 1)}
	// Three looks must fail before a server is called hung, and each says how far it came.
	p.limit = min(cfg.HungAfter/3, time.Second)
	p.view.status.State, p.view.since = fsm.ServerUnknown, time.Now()
	return p, nil
}

// Server is the newest finding, from memory.
func (p *Prober) Server() fsm.ServerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.view.status
	st.For = time.Since(p.view.since)
	return st
}

// Generation is the receive generation of package mysqld as last seen: while it stays the same and is not empty, the
// server has forgotten nothing that it received.
func (p *Prober) Generation() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.view.generation
}

// BecameSource implements cluster.Prober.
func (p *Prober) BecameSource(run string, acks int) bool {
	return p.became(run, "", func(v *view) {
		st := &v.status
		st.HasReplication, st.SourceHost, st.SourcePort, st.SourceID = false, "", 0, ""
		st.IORunning, st.IOConnecting, st.IOStalled, st.SQLRunning, st.ReplicaSync = false, false, false, false, false
		st.ReplError, st.IOErrno, st.ApplyErrno, st.Lag, st.ChannelDrift, st.LoginRefused, st.Delay = "", 0, 0, nil, nil, false, 0
		st.SourceSync, st.Acks, st.Leftover = acks > 0, acks, true
		st.Received = st.Executed
		v.generation, v.connecting = "", time.Time{}
	})
}

// BecameReadOnly implements cluster.Prober. read_only has waited for commits that
// waited.
func (p *Prober) BecameReadOnly(run string) bool {
	return p.became(run, FaultCommitsWait, func(v *view) { v.status.ReadOnly = true })
}

// became takes over what statements that succeeded just now tell of a run of the
// server, and that they end a fault: they tell as much as a look, and take no time
// while clients wait. It reports whether that is the run that is known.
func (p *Prober) became(run, ends string, change func(*view)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := &p.view
	if run == "" || v.status.State != fsm.ServerUp || v.status.Started != run {
		return false
	}
	v.became = time.Now()
	fault := v.status.Fault
	if fault == ends {
		fault = ""
	}
	p.publish(change, fault)
	return true
}

// Changed receives, at most one unread, when something that is decided by has changed: at once when the server dies.
func (p *Prober) Changed() <-chan struct{} { return p.changed }

// Run keeps looking until ctx ends, and returns when what it started has ended (save a write on a hanging disk).
func (p *Prober) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { p.cfg.Database.Watch(ctx, p.died) })
	if p.cfg.Process != nil {
		running.Go(func() { p.cfg.Process.Watch(ctx, p.died) })
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		case <-p.kicked:
		}
		p.Look(ctx)
		pause.Reset(p.cfg.Pause())
	}
}

// died is called when a connection or a process was seen to end. If the kernel says that the run seen last is gone the
// server is down now, without asking anybody; else the next look tells.
func (p *Prober) died() {
	p.mu.Lock()
	if viewRun(p.view.status.Started).gone {
		p.view.died = time.Now()
		p.lost(FaultNoProcess, processView{gone: true})
	}
	p.mu.Unlock()
	signal(p.kicked)
}

// Kick asks for a look now: something goes on that it may matter for.
func (p *Prober) Kick() { signal(p.kicked) }

// signal fills a channel of capacity one and never waits.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // one is already on its way
	}
}
