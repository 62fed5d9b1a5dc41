package sandbox

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"time"
)

// Ports are hbd's defaults; every host has its own address, so they never clash.
const (
	apiPort   = 7948
	mysqlPort = 3306
)

// maxSocketPath is the longest path a Unix socket can have on Linux (sun_path without its final zero byte).
const maxSocketPath = 107

// Roles of hosts.
const (
	RoleData    = "data"    // hbd and a database server
	RoleWitness = "witness" // hbd only
	RoleClient  = "client"  // nothing runs here by itself
)

// plan is everything that is decided before anything is built. It is stored as plan.json in the sandbox's
// directory and read by the runner, by the hosts and by Open.
type plan struct {
	Name          string            `json:"name"`
	Dir           string            `json:"dir"`
	Subnet        int               `json:"subnet"` // N in 10.77.N.0/24 and fd77:N::/64
	VIP           string            `json:"vip"`
	VIP6          string            `json:"vip6,omitempty"`
	Server        string            `json:"server"`
	ServerPath    string            `json:"server_path,omitempty"`
	Timing        string            `json:"timing"`
	OnServiceDown string            `json:"on_service_down"`
	LogLevel      string            `json:"log_level"`
	MinReplicas   int               `json:"min_replicas"`
	DegradeAfter  time.Duration     `json:"degrade_after"` // ns; 0: the profile's
	Settings      map[string]string `json:"settings,omitempty"`
	Bare          bool              `json:"bare"`
	DiskSize      int64             `json:"disk_size,omitempty"`
	HBD           string            `json:"hbd,omitempty"`
	Program       string            `json:"program"`
	Secrets       secrets           `json:"secrets"`
	Hosts         []planHost        `json:"hosts"`
}

// planHost is one host of the plan.
type planHost struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Address  string `json:"address"`
	Address6 string `json:"address6"`
	MAC      string `json:"mac"`
	ServerID int    `json:"server_id,omitempty"`
}

// secrets are the passwords of the three accounts, random for each sandbox.
type secrets struct {
	Manager     string `json:"manager"`
	Replication string `json:"replication"`
	App         string `json:"app"`
}

func newPlan(o Options) (plan, error) {
	p := plan{
		Name: o.Name, Dir: filepath.Join(o.Dir, o.Name), Subnet: subnetOf(o.Name),
		Server: o.Server, ServerPath: o.ServerPath, Timing: o.Timing, OnServiceDown: o.OnServiceDown, LogLevel: o.LogLevel, Settings: o.Settings,
		MinReplicas: o.MinReplicas, DegradeAfter: o.DegradeAfter,
		Bare: o.Bare, DiskSize: o.DiskSize, HBD: o.HBD, Program: o.Program,
		Secrets: secrets{Manager: rand.Text(), Replication: rand.Text(), App: rand.Text()},
	}
	p.VIP = fmt.Sprintf("10.77.%d.100", p.Subnet)
	if o.VIP6 {
		p.VIP6 = fmt.Sprintf("fd77:%x::100", p.Subnet)
	}
	for i := 1; i <= o.Nodes; i++ {
		h := p.newHost(fmt.Sprintf("db%d", i), RoleData, i)
		h.ServerID = i
		p.Hosts = append(p.Hosts, h)
	}
	for i := 1; i <= o.Witnesses; i++ {
		p.Hosts = append(p.Hosts, p.newHost(fmt.Sprintf("w%d", i), RoleWitness, 50+i))
	}
	p.Hosts = append(p.Hosts, p.newHost("client", RoleClient, 200))
	for _, h := range p.Hosts {
		for _, s := range []string{p.socket(h.Name), p.hostSocket(h.Name), p.controlSocket()} {
			if len(s) > maxSocketPath {
				return p, usagef("the directory is too long: socket %s has %d characters, the kernel allows %d", s, len(s), maxSocketPath)
			}
		}
	}
	return p, nil
}

func (p plan) newHost(name, role string, n int) planHost {
	return planHost{
		Name: name, Role: role,
		Address:  fmt.Sprintf("10.77.%d.%d", p.Subnet, n),
		Address6: fmt.Sprintf("fd77:%x::%x", p.Subnet, n),
		MAC:      fmt.Sprintf("02:77:00:%02x:00:%02x", p.Subnet, n),
	}
}

// subnetOf gives each name a subnet. Two names may share one: the switches are separate networks, so that costs
// nothing but a reader's confusion.
func subnetOf(name string) int {
	if name == DefaultName {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(name)) // never fails, as hash.Hash promises
	return int(h.Sum32()%255) + 1
}

func (p plan) host(name string) (planHost, error) {
	names := make([]string, 0, len(p.Hosts))
	for _, h := range p.Hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return planHost{}, usagef("no host %q in sandbox %s: it has %v", name, p.Name, names)
}

// Paths, all below the sandbox's directory.
func (p plan) path(elem ...string) string     { return filepath.Join(append([]string{p.Dir}, elem...)...) }
func (p plan) controlSocket() string          { return p.path("control.sock") }
func (p plan) hostSocket(host string) string  { return p.path(host, "host.sock") }
func (p plan) socket(host string) string      { return p.path(host, "mysqld.sock") }
func (p plan) pidFile(host string) string     { return p.path(host, "mysqld.pid") }
func (p plan) serverLog(host string) string   { return p.path(host, "mysqld.log") }
func (p plan) optionFile(host string) string  { return p.path(host, "my.cnf") }
func (p plan) breakFile(host string) string   { return p.path(host, "broken.cnf") }
func (p plan) disk(host string) string        { return p.path(host, "disk") }
func (p plan) datadir(host string) string     { return p.path(host, "disk", "data") }
func (p plan) hbdConfig(host string) string   { return p.path(host, "hbd.yaml") }
func (p plan) hbdLog(host string) string      { return p.path(host, "hbd.log") }
func (p plan) hbdDataDir(host string) string  { return p.path(host, "hbd") }
func (p plan) secretFile(which string) string { return p.path("secrets", which+".password") }
func (p plan) hostsFile() string              { return p.path("hosts") }
func (p plan) clientConfig() string           { return p.path("client", "my.cnf") }
func (p plan) runnerLog() string              { return p.path("runner.log") }
func planFile(dir string) string              { return filepath.Join(dir, "plan.json") }

// write stores the plan; it holds the passwords, so only its owner may read it.
func (p plan) write() error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the plan: %w", err)
	}
	return os.WriteFile(planFile(p.Dir), data, 0o600)
}

func readPlan(dir string) (plan, error) {
	var p plan
	data, err := os.ReadFile(planFile(dir))
	if err != nil {
		return p, fmt.Errorf("reading the plan: %w", err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("reading the plan %s: %w", planFile(dir), err)
	}
	return p, nil
}
