package probe

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/highbase/highbase/fsm"
	"github.com/highbase/highbase/mysqld"
)

func serverSaid(number uint16, message string) error {
	return &mysql.MySQLError{Number: number, Message: message}
}

func TestJudge(t *testing.T) {
	const hungAfter = 3 * time.Second
	late := context.DeadlineExceeded
	failed := loginView{failed: true}
	for name, c := range map[string]struct {
		before fsm.ServerState
		e      evidence
		state  fsm.ServerState
		fault  string
	}{
		"answers":                      {fsm.ServerUnknown, evidence{}, fsm.ServerUp, ""},
		"refuses, no process":          {fsm.ServerUp, evidence{err: syscall.ECONNREFUSED, process: processView{gone: true}}, fsm.ServerDown, FaultNoProcess},
		"refuses, process runs":        {fsm.ServerUp, evidence{err: syscall.ENOENT, process: processView{running: true}}, fsm.ServerDown, FaultRefuses},
		"shutting down":                {fsm.ServerUp, evidence{err: serverSaid(1053, "")}, fsm.ServerDown, FaultShuttingDown},
		"connection broken, gone":      {fsm.ServerUp, evidence{err: io.EOF, process: processView{gone: true}}, fsm.ServerDown, FaultNoProcess},
		"connection broken, alive":     {fsm.ServerUp, evidence{err: io.EOF, process: processView{running: true}}, fsm.ServerUp, FaultSilent},
		"unknown and silent":           {fsm.ServerUnknown, evidence{err: late}, fsm.ServerUnknown, FaultSilent},
		"silent, too early":            {fsm.ServerUp, evidence{err: late, silent: hungAfter - 1, login: failed}, fsm.ServerUp, FaultSilent},
		"silent, not confirmed":        {fsm.ServerUp, evidence{err: late, silent: hungAfter}, fsm.ServerUp, FaultSilent},
		"silent, confirmed":            {fsm.ServerUp, evidence{err: late, silent: hungAfter, login: failed}, fsm.ServerHung, FaultSilent},
		"silent but logins work":       {fsm.ServerUp, evidence{err: late, silent: 2 * hungAfter, login: loginView{answered: true}}, fsm.ServerUp, FaultStatusHangs},
		"frozen":                       {fsm.ServerUp, evidence{err: late, silent: hungAfter, login: failed, process: processView{running: true, stopped: true}}, fsm.ServerHung, FaultFrozen},
		"silent for the disk":          {fsm.ServerUp, evidence{err: late, silent: hungAfter, login: failed, disk: diskView{hung: true}}, fsm.ServerHung, FaultDiskHung},
		"never silent for ever":        {fsm.ServerDown, evidence{err: late, silent: hungAfter - 1, process: processView{running: true}}, fsm.ServerDown, FaultSilent},
		"hangs on after it was down":   {fsm.ServerDown, evidence{err: late, silent: hungAfter, login: failed, process: processView{running: true}}, fsm.ServerHung, FaultSilent},
		"disk full":                    {fsm.ServerUp, evidence{disk: diskView{full: true}}, fsm.ServerUp, FaultDiskFull},
		"disk hangs, still answers":    {fsm.ServerUp, evidence{disk: diskView{hung: true}, stalled: true}, fsm.ServerUp, FaultDiskHung},
		"says the disk is full":        {fsm.ServerUp, evidence{err: serverSaid(1021, "Disk full")}, fsm.ServerUp, FaultDiskFull},
		"commits wait":                 {fsm.ServerUp, evidence{stalled: true}, fsm.ServerUp, FaultCommitsWait},
		"too many connections":         {fsm.ServerUp, evidence{login: loginView{tooMany: true}}, fsm.ServerUp, FaultTooManyConnections},
		"too many, and none kept":      {fsm.ServerUnknown, evidence{err: fmt.Errorf("reading: %w", serverSaid(1040, ""))}, fsm.ServerUp, FaultTooManyConnections},
		"logins hang":                  {fsm.ServerUp, evidence{login: loginView{hangs: true}}, fsm.ServerUp, FaultLoginsHang},
		"our account is refused":       {fsm.ServerUp, evidence{err: serverSaid(1045, "denied")}, fsm.ServerUp, FaultManagerRefused + ": Error 1045: denied"},
		"answers with something else":  {fsm.ServerUp, evidence{err: serverSaid(1064, "what?")}, fsm.ServerUp, FaultErrors + ": Error 1064: what?"},
		"the end of a silence is seen": {fsm.ServerHung, evidence{}, fsm.ServerUp, ""},
	} {
		state, fault := judge(c.before, c.e, hungAfter)
		if state != c.state || fault != c.fault {
			t.Errorf("%s: %s with %q, want %s with %q", name, state, fault, c.state, c.fault)
		}
	}
}

// TestHangingDisk holds a try of the disk back: it must be noticed, hold up nothing, and end.
func TestHangingDisk(t *testing.T) {
	p, err := New(Config{Database: newSlow(), HungAfter: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	release, ended := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	p.disk.start(begun, func() diskResult { <-release; return diskResult{} }, func() { close(ended) })
	p.disk.start(begun, func() diskResult { t.Error("a second try beside a hanging one"); return diskResult{} }, nil)
	e := func(now time.Time) evidence {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.evidence(reading{}, now)
	}
	if e(begun.Add(9 * time.Millisecond)).disk.hung {
		t.Error("hung before its time")
	}
	if !e(begun.Add(10 * time.Millisecond)).disk.hung {
		t.Error("not hung after its time")
	}
	close(release)
	<-ended
	if e(begun.Add(time.Hour)).disk.hung {
		t.Error("hung after it returned")
	}
}

// TestAnAnswerOfTheDeadProvesNothing: a look that began before a death and ends after it must not revive the server.
func TestAnAnswerOfTheDeadProvesNothing(t *testing.T) {
	p, err := New(Config{Database: newSlow()})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	p.view.status.State, p.view.status.Started = fsm.ServerUp, "boot/4194305-1" // above the largest process number
	p.died()
	if st := p.Server(); st.State != fsm.ServerDown {
		t.Fatalf("after its death: %+v", st)
	}
	answer := reading{begun: begun, status: mysqld.Status{Incarnation: "boot/4194305-1"}}
	p.mu.Lock()
	p.settle(answer, time.Now())
	p.mu.Unlock()
	if st := p.Server(); st.State != fsm.ServerDown {
		t.Errorf("revived by an old answer: %+v", st)
	}
	answer.begun = time.Now() // the control: a look begun after it counts
	p.mu.Lock()
	p.settle(answer, time.Now())
	p.mu.Unlock()
	if st := p.Server(); st.State != fsm.ServerUp {
		t.Errorf("a new answer: %+v", st)
	}
}

// TestReadOnlyIsKnownWithoutALook: a look that began before read_only returned does not take it back, and another run is not meant.
func TestReadOnlyIsKnownWithoutALook(t *testing.T) {
	p, err := New(Config{Database: newSlow()})
	if err != nil {
		t.Fatal(err)
	}
	const run = "boot/4194305-1"
	begun := time.Now()
	p.view.status = fsm.ServerStatus{State: fsm.ServerUp, Started: run, Fault: FaultCommitsWait, CommitsWait: true}
	for _, other := range []string{"", "boot/4194305-2"} {
		if p.BecameReadOnly(other) || p.Server().ReadOnly {
			t.Errorf("run %q became read-only, and %q counts as that", other, run)
		}
	}
	if !p.BecameReadOnly(run) {
		t.Fatal("it is the run that is known")
	}
	settle := func(begun time.Time) fsm.ServerStatus {
		p.mu.Lock()
		p.settle(reading{begun: begun, status: mysqld.Status{Incarnation: run}}, time.Now())
		p.mu.Unlock()
		return p.Server()
	}
	if st := settle(begun); !st.ReadOnly || st.CommitsWait || st.Fault != "" {
		t.Errorf("after a look of before: %+v", st)
	}
	if st := settle(time.Now()); st.ReadOnly {
		t.Errorf("a look begun after it says writable: %+v", st)
	}
}

func TestProcessStat(t *testing.T) {
	line := func(comm, state string) []byte {
		return fmt.Appendf(nil, "12 (%s) %s 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n", comm, state)
	}
	for _, c := range []struct {
		raw  []byte
		want stat
		ok   bool
	}{
		{line("mariadbd", "S"), stat{'S', 4711}, true},
		{line("a) T (b", "R"), stat{'R', 4711}, true},
		{line("mariadbd", "Z"), stat{'Z', 4711}, false},
		{[]byte("12 (x"), stat{}, false},
		{nil, stat{}, false},
	} {
		if got, ok := parseStat(c.raw); got != c.want || ok != c.ok {
			t.Errorf("%q: %v %t, want %v %t", c.raw, got, ok, c.want, c.ok)
		}
	}
	if pid, start, ok := parseRun(runID(12, 4711)); pid != 12 || start != 4711 || !ok {
		t.Errorf("an identity comes back as %d, %d, %t", pid, start, ok)
	}
}

// slow is a database that answers each question when it is let to.
type slow struct {
	asked   chan struct{}
	release chan struct{}
}

func newSlow() *slow { return &slow{asked: make(chan struct{}), release: make(chan struct{})} }

func (s *slow) Status(ctx context.Context) (mysqld.Status, error) {
	select {
	case s.asked <- struct{}{}:
	case <-ctx.Done():
		return mysqld.Status{}, ctx.Err()
	}
	select {
	case <-s.release:
		return mysqld.Status{Incarnation: "boot/1-1"}, nil
	case <-ctx.Done():
		return mysqld.Status{}, ctx.Err()
	}
}

func (s *slow) LastEpoch(context.Context) (uint64, string, error) { return 0, "", nil }

func (s *slow) Watch(ctx context.Context, _ func()) { <-ctx.Done() }
