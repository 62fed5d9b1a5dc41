package cluster

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// maxClients is how many connections a list may have. The most that it can come to, each with an IPv6 address of its own, still fits a request.
const maxClients = 20000

// A list travels sorted and in groups: local address and port, how many hosts; per host its address, how many ports; per port the distance to the
// one before. Numbers are varints, an address is its length (4 or 16) and its bytes. Three bytes per connection are usual.

// packClients encodes connections and sorts them by the way. The same connections give the same bytes.
func packClients(list []Connection) []byte {
	slices.SortFunc(list, func(a, b Connection) int {
		return cmp.Or(a.Local.Compare(b.Local), a.Remote.Compare(b.Remote))
	})
	list = slices.Compact(list)
	var out []byte
	for locals := list; len(locals) > 0; {
		local := locals[0].Local
		group := beginning(locals, func(c Connection) bool { return c.Local == local })
		locals = locals[len(group):]
		out = binary.AppendUvarint(appendAddr(out, local.Addr()), uint64(local.Port()))
		out = binary.AppendUvarint(out, uint64(countHosts(group)))
		for len(group) > 0 {
			host := group[0].Remote.Addr()
			ports := beginning(group, func(c Connection) bool { return c.Remote.Addr() == host })
			group = group[len(ports):]
			out = binary.AppendUvarint(appendAddr(out, host), uint64(len(ports)))
			before := uint16(0)
			for _, c := range ports {
				out = binary.AppendUvarint(out, uint64(c.Remote.Port()-before))
				before = c.Remote.Port()
			}
		}
	}
	return out
}

// beginning is the longest beginning of list whose elements all match.
func beginning(list []Connection, match func(Connection) bool) []Connection {
	if i := slices.IndexFunc(list, func(c Connection) bool { return !match(c) }); i >= 0 {
		return list[:i]
	}
	return list
}

func countHosts(group []Connection) int {
	n := 0
	for i, c := range group {
		if i == 0 || c.Remote.Addr() != group[i-1].Remote.Addr() {
			n++
		}
	}
	return n
}

func appendAddr(out []byte, a netip.Addr) []byte {
	b := a.AsSlice()
	return append(append(out, byte(len(b))), b...)
}

var errClientList = errors.New("list of client connections is not readable")

// unpackClients is the reverse. It comes from the network: nothing it claims is believed.
func unpackClients(b []byte) ([]Connection, error) {
	r := listReader{rest: b}
	var out []Connection
	for len(r.rest) > 0 && r.err == nil {
		local := netip.AddrPortFrom(r.addr(), uint16(r.number(0xffff)))
		for range r.number(maxClients) {
			host, port := r.addr(), uint64(0)
			for range r.number(maxClients) {
				port += r.number(0xffff)
				if r.err == nil && (port > 0xffff || len(out) == maxClients || host.Is4() != local.Addr().Is4()) {
					r.fail("port %d, %d connections, %s at %s", port, len(out), host, local)
				}
				if r.err != nil {
					return nil, r.err
				}
				out = append(out, Connection{Local: local, Remote: netip.AddrPortFrom(host, uint16(port))})
			}
			if r.err != nil {
				return nil, r.err
			}
		}
	}
	return out, r.err
}

// listReader reads the parts of a list until the first that is wrong.
type listReader struct {
	rest []byte
	err  error
}

func (r *listReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{errClientList}, args...)...)
	}
	r.rest = nil
}

func (r *listReader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > limit {
		r.fail("a number is cut or above %d", limit)
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *listReader) addr() netip.Addr {
	if len(r.rest) > 0 {
		if size := int(r.rest[0]); len(r.rest) > size {
			if a, ok := netip.AddrFromSlice(r.rest[1 : 1+size]); ok {
				r.rest = r.rest[1+size:]
				return a
			}
		}
	}
	r.fail("an address is cut or neither IPv4 nor IPv6")
	return netip.Addr{}
}
