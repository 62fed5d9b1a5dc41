package httpd

import "time"

// Buckets are the upper bounds, in seconds, of every duration histogram: fine below a second because
// a switchover takes 20 ms, up to a minute because a wait for a host can.
var Buckets = [...]float64{0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60}

// Histogram counts durations. It is a plain value: the Backend keeps one under its own lock and hands
// out copies. The zero value is empty and ready.
type Histogram struct {
	Count uint64
	Sum   float64 // seconds
	// At counts, per bound of Buckets, the observations not above it (cumulative, as Prometheus wants).
	At [len(Buckets)]uint64
}

// Observe adds one duration. Negative ones count as zero.
func (h *Histogram) Observe(d time.Duration) {
	seconds := max(d.Seconds(), 0)
	h.Count++
	h.Sum += seconds
	for i, bound := range Buckets {
		if seconds <= bound {
			h.At[i]++
		}
	}
}

func (h Histogram) buckets() map[float64]uint64 {
	out := make(map[float64]uint64, len(Buckets))
	for i, bound := range Buckets {
		out[bound] = h.At[i]
	}
	return out
}
