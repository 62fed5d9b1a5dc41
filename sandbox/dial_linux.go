package sandbox

import (
	"context"
	"net"
	"os"
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

// dialFrom dials from a host's network: a literal address keeps the dialler on this goroutine, so on this thread.
func (r *runner) dialFrom(ctx context.Context, h *host, network, address string) (conn net.Conn, err error) {
	err = r.inNetwork(h, func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil && conn != nil {
		conn.Close()
		conn = nil
	}
	return conn, err
}
