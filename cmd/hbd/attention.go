package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// calmLooks is how many pings' time passes between two looks at a server in service. Its death is seen at once all the same.
const calmLooks = 4

// ownGC lets the heap grow to three times what is live before it is collected, Go's default being twice: some megabytes for a
// fiftieth of what hbd takes of a processor.
const ownGC = 200

// collectLess does so unless a person has decided.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(ownGC)
	}
}

// attention spends less of the host while there is nothing but service: one processor, on which Go's scheduler need not
// wake another thread for each message, and fewer looks at the server.
type attention struct {
	on        atomic.Bool
	procs     int // 0 when a person has decided
	ping      time.Duration
	untilBeat func(period time.Duration) time.Duration
	look      func() // takes a look now; nil before there is a prober
}

// newAttention begins attentive. Who has set GOMAXPROCS wants that many.
func newAttention(ping time.Duration, untilBeat func(period time.Duration) time.Duration) *attention {
	a := &attention{ping: ping, untilBeat: untilBeat}
	if os.Getenv("GOMAXPROCS") == "" {
		a.procs = runtime.GOMAXPROCS(0)
	}
	a.on.Store(true)
	return a
}

// set follows the node. It is called at each turn and does nothing unless it has changed.
func (a *attention) set(on bool) {
	if a.on.Swap(on) == on {
		return
	}
	if on && a.look != nil {
		a.look() // the next one may be far away
	}
	if a.procs == 0 {
		return
	}
	n := 1
	if on {
		n = a.procs
	}
	runtime.GOMAXPROCS(n)
}

// pause is how long to wait for the next look.
func (a *attention) pause() time.Duration {
	if a.on.Load() {
		return a.untilBeat(a.ping)
	}
	return a.untilBeat(calmLooks * a.ping)
}
