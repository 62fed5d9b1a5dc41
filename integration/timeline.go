package integration

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Sample is one look at a host: at some instant between From and To it answered a
// client of the virtual address with a server that took writes (Serving), or not.
type Sample struct {
	Host     string
	From, To time.Duration
	Serving  bool
}

// reign is a run of samples in which a host was seen serving without a break. At some
// instant of the first and of the last sample it served; unless it let go and took
// over again between two samples at most maxBlind apart, it served all the way
// between: from the end of the first to the beginning of the last.
type reign struct {
	host    string
	samples []Sample
}

func (r reign) from() time.Duration { return r.samples[0].To }

func (r reign) to() time.Duration {
	last := r.samples[0].From
	for _, s := range r.samples {
		last = max(last, s.From)
	}
	return last
}

// TwoServing returns a sentence for each pair of hosts that were certainly serving at
// one instant. maxBlind is the longest time between two looks over which a host is
// taken to have gone on serving; it must be shorter than giving the role away and
// getting it back can take. Looks that only may overlap are no violation.
func TwoServing(samples []Sample, maxBlind time.Duration) []string {
	reigns := reignsOf(samples, maxBlind)
	var found []string
	for i, a := range reigns {
		for _, b := range reigns[i+1:] {
			if a.host == b.host {
				continue
			}
			if from, to, both := overlap(a, b); both {
				found = append(found, fmt.Sprintf("%s and %s both served between %v and %v", a.host, b.host, from, to))
			}
		}
	}
	return found
}

// overlap finds an instant that belongs to both for certain: the sure parts of both
// overlap, or one whole look of one lies within the sure part of the other.
func overlap(a, b reign) (from, to time.Duration, both bool) {
	from, to = max(a.from(), b.from()), min(a.to(), b.to())
	if from < to {
		return from, to, true
	}
	for _, pair := range [][2]reign{{a, b}, {b, a}} {
		for _, s := range pair[1].samples {
			if pair[0].from() <= s.From && s.To <= pair[0].to() {
				return s.From, s.To, true
			}
		}
	}
	return 0, 0, false
}

// reignsOf cuts each host's looks into reigns. Two looks belong to one reign when the
// instants they stand for lie at most maxBlind apart even at worst. A look longer than
// that (a write that waited out a failover) says nothing about what was between, and
// stands alone.
func reignsOf(samples []Sample, maxBlind time.Duration) []reign {
	sorted := slices.Clone(samples)
	slices.SortStableFunc(sorted, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	var reigns []reign
	var current reign
	flush := func() {
		if len(current.samples) > 0 {
			// The sure part begins where the earliest look has ended.
			slices.SortStableFunc(current.samples, func(a, b Sample) int { return cmp.Compare(a.To, b.To) })
			reigns = append(reigns, current)
		}
		current = reign{}
	}
	var previous time.Duration
	for _, s := range sorted {
		long := s.To-s.From > maxBlind
		if s.Serving && long {
			reigns = append(reigns, reign{host: s.Host, samples: []Sample{s}})
			continue
		}
		if s.Host != current.host || !s.Serving || s.To-previous > maxBlind {
			flush()
		}
		if s.Serving {
			current.host, previous = s.Host, s.From
			current.samples = append(current.samples, s)
		}
	}
	flush()
	return reigns
}

// LastServing is the end of the last look that found host serving.
func LastServing(samples []Sample, host string) (time.Duration, bool) {
	var last time.Duration
	found := false
	for _, s := range samples {
		if s.Host == host && s.Serving {
			last, found = max(last, s.From), true
		}
	}
	return last, found
}

// FirstServing is the end of the first look sent after since that found host serving.
func FirstServing(samples []Sample, host string, since time.Duration) (time.Duration, bool) {
	var first time.Duration
	found := false
	for _, s := range samples {
		if s.Host == host && s.Serving && s.From >= since && (!found || s.To < first) {
			first, found = s.To, true
		}
	}
	return first, found
}

// Looks counts the samples of each host: a check that never looked proves nothing.
func Looks(samples []Sample) map[string]int {
	n := map[string]int{}
	for _, s := range samples {
		n[s.Host]++
	}
	return n
}
