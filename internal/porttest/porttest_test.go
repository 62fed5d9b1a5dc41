package porttest

import (
	"net"
	"strconv"
	"testing"
)

// TestFree: each port is given once, and none that is in use.
func TestFree(t *testing.T) {
	a := Free(t)
	taken := uint16(first + (next.Load()+1)%count) // the next one in turn
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(taken))))
	if err != nil {
		t.Skipf("somebody else has the next port: %v", err)
	}
	defer ln.Close()
	b := Free(t)
	if b == a || b == taken {
		t.Fatalf("%d and %d, while %d was in use", a, b, taken)
	}
	if a < first || a >= first+count {
		t.Fatalf("%d", a)
	}
}
