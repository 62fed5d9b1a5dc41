package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/highbase/highbase/check"
	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/cluster/httpd"
	"github.com/highbase/highbase/fsm"
)

// reachTimeout bounds one connect to another node's port.
const reachTimeout = 2 * time.Second

// checker gathers what package check judges: of this host, and over the API of the others.
type checker struct {
	cfg  *config
	log  *slog.Logger
	host *host // nil on a witness
}

// check asks the given nodes, all when none is given, at the same time.
func (c *checker) check(ctx context.Context, nodes []string) (api.Check, error) {
	var peers []peerConfig
	for _, p := range c.cfg.Peers {
		if len(nodes) == 0 || slices.Contains(nodes, p.ID) {
			peers = append(peers, p)
		}
	}
	for _, id := range nodes {
		if !slices.ContainsFunc(peers, func(p peerConfig) bool { return p.ID == id }) {
			return api.Check{}, fmt.Errorf("%w: %q", httpd.ErrUnknownNode, id)
		}
	}
	facts := make([]api.CheckFacts, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() { facts[i] = c.factsOf(ctx, p) })
	}
	all.Wait()
	return check.Judge(c.cfg.Node, facts), nil
}

// factsOf asks one node; one that does not answer is told as such.
func (c *checker) factsOf(ctx context.Context, p peerConfig) api.CheckFacts {
	if p.ID == c.cfg.Node {
		return c.facts(ctx)
	}
	unknown := func(err error) api.CheckFacts { return api.CheckFacts{Node: p.ID, Role: p.Role, Error: err.Error()} }
	client, err := api.NewClient([]string{hostPort(p.Address, c.cfg.Ports.API)}, api.ClientOptions{})
	if err != nil {
		return unknown(err)
	}
	defer client.Close()
	f, err := client.CheckFacts(ctx)
	switch {
	case err != nil:
		return unknown(err)
	case f.Node != p.ID:
		return unknown(fmt.Errorf("%s answers there", f.Node))
	}
	return f
}

// facts are this host's own.
func (c *checker) facts(ctx context.Context) api.CheckFacts {
	s := c.cfg.Settings
	f := api.CheckFacts{Node: c.cfg.Node, Role: string(fsm.RoleWitness), Budget: s.Budget(), DriftPPM: float64(s.DriftPPM)}
	if c.cfg.self != nil {
		f.Role = c.cfg.self.Role
	}
	f.ClockPPM, f.ClockError = clockRate()
	f.Reach = c.reach(ctx)
	if c.host == nil {
		return f
	}
	f.KernelGate = c.host.addresses.KernelGate()
	f.FlushRuleset = flushesRuleset("/etc/nftables.conf")
	for _, v := range c.cfg.VIPs {
		f.ARP = appendARP(f.ARP, v.Interface)
	}
	f.Units, f.UnitsError = serverUnits(ctx, c.cfg.Server.Service.Unit)
	f.Server = c.serverFacts(ctx)
	return f
}

// reach tries the ports of the other nodes, all at the same time.
func (c *checker) reach(ctx context.Context) []api.CheckReach {
	var out []api.CheckReach
	for _, p := range c.cfg.Peers {
		if p.ID == c.cfg.Node {
			continue
		}
		out = append(out,
			api.CheckReach{Peer: p.ID, Port: "api", Address: hostPort(p.Address, c.cfg.Ports.API)},
			api.CheckReach{Peer: p.ID, Port: "raft", Address: hostPort(p.Address, c.cfg.Ports.Raft)},
			api.CheckReach{Peer: p.ID, Port: "gossip", Address: hostPort(p.Address, c.cfg.Ports.Gossip)})
		if p.Role == string(fsm.RoleData) && c.host != nil {
			out = append(out, api.CheckReach{Peer: p.ID, Port: "mysql", Address: hostPort(p.Address, p.mysqlPort())})
		}
	}
	var all sync.WaitGroup
	for i := range out {
		all.Go(func() {
			if err := c.try(ctx, &out[i]); err != nil {
				out[i].Error = err.Error()
			}
		})
	}
	all.Wait()
	return out
}

// try connects; at a database port it logs in, because a connect without a greeting counts there as an error of this host.
func (c *checker) try(ctx context.Context, r *api.CheckReach) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if r.Port == "mysql" {
		for _, p := range c.cfg.Peers {
			if p.ID == r.Peer {
				return c.host.prober.Reach(ctx, p.Address, p.mysqlPort())
			}
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", r.Address)
	if err != nil {
		return err
	}
	return conn.Close()
}
