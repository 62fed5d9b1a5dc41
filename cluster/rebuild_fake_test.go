package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// historian is a fake server that names every writer, as a real one does: without that a branch cannot be told from the past.
type historian struct{ *host }

func (h historian) History(ctx context.Context) (string, error) {
	if err := h.ask(ctx, "History"); err != nil {
		return "", err
	}
	defer h.w.mu.Unlock()
	last := map[uint32]txn{}
	var order []uint32
	for _, x := range h.log {
		if _, seen := last[x.server]; !seen {
			order = append(order, x.server)
		}
		last[x.server] = x
	}
	var out []string
	for _, server := range order {
		out = append(out, last[server].String())
	}
	return strings.Join(out, ","), nil
}

// disk is what a host's disk holds of a rebuild, and how it is done. It survives its hbd.
type disk struct {
	h *host

	mu     sync.Mutex
	id     string
	stage  fsm.CopyStage
	whole  bool
	copied []txn
	saved  []string
	steps  []string
	fails  map[string][]error // errors of the next calls of a step
	clones bool               // its server fetches a copy by itself while it is placed, as MySQL's does
	gate   chan struct{}      // not nil: what this host gives waits until it is closed
	given  int
}

// withDisks makes rebuilds possible.
func (c *testCluster) withDisks() {
	c.disks = map[fsm.NodeID]*disk{}
	for _, m := range c.nodes {
		c.disks[m.id] = &disk{h: m.host, fails: map[string][]error{}}
	}
}

// step records a step and makes it fail if the test asked for it.
func (d *disk) step(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, name)
	if next := d.fails[name]; len(next) > 0 {
		d.fails[name] = next[1:]
		return next[0]
	}
	return nil
}

func (d *disk) did() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.steps)
}

func (d *disk) gave() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.given
}

func (d *disk) kept() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.saved)
}

func (d *disk) Stage() (RebuildStage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return RebuildStage{ID: d.id, Copy: d.stage, Whole: d.whole}, nil
}

func (d *disk) Empty() (bool, error) { return false, nil }

// given is one copy: the log, byte by byte.
type given struct {
	io.Reader
	ctx  context.Context
	gate chan struct{}
}

func (g *given) Read(p []byte) (int, error) {
	if g.gate != nil {
		select {
		case <-g.gate:
		case <-g.ctx.Done():
			return 0, errors.New("killed")
		}
	}
	return g.Reader.Read(p)
}

func (g *given) Close() error { return nil }

// wire is a transaction as it travels.
type wire struct {
	Server             uint32
	Seq, Epoch, Serial uint64
}

func (d *disk) Donate(ctx context.Context) (io.ReadCloser, int64, error) {
	d.mu.Lock()
	d.given++
	gate := d.gate
	d.mu.Unlock()
	d.h.w.mu.Lock()
	defer d.h.w.mu.Unlock()
	var out []wire
	for _, x := range d.h.log {
		out = append(out, wire{x.server, x.seq, x.epoch, x.serial})
	}
	raw, err := json.Marshal(out)
	return &given{strings.NewReader(string(raw)), ctx, gate}, int64(len(raw)), err
}

func (d *disk) HistoryAt(context.Context, string, int64) (string, error) { return "as given", nil }

func (d *disk) Receive(ctx context.Context, in Incoming) error {
	if err := d.step("Receive"); err != nil {
		return err
	}
	d.mu.Lock()
	if d.stage == fsm.CopyPlacing {
		d.h.w.breach("%s: another copy is taken in while one is half in its place", d.h.id)
	}
	d.id, d.whole = in.ID, false
	if d.stage != fsm.CopyHalf {
		d.stage = fsm.CopyArriving
	}
	d.mu.Unlock()
	raw, err := io.ReadAll(in.Stream)
	if err != nil {
		return err
	}
	if _, err := in.HistoryAt(ctx, "bin.1", 4); err != nil {
		return err
	}
	var log []wire
	if err := json.Unmarshal(raw, &log); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.copied = nil
	for _, x := range log {
		d.copied = append(d.copied, txn{x.Server, x.Seq, x.Epoch, x.Serial})
	}
	d.whole = true
	return nil
}

// Place is strict: the log must order it now, and nothing that counts may be lost by it.
func (d *disk) Place(ctx context.Context, silent func()) error {
	d.mu.Lock()
	fresh := d.stage != fsm.CopyPlacing // what is half fetched is worth the same question: a CLONE that was refused has thrown nothing away
	d.mu.Unlock()
	if fresh {
		if err := mayWipe(d.h.node, d.id); err != nil {
			d.h.w.mu.Lock()
			d.h.w.breach("%s: its data is thrown away: %v", d.h.id, err)
			d.h.w.mu.Unlock()
		}
		if p := d.h.node.promises.get(); p.Quarantine == "" {
			d.h.w.breach("%s: its data is thrown away before it promised to stay out", d.h.id)
		}
	}
	d.mu.Lock()
	d.stage = fsm.CopyPlacing
	if d.clones {
		d.stage = fsm.CopyHalf
	}
	d.mu.Unlock()
	if d.clones {
		d.h.change(func() { d.h.io, d.h.ack = false, false })
		silent()
	}
	if err := d.step("Place"); err != nil {
		return err
	}
	d.h.change(func() {
		d.h.crash()
		d.h.source, d.h.relay = noSource, nil
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stage = fsm.CopyPlacing
	return nil
}

// mayWipe asks the judgement on a node's own applied state.
func mayWipe(n *Node, id string) error {
	return fsm.MayWipe(n.store.State(), n.cfg.Node, indexOf(id))
}

func (d *disk) Redirect(string, uint16) error { return nil }

func (d *disk) Adopt(context.Context) error {
	if err := d.step("Adopt"); err != nil {
		return err
	}
	d.h.change(func() {
		d.h.crash()
		d.h.log, d.h.relay, d.h.errant = slices.Clone(d.copied), nil, false
		d.h.source, d.h.state, d.h.mode = noSource, fsm.ServerUp, modeReadOnly
		d.h.run++
		d.h.receiver++
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stage = fsm.CopyAdopted
	return nil
}

func (d *disk) Progress(context.Context) (int64, int64, bool) { return 0, 0, false }

func (d *disk) Finish() error {
	if err := d.step("Finish"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stage == fsm.CopyPlacing {
		d.h.w.breach("%s: the old data is removed while the copy is half in its place", d.h.id)
	}
	d.id, d.stage, d.whole, d.copied = "", fsm.CopyNone, false, nil
	return nil
}

func (d *disk) SaveErrant(_ context.Context, history string) (string, []string, error) {
	if err := d.step("SaveErrant"); err != nil {
		return "", nil, err
	}
	d.h.w.mu.Lock()
	defer d.h.w.mu.Unlock()
	var out []string
	for _, x := range d.h.log {
		extra, err := lacks("mariadb", history, x.String())
		if err != nil {
			return "", nil, err
		}
		out = append(out, extra...)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved = append(d.saved, out...)
	return "errant.binlog", out, nil
}

// errantOn writes a transaction on a replica that nobody else has.
func (c *testCluster) errantOn(id fsm.NodeID) txn {
	h := c.node(id).host
	var x txn
	h.change(func() {
		x = txn{server: h.server, seq: uint64(len(h.log) + 1), serial: nextSerial()}
		h.errant = true
		h.log = append(h.log, x)
	})
	return x
}

// follows waits until a node follows with a whole copy of its own, and its rebuild has ended.
func (c *testCluster) rebuilt(t testing.TB, id fsm.NodeID) {
	t.Helper()
	m := c.node(id)
	await(t, fmt.Sprintf("%s follows on its copy", id), func() bool {
		_, running := m.store.State().RebuildOf(id)
		stage, _ := c.disks[id].Stage()
		return !running && stage.Copy == fsm.CopyNone && m.observation().Standing == fsm.StandingReplica
	})
}
