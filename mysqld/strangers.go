package mysqld

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// Members are the addresses that replicas of this server may have.
type Members struct {
	All []netip.Addr // whoever belongs to the cluster
	// Counted are those of All whose acknowledgement counts.
	Counted []netip.Addr
}

// Strangers lists the addresses outside the cluster from which somebody replicates
// whose acknowledgement this server takes for that of a member. MySQL tells who
// acknowledges. MariaDB tells only how many do: while they are more than the
// members that may, every address outside the cluster that replicates is named.
func (s *Server) Strangers(ctx context.Context, members Members) ([]netip.Addr, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	found, err := s.dumpThreads(ctx)
	if err != nil {
		return nil, err
	}
	stray, counted, err := sortOut(ctx, found, members)
	if err != nil || len(stray) == 0 {
		return nil, err
	}
	if err := s.dialect.markSemiSync(ctx, s.db, found); err != nil {
		return nil, fmt.Errorf("asking %s which replicas acknowledge: %w", s.target(), err)
	}
	stray, unknown := acknowledging(found, stray)
	if unknown {
		more, err := s.moreThan(ctx, counted, members)
		if err != nil || !more {
			return nil, err
		}
	}
	slices.SortFunc(stray, func(a, b strayReplica) int { return a.at.Compare(b.at) })
	var out []netip.Addr
	for _, r := range stray {
		out = append(out, r.at)
	}
	return slices.Compact(out), nil
}

// strayReplica is one of a list that is at no member's address.
type strayReplica struct {
	index int
	at    netip.Addr
}

// sortOut tells which replicas are at no member's address, and how many are where
// their acknowledgement may count.
func sortOut(ctx context.Context, found []Replica, members Members) (stray []strayReplica, counted int, err error) {
	among := func(at, some []netip.Addr) bool {
		return slices.ContainsFunc(some, func(a netip.Addr) bool { return slices.Contains(at, plain(a)) })
	}
	for i, r := range found {
		at, err := clientAddrs(ctx, r.Host)
		if err != nil {
			return nil, 0, err
		}
		switch {
		case among(at, members.Counted):
			counted++
		case !among(at, members.All) && len(at) > 0:
			stray = append(stray, strayReplica{i, at[0]})
		}
	}
	return stray, counted, nil
}

// acknowledging leaves those that acknowledge or do not say.
func acknowledging(found []Replica, stray []strayReplica) (left []strayReplica, unknown bool) {
	for _, r := range stray {
		switch found[r.index].SemiSync {
		case KnownNo:
			continue
		case Unknown:
			unknown = true
		}
		left = append(left, r)
	}
	return left, unknown
}

// moreThan reports whether more replicas acknowledge than may, both before and
// after they were counted: one that connects meanwhile is no stranger.
func (s *Server) moreThan(ctx context.Context, before int, members Members) (bool, error) {
	st, err := s.Status(ctx)
	if err != nil || st.SemiSyncClients <= before {
		return false, err
	}
	found, err := s.dumpThreads(ctx)
	if err != nil {
		return false, err
	}
	_, after, err := sortOut(ctx, found, members)
	return err == nil && st.SemiSyncClients > after, err
}
