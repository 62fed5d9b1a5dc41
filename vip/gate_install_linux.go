package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Table flags of the kernel: an owned table can be changed only over the socket that made it and survives
// a flush of the ruleset; a persistent one stays, closed by its own timeouts, when that socket ends.
const (
	tableOwner   = 0x2
	tablePersist = 0x4
	nftaOwner    = 7 // NFTA_TABLE_OWNER
	nftaHookDevs = 4 // NFTA_HOOK_DEVS
)

// install puts the gate into the kernel in one transaction, closed, replacing what is there under its
// name. Blocks and cover are put back as this process knows them.
func (g *kernelGate) install() error {
	present, err := g.tablesPresent()
	if err != nil {
		return err
	}
	var msgs []nlMessage
	for _, t := range g.rules.tables {
		if _, ok := present[t.family]; ok {
			msgs = append(msgs, nftMessage(unix.NFT_MSG_DELTABLE, 0, t.family, attrs(nil).str(unix.NFTA_TABLE_NAME, t.name)))
		}
		m, err := g.tableMessages(t)
		if err != nil {
			return err
		}
		msgs = append(msgs, m...)
	}
	msgs = append(msgs, g.memberMessages()...)
	if err := g.change(msgs); err != nil {
		return fmt.Errorf("installing the gate: %w", err)
	}
	return nil
}

// tableMessages creates one table with all it holds.
func (g *kernelGate) tableMessages(t table) ([]nlMessage, error) {
	msgs := []nlMessage{nftMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.family,
		attrs(nil).str(unix.NFTA_TABLE_NAME, t.name).u32(unix.NFTA_TABLE_FLAGS, g.tableFlags))}
	for i, s := range t.sets {
		a := attrs(nil).str(unix.NFTA_SET_TABLE, t.name).str(unix.NFTA_SET_NAME, s.name).
			u32(unix.NFTA_SET_KEY_TYPE, s.keyType).u32(unix.NFTA_SET_KEY_LEN, s.keyLen).
			u32(unix.NFTA_SET_ID, uint32(i+1))
		if s.timeout {
			a = a.u32(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT)
		}
		msgs = append(msgs, nftMessage(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, t.family, a))
	}
	index := 0
	for _, c := range t.chains {
		msgs = append(msgs, nftMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.family, c.attributes(t.name)))
		for _, r := range c.rules {
			exprs, err := marshalRule(t.family, r)
			if err != nil {
				return nil, err
			}
			msgs = append(msgs, nftMessage(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, t.family,
				attrs(nil).str(unix.NFTA_RULE_TABLE, t.name).str(unix.NFTA_RULE_CHAIN, c.name).
					nest(unix.NFTA_RULE_EXPRESSIONS, exprs).bytes(unix.NFTA_RULE_USERDATA, g.comment(index))))
			index++
		}
	}
	return msgs, nil
}

func (c chain) attributes(table string) attrs {
	a := attrs(nil).str(unix.NFTA_CHAIN_TABLE, table).str(unix.NFTA_CHAIN_NAME, c.name)
	if !c.isBase {
		return a
	}
	hook := attrs(nil).u32(unix.NFTA_HOOK_HOOKNUM, c.hook).u32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	if c.device != "" {
		hook = hook.str(unix.NFTA_HOOK_DEV, c.device)
	}
	return a.nest(unix.NFTA_CHAIN_HOOK, hook).str(unix.NFTA_CHAIN_TYPE, "filter")
}

// comment marks a rule with the fingerprint of the whole ruleset and its place in the table, in the form
// that the nft tool shows as a comment.
func (g *kernelGate) comment(index int) []byte {
	text := fmt.Sprintf("highbase %s:%d", g.rules.hash, index)
	return append([]byte{0, byte(len(text) + 1)}, append([]byte(text), 0)...)
}

// tablesPresent returns the flags of the gate's tables that exist, by family.
func (g *kernelGate) tablesPresent() (map[byte]uint32, error) {
	found := map[byte]uint32{}
	err := g.sock.dump(nftMessage(unix.NFT_MSG_GETTABLE, 0, unix.NFPROTO_UNSPEC, nil), func(_ uint16, data []byte) error {
		if len(data) < nfgenmsgLen {
			return nil
		}
		var name string
		var flags uint32
		err := eachAttr(data[nfgenmsgLen:], func(typ uint16, b []byte) error {
			switch {
			case typ == unix.NFTA_TABLE_NAME:
				name = cString(b)
			case typ == unix.NFTA_TABLE_FLAGS && len(b) == 4:
				flags = binary.BigEndian.Uint32(b)
			}
			return nil
		})
		if name == g.name {
			found[data[0]] = flags
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w", err)
	}
	return found, nil
}

// intact compares the kernel's chains and rules with what install makes.
func (g *kernelGate) intact() (bool, error) {
	chains, err := g.listed(unix.NFT_MSG_GETCHAIN, chainLine)
	if err != nil {
		return false, err
	}
	rules, err := g.listed(unix.NFT_MSG_GETRULE, ruleLine)
	if err != nil {
		return false, err
	}
	var wantChains, wantRules []string
	for _, t := range g.rules.tables {
		index := 0
		for _, c := range t.chains {
			wantChains = append(wantChains, fmt.Sprintf("%d %s hook %d %s", t.family, c.name, c.hook, c.device))
			for range c.rules {
				wantRules = append(wantRules, fmt.Sprintf("%d %s %s", t.family, c.name, g.comment(index)))
				index++
			}
		}
	}
	slices.Sort(chains)
	slices.Sort(wantChains)
	// Rules keep their order within a chain; tables and chains may be listed in any.
	slices.SortStableFunc(rules, compareChain)
	slices.SortStableFunc(wantRules, compareChain)
	return slices.Equal(chains, wantChains) && slices.Equal(rules, wantRules), nil
}

// listed dumps the chains or rules of the gate's tables as comparable lines.
func (g *kernelGate) listed(msg uint16, line func(family byte, a []byte) (table, text string, err error)) ([]string, error) {
	var out []string
	err := g.sock.dump(nftMessage(msg, 0, unix.NFPROTO_UNSPEC, nil), func(_ uint16, data []byte) error {
		if len(data) < nfgenmsgLen {
			return nil
		}
		table, text, err := line(data[0], data[nfgenmsgLen:])
		if table == g.name {
			out = append(out, text)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the gate: %w", err)
	}
	return out, nil
}

func chainLine(family byte, a []byte) (table, text string, err error) {
	var name, device string
	var hook uint32
	err = eachAttr(a, func(typ uint16, b []byte) error {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			table = cString(b)
		case unix.NFTA_CHAIN_NAME:
			name = cString(b)
		case unix.NFTA_CHAIN_HOOK:
			return eachAttr(b, func(typ uint16, b []byte) error {
				switch {
				case typ == unix.NFTA_HOOK_HOOKNUM && len(b) == 4:
					hook = binary.BigEndian.Uint32(b)
				case typ == unix.NFTA_HOOK_DEV:
					device = cString(b)
				case typ == nftaHookDevs && device == "":
					return eachAttr(b, func(_ uint16, b []byte) error { device = cString(b); return nil })
				}
				return nil
			})
		}
		return nil
	})
	return table, fmt.Sprintf("%d %s hook %d %s", family, name, hook, device), err
}

func ruleLine(family byte, a []byte) (table, text string, err error) {
	var chain string
	var userdata []byte
	err = eachAttr(a, func(typ uint16, b []byte) error {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = cString(b)
		case unix.NFTA_RULE_CHAIN:
			chain = cString(b)
		case unix.NFTA_RULE_USERDATA:
			userdata = b
		}
		return nil
	})
	return table, fmt.Sprintf("%d %s %s", family, chain, userdata), err
}

// compareChain orders rule lines by family and chain only.
func compareChain(a, b string) int {
	key := func(s string) string {
		spaces := 0
		for i, c := range s {
			if c == ' ' {
				if spaces++; spaces == 2 {
					return s[:i]
				}
			}
		}
		return s
	}
	ka, kb := key(a), key(b)
	switch {
	case ka < kb:
		return -1
	case ka > kb:
		return 1
	}
	return 0
}

// adopt takes over an intact gate that an earlier process left, without touching its lease. It returns
// false if there is none to adopt.
func (g *kernelGate) adopt() (bool, error) {
	present, err := g.tablesPresent()
	if err != nil || len(present) == 0 {
		return false, err
	}
	if err := refuseOwned(present); err != nil {
		return false, err
	}
	ok, err := g.intact()
	if err != nil || !ok {
		return false, err
	}
	var msgs []nlMessage
	for _, t := range g.rules.tables {
		// The kernel does not let these flags be changed later: a table made otherwise is replaced.
		if present[t.family] != g.tableFlags&^tableOwner {
			return false, nil
		}
		if g.tableFlags == 0 {
			continue
		}
		msgs = append(msgs, nftMessage(unix.NFT_MSG_NEWTABLE, 0, t.family,
			attrs(nil).str(unix.NFTA_TABLE_NAME, t.name).u32(unix.NFTA_TABLE_FLAGS, tableOwner|tablePersist)))
	}
	if len(msgs) > 0 {
		if err := g.change(msgs); err != nil {
			return false, fmt.Errorf("taking over the gate: %w", err)
		}
	}
	if err := g.recall(); err != nil {
		return false, err
	}
	// The peers are the configuration's, which may have changed.
	return true, g.writeMembers()
}

// refuseOwned says whether another process has the gate.
func refuseOwned(present map[byte]uint32) error {
	for _, flags := range present {
		if flags&tableOwner != 0 {
			return ErrBusy
		}
	}
	return nil
}

// recall learns the blocks and the cover from a table of the gate's name, whoever made it: they are kept
// when it is replaced. A set that is not there is empty.
func (g *kernelGate) recall() error {
	blocked, err := g.listAddrs(setBlocked4, setBlocked6)
	if err != nil && !errMissing(err) {
		return err
	}
	covered, err := g.listSet(setCovered)
	if err != nil && !errMissing(err) {
		return err
	}
	g.block, g.covered = blocked, len(covered) > 0
	return nil
}

func (g *kernelGate) listAddrs(sets ...string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range sets {
		elems, err := g.listSet(s)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			if a, ok := netip.AddrFromSlice(e.key); ok {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// listSet lists a set of the inet table. Somebody else's change of the tables interrupts a dump: its
// result may lack what is there.
func (g *kernelGate) listSet(name string) (elems []liveElement, err error) {
	for range dumpTries {
		if elems, err = listElements(g.sock, familyINet, g.name, name); !errors.Is(err, errDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listing set %s: %w", name, err)
	}
	return elems, nil
}

// errMissing tells whether the kernel said that the table or the interface is not there.
func errMissing(err error) bool { return errors.Is(err, unix.ENOENT) }
