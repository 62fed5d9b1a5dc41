package cluster

import (
	"context"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm"
)

// TestWorldSeesBrokenGuarantees is the control of every test over fake hosts: what breaks a guarantee is a breach, and the right way is none.
func TestWorldSeesBrokenGuarantees(t *testing.T) {
	ctx := context.Background()
	soon := func() fsm.Instant { return now() + awaitLimit }
	for _, c := range []struct {
		name string
		do   func(w *world, h, other *host) error
		want string // part of the breach, "" for none
	}{
		{"right way", func(_ *world, h, _ *host) error { return serve(ctx, h, 1) }, ""},
		{"two gates", func(_ *world, h, o *host) error {
			o.gate = soon()
			return serve(ctx, h, 1)
		}, "G1: db1 opens its gate while that of db2 is open"},
		{"two writers", func(w *world, h, o *host) error {
			if err := serve(ctx, h, 1); err != nil {
				return err
			}
			o.gate, o.mode = soon(), modeWritable
			return w.write(ctx)
		}, "G1: [db1 db2] take writes at the same instant"},
		{"writable before the barrier", func(_ *world, h, _ *host) error {
			h.acks = 1
			return h.SetWritable(ctx)
		}, "without a barrier"},
		{"barrier of an earlier run of mysqld", func(_ *world, h, o *host) error {
			if err := serve(ctx, h, 1); err != nil {
				return err
			}
			h.gate = 0
			h.crash()
			if err := (service{h}).Start(ctx, false); err != nil {
				return err
			}
			h.acks = 1
			return h.SetWritable(ctx)
		}, "without a barrier acknowledged in this run"},
		{"gate over a read-only server", func(_ *world, h, _ *host) error {
			h.barrier, h.barrierIn = 1, h.run
			return address{h}.Open(soon())
		}, "while mysqld is read-only"},
		{"writable without semi-sync", func(_ *world, h, _ *host) error { return h.SetBarrierWritable(ctx) }, "without semi-sync"},
		{"replica made writable", func(_ *world, h, o *host) error {
			h.source, h.acks = o.addr, 1
			return h.SetBarrierWritable(ctx)
		}, "while it is a replica"},
		{"following with transactions of its own", func(_ *world, h, o *host) error {
			h.log = []txn{{server: 1, seq: 1}}
			if err := h.Follow(ctx, Following{Host: o.addr.String(), Port: o.port, Sync: true}); err == nil {
				return nil
			}
			return nil
		}, "follows db2 and has 0-1-1"},
		{"stopping before it has drained", func(_ *world, h, o *host) error {
			h.source, h.relay = o.addr, []txn{{server: 2, seq: 1}}
			h.stalled = true
			return h.StopReplication(ctx)
		}, "before it applied what it received"},
		{"freeze without a block", func(_ *world, h, o *host) error {
			h.source = o.addr
			_, err := h.Freeze(ctx, func() error { return nil })
			return err
		}, "without a block"},
		{"rewind of what is running", func(_ *world, h, _ *host) error {
			_, err := h.PrepareRewind(ctx, "")
			return err
		}, "while mysqld may write it"},
		{"rewind that nobody judged", func(_ *world, h, _ *host) error {
			h.crash()
			return service{h}.Start(ctx, true)
		}, "nothing was prepared"},
		{"rewind of an acknowledged write", func(w *world, h, o *host) error {
			if err := serve(ctx, h, 1); err != nil {
				return err
			}
			if err := w.write(ctx); err != nil {
				return err
			}
			h.crash()
			if _, err := h.PrepareRewind(ctx, h.log[0].String()); err != nil {
				return err
			}
			o.log = o.log[:1]
			w.hosts["db3"].log = nil
			return service{h}.Start(ctx, true)
		}, "G2: db1 rolls back"},
		{"address without a gate", func(_ *world, h, _ *host) error { return address{h}.SetHeld(ctx, true) }, "never opened its gate"},
		{"announcement of nothing", func(_ *world, h, _ *host) error { address{h}.Announce(); return nil }, "does not hold"},
		{"unexpected call", func(_ *world, h, _ *host) error {
			h.allow = []string{}
			return h.Nudge(ctx)
		}, "unexpected call of Nudge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, seen := watched(t)
			h, o := w.hosts["db1"], w.hosts["db2"]
			o.source, o.io, o.sql, o.ack = h.addr, true, true, true
			if strings.HasPrefix(c.name, "follow") {
				o.source, o.io = h.addr, false
			}
			err := c.do(w, h, o)
			if err != nil && c.want == "" {
				t.Fatal(err)
			}
			got := strings.Join(*seen, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("breaches %q, want %q (error %v)", got, c.want, err)
			}
		})
	}
}

// serve takes a host the right way from a read-only server to a serving primary.
func serve(ctx context.Context, h *host, epoch uint64) error {
	steps := []func() error{
		func() error { return h.SourceSync(ctx, 1) },
		func() error { return h.SetBarrierWritable(ctx) },
		func() error { return h.WriteBarrier(ctx, epoch, "") },
		func() error { return h.SetWritable(ctx) },
		func() error { return address{h}.Open(now() + awaitLimit) },
		func() error { return address{h}.SetHeld(ctx, true) },
		func() error { address{h}.Announce(); return nil },
	}
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}
