//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/cluster/api"
)

// errReadOnly is the server's answer to a write while it is read-only.
const errReadOnly = 1290

// serverState is what a look at a server through its own socket found.
type serverState string

const (
	takesWrites serverState = "writable"
	readOnly    serverState = "read-only"
	noServer    serverState = "no server"
	unclear     serverState = "no clear answer" // hangs, or the connection broke: proves nothing
)

// stateOf judges the error of a statement that would succeed on a writable server.
func stateOf(err error) serverState {
	var answer *mysql.MySQLError
	switch {
	case err == nil:
		return takesWrites
	case errors.As(err, &answer) && answer.Number == errReadOnly:
		return readOnly
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return noServer
	}
	return unclear
}

// TestStateOf: a commit that hangs, or a broken connection, is no refusal.
func TestStateOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want serverState
	}{
		{nil, takesWrites},
		{&mysql.MySQLError{Number: 1290}, readOnly},
		{fmt.Errorf("dialing: %w", syscall.ECONNREFUSED), noServer},
		{fmt.Errorf("dialing: %w", syscall.ENOENT), noServer},
		{context.DeadlineExceeded, unclear},
		{mysql.ErrInvalidConn, unclear},
		{&mysql.MySQLError{Number: 1045}, unclear},
	} {
		if got := stateOf(c.err); got != c.want {
			t.Errorf("stateOf(%v) = %s, want %s", c.err, got, c.want)
		}
	}
}

// localLook is one look at a server, on the ledger's clock.
type localLook struct {
	from, to time.Duration
	state    serverState
}

func (l localLook) refuses() bool { return l.state == readOnly || l.state == noServer }

// localWatch asks one server through its own socket, past every network fault, whether
// it is read-only, over and over.
type localWatch struct {
	stop func()
	mu   sync.Mutex
	seen []localLook
}

// watchLocal begins to look at a host's server; the scenario's end stops it.
func (s *scenario) watchLocal(host string) *localWatch {
	w := &localWatch{}
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, 5*time.Millisecond) {
			look := localLook{from: s.load.Now()}
			look.state = s.localState(ctx, host)
			look.to = s.load.Now()
			if ctx.Err() == nil {
				w.mu.Lock()
				w.seen = append(w.seen, look)
				w.mu.Unlock()
			}
		}
	})
	w.stop = func() {
		cancel()
		running.Wait()
	}
	s.Cleanup(w.stop)
	return w
}

// localState reads @@read_only; it changes nothing and hangs behind no commit.
func (s *scenario) localState(ctx context.Context, host string) serverState {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var value string
	if err := s.servers[host].QueryRowContext(ctx, "SELECT @@global.read_only").Scan(&value); err != nil {
		return stateOf(err)
	}
	if isOn(value) {
		return readOnly
	}
	return takesWrites
}

// looks are those so far.
func (w *localWatch) looks() []localLook {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]localLook(nil), w.seen...)
}

// cannotWrite demands that a host without a lease ends up refusing writes for certain:
// its server is read-only or gone, and a write then tried past every network is answered
// by error 1290 or by nobody. A commit that hangs is none of these. The gate ends the
// lease, the server follows within what hbd gives it (read_only, else SIGKILL), so it is
// awaited; but no write may succeed on the way.
func (s *scenario) cannotWrite(host string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, host+" to be read-only or without a server", func(ctx context.Context) (bool, string) {
		state := s.localState(ctx, host)
		return state == readOnly || state == noServer, string(state)
	})
	if err != nil {
		s.Errorf("acknowledges for all we know: %v", err)
		return
	}
	for try := 1; ; try++ {
		err := s.tryWrite(host)
		switch state := stateOf(err); {
		case state == takesWrites:
			s.Errorf("%s acknowledged a write without a lease", host)
		case state == unclear && try < 3 && broken(err):
			continue // the server ended under the statement, or a pooled connection was an old one
		case state == unclear:
			s.Errorf("the attempt to write on %s proves nothing: %v", host, err)
		default:
			s.Logf("a write on %s: %v", host, err)
		}
		return
	}
}

// broken says that a connection ended, unlike a statement that ran into its deadline.
func broken(err error) bool {
	return errors.Is(err, mysql.ErrInvalidConn) || strings.Contains(err.Error(), "bad connection") || errors.Is(err, syscall.EPIPE)
}

// tryWrite writes on a host's own server, past every network. The row belongs to no
// ledger, and to a run of its own.
func (s *scenario) tryWrite(host string) error {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	_, err := s.servers[host].ExecContext(ctx, "INSERT INTO "+table+" VALUES (?, 0, 0, 0)", time.Now().UnixNano())
	return err
}

// stayedReadOnly demands that the server, once it refused writes, took none again as
// long as the host was away, and tells how that compares with the successor's start.
//
// What is asserted about the cut host, by timestamps of one clock: the address (the
// kernel's gate) was shut before the successor first served (quietBefore, hard); the
// server itself refused writes at some time (cannotWrite) and from then on for good
// (here). Its read_only may come after the successor: until then no client reaches it.
func (s *scenario) stayedReadOnly(w *localWatch, host, successor string) {
	s.Helper()
	// What cannotWrite met the looks may not have met yet: a server that was killed just now broke the one under way.
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := Await(ctx, "a look at "+host+" that finds it refuse", func(context.Context) (bool, string) {
		looks := w.looks()
		return len(looks) > 0 && looks[len(looks)-1].refuses(), fmt.Sprintf("%d looks", len(looks))
	})
	w.stop()
	if err != nil {
		s.Error(err)
		return
	}
	var since, lastWritable time.Duration
	for _, look := range w.looks() {
		switch {
		case look.state == takesWrites && since > 0:
			s.Errorf("%s was not writable at %v and was again in a look sent at %v", host, since-s.at, look.from-s.at)
			return
		case look.state == takesWrites:
			lastWritable = look.from
		case look.refuses() && since == 0 && look.from >= s.at && lastWritable > 0:
			since = look.to
		}
	}
	if lastWritable == 0 || since == 0 {
		s.Errorf("%s was to be seen writable and then not, in %d looks", host, len(w.looks()))
		return
	}
	first, ok := FirstServing(append(s.sampler.Samples(), s.load.Samples()...), successor, s.at)
	s.Logf("after the fault: %s last writable at %v, refusing at %v; %s first served at %v (%t)", host,
		lastWritable-s.at, since-s.at, successor, first-s.at, ok)
}

// toldBy asks one node alone, from inside its host: what it believes itself.
func (s *scenario) toldBy(ctx context.Context, host string) (api.Status, error) {
	h, ok := s.Host(host)
	if !ok {
		return api.Status{}, fmt.Errorf("no host %s", host)
	}
	client, err := api.NewClient([]string{h.API}, api.ClientOptions{ReadTimeout: time.Second, DialContext: s.dialer(host)})
	if err != nil {
		return api.Status{}, err
	}
	defer client.Close()
	return client.Status(ctx)
}
