package gtid

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Flavor names the server family whose text form a Set has.
type Flavor string

// The flavors known.
const (
	MariaDB Flavor = "mariadb"
	MySQL   Flavor = "mysql"
)

// Errors a caller may branch on; they are returned wrapped with the values seen.
var (
	// ErrFlavor is returned when two non-empty sets of different flavors are
	// joined, or when the flavor asked for is not known.
	ErrFlavor = errors.New("gtid: flavors do not match")
	// ErrSyntax is returned by Parse for text that no server writes.
	ErrSyntax = errors.New("gtid: not a position")
	// ErrFork is returned by Union for MariaDB positions that give one sequence
	// number of a domain to two servers: no position holds both.
	ErrFork = errors.New("gtid: two histories in one domain")
)

// Order is the answer of Compare.
type Order int

// The answers of Compare. The zero value is the safe one: nothing is known to
// come first.
const (
	// Incomparable: each has something that the other lacks.
	Incomparable Order = iota
	// Equal: the same transactions.
	Equal
	// Before: the first is contained in the second, which has more.
	Before
	// After: the first contains the second and has more.
	After
)

// String gives the order as a word for logs and verdicts.
func (o Order) String() string {
	switch o {
	case Equal:
		return "equal"
	case Before:
		return "before"
	case After:
		return "after"
	case Incomparable:
		return "incomparable"
	default:
		return fmt.Sprintf("order(%d)", int(o))
	}
}

// Set is a replication position of either flavor. The zero value is empty, has no
// flavor and goes with both. Compare sets with Equal, not with ==.
type Set struct {
	flavor Flavor
	tracks []track    // MySQL: sorted by UUID, then tag; none without intervals
	places []position // MariaDB: sorted by domain; none with sequence 0
}

// Parse reads the text form of a position: gtid_executed, Retrieved_Gtid_Set,
// gtid_binlog_pos, gtid_slave_pos, Gtid_IO_Pos. White space around the parts is
// allowed, empty text is the empty set. Errors wrap ErrSyntax or ErrFlavor.
func Parse(f Flavor, s string) (Set, error) {
	switch f {
	case MySQL:
		tracks, err := parseMySQL(s)
		if err != nil {
			return Set{}, err
		}
		return Set{flavor: f, tracks: tracks}, nil
	case MariaDB:
		places, err := parseMariaDB(s)
		if err != nil {
			return Set{}, err
		}
		return Set{flavor: f, places: places}, nil
	default:
		return Set{}, fmt.Errorf("%w: unknown flavor %q", ErrFlavor, f)
	}
}

// Flavor is the flavor given to Parse; empty for the zero Set.
func (s Set) Flavor() Flavor { return s.flavor }

// IsEmpty reports whether the set holds no transaction.
func (s Set) IsEmpty() bool { return len(s.tracks) == 0 && len(s.places) == 0 }

// String is the canonical text: sorted, lower case, merged, without white space.
// Equal sets of one flavor have equal text, and Parse reads it back. Servers
// take it as it is.
func (s Set) String() string {
	if len(s.tracks) > 0 {
		return formatMySQL(s.tracks)
	}
	return formatMariaDB(s.places)
}

// Contains reports whether every transaction of other is in s. An empty set is in
// every set; sets of different flavors contain nothing of each other. For MariaDB
// see Proven.
func (s Set) Contains(other Set) bool {
	if other.IsEmpty() {
		return true
	}
	if s.flavor != other.flavor {
		return false
	}
	if s.flavor == MySQL {
		return containsTracks(s.tracks, other.tracks)
	}
	return containsPlaces(s.places, other.places)
}

// Equal reports whether both hold the same transactions. Empty sets are equal
// whatever their flavors.
func (s Set) Equal(other Set) bool { return s.Contains(other) && other.Contains(s) }

// Subtract is what s has and other lacks, so it is empty exactly when other
// contains s. On MariaDB, where a position is a prefix and no set, it is the
// positions of the domains in which s is not contained in other. Nothing is
// removed when the flavors differ.
func (s Set) Subtract(other Set) Set {
	if s.flavor != other.flavor || other.IsEmpty() {
		return s
	}
	if s.flavor == MySQL {
		return Set{flavor: s.flavor, tracks: subtractTracks(s.tracks, other.tracks)}
	}
	return Set{flavor: s.flavor, places: subtractPlaces(s.places, other.places)}
}

// WrittenBy reports whether one server wrote all of s, named as positions name servers: by server_id on MariaDB, by server_uuid on MySQL. Of a
// MariaDB position only the last transaction of each domain tells. Nothing was written by nobody: an empty s or name is false.
func (s Set) WrittenBy(server string) bool {
	if s.IsEmpty() || server == "" {
		return false
	}
	for _, t := range s.tracks {
		if !strings.EqualFold(t.uuid, server) {
			return false
		}
	}
	for _, p := range s.places {
		if strconv.FormatUint(uint64(p.server), 10) != server {
			return false
		}
	}
	return true
}

// Union holds everything in a or in b. It fails with ErrFlavor for non-empty sets of
// different flavors and with ErrFork where MariaDB positions certainly belong to
// two histories.
func Union(a, b Set) (Set, error) {
	switch {
	case b.IsEmpty() && a.flavor != "":
		return a, nil
	case a.IsEmpty():
		return b, nil
	case a.flavor != b.flavor:
		return Set{}, fmt.Errorf("%w: %s and %s", ErrFlavor, a.flavor, b.flavor)
	case a.flavor == MySQL:
		return Set{flavor: MySQL, tracks: unionTracks(a.tracks, b.tracks)}, nil
	}
	places, err := unionPlaces(a.places, b.places)
	if err != nil {
		return Set{}, err
	}
	return Set{flavor: MariaDB, places: places}, nil
}

// Compare orders a against b: Before means that b has all of a and more. For
// MariaDB see Proven.
func Compare(a, b Set) Order {
	ab, ba := a.Contains(b), b.Contains(a)
	switch {
	case ab && ba:
		return Equal
	case ab:
		return After
	case ba:
		return Before
	default:
		return Incomparable
	}
}

// Proven reports whether the answers of Contains and Compare for a and b follow
// from the positions alone. That is always so for MySQL. For MariaDB it is not
// when some domain's last transactions were written by different servers under
// different numbers: then the answer holds only if both positions belong to one
// history, which the caller has to know from elsewhere. It cannot be wrong to
// treat an unproven order as Incomparable.
func Proven(a, b Set) bool {
	if a.IsEmpty() || b.IsEmpty() || a.flavor != MariaDB || b.flavor != MariaDB {
		return true
	}
	return provenPlaces(a.places, b.places)
}
