package check

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/highbase/highbase/cluster/api"
)

// betweens compare nodes.
var betweens = []between{
	{"check.server-id", "server_id, distinct", findServerIDs},
	{"check.gtid-domain", "gtid_domain_id, the same", func(all []api.CheckFacts) []placed { return differing(all, "gtid_domain_id", failed) }},
	{"check.version", "versions, compatible", findVersions},
	{"check.same", "settings that data depends on, the same", findDiffering},
	{"check.disk-free", "room for a rebuild", findRoom},
}

func servers(all []api.CheckFacts) []api.CheckFacts {
	var out []api.CheckFacts
	for _, f := range all {
		if serverAnswers(f) {
			out = append(out, f)
		}
	}
	return out
}

func findServerIDs(all []api.CheckFacts) []placed {
	var out []placed
	first := map[string]string{}
	for _, f := range servers(all) {
		id := f.Server.Variables["server_id"]
		if other, taken := first[id]; taken || id == "" || id == "0" {
			current := id
			if taken {
				current += ", as " + other
			}
			out = append(out, placed{f.Node, failed("server_id", current, "above 0, another on each node", inFile)})
			continue
		}
		first[id] = f.Node
	}
	return out
}

// differing names the nodes whose variable is not that of the first that has it.
func differing(all []api.CheckFacts, name string, kind func(variable, current, required, mend string) finding) []placed {
	var out []placed
	first, of := "", ""
	for _, f := range servers(all) {
		value, set := f.Server.Variables[name]
		switch {
		case !set:
		case of == "":
			first, of = value, f.Node
		case value != first:
			out = append(out, placed{f.Node, kind(name, value, first+", as on "+of, inFile)})
		}
	}
	return out
}

func findDiffering(all []api.CheckFacts) []placed {
	out := append(differing(all, "lower_case_table_names", failed), differing(all, "innodb_page_size", failed)...)
	for _, name := range []string{"max_allowed_packet", "character_set_server", "collation_server", "sql_mode", "event_scheduler"} {
		out = append(out, differing(all, name, warning)...)
	}
	return out
}

// series is what two servers must share to replicate both ways: the major and minor number.
func series(version string) (major, minor int) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, errMajor := strconv.Atoi(parts[0])
	minor, errMinor := strconv.Atoi(parts[1])
	if errMajor != nil || errMinor != nil {
		return 0, 0
	}
	return major, minor
}

func findVersions(all []api.CheckFacts) []placed {
	var out []placed
	list := servers(all)
	for _, f := range list {
		a, b := list[0].Server, f.Server
		if a.Dialect != b.Dialect {
			out = append(out, placed{f.Node, failed("dialect", b.Dialect, a.Dialect+", as on "+list[0].Node, "one kind of server in one cluster")})
			continue
		}
		aMajor, aMinor := series(a.Version)
		if major, minor := series(b.Version); major != aMajor || minor != aMinor {
			out = append(out, placed{f.Node, warning("version", b.Version, fmt.Sprintf("%d.%d, as on %s", aMajor, aMinor, list[0].Node),
				"finish the upgrade: replicas first, the primary last; an older server does not follow a newer one")})
		}
	}
	return out
}

// findRoom: a rebuild receives the copy beside the data it replaces.
func findRoom(all []api.CheckFacts) []placed {
	var largest uint64
	for _, f := range all {
		if f.Server != nil {
			largest = max(largest, f.Server.DataBytes)
		}
	}
	var out []placed
	for _, f := range all {
		switch {
		case f.Server == nil:
		case f.Server.DiskError != "":
			out = append(out, placed{f.Node, warning("free space", f.Server.DiskError, "known", "look with df")})
		case f.Server.FreeBytes < largest:
			out = append(out, placed{f.Node, warning("free space", gigabytes(f.Server.FreeBytes), gigabytes(largest)+", the largest data directory", "make room, or a rebuild of this node is refused")})
		}
	}
	return out
}

func gigabytes(n uint64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) }
