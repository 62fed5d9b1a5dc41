package porttest

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// Ports are taken from below those that the kernel gives to outgoing connections
// (32768 and up, ip_local_port_range in ip(7)): one that it gave when asked for a
// port could be somebody's outgoing one by the time a server wants it.
const (
	first = 20000
	count = 12000
)

// next spreads processes that run at the same time.
var next atomic.Uint32

func init() { next.Store(uint32(os.Getpid()) * 1009) }

// Free is a port of 127.0.0.1 that nobody listens on and that no other test of
// this process was given.
func Free(t testing.TB) uint16 {
	t.Helper()
	for range count {
		port := uint16(first + next.Add(1)%count)
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatalf("no port from %d to %d is free", first, first+count-1)
	return 0
}
