package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/highbase/highbase/cluster/identity"
	"github.com/highbase/highbase/mysqld"
	"github.com/highbase/highbase/probe"
)

// host is everything of this host that a node with a database works with.
type host struct {
	server    *mysqld.Server
	service   mysqld.Service
	prober    *probe.Prober
	database  *database
	addresses *addresser
	rebuilder *rebuilder
	attention *attention
}

// openHost opens the parts. Nothing is changed on the host but the gate's tables, and no connection is needed yet.
func openHost(c *config, log *slog.Logger, p priority, a *attention) (*host, error) {
	files, err := openNote[serverFiles](filepath.Join(c.DataDir, "server-files.json"), "where the server keeps its files", log)
	if err != nil {
		return nil, err
	}
	channel, err := openNote[mysqld.Channel](filepath.Join(c.DataDir, "channel.json"), "how this replica was set up", log)
	if err != nil {
		return nil, err
	}
	h := &host{attention: a}
	if h.server, err = mysqld.Open(mysqld.Config{
		Dialect: c.Server.Dialect, Socket: c.Server.Socket, Host: c.Address, Port: c.Server.Port,
		ManagerUser: c.Server.Manager.User, ManagerPassword: c.Server.Manager.password,
		ReplicationUser: c.Server.Replication.User, ReplicationPassword: c.Server.Replication.password,
		TLS: c.Server.Replication.TLS.replication(), Logger: log.With("part", "mysqld"),
	}); err != nil {
		return nil, fmt.Errorf("preparing for the server: %w", err)
	}
	if last, found := channel.Load(); found {
		h.server.RememberChannel(last)
	}
	if err := h.open(c, log, p, files, channel); err != nil {
		return nil, errors.Join(err, h.server.Close())
	}
	return h, nil
}

func (h *host) open(c *config, log *slog.Logger, p priority, files *identity.Durable[serverFiles], channel *identity.Durable[mysqld.Channel]) error {
	login, err := c.Server.Replication.login()
	if err != nil {
		return err
	}
	if h.service, err = mysqld.NewService(serviceSettings(c, log, p, files)); err != nil {
		return fmt.Errorf("preparing for the service: %w", err)
	}
	server := watched{h.server, files, channel, log}
	if h.prober, err = probe.New(probe.Config{
		Database: server, Process: h.service, Login: login,
		Socket: c.Server.Socket, Pause: h.attention.pause, HungAfter: c.Settings.HungAfter, Logger: log.With("part", "probe"),
	}); err != nil {
		return err
	}
	h.attention.look = h.prober.Kick
	if h.addresses, err = newAddresser(c, log.With("part", "vip")); err != nil {
		return fmt.Errorf("preparing the virtual addresses: %w", err)
	}
	if !h.addresses.KernelGate() {
		log.Error("no kernel gate on this host: if hbd freezes, its lease does not end by itself (needs nftables and CAP_NET_ADMIN)")
	}
	h.database = &database{server: server, service: h.service, addresses: h.addresses, dialect: c.Server.Dialect,
		tails: filepath.Join(c.DataDir, "tails"), log: log.With("part", "rewind")}
	h.rebuilder = newRebuilder(c, h, log.With("part", "rebuild"), p)
	return nil
}

// serviceSettings fits the section server.service to package mysqld.
func serviceSettings(c *config, log *slog.Logger, p priority, files *identity.Durable[serverFiles]) mysqld.ServiceConfig {
	s := c.Server.Service
	where, _ := files.Load() // nothing known is the zero value
	cfg := mysqld.ServiceConfig{
		Kind: s.Kind, Dialect: c.Server.Dialect, Socket: c.Server.Socket, DataDir: where.DataDir,
		Command: s.Command, PIDFile: s.PIDFile, Log: s.Log, Unit: s.Unit,
		StartCommand: s.Start, StopCommand: s.Stop, KillCommand: s.Kill, Logger: log.With("part", "service"),
	}
	if s.Kind == kindChild {
		cfg.Command = p.plain(s.Command)
	}
	if s.Kind == kindCommand {
		cfg.StartCommand = p.plain(s.Start)
	}
	return cfg
}

// openNote opens a small note about the server. A damaged one is thrown away: the next status makes it anew, and until
// then what it told is not known.
func openNote[T any](path, what string, log *slog.Logger) (*identity.Durable[T], error) {
	note, err := identity.OpenDurable[T](path)
	if errors.Is(err, identity.ErrCorrupt) {
		log.Warn("a note is damaged; making it anew", "of", what, "error", err)
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		note, err = identity.OpenDurable[T](path)
	}
	return note, err
}

// close ends the connections and lets go of the addresses. mysqld goes on running.
func (h *host) close(ctx context.Context) error {
	return errors.Join(h.addresses.letGo(ctx), h.server.Close())
}
