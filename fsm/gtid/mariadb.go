package gtid

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// position is the last transaction of one MariaDB domain.
type position struct {
	domain   uint32
	server   uint32
	sequence uint64 // never 0
}

// parseMariaDB reads "domain-server-sequence,...". A domain may stand there once:
// text with several entries for one domain is gtid_binlog_state, which is a list of
// writers and no position. Sequence 0 names no transaction and is left out.
func parseMariaDB(s string) ([]position, error) {
	var places []position
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		p, err := parsePosition(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b position) int {
		return cmp.Compare(a.domain, b.domain)
	})
	for i := 1; i < len(places); i++ {
		if places[i].domain == places[i-1].domain {
			return nil, fmt.Errorf("%w: domain %d stands there twice", ErrSyntax, places[i].domain)
		}
	}
	return slices.DeleteFunc(places, func(p position) bool { return p.sequence == 0 }), nil
}

func parsePosition(s string) (position, error) {
	domain, rest, ok1 := strings.Cut(s, "-")
	server, sequence, ok2 := strings.Cut(rest, "-")
	if !ok1 || !ok2 {
		return position{}, fmt.Errorf("%w: %q is not domain-server-sequence", ErrSyntax, clip(s))
	}
	d, err := parseNumber(domain, 32)
	if err != nil {
		return position{}, fmt.Errorf("%w: domain of %q: %w", ErrSyntax, clip(s), err)
	}
	v, err := parseNumber(server, 32)
	if err != nil {
		return position{}, fmt.Errorf("%w: server of %q: %w", ErrSyntax, clip(s), err)
	}
	n, err := parseNumber(sequence, 64)
	if err != nil {
		return position{}, fmt.Errorf("%w: sequence of %q: %w", ErrSyntax, clip(s), err)
	}
	return position{domain: uint32(d), server: uint32(v), sequence: n}, nil
}

// parseNumber reads decimal digits only: strconv alone takes "+1".
func parseNumber(s string, bits int) (uint64, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("%q is not a number", clip(s))
		}
	}
	return strconv.ParseUint(s, 10, bits)
}

func formatMariaDB(places []position) string {
	var b strings.Builder
	for i, p := range places {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d-%d-%d", p.domain, p.server, p.sequence)
	}
	return b.String()
}

// reaches reports whether a position in the same domain includes p: a later
// sequence, or the very transaction.
func (p position) reaches(other position) bool {
	return p.sequence > other.sequence || p.sequence == other.sequence && p.server == other.server
}

// place finds the position of a domain by binary search.
func place(places []position, domain uint32) (position, bool) {
	i, ok := slices.BinarySearchFunc(places, domain, func(p position, d uint32) int {
		return cmp.Compare(p.domain, d)
	})
	if !ok {
		return position{}, false
	}
	return places[i], true
}

func containsPlaces(a, b []position) bool { return len(subtractPlaces(b, a)) == 0 }

func subtractPlaces(a, b []position) []position {
	var rest []position
	for _, p := range a {
		if q, ok := place(b, p.domain); !ok || !q.reaches(p) {
			rest = append(rest, p)
		}
	}
	return rest
}

func unionPlaces(a, b []position) ([]position, error) {
	var all []position
	for _, p := range a {
		q, ok := place(b, p.domain)
		switch {
		case !ok || p.reaches(q):
			all = append(all, p)
		case q.reaches(p):
			all = append(all, q)
		default:
			return nil, fmt.Errorf("%w: %s and %s", ErrFork,
				formatMariaDB([]position{p}), formatMariaDB([]position{q}))
		}
	}
	for _, q := range b {
		if _, ok := place(a, q.domain); !ok {
			all = append(all, q)
		}
	}
	slices.SortFunc(all, func(p, q position) int { return cmp.Compare(p.domain, q.domain) })
	return all, nil
}

func provenPlaces(a, b []position) bool {
	for _, p := range a {
		q, ok := place(b, p.domain)
		if ok && p.server != q.server && p.sequence != q.sequence {
			return false
		}
	}
	return true
}
