package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/fsm/gtid"
)

const (
	// checkEvery is how often a replica compares itself with the primary.
	checkEvery = 2 * time.Second
	// purgedChecks is how many checks in a row must find that the receiver was told 1236 and has not connected since: a source that is only
	// starting, or behind, says the same for a moment.
	purgedChecks = 3
)

// watch looks, for as long as this node lives, for what makes its data useless.
func (r *rebuilds) watch(ctx context.Context) {
	if r.n.cfg.Rebuilder == nil {
		return
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	purged := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.look:
		}
		c, cancel := context.WithTimeout(ctx, 5*checkEvery)
		found, err := r.check(c, &purged)
		cancel()
		r.mu.Lock()
		changed := err == nil && found != r.found
		if err == nil {
			r.found = found
		}
		r.mu.Unlock()
		if changed && found.Cause != "" {
			r.n.log.Warn("this node's data is of no use", "cause", found.Cause, "reason", found.Reason)
			r.n.peers.kickAll()
		}
	}
}

// check compares once. An error is no finding: it is looked again.
func (r *rebuilds) check(ctx context.Context, purged *int) (fsm.RebuildNeed, error) {
	n, st, p := r.n, r.n.store.State(), r.n.promises.get()
	sv := n.cfg.Prober.Server()
	if !n.fresh.Load() || st.Primary == n.cfg.Node || p.Quarantine != "" || r.copy().Running {
		*purged = 0
		return fsm.RebuildNeed{}, nil
	}
	if sv.State == fsm.ServerDown {
		empty, err := n.cfg.Rebuilder.Empty()
		if err != nil || !empty {
			return fsm.RebuildNeed{}, err
		}
		return fsm.RebuildNeed{Cause: fsm.RebuildEmpty, Reason: "this host has no data yet"}, nil
	}
	if sv.State != fsm.ServerUp || st.Primary == "" || st.Settled() != st.Epoch || p.Followed != st.Epoch {
		*purged = 0
		return fsm.RebuildNeed{}, nil
	}
	return r.compare(ctx, st, sv, purged)
}

// sourceLacks tells whether a receiver stopped because its source has purged what it asked for. MariaDB's number for that means little else. MySQL's is
// that of whatever keeps a source from reading its binary logs, a bad disk too, where a copy would only spread the harm: there the source must have
// purged what this server lacks.
func sourceLacks(server string, sv fsm.ServerStatus, purged string) bool {
	switch sv.IOErrno {
	case 1236: // ER_MASTER_FATAL_ERROR_READING_BINLOG
		return server == "mariadb"
	case 13114: // ER_SERVER_SOURCE_FATAL_ERROR_READING_BINLOG
		return purged != "" && !fsm.Holds(server, sv.Executed, purged)
	}
	return false
}

// compare asks the primary for its history after it has read its own: what is only here then was never there.
func (r *rebuilds) compare(ctx context.Context, st fsm.State, sv fsm.ServerStatus, purged *int) (fsm.RebuildNeed, error) {
	n := r.n
	own, err := n.cfg.Database.History(ctx)
	if err != nil {
		return fsm.RebuildNeed{}, err
	}
	reply, err := n.askPosition(ctx, st.Primary, "")
	if err != nil {
		return fsm.RebuildNeed{}, err
	}
	if reply.Serving != st.Epoch || n.store.State().Epoch != st.Epoch {
		return fsm.RebuildNeed{}, errors.New("the primary does not serve this epoch")
	}
	extra, err := lacks(st.Server, reply.History, own)
	if err != nil {
		return fsm.RebuildNeed{}, err
	}
	if len(extra) > 0 {
		return fsm.RebuildNeed{}, r.errant(ctx, st, reply.History, extra)
	}
	switch {
	case sv.IORunning && !sv.IOConnecting, st.SourceOf(n.cfg.Node) != st.Primary:
		*purged = 0 // a candidate that is only behind this node answers the same (MariaDB)
	case sourceLacks(st.Server, sv, reply.Purged):
		*purged++
	}
	if *purged < purgedChecks {
		return fsm.RebuildNeed{}, nil
	}
	return fsm.RebuildNeed{Cause: fsm.RebuildPurged, Reason: fmt.Sprintf("%s has purged the binary logs that this node needs (error %d): it is at %s", st.Primary, sv.IOErrno, sv.Executed)}, nil
}

// lacks lists what a history has and the primary's has not.
func lacks(server, primary, own string) ([]string, error) {
	p, err := gtid.ParseHistory(gtid.Flavor(server), primary)
	if err != nil {
		return nil, fmt.Errorf("the primary's history: %w", err)
	}
	o, err := gtid.ParseHistory(gtid.Flavor(server), own)
	if err != nil {
		return nil, fmt.Errorf("this node's history: %w", err)
	}
	return p.Lacks(o), nil
}

// errant keeps what this node alone has, and keeps the node out.
func (r *rebuilds) errant(ctx context.Context, st fsm.State, history string, extra []string) error {
	file, gtids, err := r.n.cfg.Rebuilder.SaveErrant(ctx, history)
	kept := "kept in " + file
	switch {
	case err != nil:
		kept = "not kept: " + err.Error()
	case file == "":
		kept = "not in its binary logs any more"
	}
	if len(gtids) > 0 {
		extra = gtids
	}
	// What returns is the quarantine itself, as an error.
	return r.n.quarantineFor(fsm.RebuildErrant, fmt.Sprintf("errant transactions: it executed %s, which the primary %s of epoch %d never had (%s)", shortList(extra), st.Primary, st.Epoch, kept))
}

// shortList names the first few.
func shortList(all []string) string {
	const shown = 5
	if len(all) <= shown {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:shown], ", "), len(all)-shown)
}

// keepErrant saves what would be lost with this node's data. A person who confirmed may lose it; nobody else.
func (r *rebuilds) keepErrant(ctx context.Context, order fsm.Rebuilding) error {
	if empty, err := r.n.cfg.Rebuilder.Empty(); err != nil || empty {
		return err
	}
	c, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	st := r.n.store.State()
	reply, err := r.n.askPosition(c, st.Primary, "")
	if err != nil {
		return fmt.Errorf("asking %s for its history: %w", st.Primary, err)
	}
	file, gtids, err := r.n.cfg.Rebuilder.SaveErrant(c, reply.History)
	if err != nil && !order.Confirmed {
		return fmt.Errorf("keeping what only this node has: %w", err)
	}
	if err != nil || len(gtids) > 0 {
		r.n.log.Warn("what only this node has", "transactions", shortList(gtids), "file", file, "error", errText(err))
	}
	return nil
}
