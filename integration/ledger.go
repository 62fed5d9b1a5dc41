package integration

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Key names one row: each writer numbers its own rows from 1.
type Key struct{ Writer, Seq int }

// Outcome is what a writer knows about one row.
type Outcome int

// The outcomes. A row is InFlight until the server or the network decided.
const (
	InFlight Outcome = iota
	// Acked: the server said that the row is committed.
	Acked
	// Refused: the server answered with an error, or the row was never sent.
	Refused
	// Unknown: the connection ended after the row may have been sent.
	Unknown
)

// Attempt is one row as its writer remembers it. Instants count from the ledger's
// beginning on this machine's monotonic clock.
type Attempt struct {
	Outcome Outcome
	Host    string // the host that the connection ended at, "" when it was lost before that was known
	Sent    time.Duration
	Done    time.Duration
	Reason  string // why it was not acknowledged
}

// Ledger remembers what clients of the virtual address were told. It is safe for
// concurrent use.
type Ledger struct {
	start time.Time

	mu       sync.Mutex
	attempts map[Key]Attempt
	last     map[int]int           // highest number begun, by writer
	acks     []time.Duration       // of all writers, nearly sorted
	seen     map[Key]time.Duration // first read of a row
	broken   []string              // what readers found wrong
	reads    int
}

// NewLedger begins an empty ledger, its clock at 0.
func NewLedger() *Ledger {
	return &Ledger{start: time.Now(), attempts: map[Key]Attempt{}, last: map[int]int{}, seen: map[Key]time.Duration{}}
}

// Now is the instant on the ledger's clock.
func (l *Ledger) Now() time.Duration { return time.Since(l.start) }

// Begin notes that the row is about to be sent to host; "" while it is not known whom the connection ended at.
func (l *Ledger) Begin(k Key, host string) { l.begin(k, host, l.Now()) }

func (l *Ledger) begin(k Key, host string, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts[k] = Attempt{Outcome: InFlight, Host: host, Sent: now}
	l.last[k.Writer] = max(l.last[k.Writer], k.Seq)
}

// End notes how the row ended; reason says why when it was not acknowledged.
func (l *Ledger) End(k Key, o Outcome, reason string) { l.end(k, o, reason, l.Now()) }

func (l *Ledger) end(k Key, o Outcome, reason string, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.attempts[k]
	a.Outcome, a.Reason, a.Done = o, reason, now
	l.attempts[k] = a
	if o == Acked {
		l.acks = append(l.acks, now)
	}
}

// EndedAt notes whom the connection of a row had ended at, learnt after the row.
func (l *Ledger) EndedAt(k Key, host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.attempts[k]
	a.Host = host
	l.attempts[k] = a
}

// Read notes the answer of one read through the virtual address: the rows of writer
// numbered above floor, by a request sent at sent. What is missing although it was
// acknowledged or read before the request was sent is kept as a violation: either the
// row is lost or the reader was served by someone who is no longer the primary.
func (l *Ledger) Read(writer, floor int, seqs []int, sent time.Duration, host string) {
	present := make(map[int]bool, len(seqs))
	for _, s := range seqs {
		present[s] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	for seq := floor + 1; seq <= l.last[writer]; seq++ {
		k := Key{writer, seq}
		a := l.attempts[k]
		if present[seq] {
			continue
		}
		if a.Outcome == Acked && a.Done < sent {
			l.broken = append(l.broken, fmt.Sprintf("a read from %s at %v misses row %v, acknowledged by %s at %v",
				host, sent, k, a.Host, a.Done))
		} else if at, ok := l.seen[k]; ok && at < sent {
			l.broken = append(l.broken, fmt.Sprintf("a read from %s at %v misses row %v, read before at %v", host, sent, k, at))
		}
	}
	now := l.Now()
	for _, s := range seqs {
		k := Key{writer, s}
		if _, ok := l.seen[k]; !ok {
			l.seen[k] = now
		}
	}
}

// Violations lists what readers found wrong.
func (l *Ledger) Violations() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.broken)
}

// Counts are the totals of a ledger.
type Counts struct{ Acked, Refused, Unknown, Read, Reads int }

// Counts adds up the ledger.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Counts{Read: len(l.seen), Reads: l.reads}
	for _, a := range l.attempts {
		switch a.Outcome {
		case Acked:
			c.Acked++
		case Refused:
			c.Refused++
		case Unknown, InFlight:
			c.Unknown++
		}
	}
	return c
}

// Lost lists the rows that a server must have and present lacks: all that were
// acknowledged or read. Rows of unknown outcome may be there or not.
func (l *Ledger) Lost(present map[Key]bool) []Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []Key
	for k, a := range l.attempts {
		_, read := l.seen[k]
		if (a.Outcome == Acked || read) && !present[k] {
			lost = append(lost, k)
		}
	}
	slices.SortFunc(lost, func(a, b Key) int {
		if a.Writer != b.Writer {
			return a.Writer - b.Writer
		}
		return a.Seq - b.Seq
	})
	return lost
}

// Invented lists the rows present that no writer ever sent.
func (l *Ledger) Invented(present map[Key]bool) []Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	var invented []Key
	for k := range present {
		if _, ok := l.attempts[k]; !ok {
			invented = append(invented, k)
		}
	}
	return invented
}

// Samples gives every acknowledgement as the observation that the virtual address
// led to a host which took a write. One whose host never became known is none: its row must be there in the end all the same.
func (l *Ledger) Samples() []Sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	samples := make([]Sample, 0, len(l.acks))
	for _, a := range l.attempts {
		if a.Outcome == Acked && a.Host != "" {
			samples = append(samples, Sample{Host: a.Host, From: a.Sent, To: a.Done, Serving: true})
		}
	}
	return samples
}

// attempt is what is known of one row.
func (l *Ledger) attempt(k Key) Attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempts[k]
}

// Errors counts the rows not acknowledged that were sent in [from, to].
func (l *Ledger) Errors(from, to time.Duration) (n int, example string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, a := range l.attempts {
		if a.Sent >= from && a.Sent <= to && (a.Outcome == Refused || a.Outcome == Unknown) {
			n++
			example = fmt.Sprintf("row %v sent to %s at %v: %s", k, a.Host, a.Sent, a.Reason)
		}
	}
	return n, example
}

// AckedSince counts the acknowledgements after from.
func (l *Ledger) AckedSince(from time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for i := len(l.acks) - 1; i >= 0 && l.acks[i] > from; i-- {
		n++
	}
	return n
}

// WaitSince is how long a writer waited for its answer, the median of the rows acknowledged after from; 0 when there is none.
func (l *Ledger) WaitSince(from time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var waits []time.Duration
	for _, a := range l.attempts {
		if a.Outcome == Acked && a.Done > from {
			waits = append(waits, a.Done-a.Sent)
		}
	}
	if len(waits) == 0 {
		return 0
	}
	slices.Sort(waits)
	return waits[len(waits)/2]
}

// Gap is the write gap of something that happened at t0: the longest silence between
// two acknowledgements from the last one before t0 to the first one after t1. It is
// false when no acknowledgement came after t0; the silence up to t1 is given then.
func (l *Ledger) Gap(t0, t1 time.Duration) (time.Duration, bool) {
	l.mu.Lock()
	acks := slices.Sorted(slices.Values(l.acks))
	l.mu.Unlock()
	i, _ := slices.BinarySearch(acks, t0)
	last := t0
	if i > 0 {
		last = acks[i-1]
	}
	if i == len(acks) {
		return t1 - last, false
	}
	var gap time.Duration
	for _, at := range acks[i:] {
		gap = max(gap, at-last)
		last = at
		if at > t1 {
			break
		}
	}
	return gap, true
}
