package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/highbase/highbase/fsm"
)

// config is the configuration file. Every key is described in docs/hbd.yaml.md; a test compares the two. A field with
// the tag "-" is worked out from the others.
type config struct {
	Cluster       string        `yaml:"cluster"`
	Node          string        `yaml:"node"`
	DataDir       string        `yaml:"data_dir"`
	Address       string        `yaml:"address"`
	Ports         portsConfig   `yaml:"ports"`
	Peers         []peerConfig  `yaml:"peers"`
	VIPs          []vipConfig   `yaml:"vips"`
	Timing        string        `yaml:"timing"`
	OnServiceDown string        `yaml:"on_service_down"`
	Sync          syncConfig    `yaml:"sync"`
	SettingsNode  ast.Node      `yaml:"settings"` // read once the profile is known
	Server        *serverConfig `yaml:"server"`   // nil on a witness
	FenceHook     []string      `yaml:"fence_hook"`
	Log           logConfig     `yaml:"log"`
	Settings      fsm.Settings  `yaml:"-"`
	Warnings      []string      `yaml:"-"` // what is allowed and unwise
	self          *peerConfig   // this node among the peers
}

// syncConfig is what is given up for writes to go on, and when. Nil: the profile's value.
type syncConfig struct {
	MinReplicas  *int           `yaml:"min_replicas"`
	DegradeAfter *time.Duration `yaml:"degrade_after"`
}

type portsConfig struct {
	API     uint16 `yaml:"api"`
	Raft    uint16 `yaml:"raft"`
	Gossip  uint16 `yaml:"gossip"`
	Metrics uint16 `yaml:"metrics"`
}

type peerConfig struct {
	ID           string  `yaml:"id"`
	Address      string  `yaml:"address"`
	MySQLPort    *uint16 `yaml:"mysql_port"`
	Role         string  `yaml:"role"`
	Priority     *int    `yaml:"priority"`
	NeverPromote bool    `yaml:"never_promote"`
}

type vipConfig struct {
	Address   string `yaml:"address"`
	Interface string `yaml:"interface"`
}

type serverConfig struct {
	Dialect     string            `yaml:"dialect"`
	Socket      string            `yaml:"socket"`
	Port        uint16            `yaml:"port"`
	Manager     accountConfig     `yaml:"manager"`
	Replication replicationConfig `yaml:"replication"`
	Service     serviceConfig     `yaml:"service"`
	DataDir     string            `yaml:"data_dir"` // "" until the server was seen once
}

type accountConfig struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
	password     string // read from the file
}

type serviceConfig struct {
	Kind    string   `yaml:"kind"`
	Command []string `yaml:"command"`
	PIDFile string   `yaml:"pid_file"`
	Log     string   `yaml:"log"`
	Unit    string   `yaml:"unit"`
	Start   []string `yaml:"start"`
	Stop    []string `yaml:"stop"`
	Kill    []string `yaml:"kill"`
}

type logConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

const (
	defaultMySQLPort = 3306
	defaultPriority  = 100
	dialectMariaDB   = "mariadb"
	dialectMySQL     = "mysql"
	kindChild        = "child"
	kindSystemd      = "systemd"
	kindCommand      = "command"
)

// loadConfig reads, completes and checks a configuration file, and the password files it names. The error, if it is a
// *configError, lists every mistake found, each with its place.
func loadConfig(path string) (*config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parseConfig(path, raw)
}

func parseConfig(path string, raw []byte) (*config, error) {
	c := &config{
		Ports:  portsConfig{API: 7948, Raft: 7947, Gossip: 7946, Metrics: 7949},
		Timing: "lan", OnServiceDown: string(fsm.OnServiceDownRestart),
		Log: logConfig{Level: "info", Format: "text"},
	}
	d := newDecoder(path)
	d.document(raw, c)
	if err := d.err(); err != nil {
		return nil, err // judging values makes sense only of a file that could be read
	}
	c.complete()
	c.readSettings(d)
	checkConfig(c, d)
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// complete fills in what follows from other keys.
func (c *config) complete() {
	for i := range c.Peers {
		p := &c.Peers[i]
		if p.Role == "" {
			p.Role = string(fsm.RoleData)
		}
		if p.ID == c.Node {
			c.self = p
		}
	}
	if c.Server != nil && c.Server.Port == 0 {
		c.Server.Port = defaultMySQLPort
		if c.self != nil {
			c.Server.Port = c.self.mysqlPort()
		}
	}
}

func (p peerConfig) mysqlPort() uint16 {
	if p.MySQLPort == nil {
		return defaultMySQLPort
	}
	return *p.MySQLPort
}

func (p peerConfig) priority() int {
	if p.Priority == nil {
		return defaultPriority
	}
	return *p.Priority
}

// isWitness tells whether this node has no database.
func (c *config) isWitness() bool { return c.self != nil && c.self.Role == string(fsm.RoleWitness) }

// members are the peers as the log will know them.
func (c *config) members() []fsm.Member {
	var out []fsm.Member
	for _, p := range c.Peers {
		m := fsm.Member{ID: fsm.NodeID(p.ID), Address: p.Address, API: hostPort(p.Address, c.Ports.API), Raft: hostPort(p.Address, c.Ports.Raft), Role: fsm.Role(p.Role)}
		if m.Role == fsm.RoleData {
			m.MySQLPort, m.Priority, m.NeverPromote = p.mysqlPort(), p.priority(), p.NeverPromote
		}
		out = append(out, m)
	}
	return out
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
