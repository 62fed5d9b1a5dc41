package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/highbase/highbase/fsm"
)

// tx is one transaction. A log that holds it holds all before it: identity is history.
type tx struct {
	server  int
	barrier uint64 // epoch whose barrier it is, 0 for a client's write
}

// server models one mysqld with its data. The log is the binlog, or on a replica what was applied and the relay log behind it; the engine has
// committed the first `done` of it. On a source the rest waits for an acknowledgement, on a replica it waits to be applied.
type server struct {
	n              *node
	state          fsm.ServerState
	run            int // which start of mysqld
	gen            int // receive generation: rises when received transactions were dropped
	log            []*tx
	done           int
	readOnly       bool
	sourceSync     bool
	acks           int // as a source it waits for so many
	acked          map[*node]int
	syncSet        bool // semi-sync enabled as a replica: the setting
	replicaSync    bool // ... and in force since the IO thread started
	hasReplication bool
	source         *node
	leftover       *node // whom it replicated from before it became a source: stopped, and not forgotten yet
	io             bool
	ioRun          int // which connection
	stalled        bool
	broken         bool // its start fails
	blocked        map[*node]bool
	barrierAt      int // length of the log with the barrier
	barrierEpoch   uint64
	barrierRun     int
}

func (v *server) up() bool { return v.state == fsm.ServerUp && v.n.hostUp }

func (v *server) waiting() int { return len(v.log) - v.done }

// crash is SIGKILL. Binlog and engine are on disk; what a replica had received and not applied is forgotten.
func (v *server) crash() {
	if v.state == fsm.ServerDown {
		return
	}
	v.state, v.io, v.sourceSync, v.replicaSync, v.syncSet, v.readOnly = fsm.ServerDown, false, false, false, false, true
	v.acked = map[*node]int{}
	v.ioRun++
	if v.hasReplication {
		v.log = slices.Clip(v.log[:v.done])
	}
}

// start runs mysqld as it is: recovery commits whatever stands in the binlog. It boots read-only, with replication and semi-sync off.
func (v *server) start() {
	v.state, v.readOnly, v.stalled = fsm.ServerUp, true, false
	v.run++
	v.done = len(v.log)
	v.unretire()
}

// unretire: only the run of hbd that made a source of a replica knows that it is one, and only of this run of mysqld.
func (v *server) unretire() {
	if v.leftover != nil {
		v.hasReplication, v.source, v.leftover = true, v.leftover, nil
	}
}

// forget is what a careless restart of both replication threads does to a relay log.
func (v *server) forget() {
	if v.hasReplication && v.up() {
		v.log = slices.Clip(v.log[:v.done])
		v.gen++
		v.ioRun++
	}
}

func (v *server) incarnation() string {
	if v.n.w.cfg.Controls.CountAnyIncarnation {
		return string(v.n.id)
	}
	return fmt.Sprintf("%s.%d.%d", v.n.id, v.run, v.gen)
}

// position is the text form of the first n transactions.
func (v *server) position(n int) string {
	if n == 0 {
		return ""
	}
	if v.n.w.cfg.Server == "mysql" {
		return gtidSet(v.log[:n])
	}
	return fmt.Sprintf("0-%d-%d", v.log[n-1].server, n)
}

// gtidSet is MySQL's form: of every server the numbers it wrote. A transaction's number is its place.
func gtidSet(log []*tx) string {
	runs := map[int]string{}
	highest := 0
	for i := 0; i < len(log); {
		from, by := i+1, log[i].server
		for i < len(log) && log[i].server == by {
			i++
		}
		runs[by] += fmt.Sprintf(":%d-%d", from, i)
		highest = max(highest, by)
	}
	var parts []string
	for by := range highest + 1 {
		if runs[by] != "" {
			parts = append(parts, fmt.Sprintf("00000000-0000-0000-0000-%012d%s", by, runs[by]))
		}
	}
	return strings.Join(parts, ",")
}

// name is what positions call the node's server.
func (n *node) name() string {
	if n.w.cfg.Server == "mysql" {
		return fmt.Sprintf("00000000-0000-0000-0000-%012d", n.idx+1)
	}
	return fmt.Sprint(n.idx + 1)
}

func (v *server) lastEpoch() uint64 {
	for i := len(v.log) - 1; i >= 0; i-- {
		if v.log[i].barrier > 0 {
			return v.log[i].barrier
		}
	}
	return 0
}

// holdsBarrier tells whether the row of an epoch can be read here: by whichever run it was written, it is committed.
func (v *server) holdsBarrier(epoch uint64) bool {
	return slices.ContainsFunc(v.log[:v.done], func(t *tx) bool { return t.barrier == epoch })
}

func (v *server) write(barrier uint64) {
	v.log = append(v.log, &tx{server: v.n.idx + 1, barrier: barrier})
	if !v.sourceSync {
		v.acknowledged(len(v.log))
	}
}

// acknowledged: the first n transactions are committed in the engine and their clients hear of it.
func (v *server) acknowledged(n int) {
	if v.up() && !v.hasReplication && n > v.done && n <= len(v.log) {
		v.done = n
		v.n.w.require(v, "acknowledged")
	}
}

// hears notes that a replica has received the first n transactions, and releases whoever waited for no more than that.
func (v *server) hears(from *node, n int) {
	v.acked[from] = max(v.acked[from], n)
	v.release()
}

// waitFor asks for so many acknowledgements from now on; whoever has them already waits no longer.
func (v *server) waitFor(acks int) {
	v.sourceSync, v.acks = true, acks
	v.release()
}

func (v *server) release() {
	var all []int
	for _, had := range v.acked {
		all = append(all, had)
	}
	slices.Sort(all)
	if v.sourceSync && v.acks > 0 && len(all) >= v.acks {
		v.acknowledged(min(all[len(all)-v.acks], len(v.log)))
	}
}

// async lets commits wait for nobody: whoever waits is told success.
func (v *server) async() {
	v.sourceSync = false
	v.acknowledged(len(v.log))
}

// common is how much two logs have in common.
func common(a, b []*tx) int {
	n := min(len(a), len(b))
	for n > 0 && a[n-1] != b[n-1] {
		n--
	}
	return n
}

// readable is what others can replicate from here: its binlog, and that is what a replica has applied.
func (v *server) readable() []*tx {
	n := len(v.log)
	if v.hasReplication {
		n = v.done
	}
	return v.log[:n:n]
}

// replicate is one look of the IO thread: whatever the source has comes over, an acknowledgement goes back.
func (v *server) replicate() {
	src := v.source
	if !v.up() || !v.io || src == nil || !v.connected(src) {
		return
	}
	sent, run, ioRun := src.sv.readable(), src.sv.run, v.ioRun
	v.n.w.after(v.n.w.delayOnWire(), func() {
		if !v.up() || v.ioRun != ioRun || !v.connected(src) || src.sv.run != run {
			return
		}
		had := len(v.log)
		if common(v.log, sent) < min(had, len(sent)) {
			v.io = false
			v.n.w.say(v.n, "replication stops: its history is not that of %s", src.id)
			return
		}
		if len(sent) <= had {
			return
		}
		v.log = append(slices.Clip(v.log), sent[had:]...)
		if v.replicaSync {
			received := min(len(v.log), len(sent))
			v.n.w.after(v.n.w.delayOnWire(), func() {
				if src.sv.up() && src.sv.run == run && v.connected(src) {
					src.sv.hears(v.n, received)
				}
			})
		}
	})
}

// connected tells whether replication traffic passes between two servers.
func (v *server) connected(src *node) bool {
	return src.sv.up() && v.n.w.linked(v.n, src) && !v.blocked[src] && !src.sv.blocked[v.n]
}

func (v *server) applyRelay() {
	if v.up() && v.hasReplication && !v.stalled && v.done < len(v.log) {
		v.done = min(len(v.log), v.done+1+v.n.w.rng.IntN(5))
	}
}

// direct is a client of the host's own address: no lease stands in its way, unless the gate covers that port too.
func (v *server) direct() {
	if v.up() && !v.readOnly && !v.hasReplication && v.waiting() < 20 && (!v.n.portGated || v.n.gateLive()) {
		v.write(0)
	}
}

// client writes and reads at the address: only through an open gate.
func (v *server) client() {
	if !v.n.gateLive() || !v.up() {
		return
	}
	v.n.w.require(v, "read")
	if !v.readOnly && v.waiting() < 20 {
		v.write(0)
	}
}
