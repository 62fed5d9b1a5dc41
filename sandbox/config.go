package sandbox

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The accounts that hbd's configuration names.
const (
	managerUser     = "highbase"
	replicationUser = "highbase_repl"
)

// writeFiles writes everything that hosts read: name table, passwords, client options, hbd's configuration.
func writeFiles(p plan, s server) error {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	files := map[string]string{
		p.secretFile("manager"):     p.Secrets.Manager + "\n",
		p.secretFile("replication"): p.Secrets.Replication + "\n",
		p.secretFile("app"):         p.Secrets.App + "\n",
		p.clientConfig(): fmt.Sprintf("[client]\nuser = app\npassword = %s\nhost = %s\nport = %d\n",
			p.Secrets.App, p.VIP, mysqlPort),
	}
	for _, h := range p.Hosts {
		fmt.Fprintf(&hosts, "%s %s\n", h.Address, h.Name)
		if err := os.MkdirAll(p.path(h.Name), 0o700); err != nil {
			return fmt.Errorf("making the directory of %s: %w", h.Name, err)
		}
		if p.Bare || h.Role == RoleClient {
			continue
		}
		text, err := hbdConfig(p, h, s)
		if err != nil {
			return err
		}
		files[p.hbdConfig(h.Name)] = text
	}
	if err := os.MkdirAll(p.path("secrets"), 0o700); err != nil {
		return fmt.Errorf("making the directory of the passwords: %w", err)
	}
	files[p.hostsFile()] = hosts.String()
	for file, text := range files {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return fmt.Errorf("writing a configuration file: %w", err)
		}
	}
	return nil
}

// hbdConfig is the configuration file of one host's hbd, YAML. Strings are quoted as JSON does, which YAML reads.
func hbdConfig(p plan, h planHost, s server) (string, error) {
	q := strconv.Quote
	var b strings.Builder
	fmt.Fprintf(&b, "cluster: %s\nnode: %s\ndata_dir: %s\naddress: %s\npeers:\n", q(p.Name), h.Name, q(p.hbdDataDir(h.Name)), h.Address)
	for _, peer := range p.Hosts {
		switch peer.Role {
		case RoleData:
			fmt.Fprintf(&b, "  - {id: %s, address: %s, mysql_port: %d}\n", peer.Name, peer.Address, mysqlPort)
		case RoleWitness:
			fmt.Fprintf(&b, "  - {id: %s, address: %s, role: witness}\n", peer.Name, peer.Address)
		}
	}
	b.WriteString("vips:\n")
	for _, vip := range p.vips() {
		fmt.Fprintf(&b, "  - {address: %s, interface: %s}\n", q(vip), hostLink)
	}
	fmt.Fprintf(&b, "timing: %s\non_service_down: %s\n", p.Timing, p.OnServiceDown)
	fmt.Fprintf(&b, "log: {level: %s, format: text}\n", p.LogLevel)
	fmt.Fprintf(&b, "sync:\n  min_replicas: %d\n", p.MinReplicas)
	if p.DegradeAfter > 0 {
		fmt.Fprintf(&b, "  degrade_after: %v\n", p.DegradeAfter)
	}
	if len(p.Settings) > 0 {
		b.WriteString("settings:\n")
		for _, key := range slices.Sorted(maps.Keys(p.Settings)) {
			fmt.Fprintf(&b, "  %s: %s\n", key, p.Settings[key])
		}
	}
	if h.Role == RoleWitness {
		return b.String(), nil
	}
	command, err := s.command(p, h)
	if err != nil {
		return "", err
	}
	for i, word := range command {
		command[i] = q(word)
	}
	fmt.Fprintf(&b, "server:\n  dialect: %s\n  socket: %s\n  port: %d\n", p.Server, q(p.socket(h.Name)), mysqlPort)
	fmt.Fprintf(&b, "  manager: {user: %s, password_file: %s}\n", managerUser, q(p.secretFile("manager")))
	fmt.Fprintf(&b, "  replication: {user: %s, password_file: %s}\n", replicationUser, q(p.secretFile("replication")))
	fmt.Fprintf(&b, "  service:\n    kind: child\n    command: [%s]\n", strings.Join(command, ", "))
	fmt.Fprintf(&b, "    pid_file: %s\n    log: %s\n", q(p.pidFile(h.Name)), q(p.serverLog(h.Name)))
	return b.String(), nil
}

// vips lists the cluster's virtual addresses.
func (p plan) vips() []string {
	if p.VIP6 == "" {
		return []string{p.VIP}
	}
	return []string{p.VIP, p.VIP6}
}
