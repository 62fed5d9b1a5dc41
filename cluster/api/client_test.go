package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// node is a fake hbd: the status answers, everything else is the test's.
func node(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc(PathStatus, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"cluster":"shop"}`) })
	mux.HandleFunc("/", h)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// deaf is an address where connections are accepted and never answered, as by a frozen hbd's kernel.
func deaf(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// closed is an address where nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func client(t *testing.T, addrs ...string) *Client {
	t.Helper()
	c, err := NewClient(addrs, ClientOptions{ReadTimeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestReadsTryEachAddress(t *testing.T) {
	good := node(t, answer(200, "{}"))
	c := client(t, closed(t), deaf(t), good)
	for range 2 { // the second time the good one is asked first
		s, err := c.Status(context.Background())
		if err != nil || s.Cluster != "shop" {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	if c.order()[0] != good {
		t.Errorf("the address that answered is not first: %v", c.order())
	}
}

func TestNoAnswerSaysAddressAndStep(t *testing.T) {
	a, b := closed(t), deaf(t)
	_, err := client(t, a, b, "no-such-host.invalid:7948").Status(context.Background())
	if !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("%v is not ErrNoAnswer", err)
	}
	for _, want := range []string{a + ", step connect", b + ", step request", "in time", "invalid:7948, step resolve", "expected"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestChangesGoOnOnlyWhenNothingWasBegun(t *testing.T) {
	const done = `{"outcome":"done","operation":"17"}`
	for _, c := range []struct {
		name  string
		first func(t *testing.T, calls *atomic.Int32) string
		want  error // nil: the second address answers
	}{
		{"nobody listens", func(t *testing.T, _ *atomic.Int32) string { return closed(t) }, nil},
		{"frozen", func(t *testing.T, _ *atomic.Int32) string { return deaf(t) }, nil},
		{"503", func(t *testing.T, _ *atomic.Int32) string {
			return node(t, answer(503, `{"error":"no leader","how":"wait"}`))
		}, nil},
		{"dies after the request", func(t *testing.T, calls *atomic.Int32) string {
			return node(t, func(http.ResponseWriter, *http.Request) { calls.Add(1); panic(http.ErrAbortHandler) })
		}, ErrUnknownOutcome},
		{"500", func(t *testing.T, calls *atomic.Int32) string {
			return node(t, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				answer(500, `{"error":"disk","how":"log"}`)(w, r)
			})
		}, ErrUnknownOutcome},
		{"garbage", func(t *testing.T, calls *atomic.Int32) string {
			return node(t, func(w http.ResponseWriter, r *http.Request) { calls.Add(1); answer(200, `<html>`)(w, r) })
		}, ErrUnknownOutcome},
		{"400", func(t *testing.T, _ *atomic.Int32) string {
			return node(t, answer(400, `{"error":"no such node","how":"look"}`))
		}, ErrRejected},
		{"401", func(t *testing.T, _ *atomic.Int32) string {
			return node(t, answer(401, `{"error":"who are you","how":"log in"}`))
		}, ErrNotAuthorised},
	} {
		t.Run(c.name, func(t *testing.T) {
			var first, second atomic.Int32
			addr := c.first(t, &first)
			good := node(t, func(w http.ResponseWriter, r *http.Request) { second.Add(1); answer(200, done)(w, r) })
			r, err := client(t, addr, good).Promote(context.Background(), SwitchoverRequest{To: "db2"})
			if c.want == nil {
				if err != nil || r.Operation != 17 || second.Load() != 1 {
					t.Errorf("%+v, %v, second asked %d times", r, err, second.Load())
				}
				return
			}
			if !errors.Is(err, c.want) || second.Load() != 0 {
				t.Errorf("got %v, want %v; the second was asked %d times", err, c.want, second.Load())
			}
			if first.Load() > 1 {
				t.Errorf("the change was sent %d times", first.Load())
			}
		})
	}
}

func TestRefusalIsAnAnswer(t *testing.T) {
	c := client(t, node(t, answer(409, `{"outcome":"refused","rule":"candidate.lag","value":"14 s","threshold":"2 s"}`)))
	r, err := c.Promote(context.Background(), SwitchoverRequest{To: "db2"})
	if err != nil || r.Outcome != OutcomeRefused || r.Rule != "candidate.lag" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUnavailableIsNotNoAnswer(t *testing.T) {
	c := client(t, node(t, answer(503, `{"error":"db1 knows no leader","how":"wait"}`)), closed(t))
	_, err := c.Resume(context.Background(), ResumeRequest{})
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "db1 knows no leader") {
		t.Errorf("got %v", err)
	}
}

func TestStrangeAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"html":     answer(200, "<html>"),
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			chunk := strings.Repeat(" ", 1<<20)
			for range maxAnswer>>20 + 1 {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		},
		"wrong shape": answer(200, `{"incidents":"none"}`),
		"bare 404":    answer(404, `{}`),
	} {
		c, err := NewClient([]string{node(t, h)}, ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.History(context.Background()); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
		c.Close()
	}
}

func TestFollowSeesPhasesAndTheEnd(t *testing.T) {
	var polls atomic.Int32
	answers := []string{
		`{"outcome":"unknown","operation":"17","phases":[{"name":"fence","ms":1}]}`,
		`{"outcome":"unknown","operation":"17","phases":[{"name":"fence","ms":1},{"name":"promote","ms":2}]}`,
		"", // the node dies in the middle
		`{"outcome":"done","operation":"17","phases":[{"name":"fence","ms":1},{"name":"promote","ms":2},{"name":"settle","ms":3}]}`,
	}
	addr := node(t, func(w http.ResponseWriter, r *http.Request) {
		i := int(polls.Add(1)) - 1
		if i >= len(answers) || answers[i] == "" {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path != PathOperations+"17" || r.URL.Query().Get("wait") == "" {
			t.Errorf("asked %s", r.URL)
		}
		io.WriteString(w, answers[i])
	})
	var seen []int
	first := Result{Outcome: OutcomeUnknown, Operation: 17}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := client(t, addr).Follow(ctx, first, func(r Result) { seen = append(seen, len(r.Phases)) })
	if err != nil || r.Outcome != OutcomeDone || fmt.Sprint(seen) != "[0 1 2 3]" {
		t.Errorf("%+v, %v, seen %v", r, err, seen)
	}
}

func TestFollowGivesUpAsUnknown(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r, err := client(t, closed(t)).Follow(ctx, Result{Outcome: OutcomeUnknown, Operation: 17}, nil)
	if err != nil || r.Outcome != OutcomeUnknown || !strings.Contains(r.Message, "operation 17 continues") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestFollowOfWhatEndedAsksNothing(t *testing.T) {
	r, err := client(t, closed(t)).Follow(context.Background(), Result{Outcome: OutcomeDone, Operation: 17}, nil)
	if err != nil || r.Outcome != OutcomeDone {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestACallersDialerThatFailsBeganNothing(t *testing.T) {
	c, err := NewClient([]string{"db1:7948"}, ClientOptions{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no such namespace")
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Resume(context.Background(), ResumeRequest{})
	if !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("got %v", err)
	}
}
