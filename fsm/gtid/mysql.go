package gtid

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxNumber is the largest transaction number MySQL gives out (2^63 - 2).
const maxNumber = 1<<63 - 2

// maxTag is the longest tag MySQL 8.3 and later accept, in characters.
const maxTag = 32

// interval is a closed range of transaction numbers, 1 <= first <= last <= maxNumber.
type interval struct{ first, last uint64 }

// track is what one source (UUID and tag) has written.
type track struct {
	uuid      string // 36 characters, lower case
	tag       string // lower case; empty for untagged
	intervals []interval
}

func (t track) compareKey(o track) int {
	return cmp.Or(cmp.Compare(t.uuid, o.uuid), cmp.Compare(t.tag, o.tag))
}

// parseMySQL reads "uuid:1-3:7[:tag:1-2...],...". As on the server a tag goes for the
// intervals after it, up to the next tag or UUID.
func parseMySQL(s string) ([]track, error) {
	var tracks []track
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		var err error
		if tracks, err = appendSource(tracks, strings.TrimSpace(part)); err != nil {
			return nil, err
		}
	}
	return mergeTracks(tracks), nil
}

func appendSource(tracks []track, s string) ([]track, error) {
	id, rest, ok := strings.Cut(s, ":")
	uuid, valid := canonicalUUID(strings.TrimSpace(id))
	if !ok || !valid {
		return nil, fmt.Errorf("%w: %q does not begin with a UUID and a colon", ErrSyntax, clip(s))
	}
	current := track{uuid: uuid}
	for part := range strings.SplitSeq(rest, ":") {
		part = strings.TrimSpace(part)
		if tag, ok := canonicalTag(part); ok {
			if len(current.intervals) == 0 && current.tag != "" {
				return nil, fmt.Errorf("%w: tag %q without numbers", ErrSyntax, current.tag)
			}
			tracks = append(tracks, current)
			current = track{uuid: uuid, tag: tag}
			continue
		}
		iv, err := parseInterval(part)
		if err != nil {
			return nil, err
		}
		current.intervals = append(current.intervals, iv)
	}
	if len(current.intervals) == 0 {
		return nil, fmt.Errorf("%w: %q ends without numbers", ErrSyntax, clip(s))
	}
	return append(tracks, current), nil
}

func parseInterval(s string) (interval, error) {
	from, to, isRange := strings.Cut(s, "-")
	first, err := parseNumber(strings.TrimSpace(from), 64)
	if err != nil {
		return interval{}, fmt.Errorf("%w: interval %q: %w", ErrSyntax, clip(s), err)
	}
	last := first
	if isRange {
		if last, err = parseNumber(strings.TrimSpace(to), 64); err != nil {
			return interval{}, fmt.Errorf("%w: interval %q: %w", ErrSyntax, clip(s), err)
		}
	}
	if first < 1 || last < first || last > maxNumber {
		return interval{}, fmt.Errorf("%w: interval %q is outside 1-%d or backwards", ErrSyntax, clip(s), uint64(maxNumber))
	}
	return interval{first, last}, nil
}

// canonicalUUID accepts the three forms MySQL does (with dashes, without, in braces).
func canonicalUUID(s string) (string, bool) {
	if len(s) == 38 && s[0] == '{' && s[37] == '}' {
		s = s[1:37]
	}
	s = strings.ToLower(s)
	if len(s) == 36 {
		if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
			return "", false
		}
		s = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	if len(s) != 32 {
		return "", false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:], true
}

// canonicalTag: a letter or underscore, then letters, digits, underscores.
func canonicalTag(s string) (string, bool) {
	if s == "" || len(s) > maxTag {
		return "", false
	}
	s = strings.ToLower(s)
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return "", false
		}
	}
	return s, true
}

func formatMySQL(tracks []track) string {
	var b strings.Builder
	for i, t := range tracks {
		if i == 0 || t.uuid != tracks[i-1].uuid {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(t.uuid)
		}
		if t.tag != "" {
			b.WriteByte(':')
			b.WriteString(t.tag)
		}
		for _, iv := range t.intervals {
			b.WriteByte(':')
			b.WriteString(strconv.FormatUint(iv.first, 10))
			if iv.last != iv.first {
				b.WriteByte('-')
				b.WriteString(strconv.FormatUint(iv.last, 10))
			}
		}
	}
	return b.String()
}

// mergeTracks sorts, joins tracks of one key and drops empty ones. It may reuse
// the outer slice it is given, never the intervals of another Set.
func mergeTracks(tracks []track) []track {
	slices.SortStableFunc(tracks, track.compareKey)
	var merged []track
	for _, t := range tracks {
		if n := len(merged); n > 0 && merged[n-1].compareKey(t) == 0 {
			merged[n-1].intervals = append(merged[n-1].intervals, t.intervals...)
			continue
		}
		t.intervals = slices.Clone(t.intervals)
		merged = append(merged, t)
	}
	for i := range merged {
		merged[i].intervals = mergeIntervals(merged[i].intervals)
	}
	return slices.DeleteFunc(merged, func(t track) bool { return len(t.intervals) == 0 })
}

// mergeIntervals returns a new, sorted slice in which no two intervals touch.
func mergeIntervals(ivs []interval) []interval {
	sorted := slices.Clone(ivs)
	slices.SortFunc(sorted, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	var merged []interval
	for _, iv := range sorted {
		if n := len(merged); n > 0 && iv.first <= merged[n-1].last+1 {
			merged[n-1].last = max(merged[n-1].last, iv.last)
			continue
		}
		merged = append(merged, iv)
	}
	return merged
}

func unionTracks(a, b []track) []track { return mergeTracks(slices.Concat(a, b)) }

func containsTracks(a, b []track) bool { return len(subtractTracks(b, a)) == 0 }

func subtractTracks(a, b []track) []track {
	var rest []track
	for _, t := range a {
		if i, ok := slices.BinarySearchFunc(b, t, track.compareKey); ok {
			t.intervals = subtractIntervals(t.intervals, b[i].intervals)
		}
		if len(t.intervals) > 0 {
			rest = append(rest, t)
		}
	}
	return rest
}

// subtractIntervals walks both sorted lists once.
func subtractIntervals(a, b []interval) []interval {
	var rest []interval
	i := 0
	for _, iv := range a {
		for i < len(b) && b[i].last < iv.first {
			i++
		}
		first := iv.first
		// j, not i: the last interval of b met here may reach into the next of a.
		for j := i; j < len(b) && b[j].first <= iv.last; j++ {
			if b[j].first > first {
				rest = append(rest, interval{first, b[j].first - 1})
			}
			first = b[j].last + 1
		}
		if first <= iv.last {
			rest = append(rest, interval{first, iv.last})
		}
	}
	return rest
}

// clip keeps a server's text short in an error.
func clip(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:64] + "..."
}
