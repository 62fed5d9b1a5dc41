package mysqld

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// valve is a way to a server that closes after some bytes of answers, counted for
// each connection, and then keeps silent, as a cut cable does.
type valve struct {
	listener net.Listener
	shut     chan struct{} // closed once the bytes are through on one
}

func newValve(t *testing.T, to *node, limit int64) *valve {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{listener: l, shut: make(chan struct{})}
	var conns []net.Conn
	done := make(chan struct{})
	var shut sync.Once
	go func() {
		defer close(done)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, in)
			out, err := net.Dial("tcp", to.address())
			if err != nil {
				return
			}
			conns = append(conns, out)
			go io.Copy(out, in)
			go func() {
				if n, _ := io.CopyN(in, out, limit); n == limit {
					shut.Do(func() { close(v.shut) })
				}
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return v
}

func (v *valve) port() uint16 { return uint16(v.listener.Addr().(*net.TCPAddr).Port) }

// TestHalfReceivedTransaction: what arrived of a large transaction when its
// source died holds up neither the freeze nor the promotion, and leaves nothing;
// nor does one of which no row has come yet.
func TestHalfReceivedTransaction(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		for name, bytes := range map[string]int64{"rows": 3 << 20, "no row": 200 << 10} {
			t.Run(name, func(t *testing.T) { testHalfReceivedTransaction(t, k, bytes, false) })
			t.Run(name+" at once", func(t *testing.T) { testHalfReceivedTransaction(t, k, bytes, true) })
		}
	})
}

// TestHalfTakenUpLate: an applier that takes up half a transaction only while it
// is being stopped is not waited for (MySQL would for 60 s). Here it is inside
// already and nothing freed it before.
func TestHalfTakenUpLate(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		replica, before := halfReceived(t, k, 3<<20)
		ctx, cancel := context.WithTimeout(testContext(t), 30*time.Second)
		defer cancel()
		_, err := replica.Freeze(ctx, nil)
		replica.must(err)
		began := time.Now()
		replica.must(replica.stopApplierNow(ctx))
		t.Logf("stopped after %v", time.Since(began))
		if st := replica.status(); st.SQLRunning || st.Executed != before.Executed {
			t.Fatalf("after the stop: %+v", st)
		}
	})
}

// TestHalfReceivedThenRepointed: half of a transaction that its source never finished neither holds up the repoint nor leaves anything: what the new
// source sends is applied, though it needs the rows that the half one locked.
func TestHalfReceivedThenRepointed(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		for name, bytes := range map[string]int64{"rows": 3 << 20, "no row": 200 << 10} {
			t.Run(name, func(t *testing.T) {
				nodes := cluster(t, k, 3, false)
				replica, next := nodes[1], nodes[2]
				ctx := testContext(t)
				before := halfReceivedBy(t, nodes[0], replica, bytes, func() {
					next.must(next.Drain(ctx, nodes[0].status().Executed))
					next.must(next.StopReplication(ctx))
				})
				began := time.Now()
				_, err := replica.Follow(ctx, next.source())
				replica.must(err)
				next.lead(false)
				next.sql("UPDATE app.t SET v='mine'")
				next.must(next.insert(ctx, 2))
				sameRows(t, next, replica)
				t.Logf("repointed and equal after %v", time.Since(began))
				if st := replica.status(); replica.count() != 4 || st.SQLErrno != 0 || st.Received != next.status().Executed {
					t.Fatalf("%d rows, before %s, now %+v", replica.count(), before.Received, st)
				}
			})
		}
	})
}

// halfReceived gives a replica that holds only the first bytes of the last
// transaction of its source, which is dead, and its status before that.
func halfReceived(t *testing.T, k *kind, bytes int64) (replica *node, before Status) {
	t.Helper()
	nodes := cluster(t, k, 2, false)
	return nodes[1], halfReceivedBy(t, nodes[0], nodes[1], bytes, func() {})
}

// halfReceivedBy does that to a replica of source, and something else before the transaction begins, once the replica has all before it.
func halfReceivedBy(t *testing.T, source, replica *node, bytes int64, first func()) (before Status) {
	t.Helper()
	ctx := testContext(t)
	source.must(source.insert(ctx, 2))
	replica.must(replica.Drain(ctx, source.status().Executed))
	v := newValve(t, source, bytes)
	_, err := replica.Follow(ctx, Source{Host: "127.0.0.1", Port: v.port()})
	replica.must(err)
	replica.connected(false)
	before = replica.status()
	first()
	values := strings.Repeat(",(REPEAT('x', 400000))", 30)
	source.sql("INSERT INTO app.t (v) VALUES " + values[1:])
	select {
	case <-v.shut:
	case <-ctx.Done():
		t.Fatal("the transaction did not come half through")
	}
	if replica.dialect.stopsInHalf() { // the applier is inside it, and holds its locks if rows came
		replica.eventually("applying half a transaction", func() bool {
			open, err := rows(ctx, replica.boss, mysqlOpenAppliers)
			return err == nil && len(open) > 0
		})
	}
	source.must(source.service.Kill(ctx))
	return before
}

func testHalfReceivedTransaction(t *testing.T, k *kind, bytes int64, atOnce bool) {
	replica, before := halfReceived(t, k, bytes)
	ctx, cancel := context.WithTimeout(testContext(t), 30*time.Second) // MySQL waits for 60 s where it waits for the rest
	defer cancel()
	began := time.Now()
	if atOnce {
		_, err := replica.BecomeSource(ctx, Promotion{Position: before.Received, Acks: 1})
		replica.must(err)
	}
	received, err := replica.Freeze(ctx, nil)
	replica.must(err)
	if received != before.Received {
		t.Fatalf("half a transaction counts as received: %s, before %s", received, before.Received)
	}
	if !atOnce {
		generation := replica.status().Generation
		replica.must(replica.Drain(ctx, received))
		if now := replica.status().Generation; now != generation || now == "" {
			t.Fatalf("a drain ended the receive generation: %q, before %q", now, generation)
		}
		replica.must(replica.StopReplication(ctx))
	}
	t.Logf("frozen, drained and stopped after %v", time.Since(began))
	if st := replica.status(); st.HasReplication || st.Executed != received {
		t.Fatalf("after the promotion: %+v", st)
	}
	replica.must(replica.DisableSourceSemiSync(ctx))
	replica.lead(false)
	replica.sql("UPDATE app.t SET v='mine'") // no lock is left
	if replica.count() != 2 {
		t.Fatalf("%d rows", replica.count())
	}
}

// TestKilledApplierIsNoEnd: whoever kills an applier, hbd or an operator, has
// stopped it and nothing else: a freeze and a change of source go on.
func TestKilledApplierIsNoEnd(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		nodes := cluster(t, k, 2, true)
		source, replica := nodes[0], nodes[1]
		ctx := testContext(t)
		source.must(source.insert(ctx, 3))
		replica.must(replica.Drain(ctx, source.status().Executed))
		replica.sql(fmt.Sprintf("KILL %d", replica.status().ApplierID))
		replica.eventually("the applier's end", func() bool { return !replica.status().SQLRunning })
		st := replica.status()
		source.must(source.insert(ctx, 3)) // received, and not applied
		if st.SQLErrno != 0 && !Transient(st.SQLErrno) {
			t.Errorf("%d %s is taken for what somebody must mend", st.SQLErrno, st.SQLError)
		}
		received, err := replica.Freeze(ctx, nil)
		replica.must(err)
		if want := source.status().Executed; received != want {
			t.Fatalf("froze at %s, was sent %s", received, want)
		}
		replica.must(replica.Drain(ctx, received))
		_, err = replica.Follow(ctx, source.source())
		replica.must(err)
		replica.connected(true)
		sameRows(t, source, replica)
	})
}
