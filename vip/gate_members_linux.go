package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// setBlocked replaces the set of blocked hosts.
func (g *kernelGate) setBlocked(addrs []netip.Addr) error {
	return g.changeMembers(func() { g.block = slices.Clone(addrs) })
}

func (g *kernelGate) cover(on bool) error {
	return g.changeMembers(func() { g.covered = on })
}

// changeMembers applies change to what the sets should hold and writes it, as a whole.
func (g *kernelGate) changeMembers(change func()) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return ErrStopped
	}
	block, covered := g.block, g.covered
	change()
	err := g.writeMembers()
	if err != nil {
		g.block, g.covered = block, covered
	}
	return err
}

// writeMembers replaces what is in the sets that are not part of the lease, in one transaction.
func (g *kernelGate) writeMembers() error {
	var msgs []nlMessage
	for _, s := range []string{setBlocked4, setBlocked6, setMember4, setMember6, setCovered} {
		msgs = append(msgs, flushMessage(familyINet, g.name, s))
	}
	err := g.change(append(msgs, g.memberMessages()...))
	if errMissing(err) {
		return ErrGateLost
	}
	if err != nil {
		return fmt.Errorf("writing blocks and the gated port: %w", err)
	}
	return nil
}

// memberMessages fills the sets that are not part of the lease.
func (g *kernelGate) memberMessages() []nlMessage {
	var msgs []nlMessage
	add := func(set string, keys [][]byte) {
		if len(keys) == 0 {
			return
		}
		var elems []element
		for _, k := range keys {
			elems = append(elems, element{key: k})
		}
		msgs = append(msgs, nftMessage(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, familyINet, elementList(g.name, set, elems)))
	}
	b4, b6 := splitFamilies(g.block)
	m4, m6 := splitFamilies(g.peers)
	add(setBlocked4, b4)
	add(setBlocked6, b6)
	add(setMember4, m4)
	add(setMember6, m6)
	if g.covered {
		add(setCovered, [][]byte{binary.BigEndian.AppendUint16(nil, g.port)})
	}
	return msgs
}

func splitFamilies(addrs []netip.Addr) (v4, v6 [][]byte) {
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a.AsSlice())
		} else {
			v6 = append(v6, a.WithZone("").AsSlice())
		}
	}
	return v4, v6
}

// ensure checks the gate and reinstalls it closed if it is not as it was made.
func (g *kernelGate) ensure() (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return false, ErrStopped
	}
	g.seen = glances{}
	// A change by this very process, or one elsewhere in the ruleset, can interrupt a dump.
	const tries = 5
	for range tries {
		ok, err := g.intact()
		if err == nil && ok {
			ok, err = g.flagsIntact()
		}
		if errors.Is(err, errDumpInterrupted) {
			continue
		}
		if err != nil || ok {
			return false, err
		}
		return true, g.install()
	}
	return false, errDumpInterrupted
}

// flagsIntact sees a table that somebody made dormant or another process owns.
func (g *kernelGate) flagsIntact() (bool, error) {
	present, err := g.tablesPresent()
	if err != nil {
		return false, err
	}
	for _, t := range g.rules.tables {
		if present[t.family] != g.tableFlags {
			return false, nil
		}
	}
	return true, nil
}

// release closes the socket. A persistent table stays without an owner, for the next process to adopt.
func (g *kernelGate) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return nil
	}
	err := g.sock.close()
	g.sock = nil
	return err
}

// destroy removes the tables and releases the gate, so that no check puts them back. From then on nothing
// is held back. While hosts are blocked or the port is gated the tables stay as they are, for the next
// process.
func (g *kernelGate) destroy() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sock == nil {
		return ErrStopped
	}
	present, err := g.tablesPresent()
	if err != nil {
		return err
	}
	if len(present) > 0 {
		if err := g.recall(); err != nil {
			return err
		}
	}
	if len(g.block) > 0 || g.covered {
		g.log.Warn("the closed gate stays in the kernel, for the next start", "table", g.name, "blocked", g.block, "port_gated", g.covered)
		present = nil
	}
	var msgs []nlMessage
	for family := range present {
		msgs = append(msgs, nftMessage(unix.NFT_MSG_DELTABLE, 0, family, attrs(nil).str(unix.NFTA_TABLE_NAME, g.name)))
	}
	if len(msgs) > 0 {
		if err := g.change(msgs); err != nil {
			return fmt.Errorf("removing the gate: %w", err)
		}
	}
	err = g.sock.close()
	g.sock = nil
	return err
}
