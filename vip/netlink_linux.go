package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// recvBufferSize holds the largest datagram the kernel sends in a dump (32 KiB).
const recvBufferSize = 64 << 10

// nlMessage is one netlink message without its header's length, sequence and port, which sending sets.
type nlMessage struct {
	typ   uint16
	flags uint16
	data  []byte
}

// nlError is the kernel's refusal of one message of a request.
type nlError struct {
	index int // position of the message in the request, -1 if it is about the request as a whole
	errno unix.Errno
}

func (e *nlError) Error() string { return fmt.Sprintf("message %d: %s", e.index, e.errno.Error()) }
func (e *nlError) Unwrap() error { return e.errno }

// nlSocket is a netlink socket for requests. The kernel handles a request before the send returns, so
// answers are read without waiting. It belongs to the network namespace of the thread that made it.
// It is not safe for concurrent use.
type nlSocket struct {
	fd  int
	seq uint32
	buf []byte
}

// dialNetlink opens a request socket of the given netlink protocol.
func dialNetlink(proto int) (*nlSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, fmt.Errorf("opening netlink socket: %w", err)
	}
	s := &nlSocket{fd: fd, buf: make([]byte, recvBufferSize)}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("binding netlink socket: %w", err), s.close())
	}
	// Errors then carry the header of the refused message only; a whole batch of them fits the buffer.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("setting NETLINK_CAP_ACK: %w", err), s.close())
	}
	// A dump that never ends must not hang the daemon.
	tv := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, errors.Join(fmt.Errorf("setting receive timeout: %w", err), s.close())
	}
	return s, nil
}

func (s *nlSocket) close() error { return unix.Close(s.fd) }

// encode appends msg with the next sequence number to out.
func (s *nlSocket) encode(out []byte, msg nlMessage) []byte {
	s.seq++
	length := unix.NLMSG_HDRLEN + len(msg.data)
	out = binary.NativeEndian.AppendUint32(out, uint32(length))
	out = binary.NativeEndian.AppendUint16(out, msg.typ)
	out = binary.NativeEndian.AppendUint16(out, msg.flags)
	out = binary.NativeEndian.AppendUint32(out, s.seq)
	out = binary.NativeEndian.AppendUint32(out, 0)
	out = append(out, msg.data...)
	return append(out, make([]byte, align4(length)-length)...)
}

// execute sends msgs in one datagram, the last one asking for an acknowledgement, and returns an *nlError
// for the first one refused.
func (s *nlSocket) execute(msgs []nlMessage, ackIndex int) error {
	s.drain()
	first := s.seq + 1
	var out []byte
	for i, m := range msgs {
		if i == ackIndex {
			m.flags |= unix.NLM_F_ACK
		}
		out = s.encode(out, m)
	}
	if err := s.send(out); err != nil {
		return err
	}
	return s.collectAck(first, uint32(ackIndex))
}

func (s *nlSocket) send(out []byte) error {
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for {
		err := unix.Sendto(s.fd, out, 0, to)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sending netlink request: %w", err)
		}
		return nil
	}
}

// collectAck reads every answer that is there. Success needs the acknowledgement: silence is an error.
func (s *nlSocket) collectAck(first, ackIndex uint32) error {
	acked := false
	var refusal *nlError
	for {
		n, err := s.recv(unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading netlink answer: %w", err)
		}
		err = eachMessage(s.buf[:n], func(typ, _ uint16, seq uint32, data []byte) error {
			if typ != unix.NLMSG_ERROR || len(data) < 4 || seq < first {
				return nil
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
			if errno == 0 {
				acked = acked || seq == first+ackIndex
			} else if refusal == nil {
				refusal = &nlError{index: int(seq - first), errno: errno}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if refusal != nil {
		return refusal
	}
	if !acked {
		return errors.New("netlink request was not acknowledged")
	}
	return nil
}

// dump sends one dump request and calls each for every message of the answer.
func (s *nlSocket) dump(msg nlMessage, each func(typ uint16, data []byte) error) error {
	s.drain()
	msg.flags |= unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	out := s.encode(nil, msg)
	want := s.seq
	if err := s.send(out); err != nil {
		return err
	}
	done, interrupted := false, false
	for !done {
		n, err := s.recv(0)
		if err != nil {
			return fmt.Errorf("reading netlink dump: %w", err)
		}
		err = eachMessage(s.buf[:n], func(typ, flags uint16, seq uint32, data []byte) error {
			if seq != want || done {
				return nil
			}
			interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
			switch typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				if len(data) >= 4 {
					if errno := -int32(binary.NativeEndian.Uint32(data)); errno != 0 {
						return unix.Errno(errno)
					}
				}
				return nil
			}
			return each(typ, data)
		})
		if err != nil {
			return err
		}
	}
	if interrupted {
		return errDumpInterrupted
	}
	return nil
}

// errDumpInterrupted says that the tables changed during a dump: its result is not one state.
var errDumpInterrupted = errors.New("netlink dump was interrupted by a change")

func (s *nlSocket) recv(flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n, err
	}
}

// drain discards answers to an earlier request that failed half-way.
func (s *nlSocket) drain() {
	for {
		if _, err := s.recv(unix.MSG_DONTWAIT); err != nil {
			return // EAGAIN: empty. Any other error shows again at the request itself.
		}
	}
}

// eachMessage splits a datagram into its netlink messages.
func eachMessage(b []byte, each func(typ, flags uint16, seq uint32, data []byte) error) error {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return fmt.Errorf("netlink message of %d bytes in %d", length, len(b))
		}
		typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		if err := each(typ, flags, binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]); err != nil {
			return err
		}
		b = b[min(align4(length), len(b)):]
	}
	return nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// notifier receives the kernel's multicast notices of one netlink protocol.
type notifier struct{ file *os.File }

// newNotifier joins the given multicast groups (numbers, not masks).
func newNotifier(proto int, groups ...int) (*notifier, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("opening netlink notifier: %w", err)
	}
	n := &notifier{file: os.NewFile(uintptr(fd), "netlink")}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("binding netlink notifier: %w", err), n.close())
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return nil, errors.Join(fmt.Errorf("joining netlink group %d: %w", g, err), n.close())
		}
	}
	return n, nil
}

func (n *notifier) close() error { return n.file.Close() }

// run calls notify when a notice of one of the given types (all if none is given) arrives, or when
// notices were lost; heard, if it is not nil, gets every notice before, and type 0 for those that were
// lost. It returns when the notifier is closed.
func (n *notifier) run(notify func(), heard func(typ uint16, data []byte), types ...uint16) error {
	if heard == nil {
		heard = func(uint16, []byte) {}
	}
	buf := make([]byte, recvBufferSize)
	for {
		size, err := n.file.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMSGSIZE):
			heard(0, nil)
			notify() // Notices were dropped: what they said must be looked up.
			continue
		case err != nil:
			return fmt.Errorf("reading netlink notices: %w", err)
		}
		hit := len(types) == 0
		err = eachMessage(buf[:size], func(typ, _ uint16, _ uint32, data []byte) error {
			heard(typ, data)
			for _, t := range types {
				hit = hit || typ == t
			}
			return nil
		})
		if err != nil {
			heard(0, nil)
		}
		if hit || err != nil {
			notify()
		}
	}
}
