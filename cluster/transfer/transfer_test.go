package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// patience only a hang exceeds.
const patience = 20 * time.Second

// source counts what was read from it and notices its end.
type source struct {
	io.Reader
	read   atomic.Int64
	closed atomic.Bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.read.Add(int64(n))
	return n, err
}

func (s *source) Close() error { s.closed.Store(true); return nil }

func noise(size int) []byte {
	r := rand.NewChaCha8([32]byte{7})
	data := make([]byte, size)
	_, _ = r.Read(data) // never fails
	return data
}

func outbox(t *testing.T, s *source, cfg OutboxConfig) *Outbox {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	o := NewOutbox(s, cfg)
	t.Cleanup(o.Close)
	return o
}

func inbox(t *testing.T, limit time.Duration, fetch func(context.Context, int64) (Chunk, error)) *Inbox {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return NewInbox(ctx, InboxConfig{Fetch: fetch, Patience: limit, Pause: time.Millisecond})
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) { //nolint:forbidigo // polls a condition
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestTransferSurvivesABrokenLinkAndDamage(t *testing.T) {
	t.Parallel()
	want := noise(40 << 20)
	src := &source{Reader: bytes.NewReader(want)}
	o := outbox(t, src, OutboxConfig{Window: 16 << 20})
	r := rand.New(rand.NewPCG(1, 2))
	b := inbox(t, patience, func(ctx context.Context, offset int64) (Chunk, error) {
		c, err := o.Take(ctx, offset)
		switch r.IntN(4) {
		case 0: // sent and lost on the way: what was taken stays unconfirmed
			return Chunk{}, errors.New("connection reset")
		case 1:
			if len(c.Data) > 0 {
				c.Data = bytes.Clone(c.Data)
				c.Data[r.IntN(len(c.Data))] ^= 1
			}
		}
		return c, err
	})
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d, equal %v, error %v", len(got), len(want), bytes.Equal(got, want), err)
	}
	if b.Discarded() == 0 || b.Broken() <= b.Discarded() {
		t.Fatalf("nothing was broken: %d, %d", b.Broken(), b.Discarded())
	}
	eventually(t, "the source stays open", src.closed.Load)
}

// TestWithoutTheChecksumDamageGetsThrough is the control of the test before.
func TestWithoutTheChecksumDamageGetsThrough(t *testing.T) {
	t.Parallel()
	want := noise(6 << 20)
	o := outbox(t, &source{Reader: bytes.NewReader(want)}, OutboxConfig{})
	damaged := false
	b := inbox(t, patience, func(ctx context.Context, offset int64) (Chunk, error) {
		c, err := o.Take(ctx, offset)
		if len(c.Data) > 0 && !damaged {
			damaged = true
			c.Data = bytes.Clone(c.Data)
			c.Data[0] ^= 1
			c.CRC = Sum(c.Data) // as if there were none
		}
		return c, err
	})
	got, err := io.ReadAll(b)
	if err != nil || bytes.Equal(got, want) {
		t.Fatalf("damage is not seen by the comparison itself: %v", err)
	}
}

func TestTheWindowBoundsWhatIsKept(t *testing.T) {
	t.Parallel()
	src := &source{Reader: bytes.NewReader(noise(64 << 20))}
	o := outbox(t, src, OutboxConfig{Window: 2 * MaxChunk})
	eventually(t, "the window does not fill", func() bool { return src.read.Load() == 2*MaxChunk })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// Asked for again and again without confirming: nothing more is read.
	for range 3 {
		if c, err := o.Take(ctx, 0); err != nil || len(c.Data) != MaxChunk {
			t.Fatalf("%d bytes, %v", len(c.Data), err)
		}
	}
	if src.read.Load() != 2*MaxChunk {
		t.Fatalf("%d bytes are kept", src.read.Load())
	}
	if _, err := o.Take(ctx, MaxChunk); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a confirmed chunk makes no room", func() bool { return src.read.Load() == 3*MaxChunk })
	if _, err := o.Take(ctx, 0); !errors.Is(err, ErrGone) {
		t.Fatalf("a confirmed chunk is still there: %v", err)
	}
	o.Close()
	if !src.closed.Load() {
		t.Fatal("the source stays open")
	}
	if _, err := o.Take(ctx, MaxChunk); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestTheSenderGivesUp(t *testing.T) {
	t.Parallel()
	src := &source{Reader: bytes.NewReader(noise(64 << 20))}
	o := outbox(t, src, OutboxConfig{Patience: 20 * time.Millisecond})
	eventually(t, "the sender waits for ever", src.closed.Load)
	if _, err := o.Take(context.Background(), 0); !errors.Is(err, ErrAbandoned) {
		t.Fatalf("after giving up: %v", err)
	}
}

func TestTheReceiverGivesUp(t *testing.T) {
	t.Parallel()
	down := errors.New("no route")
	b := inbox(t, 10*time.Millisecond, func(context.Context, int64) (Chunk, error) { return Chunk{}, down })
	if _, err := io.ReadAll(b); !errors.Is(err, ErrBroken) || !errors.Is(err, down) {
		t.Fatalf("a link that stays broken: %v", err)
	}
}

func TestASourceThatFailsNeverEndsWell(t *testing.T) {
	t.Parallel()
	for _, bad := range []error{errors.New("backup failed"), io.ErrUnexpectedEOF} {
		o := outbox(t, &source{Reader: io.MultiReader(bytes.NewReader(noise(1000)), failing{bad})}, OutboxConfig{})
		b := inbox(t, patience, o.Take)
		if _, err := io.ReadAll(b); !errors.Is(err, ErrSource) || !errors.Is(err, bad) {
			t.Fatalf("a failed source: %v", err)
		}
	}
}

// stuck blocks in Read until it is closed, as a program whose output nobody has.
type stuck struct{ closed chan struct{} }

func (s stuck) Read([]byte) (int, error) { <-s.closed; return 0, errors.New("killed") }
func (s stuck) Close() error             { close(s.closed); return nil }

func TestCloseEndsAReadUnderWay(t *testing.T) {
	t.Parallel()
	NewOutbox(stuck{make(chan struct{})}, OutboxConfig{Patience: patience}).Close()
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestRate(t *testing.T) {
	t.Parallel()
	src := &source{Reader: bytes.NewReader(noise(4 * MaxChunk))}
	// So slow that a second chunk is never due within the test.
	o := outbox(t, src, OutboxConfig{Window: 8 * MaxChunk, Rate: 1})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c, err := o.Take(ctx, 0); err != nil || len(c.Data) != MaxChunk {
		t.Fatalf("first chunk: %v", err)
	}
	if got := src.read.Load(); got != MaxChunk {
		t.Fatalf("%d bytes were read at one byte a second", got)
	}
	// Nothing there is no error, and no end.
	cancel()
	if c, err := o.Take(ctx, MaxChunk); err != nil || c.End || len(c.Data) > 0 {
		t.Fatalf("%+v %v", c, err)
	}
}
