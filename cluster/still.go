package cluster

import (
	"sync/atomic"
	"time"

	"github.com/highbase/highbase/fsm"
)

// stillFor is how long after the start of a planned change's pause what nobody waits for is put off. Clients wait for what is done in it, and on a host
// that is busy everything else is done instead. A pause that is longer goes on like any other time.
const stillFor = 40 * time.Millisecond

// pause is the newest pause of a planned change that this node has seen begin.
type pause struct {
	op    uint64
	began fsm.Instant
}

// pauses keeps it. It is this node's guess of when clients wait, and no state of the cluster: nothing depends on it but how soon things are done.
type pauses struct{ newest atomic.Pointer[pause] }

// note notices that one begins.
func (p *pauses) note(st fsm.State) {
	if !inPause(st) {
		return
	}
	if known := p.newest.Load(); known == nil || known.op != st.Op.ID {
		p.newest.Store(&pause{st.Op.ID, now()})
	}
}

// inPause: the old primary is to let go, or has, and the new one does not serve yet.
func inPause(st fsm.State) bool {
	return st.Op != nil && st.Op.Kind.Planned() && (st.Op.Step == fsm.StepReleasing || st.Op.Step == fsm.StepPromoted)
}

// left is how long what nobody waits for is still to be put off.
func (p *pauses) left(st fsm.State) time.Duration {
	known := p.newest.Load()
	if !inPause(st) || known == nil || known.op != st.Op.ID {
		return 0
	}
	return max(0, known.began+stillFor-now())
}

// holdsStill is how long the old primary does nothing of its own accord: it has let go of the service, and the new one's barrier does not need it. What
// closes the gate is never put off, and orders are obeyed. Turning round waits longer still (standAside).
func (n *Node) holdsStill(st fsm.State) time.Duration {
	if st.Op == nil || st.Op.From != n.cfg.Node || n.promises.get().ReleasedOp != st.Op.ID || st.Op.Step == fsm.StepPromoted && !n.spare(st) {
		return 0
	}
	return n.pauses.left(st)
}
