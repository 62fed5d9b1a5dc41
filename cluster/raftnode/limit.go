package raftnode

import (
	"sync"
	"time"
)

// limiter lets one message per key and period through and counts the others, so that a dead peer or a
// stranger that knocks ten times a second does not bury the line that explains it.
type limiter struct {
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex
	seen map[string]*limited
}

type limited struct {
	at         time.Time
	suppressed int
}

// maxLimiterKeys bounds the memory a stranger can claim by varying what it says. When it is reached all
// keys are forgotten: a few extra lines are better than none.
const maxLimiterKeys = 1024

func newLimiter(every time.Duration) *limiter {
	return &limiter{every: every, now: time.Now, seen: make(map[string]*limited)}
}

// allow reports whether a message with this key may be logged now, and how many were not since the last.
func (l *limiter) allow(key string) (ok bool, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	e := l.seen[key]
	if e != nil && now.Sub(e.at) < l.every {
		e.suppressed++
		return false, 0
	}
	if e == nil {
		if len(l.seen) >= maxLimiterKeys {
			clear(l.seen)
		}
		l.seen[key] = &limited{at: now}
		return true, 0
	}
	suppressed = e.suppressed
	*e = limited{at: now}
	return true, suppressed
}
