package raftnode

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"
)

// benchGroup is group for benchmarks, which have no *testing.T.
func benchGroup(b *testing.B) (lead *Node, follower *listFSM) {
	b.Helper()
	_, nodes, fsms := benchNodes(b, LANTiming())
	lead, i := benchLeader(nodes, nil)
	return lead, fsms[(i+1)%len(fsms)]
}

func benchNodes(b *testing.B, timing Timing) (w *network, nodes []*Node, fsms []*listFSM) {
	b.Helper()
	w = newNetwork()
	var servers []Server
	for i := range 3 {
		fsm := &listFSM{}
		name := "db" + strconv.Itoa(i)
		n, err := Open(Config{Dir: b.TempDir(), ClusterID: "c1", Node: name, Bind: "127.0.0.1:0",
			Timing: timing, FSM: fsm, Log: testLog(b), OnStuck: func(reason string) { b.Error(reason) }, dial: w.dialer(name)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := n.Close(); err != nil {
				b.Error(err)
			}
		})
		w.nodes[n.Address()] = name
		nodes, fsms = append(nodes, n), append(fsms, fsm)
		servers = append(servers, Server{ID: n.ID(), Address: n.Address(), Voter: true})
	}
	if err := nodes[0].Bootstrap(servers); err != nil {
		b.Fatal(err)
	}
	return w, nodes, fsms
}

// benchLeader waits until one of the nodes proves that it leads.
func benchLeader(nodes []*Node, not *Node) (*Node, int) {
	for {
		for i, n := range nodes {
			if n == not {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := n.VerifyQuorumRound(ctx)
			cancel()
			if err == nil {
				return n, i
			}
		}
	}
}

// BenchmarkElection measures how long nobody leads after the leader's host was lost. What is left of the primary's lease must outlast it.
func BenchmarkElection(b *testing.B) {
	for name, timing := range map[string]Timing{"lan": LANTiming(), "fast": FastTiming()} {
		b.Run(name, func(b *testing.B) {
			w, nodes, _ := benchNodes(b, timing)
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				l, _ := benchLeader(nodes, nil)
				for _, n := range nodes {
					for n != l && !l.transport.answering(n.ID()) { // just lost itself, it is to follow again
						time.Sleep(time.Millisecond) //nolint:forbidigo // polls a condition
					}
				}
				w.setCut(l.cfg.Node, true)
				b.StartTimer()
				at := time.Now()
				benchLeader(nodes, l)
				took = append(took, time.Since(at))
				b.StopTimer()
				w.setCut(l.cfg.Node, false)
				for l.IsLeader() {
					time.Sleep(time.Millisecond) //nolint:forbidigo // polls a condition
				}
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*9/10].Milliseconds()), "ms-p90")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms-max")
		})
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
