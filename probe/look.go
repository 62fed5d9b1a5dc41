package probe

import (
	"context"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
)

// flight is one look under way.
type flight struct {
	number uint64
	done   chan struct{}
}

// reading is what one look read.
type reading struct {
	begun   time.Time
	status  mysqld.Status
	err     error
	epoch   uint64
	epochAt string      // what the epoch belongs to; empty when it was not read
	process processView // when err is not nil
}

// Look takes a new look and returns what is found. It joins a look under way only if that began after the call; an older
// one is waited for first, because there is only ever one. If ctx ends first it returns what is known, and the look goes
// on by itself: a server that hangs holds up nobody.
func (p *Prober) Look(ctx context.Context) fsm.ServerStatus {
	p.mu.Lock()
	need := p.flights + 1
	for {
		f := p.flight
		if f == nil {
			p.flights++
			f = &flight{number: p.flights, done: make(chan struct{})}
			p.flight = f
			go p.fly(f)
		}
		p.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return p.Server()
		}
		if f.number >= need {
			return p.Server()
		}
		p.mu.Lock()
	}
}

// fly takes one look. It ends by itself after p.limit.
func (p *Prober) fly(f *flight) {
	r := p.read()
	now := time.Now()
	p.keepLooking(r, now)
	p.mu.Lock()
	p.settle(r, now)
	p.flight = nil
	p.mu.Unlock()
	close(f.done)
}

// read asks the server.
func (p *Prober) read() reading {
	ctx, cancel := context.WithTimeout(context.Background(), p.limit)
	defer cancel()
	r := reading{begun: time.Now()}
	r.status, r.err = p.cfg.Database.Status(ctx)
	if answer := reply(r.err); answer == replyShutdown || r.err != nil && mysqld.Classify(r.err) == mysqld.FaultDown && answer == replyNone {
		// The connection ended under the question, as after a KILL, of which MySQL may say the same as of its own end. Another one tells.
		again, err := p.cfg.Database.Status(ctx)
		if answer == replyNone || reply(err) != replyNone { // no answer does not take one back
			r.status, r.err = again, err
		}
	}
	p.mu.Lock()
	run, epochAt := p.view.status.Started, p.view.epochAt
	p.mu.Unlock()
	if r.err != nil {
		r.process = p.viewProcess(run)
		return r
	}
	if at := r.status.Incarnation + " " + r.status.Executed; at != epochAt {
		epoch, _, err := p.cfg.Database.LastEpoch(ctx)
		if err != nil {
			p.log.Debug("reading the newest epoch row", "error", err) // read again with the next look
			return r
		}
		r.epoch, r.epochAt = epoch, at
	}
	return r
}

// viewProcess looks at the server's process: the run seen last, or another that the service manager knows.
func (p *Prober) viewProcess(run string) processView {
	v := viewRun(run)
	if v.running || p.cfg.Process == nil {
		return v
	}
	ctx, cancel := context.WithTimeout(context.Background(), processTimeout)
	defer cancel()
	pid, running, err := p.cfg.Process.Running(ctx)
	switch {
	case err != nil:
		p.log.Debug("asking for the server's process", "error", err)
		return processView{} // unknown is not gone
	case !running:
		return processView{gone: true}
	default:
		return viewPID(pid, 0)
	}
}

// keepLooking starts the looks that may hang, when they are due or the server is silent.
func (p *Prober) keepLooking(r reading, now time.Time) {
	silent := reply(r.err) == replyNone
	p.mu.Lock()
	dirs := p.view.dirs
	p.mu.Unlock()
	if r.err == nil {
		dirs = directories(r.status)
	}
	if _, begun, _ := p.logins.read(now); p.cfg.Socket != "" && reply(r.err) != replyRefused && (silent || now.Sub(begun) >= loginEvery) {
		p.logins.start(now, p.tryLogin, nil)
	}
	if _, begun, _ := p.disk.read(now); len(dirs) > 0 && (silent || now.Sub(begun) >= diskEvery) {
		before, _, _ := p.disk.read(now)
		p.disk.start(now, func() diskResult { return tryDisk(dirs) }, func() { p.reportDisk(before.value) })
	}
}

// tryLogin makes a fresh connection to the server.
func (p *Prober) tryLogin() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.limit)
	defer cancel()
	return Reacher{p.cfg.Login, p.log}.login(ctx, "unix", p.cfg.Socket)
}

// reportDisk logs when the disk can no longer be tried, or can again.
func (p *Prober) reportDisk(before diskResult) {
	now, _, _ := p.disk.read(time.Now())
	switch err := now.value.err; {
	case err != nil && before.err == nil:
		p.log.Warn("the server's disk cannot be tried: a full or hanging one may go unnoticed", "error", err)
	case err == nil && before.err != nil:
		p.log.Info("the server's disk can be tried again")
	}
}

// settle turns a reading into what is known. The caller holds mu.
func (p *Prober) settle(r reading, now time.Time) {
	v := &p.view
	if r.begun.Before(v.died) || r.begun.Before(v.became) {
		return // asked of the dead, or of what is no more
	}
	switch {
	case reply(r.err) != replyNone || r.process.gone:
		v.silent = time.Time{}
	case v.silent.IsZero():
		v.silent = r.begun
	}
	if r.err == nil {
		v.noteProgress(r)
	}
	state, fault := judge(v.status.State, p.evidence(r, now), p.cfg.HungAfter)
	switch {
	case state == fsm.ServerDown:
		p.lost(fault, r.process)
	case r.err == nil:
		p.publish(func(v *view) { v.fill(r) }, fault)
	default:
		p.publish(func(v *view) { v.keep(state, r.process.run) }, fault)
	}
}

// evidence gathers what judge needs. The caller holds mu.
func (p *Prober) evidence(r reading, now time.Time) evidence {
	v := &p.view
	e := evidence{err: r.err, process: r.process}
	if !v.silent.IsZero() {
		e.silent = now.Sub(v.silent)
	}
	e.stalled = !v.waiting.IsZero() && now.Sub(v.waiting) >= stalledAfter
	login, _, _ := p.logins.read(now)
	if login.begun.After(v.since) { // an older one was of another state
		fault := mysqld.Classify(login.value)
		e.login.tooMany, e.login.hangs = fault == mysqld.FaultTooManyConnections, fault == mysqld.FaultHung
	}
	if !v.silent.IsZero() && !login.begun.Before(v.silent) {
		answer := reply(login.value)
		e.login.answered = answer == replyStatus || answer == replyError
		e.login.failed = !e.login.answered
	}
	e.login.failed = e.login.failed || p.cfg.Socket == "" // nothing to try: the kept connections must do
	disk, _, writing := p.disk.read(now)
	e.disk = diskView{full: disk.value.full, hung: writing >= p.cfg.HungAfter}
	return e
}

// noteProgress times how long commits have waited without one getting through. What a waiting commit wrote is in the
// position already, so a position that stands still means that none got through.
func (v *view) noteProgress(r reading) {
	switch {
	case r.status.WaitSessions == 0:
		v.waiting = time.Time{}
	case v.waiting.IsZero() || r.status.Executed != v.status.Executed || r.status.Incarnation != v.status.Started:
		v.waiting = r.begun
	}
}
