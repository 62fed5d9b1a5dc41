package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
)

// maxFrame holds every frame the filters let through; a longer one is cut and then refused by the parser.
const maxFrame = 2048

// errPortClosed is returned after close.
var errPortClosed = errors.New("packet port is closed")

// framePort sends and receives raw frames on one interface. Its sockets are kept open: closing a packet
// socket waits for the whole kernel and costs milliseconds. They are made anew when the interface is.
type framePort struct {
	iface string
	ips   []netip.Addr

	mu     sync.Mutex
	closed bool
	index  int
	conns  map[int]*packet.Conn // by EtherType
}

func newFramePort(iface string, ips []netip.Addr) *framePort {
	return &framePort{iface: iface, ips: ips, conns: map[int]*packet.Conn{}}
}

// protocols are the EtherTypes this port needs.
func (p *framePort) protocols() []int {
	var v4, v6 bool
	for _, ip := range p.ips {
		v4 = v4 || ip.Is4()
		v6 = v6 || ip.Is6()
	}
	var out []int
	if v4 {
		out = append(out, int(protoARP))
	}
	if v6 {
		out = append(out, int(protoIPv6))
	}
	return out
}

// conn returns the socket for an EtherType on the interface with this index, opening it if needed.
// An index of 0 means whichever is open.
func (p *framePort) conn(proto, index int) (*packet.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPortClosed
	}
	if index != 0 && index != p.index {
		for k, c := range p.conns {
			delete(p.conns, k)
			if err := c.Close(); err != nil {
				return nil, fmt.Errorf("closing packet socket on %s: %w", p.iface, err)
			}
		}
		p.index = index
	}
	if c := p.conns[proto]; c != nil {
		return c, nil
	}
	if p.index == 0 {
		return nil, fmt.Errorf("interface %s is not known yet", p.iface)
	}
	filter, err := p.filter(proto)
	if err != nil {
		return nil, err
	}
	c, err := packet.Listen(&net.Interface{Index: p.index, Name: p.iface}, packet.Raw, proto, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("opening packet socket on %s: %w", p.iface, err)
	}
	p.conns[proto] = c
	return c, nil
}

// drop forgets a socket that failed, so that the next use opens another.
func (p *framePort) drop(proto int, c *packet.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[proto] != c {
		return nil
	}
	delete(p.conns, proto)
	return c.Close()
}

// send writes one frame to the interface with this index.
func (p *framePort) send(proto, index int, frame []byte) error {
	c, err := p.conn(proto, index)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
		return fmt.Errorf("sending on %s: %w", p.iface, err)
	}
	return nil
}

func (p *framePort) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for k, c := range p.conns {
		errs = append(errs, c.Close())
		delete(p.conns, k)
	}
	return errors.Join(errs...)
}

// filter lets the kernel discard all but the frames that speak for one of the port's addresses.
func (p *framePort) filter(proto int) ([]bpf.RawInstruction, error) {
	const accept, refuse = maxFrame, 0
	var prog []bpf.Instruction
	if proto == int(protoIPv6) {
		prog = []bpf.Instruction{
			bpf.LoadAbsolute{Off: etherHeaderLen + 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoICMPv6, SkipFalse: 3},
			bpf.LoadAbsolute{Off: etherHeaderLen + ip6HeaderLen, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: ndAdvertisement, SkipFalse: 1},
			bpf.RetConstant{Val: accept},
			bpf.RetConstant{Val: refuse},
		}
	} else {
		prog = append(prog, bpf.LoadAbsolute{Off: etherHeaderLen + 14, Size: 4})
		for _, ip := range p.ips {
			if ip.Is4() {
				b := ip.As4()
				want := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
				prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: want, SkipFalse: 1}, bpf.RetConstant{Val: accept})
			}
		}
		prog = append(prog, bpf.RetConstant{Val: refuse})
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("assembling packet filter: %w", err)
	}
	return raw, nil
}

// receive calls each with every frame until the port is closed. wait is called between two attempts on
// an interface that is down or gone; it returns false to give up.
func (p *framePort) receive(proto int, each func(frame []byte), wait func() bool) {
	buf := make([]byte, maxFrame)
	for {
		c, err := p.conn(proto, 0)
		if errors.Is(err, errPortClosed) {
			return
		}
		if err == nil {
			var n int
			if n, _, err = c.ReadFrom(buf); err == nil {
				each(buf[:n])
				continue
			}
			err = errors.Join(err, p.drop(proto, c))
		}
		if err != nil && !wait() {
			return
		}
	}
}
