package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// careRow is one kind of damage to a replica that had followed the present primary before, or to any server's settings.
type careRow struct {
	Row
	Saw func(*place) string // the values that were seen
}

// careRows name what is wrong with a replica, and with what values: the first that matches stands in for the rows that would only say that it
// does not replicate. A new primary to follow is no damage, so they are looked at only once the present epoch is followed.
//
// None of them stops both threads of a replica that holds what it has not applied: ActFollow drains before it leaves a source, and applies the
// relay log of a replica that was stopped before it starts it anew.
var careRows = []careRow{
	{Row{"care.no-source", "the source was forgotten (RESET)", func(p *place) bool { return !p.l.Server.HasReplication }, []ActionKind{ActFollow}}, nil},
	{Row{"care.source", "replicates from something that is not the primary", func(p *place) bool { return p.atRest() && !p.l.FollowsRight }, []ActionKind{ActFollow}},
		func(p *place) string { return fmt.Sprintf("%s:%d", p.l.Server.SourceHost, p.l.Server.SourcePort) }},
	{Row{"care.source-sync", "semi-sync as a source is on at a replica, whose applier would wait for acknowledgements of its own", func(p *place) bool { return p.l.Server.SourceSync }, []ActionKind{ActFollow}}, nil},
	{Row{"care.channel", "the channel is not set up as configured", func(p *place) bool { return p.atRest() && len(p.l.Server.ChannelDrift) > 0 }, []ActionKind{ActFollow}},
		func(p *place) string { return strings.Join(p.l.Server.ChannelDrift, "; ") }},
	{Row{"care.login", "the primary refuses this replica's login", func(p *place) bool { return p.atRest() && p.l.Server.LoginRefused && p.l.Server.IOConnecting }, []ActionKind{ActFollow}}, replicationError},
	{Row{"care.applier-error", "the applier stopped with an error", func(p *place) bool { return !p.l.Server.SQLRunning && p.l.Server.ApplyErrno != 0 }, []ActionKind{ActFollow}}, replicationError},
	{Row{"care.stopped", "both replication threads are stopped", func(p *place) bool { return !p.l.Server.SQLRunning && !p.l.Server.IORunning }, []ActionKind{ActFollow}}, replicationError},
	{Row{"care.applier-stopped", "the applier (SQL thread) is stopped", func(p *place) bool { return !p.l.Server.SQLRunning }, []ActionKind{ActFollow}}, nil},
	{Row{"care.receiver-stopped", "the receiver (IO thread) is stopped", func(p *place) bool { return !p.l.Server.IORunning }, []ActionKind{ActFollow}}, replicationError},
}

// careSettings is looked at on every node beside its row: it takes nothing away and gives nobody a right.
var careSettings = careRow{Row{"care.settings", "settings that the guarantees rest on were weakened", func(p *place) bool {
	return p.serverUp() && p.l.Quarantine == "" && len(p.l.Server.Weakened) > 0
}, []ActionKind{ActMend}}, func(p *place) string { return strings.Join(p.l.Server.Weakened, "; ") }}

// atRest: no operation needs this replica's acknowledgements or its answer at this moment. What interrupts a replica that works waits for it.
func (p *place) atRest() bool { return p.s.Op == nil }

func replicationError(p *place) string { return p.l.Server.ReplError }

// named is the row with the values that were seen.
func (r careRow) named(p *place) Row {
	out := r.Row
	if r.Saw != nil {
		if saw := r.Saw(p); saw != "" {
			out.Why += ": " + saw
		}
	}
	return out
}

// refinedRows are those that careRows say more of.
var refinedRows = []string{"replica.acks", "replica.reconnect", "replica.follow", "replica.unblock", "replica.following"}

// refine names the damage of a replica that had followed the present primary.
func refine(p *place, r Row) Row {
	if !slices.Contains(refinedRows, r.Code) || p.l.Followed < p.s.Epoch {
		return r
	}
	for _, c := range careRows {
		if c.When(p) {
			return c.named(p)
		}
	}
	return r
}

// CareCodes lists the repairs by name: what the metric counts. A writable replica is one too.
func CareCodes() []string {
	out := []string{"server.no-right", careSettings.Code}
	for _, r := range careRows {
		out = append(out, r.Code)
	}
	return out
}

// IsCare tells whether a rule is a repair: it may be tried again only after a pause that grows.
func IsCare(rule string) bool { return strings.HasPrefix(rule, "care.") }

const (
	repairPause    = 100 * time.Millisecond
	maxRepairPause = time.Minute
	// RepairForget is how long a damage must stay away before the next is a new one, whose repair is not held back.
	RepairForget = 10 * time.Second
)

// RepairPause is how long after its n-th attempt the same repair is not tried again: 100 ms, doubled each time, at most a minute. A repair that
// does not help, or is undone by somebody each time, must not keep a server busy.
func RepairPause(n int) time.Duration {
	p := repairPause
	for ; n > 1 && p < maxRepairPause; n-- {
		p *= 2
	}
	return min(p, maxRepairPause)
}
