package mysqld

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestPeerThatCannotBeLookedAtIsNotTheOneBefore: a statement left behind in one run of mysqld must not be looked for in another.
func TestPeerThatCannotBeLookedAtIsNotTheOneBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &Server{}
	dial := func() error {
		conn, err := s.dial(context.Background(), "unix", path)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	own, err := readProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.peer.current(); got != own {
		t.Fatalf("the listener is %+v, not %+v", own, got)
	}
	full := errors.New("too many open files")
	s.peer.look = func(net.Conn) (process, error) { return process{}, full }
	if err := dial(); !errors.Is(err, full) {
		t.Errorf("connected to nobody knows whom: %v", err)
	}
	if got := s.peer.current(); got != own {
		t.Errorf("a connection that was not made changed it to %+v", got)
	}
	s.peer.look = func(net.Conn) (process, error) { return process{}, errUnseen }
	if err := dial(); err != nil || s.peer.current() != (process{}) {
		t.Errorf("%+v answers, which is not to be seen: %v", s.peer.current(), err)
	}
}
