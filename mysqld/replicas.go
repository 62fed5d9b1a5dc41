package mysqld

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Replica is one replica that is connected to this server: one binlog dump
// thread. A thread whose replica is gone stays until something is sent to it.
type Replica struct {
	// ID is the number of the dump thread's connection.
	ID uint64
	// Host is the client's address, or its name where the server resolves names.
	Host string
	// Port is that of the client's end of the connection, not of its server; 0
	// when the server does not show it.
	Port uint16
}

// Replicas lists who replicates from here, from SHOW PROCESSLIST: it needs no
// temporary table (docs/SERVERS.md, process list) and shows every thread, also
// where performance_schema is off. The account needs PROCESS, or it sees nobody.
func (s *Server) Replicas(ctx context.Context) ([]Replica, error) {
	all, err := rows(ctx, s.db, "SHOW PROCESSLIST")
	if err != nil {
		return nil, fmt.Errorf("listing the replicas of %s: %w", s.target(), err)
	}
	var found []Replica
	for _, r := range all {
		if sendsBinlog(r) {
			found = append(found, replicaOf(r))
		}
	}
	return found, nil
}

// sendsBinlog: "Binlog Dump", on MySQL also "Binlog Dump GTID".
func sendsBinlog(r record) bool { return strings.HasPrefix(r["Command"], "Binlog Dump") }

func replicaOf(r record) Replica {
	host, port := splitClient(r["Host"])
	return Replica{ID: r.number("Id"), Host: host, Port: port}
}

// splitClient takes the process list's form of a client: "address:port", the
// address without brackets also where it has colons, or "localhost".
func splitClient(client string) (host string, port uint16) {
	i := strings.LastIndexByte(client, ':')
	if i < 0 {
		return client, 0
	}
	n, err := strconv.ParseUint(client[i+1:], 10, 16)
	if err != nil {
		return client, 0
	}
	return client[:i], uint16(n)
}

// CutReplica ends every dump thread whose client is at the address host, and
// returns how many it ended once the server shows none any more: from then on
// nobody there acknowledges what this server commits. Only dump threads are
// killed, never a waiter. A replica that can still connect is back within
// milliseconds, so block it first; ctx bounds the wait (10 s if it has no end).
//
// Where the server resolves names a client's name is looked up; one that cannot
// be is an error, for it might be the one to be cut.
func (s *Server) CutReplica(ctx context.Context, host string) (cut int, err error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return 0, fmt.Errorf("cutting a replica: %w", err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	addr = plain(addr)
	c := cutting{server: s, is: func(r Replica) (bool, error) {
		at, err := clientAddrs(ctx, r.Host)
		return slices.Contains(at, addr), err
	}}
	if err := poll(ctx, func() (bool, error) { return c.round(ctx) }); err != nil {
		return len(c.killed), fmt.Errorf("cutting the replica at %s (%d dump threads killed, %d left): %w", host, len(c.killed), c.left, err)
	}
	return len(c.killed), nil
}

// CutThread is CutReplica for one dump thread by its number (Replica.ID), wherever
// its client is. That there is none is success.
func (s *Server) CutThread(ctx context.Context, id uint64) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	c := cutting{server: s, is: func(r Replica) (bool, error) { return r.ID == id, nil }}
	if err := poll(ctx, func() (bool, error) { return c.round(ctx) }); err != nil {
		return fmt.Errorf("ending dump thread %d: %w", id, err)
	}
	return nil
}

// cutting is one CutReplica or CutThread under way.
type cutting struct {
	server *Server
	is     func(Replica) (bool, error) // those to cut
	killed []uint64
	left   int // at the last look
}

// round kills what is there and reports whether nothing was. A thread that was
// killed and is still listed may pass on an acknowledgement that has arrived.
func (c *cutting) round(ctx context.Context) (done bool, err error) {
	all, err := rows(ctx, c.server.db, "SHOW PROCESSLIST")
	if err != nil {
		return false, err
	}
	c.left = 0
	for _, r := range all {
		id := r.number("Id")
		ending := slices.Contains(c.killed, id)
		byOthers := r["Command"] == "Killed" && r["User"] == c.server.cfg.ReplicationUser
		if !ending && !byOthers && !sendsBinlog(r) {
			continue
		}
		if same, err := c.is(replicaOf(r)); err != nil {
			return false, err
		} else if !same {
			continue
		}
		c.left++
		if ending || byOthers {
			continue
		}
		if err := c.server.kill(ctx, c.server.db, id); err != nil {
			return false, err
		}
		c.killed = append(c.killed, id)
	}
	return c.left == 0, nil
}

// clientAddrs is where a client of the process list may be: one address, or those
// of its name where the server resolves names.
func clientAddrs(ctx context.Context, client string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(client); err == nil {
		return []netip.Addr{plain(a)}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", client)
	if err != nil {
		return nil, fmt.Errorf("telling where a replica is that the server knows by name (skip_name_resolve would show its address): %w", err)
	}
	for i, a := range found {
		found[i] = plain(a)
	}
	return found, nil
}

// plain is an address in the one form in which it can be compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
