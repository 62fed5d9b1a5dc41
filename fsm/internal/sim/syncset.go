package sim

import (
	"github.com/highbase/highbase/fsm"
)

// enforced: commits wait for as many acknowledgements as the log says.
func (n *node) enforced() bool {
	s := n.state()
	return n.sv.sourceSync && n.sv.acks >= s.Sync.Acks || s.Sync.Acks == 0
}

// changeSet carries out what the sync set asks for, from the state as it is applied at this moment.
func (n *node) changeSet(a fsm.Action) {
	s, v := n.state(), &n.sv
	mine := s.Primary == n.id && s.Epoch == a.Epoch
	switch a.Kind {
	case fsm.ActBlock:
		if mine {
			n.block(fsm.WantBlocked(s, n.confirmed()))
		}
	case fsm.ActCoverPort:
		n.portGated = true
	case fsm.ActUncover:
		n.portGated = n.portGated && s.CoverPort() && mine
	case fsm.ActAsync:
		if mine && v.up() && s.SourceAcks() == 0 && n.portGated {
			v.async()
			if n.w.cfg.Controls.LateAsync {
				n.asyncLate()
			}
		}
	case fsm.ActSyncOff:
		n.switchSyncOff(s)
	case fsm.ActPrepare:
		n.prepare(s, mine)
	default: // effect gives only these
	}
}

// block keeps exactly these from replicating. What they sent and has not arrived is gone with their connection.
func (n *node) block(ids []fsm.NodeID) {
	clear(n.sv.blocked)
	for _, id := range ids {
		o := n.w.node(id)
		n.sv.blocked[o] = true
		o.sv.ioRun++
	}
}

// switchSyncOff restarts the IO thread, so that the setting is in force.
func (n *node) switchSyncOff(s fsm.State) {
	v := &n.sv
	if !v.up() || n.w.cfg.Controls.AckOutside {
		n.syncOff = s.OutsideSince(n.id)
		return
	}
	v.syncSet, v.replicaSync = false, false
	v.ioRun++
	n.syncOff = s.OutsideSince(n.id)
}

// prepare says where the primary stands once everything the intended change needs is in force.
func (n *node) prepare(s fsm.State, mine bool) {
	v, c := &n.sv, s.Change
	if c == nil || !mine || !v.up() || v.hasReplication {
		return
	}
	if !v.sourceSync && s.SourceAcks() > 0 || v.sourceSync && v.acks < s.SourceAcks() || c.Kind == fsm.ChangeAcks && c.Acks == 0 && !n.portGated {
		return
	}
	for _, id := range fsm.WantBlocked(s, n.confirmed()) {
		if !v.blocked[n.w.node(id)] {
			return
		}
	}
	if n.w.cfg.Controls.LowerFirst && c.Kind == fsm.ChangeAcks && c.Acks < s.Sync.Acks {
		if c.Acks == 0 {
			v.async()
		} else {
			v.waitFor(c.Acks)
		}
	}
	n.prepared, n.preparedAt = c.Index, v.position(len(v.log))
	n.w.say(n, "has prepared %s %s acks %d at %s", c.Kind, c.Node, c.Acks, n.preparedAt)
}
