package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/highbase/highbase/cluster"
	"github.com/highbase/highbase/cluster/httpd"
	"github.com/highbase/highbase/cluster/raftnode"
	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/probe"
)

const (
	// handoverReserve is added to what a switchover may take, for the leader to be found.
	handoverReserve = 2 * time.Second
	// stopTimeout is for giving up the role after the hand-over: closing the gate, read_only, the address.
	stopTimeout = 10 * time.Second
	// letGoTimeout is for taking the rest off the host.
	letGoTimeout = 5 * time.Second
)

// errSecondSignal ends a stop that somebody did not want to wait for.
var errSecondSignal = errors.New("a second signal came before the stop was finished")

// daemon is the running program.
type daemon struct {
	cfg  *config
	log  *slog.Logger
	exit func(code int) // os.Exit, replaced in tests

	host      *host // nil on a witness
	node      *cluster.Node
	server    *httpd.Server
	backend   *backend
	listeners []listener
}

// listener is one open port and what answers on it.
type listener struct {
	net.Listener
	health bool
}

// run works until a signal or a failure.
func (d *daemon) run(signals <-chan os.Signal) error {
	before := raisePriority(d.log)
	if err := d.open(before); err != nil {
		return errors.Join(err, d.close())
	}
	d.log.Info("hbd is running", "version", version, "cluster", d.cfg.Cluster, "profile", d.cfg.Settings.Profile, "budget", d.cfg.Settings.Budget())
	return errors.Join(d.serve(signals), d.close())
}

// open makes everything that runs, in the order in which the parts need each other.
func (d *daemon) open(p priority) error {
	c := d.cfg
	collectLess()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	if err := d.listen(); err != nil {
		return err
	}
	cfg := d.clusterConfig()
	cfg.Reach = probe.Reacher{Log: d.log.With("part", "probe")}.Reach
	if !c.isWitness() {
		var err error
		a := newAttention(c.Settings.Ping, cfg.UntilBeat)
		cfg.OnAttention = a.set
		if d.host, err = openHost(c, d.log, p, a); err != nil {
			return err
		}
		cfg.Server, cfg.Prober, cfg.Database = c.Server.Dialect, d.host.prober, d.host.database
		cfg.Reach = d.host.prober.Reach
		cfg.Service, cfg.Addresser, cfg.Clients = service{d.host.service}, d.host.addresses, d.host.addresses
		cfg.Rebuilder = d.host.rebuilder
	}
	var err error
	if d.node, err = cluster.Open(cfg); err != nil {
		return fmt.Errorf("opening the node: %w", err)
	}
	dialect := "none"
	if c.Server != nil {
		dialect = c.Server.Dialect
	}
	d.backend = newBackend(d.node, &checker{cfg: c, log: d.log.With("part", "check"), host: d.host}, dialect)
	d.server, err = httpd.New(httpd.Config{Node: c.Node, Backend: d.backend, RPC: d.node.RPCHandler(), Log: d.log.With("part", "http"), Version: version, Revision: builtFrom()})
	return err
}

// clusterConfig is all but what touches the host's database.
func (d *daemon) clusterConfig() cluster.Config {
	c := d.cfg
	cfg := cluster.Config{
		Cluster: c.Cluster, Node: fsm.NodeID(c.Node), DataDir: c.DataDir, Peers: c.members(), Settings: c.Settings,
		RaftTiming: raftnode.LANTiming(),
		BindAPI:    hostPort(c.Address, c.Ports.API), BindRaft: hostPort(c.Address, c.Ports.Raft),
		BindGossip: hostPort(c.Address, c.Ports.Gossip), GossipPort: int(c.Ports.Gossip),
		HandoverTimeout: c.Settings.PrepareTimeout + c.Settings.ReleaseTimeout + handoverReserve,
		Logger:          d.log,
		OnStuck: func(reason string) {
			// Its supervisor starts it again; until then the kernel ends the lease.
			d.log.Error("this process cannot do its part any more and exits", "reason", reason)
			d.exit(exitFailed)
		},
	}
	if c.Settings.Profile == "fast" {
		cfg.RaftTiming = raftnode.FastTiming()
	}
	for _, v := range c.VIPs {
		cfg.VIPs = append(cfg.VIPs, v.Address)
	}
	if len(c.FenceHook) > 0 {
		cfg.Fencer = fenceHook(c.FenceHook)
	}
	return cfg
}

// listen opens the two HTTP ports, on this node's address and, for tools on this host, on loopback if it is free there.
func (d *daemon) listen() error {
	var lc net.ListenConfig
	for _, one := range []struct {
		port   uint16
		health bool
	}{{d.cfg.Ports.API, false}, {d.cfg.Ports.Metrics, true}} {
		ln, err := lc.Listen(context.Background(), "tcp", hostPort(d.cfg.Address, one.port))
		if err != nil {
			return err
		}
		d.listeners = append(d.listeners, listener{ln, one.health})
		if netip.MustParseAddr(d.cfg.Address).IsLoopback() {
			continue
		}
		ln, err = lc.Listen(context.Background(), "tcp", hostPort("127.0.0.1", one.port))
		if err != nil {
			d.log.Info("not listening on loopback", "error", err)
			continue
		}
		d.listeners = append(d.listeners, listener{ln, one.health})
	}
	return nil
}

// serve runs the parts until a signal or a failure. What fails first is returned.
func (d *daemon) serve(signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	failed := make(chan error, len(d.listeners)+1)
	running.Go(func() {
		if err := d.node.Run(ctx); err != nil {
			failed <- fmt.Errorf("running the node: %w", err)
		}
	})
	for _, ln := range d.listeners {
		serve := d.server.ServeAPI
		if ln.health {
			serve = d.server.ServeHealth
		}
		running.Go(func() {
			if err := serve(ctx, ln); err != nil {
				failed <- err
			}
		})
	}
	running.Go(func() { d.notifyService(ctx) })
	running.Go(func() { d.backend.gather(ctx) })
	select {
	case err := <-failed:
		return err
	case s := <-signals:
		return d.shutdown(s, signals)
	}
}

// shutdown gives up the role in order. The HTTP server goes on meanwhile: the hand-over needs the node RPC.
func (d *daemon) shutdown(s os.Signal, signals <-chan os.Signal) error {
	d.log.Info("asked to stop: handing over first if this node is primary", "signal", s.String())
	d.tellService("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.Settings.PrepareTimeout+d.cfg.Settings.ReleaseTimeout+handoverReserve+stopTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.node.Shutdown(ctx) }()
	select {
	case err := <-done:
		d.node = nil
		if err != nil {
			return fmt.Errorf("stopping in order: %w", err)
		}
		d.log.Info("stopped in order")
		return nil
	case s := <-signals:
		// The lease ends in the kernel, whatever was left undone.
		d.log.Error("ending at once", "signal", s.String(), "error", errSecondSignal)
		d.exit(exitFailed)
		return errSecondSignal
	}
}

// close releases what is open. A gate whose lease still runs is left to the kernel: another hbd may take it over.
func (d *daemon) close() error {
	var errs []error
	for _, ln := range d.listeners {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.node != nil {
		errs = append(errs, d.node.Close())
	}
	if d.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), letGoTimeout)
		defer cancel()
		errs = append(errs, d.host.close(ctx))
	}
	return errors.Join(errs...)
}
