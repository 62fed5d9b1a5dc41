package transfer

import "time"

// pace keeps a stream from running faster than its rate on the whole. What a slow receiver leaves unused is not made up for later.
type pace struct {
	rate int64
	due  time.Time // when the bytes so far may have passed
}

func newPace(rate int64) *pace { return &pace{rate: rate, due: time.Now()} }

// wait returns when n more bytes may have passed; false if stop is closed first.
func (p *pace) wait(n int, stop <-chan struct{}) bool {
	if p.rate <= 0 {
		return true
	}
	if t := time.Now(); p.due.Before(t) {
		p.due = t
	}
	p.due = p.due.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	timer := time.NewTimer(time.Until(p.due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}
