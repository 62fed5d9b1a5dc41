package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/highbase/highbase/fsm"
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// The bounds of what package vip accepts as guard; a wider one belongs to hosts that cannot keep a lease.
const minGuard, maxGuard = 20 * time.Millisecond, 50 * time.Millisecond

// readSettings takes the profile of timing and lays the section settings over it.
func (c *config) readSettings(d *decoder) {
	oneOf(d, "on_service_down", c.OnServiceDown, string(fsm.OnServiceDownRestart), string(fsm.OnServiceDownFailover))
	profile, err := fsm.Profile(c.Timing)
	if err != nil || c.Timing == "" {
		d.refuse("timing", fmt.Sprintf("%q is no timing profile", c.Timing), "use lan or fast")
		return
	}
	c.Settings = profile
	if c.SettingsNode != nil {
		d.mapping(c.SettingsNode, reflect.ValueOf(&c.Settings).Elem(), "settings")
	}
	for key, instead := range settingsElsewhere {
		if d.places["settings."+key] != nil {
			d.refuse("settings."+key, "cannot be set here", "set "+instead+" instead")
		}
	}
	c.Settings.Profile, c.Settings.OnServiceDown = profile.Profile, fsm.ServiceDownPolicy(c.OnServiceDown)
	c.readSync(d)
	if len(d.problems) > 0 {
		return // relations between values that could not be read say nothing
	}
	if g := c.Settings.Guard; g < minGuard || g > maxGuard {
		d.refuse("settings.guard", fmt.Sprintf("is %v", g), fmt.Sprintf("use %v to %v: the kernel gate is written with it", minGuard, maxGuard))
	}
	if err := c.Settings.Validate(); err != nil {
		mend := "change one side of the relation. With these settings: " + c.Settings.Budget()
		for _, one := range unjoin(err) {
			d.refuse(settingIn(one.Error(), d), one.Error(), mend)
			mend = "change one side of the relation" // the sum is said once
		}
	}
}

// settingsElsewhere are the settings of the log that have a place of their own in the file.
var settingsElsewhere = map[string]string{
	"profile": "timing", "on_service_down": "on_service_down",
	"sync_min_replicas": "sync.min_replicas", "degrade_after": "sync.degrade_after",
}

// readSync lays the section sync over the profile. More acknowledgements than there can be would stop every write.
func (c *config) readSync(d *decoder) {
	if c.Sync.DegradeAfter != nil {
		c.Settings.DegradeAfter = *c.Sync.DegradeAfter
	}
	if c.Sync.MinReplicas == nil {
		return
	}
	n, replicas := *c.Sync.MinReplicas, -1
	for _, p := range c.Peers {
		if p.Role == string(fsm.RoleData) {
			replicas++
		}
	}
	switch {
	case n < 0:
		d.refuse("sync.min_replicas", fmt.Sprintf("is %d", n), "use 0, or the number of replicas without whose acknowledgement no write may succeed")
		return
	case n > replicas && replicas >= 0:
		d.refuse("sync.min_replicas", fmt.Sprintf("is %d, and %d data nodes have %d replicas", n, replicas+1, replicas), fmt.Sprintf("use 0 to %d", replicas))
	case n > 1 && c.Server != nil && c.Server.Dialect == dialectMariaDB:
		d.refuse("sync.min_replicas", fmt.Sprintf("is %d, and MariaDB waits for one replica", n), "use 0 or 1")
	}
	c.Settings.SyncMinReplicas = n
}

// unjoin takes apart what errors.Join put together.
func unjoin(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

// settingIn finds the setting of the file that a message speaks of: the first of its words that is a key given there.
func settingIn(message string, d *decoder) string {
	for _, word := range regexp.MustCompile(`[a-z_]+`).FindAllString(message, -1) {
		for _, section := range []string{"settings.", "sync."} {
			if d.places[section+word] != nil {
				return section + word
			}
		}
	}
	return "settings"
}

// checkConfig judges values and how they fit together.
func checkConfig(c *config, d *decoder) {
	checkName(d, "cluster", c.Cluster, "name the cluster, such as shop")
	checkName(d, "node", c.Node, "name this node as in peers, such as db1")
	checkPath(d, "data_dir", c.DataDir, "/var/lib/highbase")
	own, ok := checkAddress(d, "address", c.Address)
	checkPorts(d, c.Ports)
	checkPeers(c, d)
	switch {
	case c.Node == "" || len(c.Peers) == 0:
	case c.self == nil:
		d.refuse("node", fmt.Sprintf("%q is not among the peers", c.Node), "list every node in peers, this one too")
	case ok && c.self.Address != own.String() && c.self.Address != c.Address:
		d.refuse("address", fmt.Sprintf("is %s, but peers has %s at %s", c.Address, c.Node, c.self.Address), "make the two the same")
	}
	checkVIPs(c, d)
	checkServer(c, d)
	checkHook(c, d)
	oneOf(d, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(d, "log.format", c.Log.Format, "text", "json")
}

func checkName(d *decoder, key, name, mend string) {
	switch {
	case name == "":
		d.refuse(key, "is missing", mend)
	case !namePattern.MatchString(name):
		d.refuse(key, fmt.Sprintf("%q is no name", name), "use 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first")
	}
}

func checkPath(d *decoder, key, path, example string) {
	switch {
	case path == "":
		d.refuse(key, "is missing", "write a path, such as "+example)
	case !filepath.IsAbs(path):
		d.refuse(key, fmt.Sprintf("%q is no absolute path", path), "write it from / on, such as "+example)
	}
}

func checkAddress(d *decoder, key, address string) (netip.Addr, bool) {
	if address == "" {
		d.refuse(key, "is missing", "write an IP address, such as 10.77.0.1")
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		d.refuse(key, fmt.Sprintf("%q is no IP address", address), "write it like 10.77.0.1 or fd77::1, without a name, port or mask")
	case ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast():
		d.refuse(key, fmt.Sprintf("%s is not the address of one host", address), "write an address that other hosts can reach")
	default:
		return ip.Unmap(), true
	}
	return netip.Addr{}, false
}

func checkPorts(d *decoder, p portsConfig) {
	seen := map[uint16]string{}
	for _, one := range []struct {
		key  string
		port uint16
	}{{"ports.api", p.API}, {"ports.raft", p.Raft}, {"ports.gossip", p.Gossip}, {"ports.metrics", p.Metrics}} {
		if other, taken := seen[one.port]; taken {
			d.refuse(one.key, fmt.Sprintf("is %d, which is %s already", one.port, other), "give each its own")
		}
		seen[one.port] = one.key
	}
}

func checkPeers(c *config, d *decoder) {
	if len(c.Peers) == 0 {
		d.refuse("peers", "is missing", "list every node of the cluster, this one too")
	}
	ids, addresses := map[string]string{}, map[netip.Addr]string{}
	data := 0
	for i, p := range c.Peers {
		key := fmt.Sprintf("peers[%d]", i)
		checkName(d, key+".id", p.ID, "name the node, such as db1")
		if other := ids[p.ID]; other != "" && p.ID != "" {
			d.refuse(key+".id", fmt.Sprintf("%s is %s already", p.ID, other), "give each node its own id")
		}
		ids[p.ID] = key
		if ip, ok := checkAddress(d, key+".address", p.Address); ok {
			if other := addresses[ip]; other != "" {
				d.refuse(key+".address", fmt.Sprintf("%s is the address of %s already", ip, other), "give each node its own address")
			}
			addresses[ip] = key
		}
		oneOf(d, key+".role", p.Role, string(fsm.RoleData), string(fsm.RoleWitness))
		if p.Role == string(fsm.RoleData) {
			data++
		} else if p.MySQLPort != nil || p.Priority != nil || p.NeverPromote {
			d.refuse(key, "is a witness, which has no database", "leave out mysql_port, priority and never_promote")
		}
		if p.priority() < 0 || p.priority() > 1000 {
			d.refuse(key+".priority", fmt.Sprintf("is %d", p.priority()), "use 0 to 1000; never_promote: true keeps a node from becoming primary")
		}
	}
	if len(c.Peers) > 0 && data == 0 {
		d.refuse("peers", "has no node with role data", "a cluster needs a database")
	}
	if len(c.Peers)%2 == 0 && len(c.Peers) > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d voters survive the loss of no more nodes than %d would: add a witness", len(c.Peers), len(c.Peers)-1))
	}
}

func checkVIPs(c *config, d *decoder) {
	if len(c.VIPs) == 0 {
		d.refuse("vips", "is missing", "give the address that clients connect to, such as {address: 10.77.0.100, interface: eth0}")
	}
	seen := map[netip.Addr]bool{}
	for i, v := range c.VIPs {
		key := fmt.Sprintf("vips[%d]", i)
		ip, ok := checkAddress(d, key+".address", v.Address)
		switch {
		case !ok:
		case ip.IsLoopback():
			d.refuse(key+".address", v.Address+" is a loopback address", "give an address that clients can reach")
		case seen[ip]:
			d.refuse(key+".address", v.Address+" is listed twice", "keep one of the two")
		}
		if slices.ContainsFunc(c.Peers, func(p peerConfig) bool { return ok && p.Address == ip.String() }) {
			d.refuse(key+".address", v.Address+" is the own address of a node", "give an address that belongs to no host")
		}
		seen[ip] = true
		if v.Interface == "" || len(v.Interface) > 15 || strings.ContainsAny(v.Interface, "/ \t") {
			d.refuse(key+".interface", fmt.Sprintf("%q is no interface", v.Interface), "name a network interface of this host, such as eth0")
		}
	}
}

func checkHook(c *config, d *decoder) {
	if len(c.FenceHook) == 0 {
		return
	}
	checkPath(d, "fence_hook[0]", c.FenceHook[0], "/usr/local/sbin/fence-node")
	if info, err := os.Stat(c.FenceHook[0]); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		d.refuse("fence_hook[0]", fmt.Sprintf("%q cannot be executed", c.FenceHook[0]), "install it, or leave fence_hook out")
	}
}

func oneOf(d *decoder, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		d.refuse(key, fmt.Sprintf("%q is not known", value), "use "+strings.Join(allowed, " or "))
	}
}

// readPassword reads a password file: its first line, which must not be empty.
func readPassword(path string) (password, warning string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "", err
	}
	if !info.Mode().IsRegular() || info.Size() > 1<<10 {
		return "", "", errors.New("not a small regular file")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	password, _, _ = strings.Cut(string(raw), "\n")
	password = strings.TrimSuffix(password, "\r")
	if password == "" {
		return "", "", errors.New("its first line is empty")
	}
	if info.Mode().Perm()&0o077 != 0 {
		warning = fmt.Sprintf("%s can be read by others (mode %#o): chmod 600 it", path, info.Mode().Perm())
	}
	return password, warning, nil
}
