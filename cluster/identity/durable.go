package identity

import (
	"encoding/json"
	"fmt"
	"sync"
)

// Durable is one value of type T in one file. It is for promises: what the node froze, released or
// accepted, and must still know after a crash. All methods may be called by several goroutines; updates
// are serialised, and a value is returned only once it is on disk.
//
// T must survive a round trip through encoding/json.
type Durable[T any] struct {
	path string
	mu   sync.Mutex
	// raw is the JSON of the value on disk, nil when the file does not exist. Keeping the bytes rather
	// than the value means that no caller can change the remembered promise through a slice or a map.
	raw json.RawMessage
}

// OpenDurable reads the value at path. A file that does not exist is a value never stored; one that
// cannot be read back is ErrCorrupt and nothing is opened.
func OpenDurable[T any](path string) (*Durable[T], error) {
	var raw json.RawMessage
	found, err := readJSON(path, &raw)
	if err != nil {
		return nil, err
	}
	if !found {
		return &Durable[T]{path: path}, nil
	}
	var v T
	if err := strict(raw, &v); err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", path, ErrCorrupt, err)
	}
	return &Durable[T]{path: path, raw: raw}, nil
}

// Load returns the stored value, and false with the zero value when none was ever stored.
func (d *Durable[T]) Load() (T, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.load()
}

// Store replaces the value. When it returns nil the new value is on disk; on error the old one still
// counts, both in memory and, unless only the last directory sync failed, on disk.
func (d *Durable[T]) Store(v T) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.store(v)
}

// Update reads, changes and stores the value as one step. change gets the stored value (zero and false
// when there is none) and returns the new one, or an error that leaves everything as it was.
func (d *Durable[T]) Update(change func(v T, found bool) (T, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, found := d.load()
	next, err := change(v, found)
	if err != nil {
		return err
	}
	return d.store(next)
}

// load decodes the remembered bytes. They were decoded once when they were read or written, so an error
// here is impossible and would be a bug of T's own decoder.
func (d *Durable[T]) load() (v T, found bool) {
	if d.raw == nil {
		return v, false
	}
	if err := strict(d.raw, &v); err != nil {
		panic(fmt.Sprintf("identity: %s decoded once and not twice: %v", d.path, err))
	}
	return v, true
}

// store writes v after checking that it can be read back.
func (d *Durable[T]) store(v T) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", d.path, err)
	}
	var back T
	if err := strict(raw, &back); err != nil {
		return fmt.Errorf("encoding %s: value does not survive JSON: %w", d.path, err)
	}
	if err := writeJSON(d.path, json.RawMessage(raw)); err != nil {
		return err
	}
	d.raw = raw
	return nil
}
