package sandbox

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// rowKey names one row: every writer numbers its own rows from 1 and never sends a number twice.
type rowKey struct{ writer, seq int }

// Acknowledged is one row that the server called committed.
type Acknowledged struct {
	Writer, Seq int
	At          time.Duration // when the answer arrived, on the clock of Load.Now
}

// LoadCounts are what became of the rows of a Load.
type LoadCounts struct {
	Acknowledged int `json:"acknowledged"` // the server said that the row is committed
	Refused      int `json:"refused"`      // the server answered with an error that rules the row out
	Unknown      int `json:"unknown"`      // the connection ended before the answer: the row may be there or not
}

// ledger remembers what the writers were told. It is safe for concurrent use.
type ledger struct {
	start time.Time

	mu     sync.Mutex
	acks   []Acknowledged // in the order of their instants
	counts LoadCounts
	fresh  chan struct{} // closed and replaced at every acknowledgement
}

func newLedger() *ledger { return &ledger{start: time.Now(), fresh: make(chan struct{})} }

// now is the instant on the ledger's monotonic clock.
func (l *ledger) now() time.Duration { return time.Since(l.start) }

// acknowledge notes that the row is committed. The instant is taken under the lock, so that acks stay sorted.
func (l *ledger) acknowledge(k rowKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ackAt(k, l.now())
}

func (l *ledger) ackAt(k rowKey, at time.Duration) {
	l.acks = append(l.acks, Acknowledged{Writer: k.writer, Seq: k.seq, At: at})
	l.counts.Acknowledged++
	close(l.fresh)
	l.fresh = make(chan struct{})
}

// note counts a row that was not acknowledged.
func (l *ledger) note(refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if refused {
		l.counts.Refused++
	} else {
		l.counts.Unknown++
	}
}

// last gives the latest acknowledgement (0 if there is none) and a channel that closes at the next.
func (l *ledger) last() (time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.acks) == 0 {
		return 0, l.fresh
	}
	return l.acks[len(l.acks)-1].At, l.fresh
}

// between counts the acknowledgements in [from, to).
func (l *ledger) between(from, to time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.acks {
		if a.At >= from && a.At < to {
			n++
		}
	}
	return n
}

// gap is the longest silence between two acknowledgements from the last one before from to the first one after to.
// Without one after to, the silence up to now counts too: nobody knows yet how long it will be.
func (l *ledger) gap(from, to time.Duration) time.Duration {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.acks, from, func(a Acknowledged, at time.Duration) int { return cmp.Compare(a.At, at) })
	last, longest := from, time.Duration(0)
	if i > 0 {
		last = l.acks[i-1].At
	}
	for _, a := range l.acks[i:] {
		longest = max(longest, a.At-last)
		last = a.At
		if last > to {
			return longest
		}
	}
	return max(longest, max(now, to)-last)
}

// missing lists the acknowledged rows that present lacks.
func (l *ledger) missing(present map[rowKey]bool) []Acknowledged {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []Acknowledged
	for _, a := range l.acks {
		if !present[rowKey{a.Writer, a.Seq}] {
			lost = append(lost, a)
		}
	}
	return lost
}

func (l *ledger) total() LoadCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}
