package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/highbase/highbase/fsm"
)

// checkGates is G1: the gate of at most one node is open at one instant. It is enough to look when one opens or is renewed.
func (w *World) checkGates(n *node) {
	for _, o := range w.nodes {
		if o != n && o.gateLive() {
			w.fail("two open gates: %s and %s", n.id, o.id)
		}
	}
	if n.clock()+0 >= n.leaseEnd {
		w.fail("gate of %s opened after its lease", n.id)
	}
	if n.gateEnd > n.leaseEnd {
		w.fail("gate of %s outlives its lease by %v", n.id, n.gateEnd-n.leaseEnd)
	}
}

// require is G2 and the barrier's promise: whatever was acknowledged, or read by a client, belongs to one history for ever.
func (w *World) require(v *server, how string) {
	n := min(v.done, len(w.chain))
	if n > 0 && v.log[n-1] != w.chain[n-1] {
		w.fail("%s has %s a history of %d transactions that lacks what was acknowledged or read before (of %d, %d in common)", v.n.id, how, v.done, len(w.chain), common(v.log, w.chain))
		return
	}
	w.chain = append(w.chain, v.log[n:v.done]...)
}

// checkCommit looks at each change of the replicated state.
func (w *World) checkCommit(before, next fsm.State, cmd fsm.Command) {
	if next.Epoch < before.Epoch {
		w.fail("%s lowers the epoch from %d to %d", cmd.Name(), before.Epoch, next.Epoch)
	}
	opened := next.Op != nil && (before.Op == nil || before.Op.ID != next.Op.ID)
	fresh := before.Op == nil || before.Op.Kind == fsm.KindRestart
	if before.Paused != nil && opened && fresh && next.Op.Kind != fsm.KindHandover {
		w.fail("a paused cluster begins a %s", next.Op.Kind)
	}
	if cmd.Settle != nil {
		w.checkSettled(next)
	}
	if cmd.Promote != nil && before.Op.Chained && len(next.Sync.Members) > 1 {
		w.res.Chained++
	}
	if cmd.Promote != nil {
		w.checkPromoted(*cmd.Promote)
	}
}

// checkPromoted: nothing is acknowledged by an older epoch any more, so what the new primary must hold is all there ever was. A node that has
// lost what it answered with is no danger: it never serves.
func (w *World) checkPromoted(p fsm.Promote) {
	n := w.node(p.To)
	if p.Won == fsm.WonLossy {
		got := common(n.sv.log, w.chain)
		w.say(nil, "%d acknowledged transactions are given up", len(w.chain)-got)
		w.chain = slices.Clip(w.chain[:got])
		return
	}
	if got := common(n.sv.log, w.chain); got < len(w.chain) && n.contains(p.Position) {
		w.fail("%s is promoted by %s at %q and lacks %d acknowledged transactions", p.To, p.Won, p.Position, len(w.chain)-got)
	}
}

// checkSettled: the primary of a settled epoch has everything that was ever acknowledged.
func (w *World) checkSettled(s fsm.State) {
	v := &w.node(s.Primary).sv
	if got := common(v.log, w.chain); got < len(w.chain) {
		w.fail("epoch %d is settled and its primary %s lacks %d acknowledged transactions", s.Epoch, s.Primary, len(w.chain)-got)
	}
}

// healthy is what a cluster without faults must come back to: one primary that serves, everybody else following it and counted.
func (w *World) healthy() bool { return w.unhealthy() == "" }

func (w *World) unhealthy() string {
	s := w.raft.state()
	var why []string
	no := func(ok bool, format string, args ...any) {
		if !ok {
			why = append(why, fmt.Sprintf(format, args...))
		}
	}
	no(s.Op == nil, "operation %+v", s.Op)
	no(s.Phase == fsm.PhaseSteady, "phase %s", s.Phase)
	no(s.Base == nil, "base %+v", s.Base)
	no(s.Change == nil, "change %+v", s.Change)
	acks, members := w.wanted()
	no(s.Sync.Acks == acks && len(s.Sync.Members) == members, "sync set %+v", s.Sync)
	p := w.node(s.Primary)
	if p == nil {
		return strings.Join(append(why, "no primary"), "; ")
	}
	no(p.gateLive() && p.sv.up() && !p.sv.readOnly, "%s does not serve: %+v", p.id, p.local())
	no(w.chainIsOn(&p.sv), "%s lacks acknowledged transactions", p.id)
	for _, n := range w.nodes {
		if !n.data || n == p {
			continue
		}
		m, in := s.Sync.Member(n.id)
		no(n.sv.up() && n.sv.source == p && n.sv.io, "%s does not follow %s: %+v", n.id, p.id, n.local())
		no(!in || m.Incarnation == n.sv.incarnation(), "%s does not count: %q, is %q", n.id, m.Incarnation, n.sv.incarnation())
	}
	return strings.Join(why, "; ")
}

// wanted is W and |S| of a healthy cluster.
func (w *World) wanted() (acks, members int) {
	acks = 1
	if w.cfg.Server == "mysql" {
		acks = max(1, (w.cfg.Data-1)/2)
	}
	return acks, min(2*acks, w.cfg.Data-1)
}

func (w *World) chainIsOn(v *server) bool { return common(v.log, w.chain) == len(w.chain) }
