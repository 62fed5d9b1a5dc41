package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// outletStock is how many sockets one question to the runner brings.
const outletStock = 32

// Outlet connects from inside one host's network, by IPv4 and TCP, at what a connect costs a client on a host of its own: sockets are made there
// beforehand, many at a time. Clients that try again every few milliseconds cost as much as the servers otherwise.
type Outlet struct {
	s    *Sandbox
	host string

	mu    sync.Mutex
	stock []*os.File
}

// Outlet prepares connections from a host.
func (s *Sandbox) Outlet(host string) *Outlet { return &Outlet{s: s, host: host} }

// Close gives back what was not used.
func (o *Outlet) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	closeAll(o.stock)
	o.stock = nil
}

// Dial connects to an address and port. It ends with ctx.
func (o *Outlet) Dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !to.Addr().Is4() {
		return nil, usagef("dialling %q from %s: an IPv4 address and a port are needed", address, o.host)
	}
	f, err := o.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("dialling %s from %s: %w", address, o.host, err)
	}
	defer f.Close()
	if err := connectSocket(ctx, f, to); err != nil {
		return nil, fmt.Errorf("dialling %s from %s: %w", address, o.host, err)
	}
	return net.FileConn(f)
}

func (o *Outlet) take(ctx context.Context) (*os.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.stock) == 0 {
		_, files, err := o.s.call(ctx, request{Op: "sockets", Host: o.host})
		if err != nil {
			return nil, err
		}
		o.stock = files
	}
	if len(o.stock) == 0 {
		return nil, fmt.Errorf("%w: no sockets", ErrNotUp)
	}
	f := o.stock[len(o.stock)-1]
	o.stock = o.stock[:len(o.stock)-1]
	return f, nil
}

// connectSocket waits for the kernel to connect a non-blocking socket (connect(2), EINPROGRESS).
func connectSocket(ctx context.Context, f *os.File, to netip.AddrPort) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var begun error
	if err := raw.Control(func(fd uintptr) {
		begun = unix.Connect(int(fd), &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}); err != nil {
		return err
	}
	if begun != unix.EINPROGRESS {
		return os.NewSyscallError("connect", begun)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		number, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || number != 0 {
			failed = os.NewSyscallError("connect", unix.Errno(number))
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return failed
}

// sockets makes TCP sockets in a host's network, for an Outlet.
func (r *runner) sockets(req request) (files []*os.File, err error) {
	h, err := r.host(req.Host)
	if err != nil {
		return nil, err
	}
	if err := h.checkUp(); err != nil {
		return nil, err
	}
	err = r.inNetwork(h, func() error {
		for range outletStock {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("socket", err)
			}
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
			files = append(files, os.NewFile(uintptr(fd), "socket of "+h.Name))
		}
		return nil
	})
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// inNetwork runs f on a thread that is in a host's network for the moment. A socket made there belongs to it for good.
func (r *runner) inNetwork(h *host, f func() error) error {
	pid := h.pid()
	if pid == 0 {
		return fmt.Errorf("%s is down", h.Name)
	}
	there, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("opening the network of %s: %w", h.Name, err)
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening our own network: %w", err)
	}
	defer here.Close()
	if err := netns.Set(there); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering the network of %s: %w", h.Name, err)
	}
	failed := f()
	if err := netns.Set(here); err != nil {
		// The thread stays locked and ends with this goroutine: nothing else may run in the wrong network.
		return fmt.Errorf("leaving the network of %s: %w", h.Name, err)
	}
	runtime.UnlockOSThread()
	return failed
}
