package raftnode

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// knock dials a member with a hello of our choice and returns what it answers.
func knock(t *testing.T, m *member, h hello) error {
	t.Helper()
	conn, err := net.Dial("tcp", m.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return greet(conn, h, time.Now().Add(patience))
}

func TestHandshakeRefusesStrangersByName(t *testing.T) {
	_, ms := group(t, 1, func(c *Config) {
		c.Authorize = func(from Identity) error {
			if from.Server.Node() == "intruder" {
				return errors.New("not in the members file")
			}
			return nil
		}
	})
	m := ms[0]
	good := hello{Cluster: "c1", From: "db2.aa", To: m.ID()}
	if err := knock(t, m, good); err != nil {
		t.Fatalf("positive control: %v", err)
	}
	cases := map[string]struct {
		change func(*hello)
		reason string
	}{
		"other cluster":   {func(h *hello) { h.Cluster = "c2" }, "wrong cluster"},
		"no cluster":      {func(h *hello) { h.Cluster = "" }, "wrong cluster"},
		"old instance":    {func(h *hello) { h.To = MakeServerID(m.ID().Node(), "00") }, "wrong instance"},
		"other node":      {func(h *hello) { h.To = "db9.00" }, "wrong node"},
		"nameless":        {func(h *hello) { h.From = "" }, "not a peer"},
		"without a store": {func(h *hello) { h.From = "db2" }, "not a peer"},
		"itself":          {func(h *hello) { h.From = m.ID() }, "not a peer"},
		"unauthorised":    {func(h *hello) { h.From = "intruder.aa" }, "not in the members file"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := good
			c.change(&h)
			err := knock(t, m, h)
			var refused *refusal
			if !errors.As(err, &refused) || !strings.Contains(refused.reason, c.reason) {
				t.Fatalf("got %v, want a refusal for %q", err, c.reason)
			}
		})
	}
}

func TestGarbageIsNoHandshake(t *testing.T) {
	welcome := func(hello) error { return nil }
	cases := map[string]string{
		"http":        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"version":     "HBRAFT\x02\x00\x02{}",
		"long frame":  "HBRAFT\x01\xff\xff",
		"not json":    "HBRAFT\x01\x00\x02xx",
		"cut short":   "HBRAFT\x01\x00\x10{}",
		"nothing":     "",
		"half a word": "HB",
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer closeQuietly(a, b)
			go func() {
				// The listener may hang up in the middle; what counts is what it returns.
				_, _ = io.WriteString(a, in)
				_ = a.Close()
			}()
			go func() { _, _ = io.Copy(io.Discard, a) }()
			if h, err := receive(b, welcome, time.Now().Add(100*time.Millisecond)); err == nil {
				t.Fatalf("accepted %+v", h)
			}
		})
	}
}

func FuzzReadHello(f *testing.F) {
	f.Add([]byte("HBRAFT\x01\x00\x02{}"))
	f.Add([]byte("HBRAFT\x01\xff\xff{}"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readHello(bytes.NewReader(in))
		if err == nil && len(h.Cluster)+len(h.From)+len(h.To) > 6*maxHandshakeBytes {
			t.Fatalf("a hello of %d bytes came out of %d", len(h.Cluster)+len(h.From)+len(h.To), len(in))
		}
	})
}

// wipeOneAndLoseAnother replaces the disk of one follower and stops the other one.
func wipeOneAndLoseAnother(t *testing.T, change func(*Config)) (w *network, l, wiped, reborn, lost *member) {
	t.Helper()
	w, ms := group(t, 3, change)
	l = leader(t, ms)
	rest := others(ms, l)
	wiped, lost = rest[0], rest[1]
	apply(t, ms, "a")
	if err := wiped.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(wiped.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	reborn = start(t, w, wiped.cfg)
	if reborn.ID() == wiped.ID() {
		t.Fatal("a wiped store kept its instance")
	}
	apply(t, []*member{l, lost}, "b")
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}
	return w, l, wiped, reborn, lost
}

// TestWipedVoterAnswersNobody is the reason for instances: a voter whose disk was replaced has forgotten
// what it confirmed, so it counts for nothing until it is added again as somebody new.
func TestWipedVoterAnswersNobody(t *testing.T) {
	w, l, wiped, reborn, other := wipeOneAndLoseAnother(t, nil)
	eventually(t, "the leader to step down", func() bool { return !l.IsLeader() })
	if got := reborn.fsm.list(); len(got) != 0 || reborn.Term() != 0 {
		t.Fatalf("the wiped voter was given %v in term %d", got, reborn.Term())
	}
	back := start(t, w, other.cfg)
	lead := leader(t, []*member{l, back})
	if err := lead.RemoveServer(within(t, 5*time.Second), wiped.ID()); err != nil {
		t.Fatal(err)
	}
	if err := lead.AddServer(within(t, 5*time.Second), Server{ID: reborn.ID(), Address: reborn.Address(), Voter: true}); err != nil {
		t.Fatal(err)
	}
	holds(t, []*member{l, back, reborn}, "a", "b")
}

// TestWipedVoterWouldCompleteAQuorum is the positive control: without the check the library takes the
// wiped node for the old voter, and it confirms entries it has forgotten a part of.
func TestWipedVoterWouldCompleteAQuorum(t *testing.T) {
	_, l, _, reborn, _ := wipeOneAndLoseAnother(t, func(c *Config) { c.trustAnyone = true })
	apply(t, []*member{l, reborn}, "c")
	holds(t, []*member{l, reborn}, "a", "b", "c")
}

func TestRefusalsAreLoggedOnce(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	_, ms := group(t, 1, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil))
	})
	for range 5 {
		if err := knock(t, ms[0], hello{Cluster: "c2", From: "db2.aa", To: ms[0].ID()}); err == nil {
			t.Fatal("wrong cluster accepted")
		}
	}
	lines := func() int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(out.String(), "wrong cluster")
	}
	eventually(t, "the refusal in the log", func() bool { return lines() > 0 })
	if n := lines(); n != 1 {
		t.Fatalf("%d lines for 5 equal refusals", n)
	}
}

func TestLimiterCountsWhatItHides(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(10 * time.Second)
	l.now = func() time.Time { return now }
	for i := range 4 {
		if ok, _ := l.allow("a"); ok != (i == 0) {
			t.Fatalf("call %d: %v", i, ok)
		}
	}
	if ok, _ := l.allow("b"); !ok {
		t.Fatal("another key was hidden")
	}
	now = now.Add(10 * time.Second)
	if ok, hidden := l.allow("a"); !ok || hidden != 3 {
		t.Fatalf("after the period: %v, %d hidden", ok, hidden)
	}
	for i := range 2 * maxLimiterKeys {
		l.allow(string(rune(i)))
	}
	if len(l.seen) > maxLimiterKeys {
		t.Fatalf("%d keys kept", len(l.seen))
	}
}

func TestSilentStrangerDoesNotHoldUpAccept(t *testing.T) {
	_, ms := group(t, 1, nil)
	for range maxHandshakes / 2 {
		conn, err := net.Dial("tcp", ms[0].Address())
		if err != nil {
			t.Fatal(err)
		}
		defer closeQuietly(conn)
	}
	if err := knock(t, ms[0], hello{Cluster: "c1", From: "db2.aa", To: ms[0].ID()}); err != nil {
		t.Fatal(err)
	}
}

func TestTargetsCarryTheServer(t *testing.T) {
	id, addr, err := splitTarget(joinTarget("db1.aa", "[::1]:7947"))
	if err != nil || id != "db1.aa" || addr != "[::1]:7947" {
		t.Fatalf("%s %s %v", id, addr, err)
	}
	if _, _, err := splitTarget(raft.ServerAddress("10.0.0.1:7947")); err == nil {
		t.Fatal("a target without a server was accepted")
	}
	if id := MakeServerID("a.b", "cc"); id.Node() != "a.b" || id.Instance() != "cc" {
		t.Fatalf("%s splits into %q and %q", id, id.Node(), id.Instance())
	}
}

// closeQuietly closes connections a test is done with, whatever became of them.
func closeQuietly(conns ...net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
