package gtid

// Behind is how many transactions of b are not in a. On MariaDB it is the difference of the sequence numbers, domain by domain: an estimate that is
// right within one history, and 0 where a is ahead.
func Behind(a, b Set) uint64 {
	var n uint64
	for _, q := range b.places {
		p, _ := place(a.places, q.domain)
		if q.sequence > p.sequence {
			n += q.sequence - p.sequence
		}
	}
	for _, t := range b.Subtract(a).tracks {
		for _, iv := range t.intervals {
			n += iv.last - iv.first + 1
		}
	}
	return n
}
