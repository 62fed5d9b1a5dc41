package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// ErrBroken is returned when the link stayed broken for longer than the receiver's patience.
var ErrBroken = errors.New("the transfer's link stayed broken")

// InboxConfig bounds one transfer at its receiver.
type InboxConfig struct {
	// Fetch asks the sender for the chunk at an offset. ErrSource, ErrAbandoned, ErrGone and ErrClosed end the transfer; any other
	// error is a broken link, and it is tried again.
	Fetch func(ctx context.Context, offset int64) (Chunk, error)
	// Patience is how long the link may stay broken.
	Patience time.Duration
	// Pause is the time between two tries.
	Pause time.Duration
}

// Inbox is the receiver's end: the stream as a reader. Its error is io.EOF only when the sender said that the stream ended well.
type Inbox struct {
	cfg    InboxConfig
	ctx    context.Context
	cancel context.CancelFunc
	chunks chan Chunk
	err    error // why chunks was closed
	rest   []byte

	received  atomic.Int64
	broken    atomic.Uint64
	discarded atomic.Uint64
}

// NewInbox begins to fetch, one chunk ahead of the reader.
func NewInbox(ctx context.Context, cfg InboxConfig) *Inbox {
	b := &Inbox{cfg: cfg, chunks: make(chan Chunk, 1)}
	b.ctx, b.cancel = context.WithCancel(ctx)
	go b.fetch()
	return b
}

// Received is how many bytes have arrived.
func (b *Inbox) Received() int64 { return b.received.Load() }

// Broken is how often the link broke, Discarded how many chunks had a wrong checksum.
func (b *Inbox) Broken() uint64    { return b.broken.Load() }
func (b *Inbox) Discarded() uint64 { return b.discarded.Load() }

func (b *Inbox) fetch() {
	defer close(b.chunks)
	var offset int64
	for {
		c, err := b.chunk(offset)
		if err != nil {
			b.err = err
			return
		}
		offset += int64(len(c.Data))
		b.received.Store(offset)
		if len(c.Data) > 0 {
			select {
			case b.chunks <- c:
			case <-b.ctx.Done():
				b.err = b.ctx.Err()
				return
			}
		}
		if c.End {
			b.err = io.EOF
			return
		}
	}
}

// chunk asks until a whole chunk has come, the transfer is over, or patience is.
func (b *Inbox) chunk(offset int64) (Chunk, error) {
	var since time.Time // when the link was first seen broken
	for {
		c, err := b.cfg.Fetch(b.ctx, offset)
		if err == nil {
			if c.Offset == offset && Sum(c.Data) == c.CRC {
				return c, nil
			}
			b.discarded.Add(1)
			err = fmt.Errorf("a chunk of %d bytes at %d is damaged", len(c.Data), c.Offset)
		}
		for _, over := range []error{ErrSource, ErrAbandoned, ErrGone, ErrClosed} {
			if errors.Is(err, over) {
				return Chunk{}, err
			}
		}
		if b.ctx.Err() != nil {
			return Chunk{}, b.ctx.Err()
		}
		b.broken.Add(1)
		if since.IsZero() {
			since = time.Now()
		}
		if broken := time.Since(since); broken > b.cfg.Patience {
			return Chunk{}, fmt.Errorf("%w for %v: %w", ErrBroken, broken.Round(time.Second), err)
		}
		select {
		case <-b.ctx.Done():
			return Chunk{}, b.ctx.Err()
		case <-time.After(b.cfg.Pause):
		}
	}
}

// Read implements io.Reader.
func (b *Inbox) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		c, ok := <-b.chunks
		if !ok {
			return 0, b.err
		}
		b.rest = c.Data
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close ends the transfer at this end.
func (b *Inbox) Close() { b.cancel() }
