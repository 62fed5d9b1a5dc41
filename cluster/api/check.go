package api

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"
)

// Results of a CheckRow.
const (
	CheckOK      = "ok"
	CheckWarning = "warning" // allowed and unwise
	CheckFailed  = "failed"  // a guarantee does not hold, or would not after a restart
)

// Check answers GET /v1/check: what was looked at on each node and between them.
type Check struct {
	// ToldBy is the id of the node that asked the others.
	ToldBy string `json:"told_by"`
	// OK says that no row failed; warnings are allowed.
	OK bool `json:"ok"`
	// Rows are all that was looked at, also what is well, by node.
	Rows []CheckRow `json:"rows"`
}

// CheckRow is one thing that was looked at.
type CheckRow struct {
	// Rule is its stable name, such as "check.server-id".
	Rule string `json:"rule"`
	// Node is whose it is, "" for what is between nodes.
	Node string `json:"node"`
	// Result is CheckOK, CheckWarning or CheckFailed.
	Result string `json:"result"`
	// Variable is what was looked at, Current what it is, Required what it must be.
	Variable string `json:"variable"`
	Current  string `json:"current"`
	Required string `json:"required"`
	// Mend says what to do about it, "" when nothing is.
	Mend string `json:"mend"`
}

// MarshalJSON writes every list as a list, never null.
func (c Check) MarshalJSON() ([]byte, error) {
	type plain Check
	c.Rows = list(c.Rows)
	return json.Marshal(plain(c))
}

// CheckFacts is what one node says of itself (GET /v1/check/facts), not judged yet. It is spoken between nodes of the
// same version and is no promise to scripts.
type CheckFacts struct {
	Node string `json:"node"`
	Role string `json:"role"`
	// Error is why the node could not be asked; then nothing else is known.
	Error string `json:"error"`
	// Budget is the arithmetic of the lease, in words; DriftPPM what it allows for, ClockPPM what the kernel steers.
	Budget     string  `json:"budget"`
	DriftPPM   float64 `json:"drift_ppm"`
	ClockPPM   float64 `json:"clock_ppm"`
	ClockError string  `json:"clock_error"`
	KernelGate bool    `json:"kernel_gate"`
	// FlushRuleset are the lines of the host's own firewall that delete everybody's tables.
	FlushRuleset []string     `json:"flush_ruleset"`
	ARP          []CheckARP   `json:"arp"`
	Units        []CheckUnit  `json:"units"`
	UnitsError   string       `json:"units_error"`
	Reach        []CheckReach `json:"reach"`
	Server       *CheckServer `json:"server"` // nil on a witness
}

// CheckARP is how the kernel treats the address resolution on an interface with a virtual address.
type CheckARP struct {
	Interface string `json:"interface"`
	Ignore    int    `json:"ignore"`
	Announce  int    `json:"announce"`
}

// CheckUnit is a unit of systemd that starts a database server.
type CheckUnit struct {
	Name    string `json:"name"`
	State   string `json:"state"`   // of its file: enabled, disabled, ...
	Restart string `json:"restart"` // no, on-failure, ...
}

// CheckReach is one port of another node as tried from this one.
type CheckReach struct {
	Peer    string `json:"peer"`
	Port    string `json:"port"` // api, raft, gossip, mysql
	Address string `json:"address"`
	Error   string `json:"error"` // "" when it was reached
}

// CheckServer is what a node's database server is set to.
type CheckServer struct {
	Error     string            `json:"error"` // why the server could not be asked
	Dialect   string            `json:"dialect"`
	Kind      string            `json:"kind"` // of the service: child, systemd, command
	Version   string            `json:"version"`
	Variables map[string]string `json:"variables"`
	// Boot is what the server would start with by itself: its option files, and what is persisted in it.
	Boot      map[string]string `json:"boot"`
	BootError string            `json:"boot_error"`
	Problems  []string          `json:"problems"` // named in status
	// MissingGrants are privileges that the manager lacks; Replication is what is wrong with the other account.
	MissingGrants []string `json:"missing_grants"`
	Replication   string   `json:"replication"`
	// Events is how many scheduled events the manager may see, MissingEventGrants what it lacks to have them follow the primary.
	Events             int      `json:"events"`
	MissingEventGrants []string `json:"missing_event_grants"`
	Bypass             []string `json:"bypass"` // accounts that write in spite of read_only
	BypassError        string   `json:"bypass_error"`
	// OtherTables are tables of engines other than InnoDB, at most a few by name, OtherCount all of them.
	OtherTables []string `json:"other_tables"`
	OtherCount  int      `json:"other_count"`
	XAStarts    uint64   `json:"xa_starts"`
	DataBytes   uint64   `json:"data_bytes"`
	FreeBytes   uint64   `json:"free_bytes"`
	DiskError   string   `json:"disk_error"`
}

// checkWait is how long gathering may take on one node: walking a large data directory, peers that do not answer.
const checkWait = 20 * time.Second

// Check looks at the given nodes, all when none is given.
func (c *Client) Check(ctx context.Context, nodes ...string) (Check, error) {
	path := PathCheck
	if len(nodes) > 0 {
		path += "?nodes=" + url.QueryEscape(strings.Join(nodes, ","))
	}
	var out Check
	err := c.get(ctx, path, 2*checkWait, &out)
	return out, err
}

// CheckFacts asks one node for its own.
func (c *Client) CheckFacts(ctx context.Context) (CheckFacts, error) {
	var out CheckFacts
	err := c.get(ctx, PathCheckFacts, checkWait, &out)
	return out, err
}
