package sim

import (
	"slices"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/fsm/gtid"
)

// effect carries out one action.
func (n *node) effect(a fsm.Action) { //nolint:gocyclo // a table: one case for each action
	v := &n.sv
	switch a.Kind {
	case fsm.ActCloseGate:
		n.closeGate()
	case fsm.ActSelfFence:
		n.selfFence()
	case fsm.ActReleaseVIP:
		n.vipHeld, n.announced = false, false
	case fsm.ActKill:
		v.crash()
	case fsm.ActStart:
		n.startServer(a)
	case fsm.ActStopFollow:
		n.stopFollow()
	case fsm.ActSourceSync:
		if acks := n.state().SourceAcks(); v.up() && acks > 0 {
			v.waitFor(acks)
		}
	case fsm.ActBarrier:
		n.barrier(a)
	case fsm.ActOpen:
		n.open(a)
	case fsm.ActForget:
		v.leftover = nil
	case fsm.ActFollow:
		n.follow(a)
	case fsm.ActReturn:
		n.comeBack(a)
	case fsm.ActUnblock:
		clear(v.blocked)
	case fsm.ActNudge:
		n.nudge()
	case fsm.ActBlock, fsm.ActCoverPort, fsm.ActUncover, fsm.ActPrepare, fsm.ActAsync, fsm.ActSyncOff:
		n.changeSet(a)
	case fsm.ActReconnect: // the model's IO thread does not wait before it tries again
	case fsm.ActMend, fsm.ActRebuild: // the model has neither an operator's settings nor copies
	case fsm.ActNone:
	}
}

// selfFence: read-only is enough when no commit waits; else only SIGKILL keeps the waiters from being told success.
func (n *node) selfFence() {
	if n.w.cfg.Controls.SemiSyncOffInFence && n.sv.state == fsm.ServerUp {
		n.sv.async()
		n.sv.readOnly = true
		return
	}
	if n.sv.waiting() > 0 || n.sv.state == fsm.ServerHung {
		n.w.say(n, "self-fence: mysqld killed with %d waiting", n.sv.waiting())
		n.sv.crash()
		return
	}
	n.sv.readOnly = true
}

func (n *node) startServer(a fsm.Action) {
	switch {
	case n.sv.state != fsm.ServerDown:
	case n.sv.broken:
		n.failedIndex = a.Index
	default:
		n.rewindDegraded()
		n.sv.start()
		n.w.say(n, "mysqld started, run %d", n.sv.run)
	}
}

// nudge commits a row, so that those are released whose acknowledgement was lost.
func (n *node) nudge() {
	if v := &n.sv; v.up() && !v.hasReplication && v.sourceSync {
		n.waitsSince = n.clock()
		v.write(0)
	}
}

// holds tells whether the node has what the log says the primary must hold before it serves.
func (n *node) holds() bool {
	op := n.state().Op
	return op == nil || op.Step != fsm.StepPromoted || n.contains(op.Position)
}

func (n *node) contains(position string) bool {
	return n.w.holds(n.sv.position(len(n.sv.log)), position)
}

// holds tells whether one position holds another.
func (w *World) holds(has, wants string) bool {
	a, err := gtid.Parse(gtid.Flavor(w.cfg.Server), has)
	if err != nil {
		return false
	}
	b, err := gtid.Parse(gtid.Flavor(w.cfg.Server), wants)
	return err == nil && a.Contains(b)
}

func (n *node) stopIO() {
	n.sv.io = false
	n.sv.ioRun++
}

// stopFollow drains what was received; without all that it must hold, the node stays a replica.
func (n *node) stopFollow() {
	v := &n.sv
	if !v.up() {
		return
	}
	n.stopIO()
	if v.waiting() > 0 {
		return
	}
	n.fetch()
	if !n.holds() {
		n.reportOnce("named primary without %s: has %s", n.state().Op.Position, v.position(len(v.log)))
		return
	}
	v.hasReplication, v.leftover, v.source, v.replicaSync, v.syncSet = false, v.source, nil, false, false
}

// fetch takes over from a frozen node what the log says: up to the position that this node must hold, which is waited for, or what a replica outside
// the sync set received beyond it, which is worth having and not waited for.
func (n *node) fetch() {
	v, op := &n.sv, n.state().Op
	if op == nil || op.Step != fsm.StepPromoted || op.Fetch == "" || op.To != n.id {
		return
	}
	from := n.w.node(op.Fetch)
	more := from.sv.readable()
	if !from.sv.up() || !n.w.linked(n, from) || from.sv.blocked[n] || len(more) <= len(v.log) {
		return
	}
	if common(v.log, more) < len(v.log) {
		n.w.fail("%s takes over from %s what is of another history: %d in common, had %d", n.id, from.id, common(v.log, more), len(v.log))
	}
	n.w.say(n, "takes over from %s up to %d, had %d", from.id, len(more), len(v.log))
	if op.Extra != "" {
		n.w.res.Extras++
	} else {
		n.w.res.Fetches++
	}
	v.log = slices.Clone(more)
	v.done = len(v.log)
}

func (n *node) reportOnce(format string, args ...any) {
	if n.lastReported != format {
		n.lastReported = format
		n.w.say(n, format, args...)
	}
}

// barrier writes down that this node may hold the epoch, then the epoch's first transaction. A barrier that is under way is only waited for; if that
// takes long its acknowledgement may never come, because it was received by somebody who did not count yet: a later transaction makes up for it.
func (n *node) barrier(a fsm.Action) {
	v := &n.sv
	if !v.up() || !n.enforced() || v.hasReplication || !n.holds() || n.state().Epoch != a.Epoch || n.state().Primary != n.id {
		return
	}
	if v.barrierEpoch == a.Epoch && v.barrierRun == v.run {
		if n.commitsWait() {
			n.nudge()
		}
		return
	}
	n.held = max(n.held, a.Epoch)
	v.write(a.Epoch)
	v.barrierAt, v.barrierEpoch, v.barrierRun = len(v.log), a.Epoch, v.run
	n.w.say(n, "barrier of epoch %d written at %d", a.Epoch, len(v.log))
}

func (n *node) open(a fsm.Action) {
	v := &n.sv
	right := func() bool {
		s := n.state()
		return v.up() && !v.hasReplication && n.enforced() && n.leaseValid() && n.leaseEpoch == s.Epoch && s.Primary == n.id && n.allowed(a)
	}
	if !right() || !n.barrierDone(a.Epoch) {
		return
	}
	n.setGate(right, func() {
		if v.readOnly || !n.vipHeld {
			n.w.say(n, "serves epoch %d", a.Epoch)
		}
		n.held = max(n.held, a.Epoch)
		v.readOnly, n.vipHeld, n.announced, n.otherClaims, n.servedIndex = false, true, true, false, a.Index
		for _, o := range n.w.nodes {
			if o != n && n.w.reaches(n, o) {
				o.otherClaims = true
			}
		}
	})
}

// follow drains (MySQL applies on meanwhile), compares, and replicates from the primary. Nothing received is ever dropped on the way.
func (n *node) follow(a fsm.Action) {
	v, target := &n.sv, n.w.node(a.Target)
	if !v.up() || target == nil || target == n {
		return
	}
	if !n.named(target) || n.state().Epoch != a.Epoch && !n.w.cfg.Controls.SkipEpochCheck {
		return
	}
	n.selfFenceBeforeFollow()
	if n.ackTooEarly(target) {
		return
	}
	if v.hasReplication && v.source != target {
		n.stopIO()
	}
	if target.id == n.state().Primary && !v.io {
		delete(v.blocked, target) // it may have to catch up from here
	}
	if v.hasReplication && v.waiting() > 0 && n.w.cfg.Server != string(gtid.MySQL) || !target.sv.up() || !n.w.linked(n, target) {
		return
	}
	if common(v.log, target.sv.readable()) < len(v.log) {
		n.mayRebuild(target, a)
		return
	}
	n.follows(a.Epoch, target)
	n.attach(target)
}

// selfFenceBeforeFollow keeps a former source from taking writes while it is being turned round.
func (n *node) selfFenceBeforeFollow() {
	n.closeGate()
	n.sv.readOnly = true
}

// named: the state as it is now still says that this is the source to follow.
func (n *node) named(target *node) bool {
	return n.state().SourceOf(n.id) == target.id || n.w.cfg.Controls.SkipEpochCheck
}

func (n *node) attach(target *node) {
	v := &n.sv
	if v.source != target || !v.hasReplication {
		n.w.say(n, "follows %s from %d", target.id, len(v.log))
	}
	delete(v.blocked, target)
	s := n.state()
	// Turned on before it has left its old source, its acknowledgements would count there.
	in := s.MayAcknowledge(n.id) && n.named(target) && (target.id == s.Primary || v.hasReplication && v.source == target)
	if in {
		n.syncOff = 0
	}
	in = in || n.w.cfg.Controls.AckOutside
	v.hasReplication, v.source, v.leftover, v.io, v.syncSet, v.replicaSync, v.sourceSync, v.readOnly = true, target, nil, true, in, in, false, true
	v.ioRun++
}

// mayRebuild copies the settled primary's data onto a node whose history is another.
func (n *node) mayRebuild(target *node, a fsm.Action) {
	s := n.state()
	if s.Settled() != s.Epoch || s.Primary != target.id {
		n.reportOnce("history is not that of %s, which is not settled", target.id)
		return
	}
	v := &n.sv
	n.w.say(n, "rebuilt from %s: had %d, of which %d in common", target.id, len(v.log), common(v.log, target.sv.log))
	n.w.res.Rebuilds++
	v.crash()
	v.log = slices.Clone(target.sv.log[:target.sv.done])
	v.start()
	n.followed = max(n.followed, a.Epoch)
	n.attach(target)
}

// comeBack turns a former primary round: as it is when it has nothing of its own, else by cutting what nobody was told of.
func (n *node) comeBack(a fsm.Action) {
	v, target := &n.sv, n.w.node(a.Target)
	if target == nil || target == n || !target.sv.up() || !n.w.linked(n, target) || v.broken {
		return
	}
	settled := n.state().Settled() > n.held
	same := common(v.log, target.sv.log)
	switch {
	case same == len(v.log):
		if v.state != fsm.ServerUp {
			v.crash()
			v.start()
		}
	case !settled:
		return // every byte is kept: the new primary may never have existed
	case v.done > same || n.state().LossySince(n.held): // what it holds may have been acknowledged: a human looks at it first
		n.mayRebuild(target, a)
		return
	default:
		n.w.say(n, "rewinds from %d to %d", len(v.log), same)
		n.w.res.Rewinds++
		v.crash()
		v.log = slices.Clip(v.log[:same])
		v.start()
	}
	v.done = len(v.log)
	n.follows(a.Epoch, target)
	n.attach(target)
}
