package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"
)

// Errors of a transfer. None of them goes away by asking again: the copy has to begin anew.
var (
	// ErrSource is returned, with the reason, when the source failed.
	ErrSource = errors.New("the source of the transfer failed")
	// ErrAbandoned is returned when nobody asked for longer than the sender's patience.
	ErrAbandoned = errors.New("the transfer was given up: nobody asked for it")
	// ErrGone is returned for an offset whose bytes were confirmed and dropped, or were never sent.
	ErrGone = errors.New("the transfer has no bytes at this offset")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the transfer was ended")
)

// MaxChunk is the largest chunk, in bytes.
const MaxChunk = 4 << 20

// Chunk is a piece of the stream. End says that nothing follows and the source ended well.
type Chunk struct {
	Offset int64
	Data   []byte
	CRC    uint32
	End    bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the checksum of a chunk's data.
func Sum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// OutboxConfig bounds one transfer at its sender.
type OutboxConfig struct {
	Window   int64         // bytes kept that are not confirmed; at least one chunk
	Rate     int64         // bytes per second read from the source, 0 for no limit
	Patience time.Duration // how long nobody may ask before the source is closed
}

// Outbox is the sender's end of one transfer.
type Outbox struct {
	cfg    OutboxConfig
	source io.ReadCloser

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	base    int64         // offset of the first byte kept
	kept    [][]byte      // chunks from base on
	next    int64         // offset after the last byte kept
	end     error         // io.EOF, or why there is no more
	giveUp  *time.Timer
	stop    chan struct{}
	done    chan struct{} // the source is closed

	closing  sync.Once
	closeErr error
}

// NewOutbox begins to read the source, which it closes in the end. Close may be called while a Read is under way, and ends it.
func NewOutbox(source io.ReadCloser, cfg OutboxConfig) *Outbox {
	o := &Outbox{cfg: cfg, source: source, changed: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	o.cfg.Window = max(o.cfg.Window, MaxChunk)
	o.giveUp = time.AfterFunc(cfg.Patience, func() { o.finish(ErrAbandoned) })
	go o.pump()
	return o
}

// pump reads the source into the window, no faster than the rate, until it ends or the transfer does.
func (o *Outbox) pump() {
	defer close(o.done)
	pace := newPace(o.cfg.Rate)
	for o.room() {
		buf := make([]byte, MaxChunk)
		n, err := fill(o.source, buf)
		if n > 0 && !o.keep(buf[:n]) {
			break
		}
		if errors.Is(err, io.EOF) {
			if o.closeSource() == nil {
				o.finish(io.EOF)
			}
			break
		}
		if err != nil {
			o.finish(fmt.Errorf("%w: %w", ErrSource, err))
			break
		}
		if !pace.wait(n, o.stop) {
			break
		}
	}
	if err := o.closeSource(); err != nil {
		o.finish(fmt.Errorf("%w: %w", ErrSource, err))
	}
}

// fill reads until the buffer is full or the source ends. Not io.ReadFull: it gives a good end in the middle the same error as a bad one.
func fill(r io.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (o *Outbox) closeSource() error {
	o.closing.Do(func() { o.closeErr = o.source.Close() })
	return o.closeErr
}

// room waits until another chunk fits into the window; false at the end of the transfer.
func (o *Outbox) room() bool {
	for {
		o.mu.Lock()
		full, end, changed := o.next-o.base > o.cfg.Window-MaxChunk, o.end, o.changed
		o.mu.Unlock()
		if end != nil {
			return false
		}
		if !full {
			return true
		}
		select {
		case <-changed:
		case <-o.stop:
			return false
		}
	}
}

func (o *Outbox) keep(data []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.end != nil {
		return false
	}
	o.kept = append(o.kept, data)
	o.next += int64(len(data))
	o.tell()
	return true
}

// tell wakes everybody who waits. The caller holds mu.
func (o *Outbox) tell() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// finish sets how the stream ends, once. An end that is no good end drops what is kept.
func (o *Outbox) finish(end error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.end != nil && !errors.Is(o.end, io.EOF) {
		return
	}
	if o.end != nil && errors.Is(end, io.EOF) {
		return
	}
	o.end = end
	if !errors.Is(end, io.EOF) {
		o.kept, o.base = nil, o.next
		o.giveUp.Stop()
		close(o.stop)
		go func() { _ = o.closeSource() }() // ends a Read under way; pump sees the error
	}
	o.tell()
}

// Take confirms everything before offset and returns what follows, waiting until something does or ctx ends: then the chunk is
// empty, and that is no error.
func (o *Outbox) Take(ctx context.Context, offset int64) (Chunk, error) {
	for {
		o.mu.Lock()
		if !o.stopped() {
			o.giveUp.Reset(o.cfg.Patience)
		}
		c, ready, err := o.take(offset)
		changed := o.changed
		o.mu.Unlock()
		if ready || err != nil {
			return c, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Chunk{Offset: offset}, nil
		}
	}
}

func (o *Outbox) stopped() bool { return o.end != nil && !errors.Is(o.end, io.EOF) }

func (o *Outbox) take(offset int64) (Chunk, bool, error) {
	if o.stopped() {
		return Chunk{}, false, o.end
	}
	if offset < o.base || offset > o.next {
		return Chunk{}, false, fmt.Errorf("%w: %d, kept are %d to %d", ErrGone, offset, o.base, o.next)
	}
	for len(o.kept) > 0 && o.base+int64(len(o.kept[0])) <= offset {
		o.base += int64(len(o.kept[0]))
		o.kept[0], o.kept = nil, o.kept[1:]
		o.tell()
	}
	if len(o.kept) > 0 {
		data := o.kept[0][offset-o.base:]
		return Chunk{Offset: offset, Data: data, CRC: Sum(data)}, true, nil
	}
	return Chunk{Offset: offset, End: o.end != nil}, o.end != nil, nil
}

// Close ends the transfer and returns when the source is closed.
func (o *Outbox) Close() {
	o.finish(ErrClosed)
	<-o.done
}
