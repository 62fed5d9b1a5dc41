package main

import (
	"context"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// Status implements httpd.Backend. It gives each server the name and version that people know it by, and takes the lag
// of a server that does not report now: the last one heard would be a claim.
func (b *backend) Status(ctx context.Context) api.Status {
	s := b.Node.Status(ctx)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		n.Version = serverName(n.Version)
		if n.Server != api.ServerUp {
			n.LagSeconds = nil
		}
		if s.Verdict == api.StandingNotBootstrapped { // nobody has a role or a vote yet
			n.Voter = false
			if n.Role != api.RoleWitness {
				n.Role = api.RoleJoining
			}
		}
	}
	return s
}

// serverName turns what @@version says ("10.11.19-MariaDB-0+deb12u1-log", "9.7.4") into a name and a version
// ("MariaDB 10.11.19", "MySQL 9.7.4"). Only MariaDB says its name; what does not begin with a digit stays as it is.
func serverName(version string) string {
	version = strings.TrimPrefix(version, "5.5.5-") // MariaDB before 11 says so to clients that know MySQL only
	if version == "" || version[0] < '0' || version[0] > '9' {
		return version
	}
	number, rest, _ := strings.Cut(version, "-")
	if strings.Contains(strings.ToLower(rest), "mariadb") {
		return "MariaDB " + number
	}
	return "MySQL " + number
}

// gatherEvery is how often what the node hands out once is fetched. A node keeps its last incidents only.
const gatherEvery = time.Second

// gather counts the operations also while nobody scrapes: the counters begin when hbd does, not with the first scrape.
func (b *backend) gather(ctx context.Context) {
	tick := time.NewTicker(gatherEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.Local()
		}
	}
}
