package raftnode

import (
	"context"
	"strconv"
	"testing"
	"time"
)

// benchGroup is group for benchmarks, which have no *testing.T.
func benchGroup(b *testing.B) (lead *Node, follower *listFSM) {
	b.Helper()
	w := newNetwork()
	var nodes []*Node
	var fsms []*listFSM
	var servers []Server
	for i := range 3 {
		fsm := &listFSM{}
		n, err := Open(Config{Dir: b.TempDir(), ClusterID: "c1", Node: "db" + strconv.Itoa(i), Bind: "127.0.0.1:0",
			Timing: LANTiming(), FSM: fsm, Log: testLog(b), OnStuck: func(reason string) { b.Error(reason) }, dial: w.dialer("bench")})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := n.Close(); err != nil {
				b.Error(err)
			}
		})
		nodes, fsms = append(nodes, n), append(fsms, fsm)
		servers = append(servers, Server{ID: n.ID(), Address: n.Address(), Voter: true})
	}
	if err := nodes[0].Bootstrap(servers); err != nil {
		b.Fatal(err)
	}
	for {
		for i, n := range nodes {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := n.VerifyQuorumRound(ctx)
			cancel()
			if err == nil {
				return n, fsms[(i+1)%3]
			}
		}
	}
}

// BenchmarkApply measures one commit on three nodes of one machine, and how long after it a follower has
// applied it as well, which is what an order that refers to the commit has to wait for.
func BenchmarkApply(b *testing.B) {
	lead, follower := benchGroup(b)
	var behind time.Duration
	done := 0
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, _, err := lead.Apply(ctx, []byte("x"))
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		done++
		b.StopTimer()
		at := time.Now()
		for len(follower.list()) < done {
			time.Sleep(100 * time.Microsecond) //nolint:forbidigo // polls a condition
		}
		behind += time.Since(at)
		b.StartTimer()
	}
	b.ReportMetric(float64(behind.Microseconds())/float64(done), "µs-follower-behind/op")
}

// BenchmarkRound measures what one lease renewal costs.
func BenchmarkRound(b *testing.B) {
	lead, _ := benchGroup(b)
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := lead.VerifyQuorumRound(ctx)
		cancel()
		if err != nil {
			b.Fatal(err)
		}
	}
}
