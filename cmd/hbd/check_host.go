package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/cluster/api"
)

// clockRate is by how much the kernel steers the clock's rate, in parts per million (adjtimex(2): 16 fractional bits).
func clockRate() (ppm float64, failure string) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return 0, fmt.Sprintf("asking the kernel for the clock's rate: %v", err)
	}
	return float64(t.Freq) / 65536, ""
}

// flushesRuleset finds the lines of a firewall's file that delete everybody's tables, the gate's too.
func flushesRuleset(path string) []string {
	file, err := os.Open(path)
	if err != nil {
		return nil // no such file, nothing that flushes
	}
	defer file.Close()
	var out []string
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.Join(strings.Fields(line), " ") == "flush ruleset" {
			out = append(out, fmt.Sprintf("%s:%d", path, n))
		}
	}
	return out
}

// appendARP adds how an interface answers; the kernel takes the larger of all and its own.
func appendARP(list []api.CheckARP, link string) []api.CheckARP {
	for _, a := range list {
		if a.Interface == link {
			return list
		}
	}
	value := func(key string) int {
		return max(sysctl("all", key), sysctl(link, key))
	}
	return append(list, api.CheckARP{Interface: link, Ignore: value("arp_ignore"), Announce: value("arp_announce")})
}

// sysctl reads one number; an interface that is not there has none, which is never what is needed.
func sysctl(link, key string) int {
	raw, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", link, key))
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return -1
	}
	return n
}

// systemctlTimeout bounds one question.
const systemctlTimeout = 5 * time.Second

// knownUnits start a database server on the usual distributions.
var knownUnits = []string{"mariadb.service", "mysql.service", "mysqld.service"}

// serverUnits asks systemd about the unit of the configuration, if there is one, and those that distributions bring.
// A host without systemd has none.
func serverUnits(ctx context.Context, own string) (units []api.CheckUnit, failure string) {
	if _, err := os.Stat("/run/systemd/system"); errors.Is(err, fs.ErrNotExist) {
		return nil, ""
	}
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	names := knownUnits
	if own != "" {
		names = append([]string{own}, names...)
	}
	seen := map[string]bool{}
	for _, name := range names {
		out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=Id,LoadState,UnitFileState,Restart", name).Output()
		if err != nil {
			return nil, fmt.Sprintf("asking systemd about %s: %v", name, err)
		}
		p := map[string]string{}
		for line := range strings.Lines(string(out)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			p[key] = value
		}
		if p["LoadState"] != "loaded" || seen[p["Id"]] { // aliases have one Id
			continue
		}
		seen[p["Id"]] = true
		u := api.CheckUnit{Name: p["Id"], State: p["UnitFileState"]}
		if name == own {
			u.Restart = p["Restart"]
		}
		units = append(units, u)
	}
	return units, ""
}
