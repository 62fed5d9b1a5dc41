package sandbox

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// at is a ledger with one writer's acknowledgements at the given milliseconds.
func at(ms ...int) *ledger {
	l := newLedger()
	for i, m := range ms {
		l.ackAt(rowKey{1, i + 1}, time.Duration(m)*time.Millisecond)
	}
	return l
}

func TestGap(t *testing.T) {
	for name, c := range map[string]struct {
		acks           []int
		from, to, want int // milliseconds
	}{
		"from the last before":                          {[]int{10, 20, 500, 510}, 25, 505, 480},
		"an ack between call and fault":                 {[]int{10, 20, 30, 500, 510}, 25, 505, 470},
		"to the first after":                            {[]int{10, 20, 500, 2000}, 25, 510, 1500},
		"what came long before or after does not count": {[]int{10, 900, 910, 950, 990, 5000}, 905, 960, 40},
		"none before":                                   {[]int{300, 310}, 0, 305, 300},
	} {
		if got := at(c.acks...).gap(time.Duration(c.from)*time.Millisecond, time.Duration(c.to)*time.Millisecond); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%s: %v, want %d ms", name, got, c.want)
		}
	}
}

// TestGapWithoutAnEnd: a silence that lasts is at least as long as it has lasted, and never hidden.
func TestGapWithoutAnEnd(t *testing.T) {
	if got := at(10, 20).gap(15*time.Millisecond, time.Hour); got != time.Hour-20*time.Millisecond {
		t.Errorf("got %v", got)
	}
	if got := at().gap(time.Minute, time.Hour); got != 59*time.Minute {
		t.Errorf("without any acknowledgement: %v", got)
	}
}

func TestMissingRows(t *testing.T) {
	l := at(1, 2, 3)
	l.note(true)
	l.note(false)
	present := map[rowKey]bool{{1, 1}: true, {1, 3}: true, {2, 9}: true} // one more than was acknowledged is no loss
	if got, want := l.missing(present), []Acknowledged{{1, 2, 2 * time.Millisecond}}; !reflect.DeepEqual(got, want) {
		t.Errorf("missing %v, want %v", got, want)
	}
	if got, want := l.total(), (LoadCounts{Acknowledged: 3, Refused: 1, Unknown: 1}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if got := l.between(2*time.Millisecond, 3*time.Millisecond); got != 1 {
		t.Errorf("%d acknowledgements in [2 ms, 3 ms), want 1", got)
	}
	copies := []Copy{{Lost: []Acknowledged{{1, 3, 3}, {1, 2, 2}}}, {}, {Lost: []Acknowledged{{1, 2, 2}, {2, 1, 1}}}}
	if got, want := Lost(copies), []Acknowledged{{2, 1, 1}, {1, 2, 2}, {1, 3, 3}}; !reflect.DeepEqual(got, want) {
		t.Errorf("lost %v, want %v", got, want)
	}
}

// TestRuledOut: an error after which the row may be committed must not count as a refusal.
func TestRuledOut(t *testing.T) {
	for number, want := range map[uint16]bool{1290: true, 1062: true, 1053: false, 1317: false, 1927: false} {
		if got := ruledOut(&mysql.MySQLError{Number: number}); got != want {
			t.Errorf("error %d rules the row out: %t, want %t", number, got, want)
		}
	}
	if ruledOut(errors.New("read tcp: i/o timeout")) || ruledOut(mysql.ErrInvalidConn) {
		t.Error("a lost connection rules the row out")
	}
}
