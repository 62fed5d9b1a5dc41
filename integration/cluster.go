//go:build integration

package integration

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// clientHost is the sandbox's host without a server: the applications' side.
const clientHost = "client"

// Cluster is a sandbox with what a test needs to look at it: the API through the
// client host, and a connection to every server that no network fault touches.
type Cluster struct {
	*sandbox.Sandbox
	Facts   sandbox.Status // addresses, paths; process ids are those of the moment it came up
	api     *api.Client
	app     *mysql.Config
	servers map[string]*sql.DB // by host, over the Unix socket
	ids     map[uint32]string  // host by server_id
	hbctl   string
}

// Up builds a sandbox and waits until it serves. The binaries are those of `make build`,
// hbd may be replaced by the one that HIGHBASE_HBD names.
func Up(ctx context.Context, o sandbox.Options) (*Cluster, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	if o.HBD == "" {
		o.HBD = filepath.Join(root, "bin", "hbd")
	}
	if path := os.Getenv("HIGHBASE_HBD"); path != "" {
		o.HBD = path
	}
	o.TieToCaller = true
	sb, err := sandbox.Up(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("building the sandbox: %w", err)
	}
	c := &Cluster{Sandbox: sb, servers: map[string]*sql.DB{}, ids: map[uint32]string{},
		hbctl: filepath.Join(root, "bin", "hbctl")}
	if err := c.connect(ctx); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

// repositoryRoot is the nearest directory above with a go.mod.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
	}
	return "", fmt.Errorf("finding the repository: no go.mod above %s", dir)
}

func (c *Cluster) connect(ctx context.Context) error {
	var err error
	if c.Facts, err = c.Status(ctx); err != nil {
		return fmt.Errorf("asking the sandbox what it built: %w", err)
	}
	if c.app, err = mysql.ParseDSN(c.Facts.DSN); err != nil {
		return fmt.Errorf("reading the sandbox's DSN: %w", err)
	}
	var addrs []string
	for _, h := range c.Facts.Hosts {
		if h.API != "" {
			addrs = append(addrs, h.API)
		}
		if h.Socket == "" {
			continue
		}
		cfg := c.app.Clone()
		cfg.Net, cfg.Addr, cfg.Timeout, cfg.ReadTimeout = "unix", h.Socket, time.Second, 5*time.Second
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			return fmt.Errorf("preparing the connection to %s: %w", h.Name, err)
		}
		c.servers[h.Name] = sql.OpenDB(connector)
		if err := c.learnID(ctx, h.Name); err != nil {
			return err
		}
	}
	if len(addrs) > 0 {
		c.api, err = api.NewClient(addrs, api.ClientOptions{
			ConnectTimeout: 300 * time.Millisecond, ReadTimeout: time.Second,
			DialContext: c.dialer(clientHost),
		})
	}
	return err
}

// dialer connects from inside a host.
func (c *Cluster) dialer(host string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.Dial(ctx, host, network, addr)
	}
}

// learnID notes which server_id answers at a host's own socket.
func (c *Cluster) learnID(ctx context.Context, host string) error {
	var id uint32
	return Await(ctx, "the server of "+host+" to answer", func(ctx context.Context) (bool, string) {
		if err := c.servers[host].QueryRowContext(ctx, "SELECT @@global.server_id").Scan(&id); err != nil {
			return false, err.Error()
		}
		if id >= 1<<31 { // a MariaDB replica in the reserve runs under an alias
			id = math.MaxUint32 - id
		}
		c.ids[id] = host
		return true, ""
	})
}

// Close removes the sandbox and everything in it.
func (c *Cluster) Close(ctx context.Context) error {
	for _, db := range c.servers {
		db.Close() // only returns connections; the sandbox goes away below
	}
	if c.api != nil {
		c.api.Close()
	}
	return c.Down(ctx)
}

// Flavor is the GTID flavor of the servers.
func (c *Cluster) Flavor() gtid.Flavor { return gtid.Flavor(c.Facts.Server) }

// DataHosts lists the hosts that have a server.
func (c *Cluster) DataHosts() []string {
	var names []string
	for _, h := range c.Facts.Hosts {
		if h.Socket != "" {
			names = append(names, h.Name)
		}
	}
	return names
}

// Host finds a host's facts by name.
func (c *Cluster) Host(name string) (sandbox.Host, bool) {
	for _, h := range c.Facts.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return sandbox.Host{}, false
}

// Command runs a command on a host and returns its exit status and what it printed.
func (c *Cluster) Command(ctx context.Context, host string, argv ...string) (exit int, output string, err error) {
	var out bytes.Buffer
	exit, err = c.Exec(ctx, host, argv, strings.NewReader(""), &out, &out)
	return exit, out.String(), err
}

// Ctl is the answer of hbctl.
type Ctl struct {
	Exit   int
	Result api.Result
	Stderr string
}

// Hbctl runs hbctl on the client host against all nodes and reads its JSON.
func (c *Cluster) Hbctl(ctx context.Context, args ...string) (Ctl, error) {
	var addrs []string
	for _, h := range c.Facts.Hosts {
		if h.API != "" {
			addrs = append(addrs, h.API)
		}
	}
	argv := append([]string{c.hbctl, "--addr", strings.Join(addrs, ","), "-o", "json", "--yes"}, args...)
	var out, errs bytes.Buffer
	exit, err := c.Exec(ctx, clientHost, argv, strings.NewReader(""), &out, &errs)
	answer := Ctl{Exit: exit, Stderr: errs.String()}
	if err != nil {
		return answer, fmt.Errorf("running hbctl %v: %w", args, err)
	}
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &answer.Result); err != nil {
			return answer, fmt.Errorf("reading the answer of hbctl %v (exit %d, %s): %w", args, exit, answer.Stderr, err)
		}
	}
	return answer, nil
}
