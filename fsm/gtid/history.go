package gtid

import (
	"fmt"
	"slices"
	"strings"
)

// History is what one server's whole past is known to hold. For MySQL that is a Set. For MariaDB a position says too little: 0-2-110 does not tell
// whether 0-1-105 was ever there, or only 0-2-105 in its place. gtid_binlog_state does: it names the last transaction of every server that wrote.
// The zero value is empty.
type History struct {
	flavor  Flavor
	set     Set
	writers []position // MariaDB: the last transaction of each (domain, server)
}

// ParseHistory reads a history: for MySQL a gtid set, for MariaDB gtid_binlog_state, to which positions may be appended with a comma. ErrSyntax or
// ErrFlavor, wrapped, for anything else.
func ParseHistory(f Flavor, s string) (History, error) {
	if f != MariaDB {
		set, err := Parse(f, s)
		return History{flavor: f, set: set}, err
	}
	h := History{flavor: f}
	if strings.TrimSpace(s) == "" {
		return h, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		p, err := parsePosition(strings.TrimSpace(part))
		if err != nil {
			return History{}, fmt.Errorf("reading a history: %w", err)
		}
		if p.sequence > 0 {
			h.writers = append(h.writers, p)
		}
	}
	return h, nil
}

// Holds reports whether everything that the position stands for is in the history. On MariaDB the last transaction of each domain must have been
// seen from the very server that wrote it: a branch that another server continued does not hold it.
func (h History) Holds(s Set) bool {
	if h.flavor != MariaDB {
		return h.set.Contains(s)
	}
	for _, want := range s.places {
		held := false
		for _, have := range h.writers {
			held = held || (have.domain == want.domain && have.server == want.server && have.sequence >= want.sequence)
		}
		if !held {
			return false
		}
	}
	return true
}

// Lacks lists what another history has and this one certainly has not, in the server's own words; nil when it holds all of it. On MariaDB that is
// the last transaction of each writer of the other one, so a branch shows even where a later transaction hides it in the position.
func (h History) Lacks(other History) []string {
	if h.flavor != MariaDB {
		if rest := other.set.Subtract(h.set); !rest.IsEmpty() {
			return []string{rest.String()}
		}
		return nil
	}
	var out []string
	for _, want := range other.writers {
		held := slices.ContainsFunc(h.writers, func(have position) bool {
			return have.domain == want.domain && have.server == want.server && have.sequence >= want.sequence
		})
		if text := fmt.Sprintf("%d-%d-%d", want.domain, want.server, want.sequence); !held && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}
