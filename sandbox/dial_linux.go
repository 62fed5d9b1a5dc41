package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
)

// dial opens a connection inside a host's network and returns its descriptor.
func (r *runner) dial(ctx context.Context, req request) (*os.File, error) {
	h, err := r.host(req.Host)
	if err != nil {
		return nil, err
	}
	if err := h.checkUp(); err != nil { // a frozen host's kernel still connects
		return nil, err
	}
	address, err := r.plan.resolve(req.Address)
	if err != nil {
		return nil, err
	}
	conn, err := r.dialFrom(ctx, h, req.Network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	filer, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, usagef("connections of network %q cannot be handed over", req.Network)
	}
	return filer.File()
}

// resolve replaces the name of a host by its address. Other names would be looked up in the machine's network.
func (p plan) resolve(address string) (string, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", usagef("%w", err)
	}
	if net.ParseIP(name) != nil {
		return address, nil
	}
	h, err := p.host(name)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(h.Address, port), nil
}

// dialFrom dials with a thread that is in the host's network for the moment. The socket belongs to that network for
// good; a literal address keeps the dialler on this goroutine, so on this thread.
func (r *runner) dialFrom(ctx context.Context, h *host, network, address string) (net.Conn, error) {
	pid := h.pid()
	if pid == 0 {
		return nil, fmt.Errorf("%s is down", h.Name)
	}
	there, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("opening the network of %s: %w", h.Name, err)
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("opening our own network: %w", err)
	}
	defer here.Close()
	if err := netns.Set(there); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("entering the network of %s: %w", h.Name, err)
	}
	var d net.Dialer
	conn, dialErr := d.DialContext(ctx, network, address)
	if err := netns.Set(here); err != nil {
		// The thread stays locked and ends with this goroutine: nothing else may run in the wrong network.
		return nil, errors.Join(dialErr, fmt.Errorf("leaving the network of %s: %w", h.Name, err))
	}
	runtime.UnlockOSThread()
	return conn, dialErr
}
