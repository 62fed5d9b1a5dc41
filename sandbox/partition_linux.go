package sandbox

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// direction names packets that come in at one host's port and leave at another's.
type direction struct{ from, to string }

// filter is what the switch refuses to forward: a set of directions, kept as rules of the bridge's forward hook,
// which sees every frame (ARP and broadcasts too, one copy per port).
type filter struct {
	mu      sync.Mutex
	blocked map[direction]bool
}

// block adds directions; on an error nothing is changed.
func (f *filter) block(list []direction) error {
	return f.change(func(m map[direction]bool) {
		for _, d := range list {
			m[d] = true
		}
	})
}

// unblock removes the directions that match.
func (f *filter) unblock(match func(direction) bool) error {
	return f.change(func(m map[direction]bool) {
		for d := range m {
			if match(d) {
				delete(m, d)
			}
		}
	})
}

// change edits a copy of the set and puts it into the kernel in one transaction.
func (f *filter) change(edit func(map[direction]bool)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := make(map[direction]bool, len(f.blocked))
	for d := range f.blocked {
		next[d] = true
	}
	edit(next)
	if err := installFilter(next); err != nil {
		return err
	}
	f.blocked = next
	return nil
}

func installFilter(blocked map[direction]bool) error {
	list := make([]direction, 0, len(blocked))
	for d := range blocked {
		list = append(list, d)
	}
	sort.Slice(list, func(i, j int) bool {
		return list[i].from < list[j].from || list[i].from == list[j].from && list[i].to < list[j].to
	})
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: "sandbox", Family: nftables.TableFamilyBridge})
	chain := conn.AddChain(&nftables.Chain{
		Name: "partition", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	conn.FlushChain(chain)
	for _, d := range list {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: interfaceName(d.from)},
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: interfaceName(d.to)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("installing the partition (nftables, bridge family): %w", err)
	}
	return nil
}

// interfaceName is the name as nftables compares it: 16 bytes (IFNAMSIZ), zeros behind.
func interfaceName(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

// parsePartition reads "db1,db2/db3": groups between which nothing passes, in both directions. A host in no group
// keeps its links to all.
func (p plan) parsePartition(text string) ([]direction, error) {
	groups := strings.Split(text, "/")
	if len(groups) < 2 {
		return nil, usagef("partition %q: want groups separated by /, as in db1,db2/db3", text)
	}
	group := make(map[string]int)
	var names []string
	for i, g := range groups {
		for _, name := range strings.Split(g, ",") {
			if _, err := p.host(name); err != nil {
				return nil, err
			}
			if _, twice := group[name]; twice {
				return nil, usagef("partition %q names %s twice", text, name)
			}
			group[name] = i
			names = append(names, name)
		}
	}
	var list []direction
	for _, a := range names {
		for _, b := range names {
			if group[a] != group[b] {
				list = append(list, direction{a, b})
			}
		}
	}
	return list, nil
}
