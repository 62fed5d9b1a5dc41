package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// Status is what `hbctl sandbox status -o json` prints.
type Status struct {
	Name   string `json:"name"`
	Dir    string `json:"dir"`
	VIP    string `json:"vip"`
	VIP6   string `json:"vip6"`
	Server string `json:"server"`
	DSN    string `json:"dsn"` // account app on database app through the VIP, in go-sql-driver's form
	Hosts  []Host `json:"hosts"`
}

// Host is one host of a Status. Fields of services that it does not have are empty or 0.
type Host struct {
	Name      string `json:"name"`
	Role      string `json:"role"`  // data, witness or client
	State     string `json:"state"` // running, frozen or down
	Address   string `json:"address"`
	Address6  string `json:"address6"`
	API       string `json:"api"` // host:port of hbd's API
	MySQLPort int    `json:"mysql_port"`
	Socket    string `json:"socket"`
	Datadir   string `json:"datadir"` // with a memory disk, visible only below /proc/PID/root of a process of the sandbox
	Log       string `json:"log"`     // of hbd; of the server in a bare sandbox
	PIDs      PIDs   `json:"pids"`

	init int
}

// PIDs are processes as the caller's PID namespace calls them; 0 means not running.
type PIDs struct {
	HBD    int `json:"hbd"`
	Mysqld int `json:"mysqld"`
}

// Status looks at every host now.
func (s *Sandbox) Status(ctx context.Context) (Status, error) {
	st := Status{Name: s.plan.Name, Dir: s.plan.Dir, VIP: s.plan.VIP, VIP6: s.plan.VIP6, Server: s.plan.Server,
		DSN: s.plan.dsn(s.plan.VIP)}
	rep, files, err := s.call(ctx, request{Op: "status"})
	if err != nil {
		return st, err
	}
	defer closeAll(files)
	for _, seen := range rep.Hosts {
		h, err := s.plan.describe(seen)
		if err != nil {
			return st, err
		}
		for _, p := range []struct {
			have bool
			pid  *int
		}{{seen.Init, &h.init}, {seen.HBD, &h.PIDs.HBD}, {seen.Mysqld, &h.PIDs.Mysqld}} {
			if !p.have {
				continue
			}
			if len(files) == 0 {
				return st, errors.New("reading the status: a process descriptor is missing")
			}
			if *p.pid, err = pidOfPidfd(int(files[0].Fd())); err != nil {
				return st, err
			}
			files[0].Close()
			files = files[1:]
		}
		st.Hosts = append(st.Hosts, h)
	}
	return st, nil
}

func (p plan) describe(seen hostState) (Host, error) {
	ph, err := p.host(seen.Name)
	if err != nil {
		return Host{}, err
	}
	h := Host{Name: ph.Name, Role: ph.Role, State: seen.State, Address: ph.Address, Address6: ph.Address6}
	if ph.Role == RoleData {
		h.MySQLPort, h.Socket, h.Datadir = mysqlPort, p.socket(ph.Name), p.datadir(ph.Name)
		h.Log = p.serverLog(ph.Name)
	}
	if ph.Role != RoleClient && !p.Bare {
		h.API, h.Log = net.JoinHostPort(ph.Address, fmt.Sprint(apiPort)), p.hbdLog(ph.Name)
	}
	return h, nil
}

// dsn is the application's data source name at an address.
func (p plan) dsn(address string) string {
	return fmt.Sprintf("app:%s@tcp(%s)/app", p.Secrets.App, net.JoinHostPort(address, fmt.Sprint(mysqlPort)))
}

// HostDSN is Status.DSN for one host's own address instead of the VIP.
func (s *Sandbox) HostDSN(host string) (string, error) {
	h, err := s.plan.host(host)
	if err != nil {
		return "", err
	}
	return s.plan.dsn(h.Address), nil
}

// ManagerDSN is the data source name of hbd's own account on a host, over the server's Unix socket.
func (s *Sandbox) ManagerDSN(host string) (string, error) {
	if _, err := s.plan.host(host); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:%s@unix(%s)/", managerUser, s.plan.Secrets.Manager, s.plan.socket(host)), nil
}

// ReplicationAccount returns the user and password with which replicas log in at their source.
func (s *Sandbox) ReplicationAccount() (user, password string) {
	return replicationUser, s.plan.Secrets.Replication
}

// Netns returns the path of a host's network namespace, for callers with the right to enter it (root). It is good
// until the host is killed.
func (s *Sandbox) Netns(ctx context.Context, host string) (string, error) {
	if _, err := s.plan.host(host); err != nil {
		return "", err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, h := range st.Hosts {
		if h.Name == host && h.init != 0 {
			return fmt.Sprintf("/proc/%d/ns/net", h.init), nil
		}
	}
	return "", fmt.Errorf("%s is down", host)
}

// hbdLogs are the ends of hbd's logs, for an error message.
func (s *Sandbox) hbdLogs() string {
	var out string
	for _, h := range s.plan.Hosts {
		text, err := os.ReadFile(s.plan.hbdLog(h.Name))
		if err == nil && len(text) > 0 { // a client has none
			out += fmt.Sprintf("\nhbd of %s: %s", h.Name, tail(text, 1500))
		}
	}
	return out
}
