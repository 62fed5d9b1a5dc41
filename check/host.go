package check

import (
	"fmt"
	"math"
	"strings"

	"github.com/highbase/highbase/cluster/api"
)

// rows are looked at on each node, in this order.
var rows = append([]row{
	{code: "check.lease-budget", what: "lease", find: func(api.CheckFacts) []finding { return nil }, says: func(f api.CheckFacts) string { return f.Budget }},
	{code: "check.clock", what: "clock rate", find: findClock, says: func(f api.CheckFacts) string { return fmt.Sprintf("steered by %.1f ppm", f.ClockPPM) }},
	{code: "check.reach", what: "ports of the other nodes", find: findReach},
	{code: "check.kernel-gate", what: "kernel gate", applies: hasServer, find: findGate},
	{code: "check.nftables-flush", what: "/etc/nftables.conf", applies: hasServer, find: findFlush},
	{code: "check.arp", what: "arp_ignore, arp_announce", applies: hasServer, find: findARP},
	{code: "check.unit", what: "units that start a server", applies: hasServer, find: findUnits},
}, serverRows...)

// findClock: the kernel's own correction of the rate counts against the bound that two hosts may differ by.
func findClock(f api.CheckFacts) []finding {
	switch {
	case f.ClockError != "":
		return []finding{warning("clock rate", f.ClockError, "known", "see that adjtimex works here")}
	case math.Abs(f.ClockPPM) > f.DriftPPM/2:
		return []finding{failed("clock rate", fmt.Sprintf("steered by %.0f ppm", f.ClockPPM), fmt.Sprintf("at most %.0f ppm, half of drift_ppm", f.DriftPPM/2),
			"mend the host's clock or time service; a larger settings.drift_ppm makes every takeover wait longer")}
	}
	return nil
}

func findReach(f api.CheckFacts) []finding {
	var out []finding
	for _, r := range f.Reach {
		if r.Error != "" {
			out = append(out, failed(fmt.Sprintf("%s port of %s (%s)", r.Port, r.Peer, r.Address), r.Error, "reachable",
				"start what listens there, and let "+f.Node+" through firewalls"))
		}
	}
	return out
}

func findGate(f api.CheckFacts) []finding {
	if f.KernelGate {
		return nil
	}
	return []finding{failed("kernel gate", "missing or weaker: a frozen hbd is not fenced", "nftables with CAP_NET_ADMIN", "give hbd the capability, and a kernel with nf_tables in the inet, arp and netdev families")}
}

func findFlush(f api.CheckFacts) []finding {
	var out []finding
	for _, line := range f.FlushRuleset {
		out = append(out, warning(line, "flush ruleset", "its own tables only",
			"replace it by 'table ...; delete table ...' of your own tables: a reload opens the gate until hbd has closed it again"))
	}
	return out
}

func findARP(f api.CheckFacts) []finding {
	var out []finding
	for _, a := range f.ARP {
		if a.Ignore < 1 {
			out = append(out, failed("net.ipv4.conf."+a.Interface+".arp_ignore", fmt.Sprint(a.Ignore), "1 or more", "hbd sets it at its start; find what sets it back, such as a file in /etc/sysctl.d"))
		}
		if a.Announce != 2 {
			out = append(out, failed("net.ipv4.conf."+a.Interface+".arp_announce", fmt.Sprint(a.Announce), "2", "hbd sets it at its start; find what sets it back, such as a file in /etc/sysctl.d"))
		}
	}
	return out
}

// findUnits: nothing but hbd may start a server. A former primary that is started as it is commits what nobody acknowledged.
func findUnits(f api.CheckFacts) []finding {
	if f.UnitsError != "" {
		return []finding{warning("units that start a server", f.UnitsError, "known", "look with: systemctl is-enabled mariadb mysql mysqld")}
	}
	var out []finding
	for _, u := range f.Units {
		if strings.HasPrefix(u.State, "enabled") {
			out = append(out, failed(u.Name, u.State, "disabled", "systemctl disable "+u.Name+": nothing but hbd may start the server"))
		}
		if f.Server.Kind == "systemd" && u.Restart != "" && u.Restart != "no" {
			out = append(out, failed(u.Name+" Restart=", u.Restart, "no", "set Restart=no in a drop-in: systemctl edit "+u.Name))
		}
	}
	return out
}
