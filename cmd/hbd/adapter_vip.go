package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/highbase/highbase/cluster"
	"github.com/highbase/highbase/vip"
)

// addresser fits the manager of virtual addresses to what the cluster asks of it. What both call the same comes through
// the embedded manager.
type addresser struct {
	*vip.Manager
	log       *slog.Logger
	ports     map[netip.Addr]uint16 // of the other nodes' servers
	ownPort   uint16
	claimed   atomic.Pointer[func(netip.Addr)]
	destroyed atomic.Bool
}

// newAddresser opens the gate's tables: an intact gate of an earlier run is taken over as it is.
func newAddresser(c *config, log *slog.Logger) (*addresser, error) {
	a := &addresser{log: log, ports: map[netip.Addr]uint16{}, ownPort: c.Server.Port}
	cfg := vip.Config{MySQLPort: c.Server.Port, Guard: c.Settings.Guard, Logger: log, OnEvent: a.event}
	for _, v := range c.VIPs {
		cfg.Addresses = append(cfg.Addresses, vip.Address{IP: netip.MustParseAddr(v.Address), Interface: v.Interface})
	}
	own := netip.MustParseAddr(c.Address).Unmap()
	for _, m := range c.members() {
		if string(m.ID) == c.Node {
			continue
		}
		host := netip.MustParseAddr(m.Address).Unmap()
		if host != own {
			cfg.Peers = append(cfg.Peers, host)
		}
		if m.MySQLPort == 0 {
			continue
		}
		a.ports[host] = m.MySQLPort
		if m.MySQLPort != c.Server.Port {
			cfg.PeerPorts = append(cfg.PeerPorts, m.MySQLPort)
		}
	}
	var err error
	a.Manager, err = vip.New(cfg)
	return a, err
}

// SeverPeer destroys the sockets of replication traffic both ways: as its source and as its replica.
func (a *addresser) SeverPeer(host netip.Addr) (int, error) {
	served, err := a.Manager.SeverPeer(a.ownPort, netip.AddrPortFrom(host, 0))
	port, known := a.ports[host.Unmap()]
	if !known {
		return served, err
	}
	received, err2 := a.Manager.SeverPeer(0, netip.AddrPortFrom(host, port))
	return served + received, errors.Join(err, err2)
}

// Inbound implements cluster.Addresser.
func (a *addresser) Inbound() ([]cluster.Inbound, error) {
	list, err := a.Manager.Inbound(a.ownPort)
	out := make([]cluster.Inbound, len(list))
	for i, c := range list {
		out[i] = cluster.Inbound(c)
	}
	return out, err
}

// Connections implements cluster.Clients, as does Tickle.
func (a *addresser) Connections() ([]cluster.Connection, error) {
	list, err := a.Manager.Connections()
	out := make([]cluster.Connection, len(list))
	for i, c := range list {
		out[i] = cluster.Connection(c)
	}
	return out, err
}

func (a *addresser) Tickle(ctx context.Context, of []cluster.Connection) (int, error) {
	list := make([]vip.Connection, len(of))
	for i, c := range of {
		list[i] = vip.Connection(c)
	}
	return a.Manager.Tickle(ctx, list)
}

// Addresses implements cluster.Addresser.
func (a *addresser) Addresses() []cluster.Address {
	st := a.State()
	if st.Err != nil {
		a.log.Debug("reading the state of the addresses", "error", st.Err)
	}
	out := make([]cluster.Address, 0, len(st.Addresses))
	for _, one := range st.Addresses {
		out = append(out, cluster.Address{IP: one.IP, Held: one.Present, Conflicts: one.ForeignClaims, Repairs: one.Repairs, Announcements: one.Announcements})
	}
	return out
}

// OnForeignClaim implements cluster.Addresser.
func (a *addresser) OnForeignClaim(f func(ip netip.Addr)) { a.claimed.Store(&f) }

// Destroy implements cluster.Addresser.
func (a *addresser) Destroy(ctx context.Context) error {
	a.destroyed.Store(true)
	return a.Manager.Destroy(ctx)
}

// letGo is for the end of the program: what was not destroyed is left to the kernel, which ends it with the lease; with
// no lease there is nothing to leave.
func (a *addresser) letGo(ctx context.Context) error {
	if a.destroyed.Load() {
		return nil
	}
	if left, err := a.Remaining(); err == nil && left == 0 {
		return a.Destroy(ctx)
	}
	return a.Stop()
}

// event logs what the manager noticed and tells the cluster of other claimants.
func (a *addresser) event(e vip.Event) {
	level := slog.LevelWarn
	switch e.Kind {
	case vip.Announced:
		level = slog.LevelDebug
	case vip.LinkUp, vip.Repaired:
		level = slog.LevelInfo
	case vip.AddressMissing, vip.LinkDown, vip.ForeignClaim, vip.GateLost, vip.ProtectionWeaker:
	}
	attrs := []any{"event", e.Kind.String(), "interface", e.Interface, "detail", e.Detail}
	if e.Address.IsValid() {
		attrs = append(attrs, "address", e.Address)
	}
	if len(e.MAC) > 0 {
		attrs = append(attrs, "mac", e.MAC.String())
	}
	a.log.Log(context.Background(), level, "virtual address", attrs...)
	if f := a.claimed.Load(); f != nil && e.Kind == vip.ForeignClaim {
		(*f)(e.Address)
	}
}
