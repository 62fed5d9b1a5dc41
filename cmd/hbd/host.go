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
}

// openHost opens the parts. Nothing is changed on the host but the gate's tables, and no connection is needed yet.
func openHost(c *config, log *slog.Logger, p priority) (*host, error) {
	files, err := openServerFiles(c.DataDir, log)
	if err != nil {
		return nil, err
	}
	h := &host{}
	if h.server, err = mysqld.Open(mysqld.Config{
		Dialect: c.Server.Dialect, Socket: c.Server.Socket, Host: c.Address, Port: c.Server.Port,
		ManagerUser: c.Server.Manager.User, ManagerPassword: c.Server.Manager.password,
		ReplicationUser: c.Server.Replication.User, ReplicationPassword: c.Server.Replication.password,
		Logger: log.With("part", "mysqld"),
	}); err != nil {
		return nil, fmt.Errorf("preparing for the server: %w", err)
	}
	if err := h.open(c, log, p, files); err != nil {
		return nil, errors.Join(err, h.server.Close())
	}
	return h, nil
}

func (h *host) open(c *config, log *slog.Logger, p priority, files *identity.Durable[serverFiles]) error {
	var err error
	if h.service, err = mysqld.NewService(serviceSettings(c, log, p, files)); err != nil {
		return fmt.Errorf("preparing for the service: %w", err)
	}
	server := watched{h.server, files, log}
	if h.prober, err = probe.New(probe.Config{
		Database: server, Process: h.service, Login: probe.Account{User: c.Server.Replication.User, Password: c.Server.Replication.password},
		Socket: c.Server.Socket, Interval: c.Settings.Ping, HungAfter: c.Settings.HungAfter, Logger: log.With("part", "probe"),
	}); err != nil {
		return err
	}
	if h.addresses, err = newAddresser(c, log.With("part", "vip")); err != nil {
		return fmt.Errorf("preparing the virtual addresses: %w", err)
	}
	if !h.addresses.KernelGate() {
		log.Error("no kernel gate on this host: if hbd freezes, its lease does not end by itself (needs nftables and CAP_NET_ADMIN)")
	}
	h.database = &database{server: server, service: h.service, addresses: h.addresses, dialect: c.Server.Dialect, tails: filepath.Join(c.DataDir, "tails")}
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

// openServerFiles reads where the server's files were last seen. A damaged note is thrown away: the next status makes it
// anew, and until then no tail is judged.
func openServerFiles(dataDir string, log *slog.Logger) (*identity.Durable[serverFiles], error) {
	path := filepath.Join(dataDir, "server-files.json")
	files, err := identity.OpenDurable[serverFiles](path)
	if errors.Is(err, identity.ErrCorrupt) {
		log.Warn("the note of where the server keeps its files is damaged; making it anew", "error", err)
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		files, err = identity.OpenDurable[serverFiles](path)
	}
	return files, err
}

// close ends the connections and lets go of the addresses. mysqld goes on running.
func (h *host) close(ctx context.Context) error {
	return errors.Join(h.addresses.letGo(ctx), h.server.Close())
}
