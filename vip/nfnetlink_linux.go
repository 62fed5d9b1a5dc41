package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// attrs is a sequence of encoded netlink attributes.
type attrs []byte

func (a attrs) bytes(typ uint16, b []byte) attrs {
	length := unix.SizeofNlAttr + len(b)
	a = binary.NativeEndian.AppendUint16(a, uint16(length))
	a = binary.NativeEndian.AppendUint16(a, typ)
	a = append(a, b...)
	return append(a, make([]byte, align4(length)-length)...)
}

func (a attrs) str(typ uint16, s string) attrs { return a.bytes(typ, append([]byte(s), 0)) }

// u32 and u64 are big-endian: nf_tables uses network order in its attributes.
func (a attrs) u32(typ uint16, v uint32) attrs {
	return a.bytes(typ, binary.BigEndian.AppendUint32(nil, v))
}

func (a attrs) u64(typ uint16, v uint64) attrs {
	return a.bytes(typ, binary.BigEndian.AppendUint64(nil, v))
}

func (a attrs) nest(typ uint16, inner attrs) attrs { return a.bytes(typ|unix.NLA_F_NESTED, inner) }

// eachAttr splits encoded attributes; type flags are masked off.
func eachAttr(b []byte, each func(typ uint16, data []byte) error) error {
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return fmt.Errorf("netlink attribute of %d bytes in %d", length, len(b))
		}
		typ := binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask
		if err := each(typ, b[unix.SizeofNlAttr:length]); err != nil {
			return err
		}
		b = b[min(align4(length), len(b)):]
	}
	return nil
}

// nlaTypeMask strips the nested and byte-order flags off an attribute type.
const nlaTypeMask = 0x3fff

// cString is the text of a zero-terminated attribute.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// nfgenmsgLen is the length of the nfgenmsg header: family, version, resource id.
const nfgenmsgLen = 4

// nftType is the netlink message type of an nf_tables message.
func nftType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// nftMessage builds one nf_tables request for a table family.
func nftMessage(msg, flags uint16, family byte, a attrs) nlMessage {
	return nlMessage{
		typ:   nftType(msg),
		flags: unix.NLM_F_REQUEST | flags,
		data:  append([]byte{family, unix.NFNETLINK_V0, 0, 0}, a...),
	}
}

// nftBatch runs msgs as one transaction: all of them or, with an *nlError naming the first one refused,
// none of them.
func nftBatch(s *nlSocket, msgs []nlMessage) error {
	edge := func(typ uint16) nlMessage {
		return nlMessage{typ: typ, flags: unix.NLM_F_REQUEST, data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	all := make([]nlMessage, 0, len(msgs)+2)
	all = append(all, edge(unix.NFNL_MSG_BATCH_BEGIN))
	all = append(all, msgs...)
	all = append(all, edge(unix.NFNL_MSG_BATCH_END))
	err := s.execute(all, len(msgs))
	var refusal *nlError
	if errors.As(err, &refusal) {
		return &nlError{index: refusal.index - 1, errno: refusal.errno} // -1 is the batch's own header
	}
	return err
}

// element is one member of a set. A zero timeout means that it stays.
type element struct {
	key     []byte
	timeout time.Duration
}

// elementList encodes the table, set and elements of a NEWSETELEM or DELSETELEM message.
func elementList(table, set string, elems []element) attrs {
	var list attrs
	for _, e := range elems {
		item := attrs(nil).nest(unix.NFTA_SET_ELEM_KEY, attrs(nil).bytes(unix.NFTA_DATA_VALUE, e.key))
		if e.timeout > 0 {
			item = item.u64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(e.timeout.Milliseconds()))
		}
		list = list.nest(unix.NFTA_LIST_ELEM, item)
	}
	a := attrs(nil).str(unix.NFTA_SET_ELEM_LIST_TABLE, table).str(unix.NFTA_SET_ELEM_LIST_SET, set)
	if len(list) > 0 {
		a = a.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list)
	}
	return a
}

// liveElement is a set member as the kernel lists it; expired ones are not listed.
type liveElement struct {
	key  []byte
	left time.Duration // 0 if it has no timeout
}

// listElements returns the living members of a set.
func listElements(s *nlSocket, family byte, table, set string) ([]liveElement, error) {
	msg := nftMessage(unix.NFT_MSG_GETSETELEM, 0, family, elementList(table, set, nil))
	var out []liveElement
	err := s.dump(msg, func(_ uint16, data []byte) error {
		if len(data) < nfgenmsgLen {
			return nil
		}
		return eachAttr(data[nfgenmsgLen:], func(typ uint16, list []byte) error {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return eachAttr(list, func(_ uint16, item []byte) error {
				e, err := parseElement(item)
				out = append(out, e)
				return err
			})
		})
	})
	return out, err
}

func parseElement(item []byte) (liveElement, error) {
	var e liveElement
	err := eachAttr(item, func(typ uint16, b []byte) error {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			return eachAttr(b, func(typ uint16, v []byte) error {
				if typ == unix.NFTA_DATA_VALUE {
					e.key = append([]byte(nil), v...)
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_EXPIRATION:
			if len(b) == 8 {
				e.left = time.Duration(binary.BigEndian.Uint64(b)) * time.Millisecond
			}
		}
		return nil
	})
	return e, err
}
