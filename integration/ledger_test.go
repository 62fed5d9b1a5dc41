package integration

import (
	"slices"
	"testing"
	"time"
)

func TestLedgerFindsLostRows(t *testing.T) {
	l := NewLedger()
	acked, unknown, refused, read := Key{1, 1}, Key{1, 2}, Key{1, 3}, Key{1, 4}
	for _, k := range []Key{acked, unknown, refused, read} {
		l.Begin(k, "db1")
	}
	l.End(acked, Acked, "")
	l.End(unknown, Unknown, "connection lost")
	l.End(refused, Refused, "read only")
	l.End(read, Unknown, "connection lost")
	l.Read(1, 0, []int{1, 4}, l.Now(), "db1")

	all := map[Key]bool{acked: true, read: true}
	if lost := l.Lost(all); len(lost) != 0 {
		t.Errorf("rows of unknown outcome may be absent, but lost = %v", lost)
	}
	for _, k := range []Key{acked, read} {
		present := map[Key]bool{acked: true, read: true, unknown: true}
		delete(present, k)
		if lost := l.Lost(present); !slices.Equal(lost, []Key{k}) {
			t.Errorf("without %v: lost = %v", k, lost)
		}
	}
	if got := l.Invented(map[Key]bool{{2, 1}: true, acked: true}); !slices.Equal(got, []Key{{2, 1}}) {
		t.Errorf("invented = %v", got)
	}
	if got, want := l.Counts(), (Counts{Acked: 1, Refused: 1, Unknown: 2, Read: 2, Reads: 1}); got != want {
		t.Errorf("counts = %+v, want %+v", got, want)
	}
	if v := l.Violations(); len(v) != 0 {
		t.Errorf("violations = %v", v)
	}
}

func TestLedgerFindsStaleReads(t *testing.T) {
	begin := func() *Ledger {
		l := NewLedger()
		l.begin(Key{1, 1}, "db1", 0)
		l.end(Key{1, 1}, Acked, "", 10*ms)
		return l
	}
	l := begin()
	l.Read(1, 0, nil, 20*ms, "db2")
	if len(l.Violations()) != 1 {
		t.Error("a read sent after the acknowledgement missed the row, unnoticed")
	}
	l = begin()
	l.Read(1, 0, nil, 5*ms, "db2")
	if len(l.Violations()) != 0 {
		t.Errorf("a read sent before the acknowledgement may miss the row: %v", l.Violations())
	}
	l = begin()
	l.Read(1, 1, nil, 20*ms, "db2")
	if len(l.Violations()) != 0 {
		t.Errorf("the row is outside the read's range: %v", l.Violations())
	}
}

func TestLedgerFindsRowsThatVanish(t *testing.T) {
	l := NewLedger()
	l.Begin(Key{1, 1}, "db1")
	l.End(Key{1, 1}, Unknown, "connection lost")
	l.Read(1, 0, []int{1}, l.Now(), "db1")
	l.Read(1, 0, nil, l.Now()+time.Second, "db2")
	if len(l.Violations()) != 1 {
		t.Errorf("a row that was read vanished, unnoticed: %v", l.Violations())
	}
}

func TestSamplesAreOfKnownHosts(t *testing.T) {
	l := NewLedger()
	known, later, never := Key{1, 1}, Key{1, 2}, Key{1, 3}
	l.begin(known, "db1", 10*ms)
	l.begin(later, "", 20*ms)
	l.begin(never, "", 30*ms)
	for _, k := range []Key{known, later, never} {
		l.end(k, Acked, "", 40*ms)
	}
	l.EndedAt(later, "db2")
	var hosts []string
	for _, s := range l.Samples() {
		hosts = append(hosts, s.Host)
	}
	slices.Sort(hosts)
	if !slices.Equal(hosts, []string{"db1", "db2"}) {
		t.Errorf("samples of %v", hosts)
	}
	if lost := l.Lost(map[Key]bool{known: true, later: true}); !slices.Equal(lost, []Key{never}) {
		t.Errorf("lost = %v", lost)
	}
}

func TestWaitSince(t *testing.T) {
	l := NewLedger()
	for i, took := range []time.Duration{9 * ms, 1 * ms, 3 * ms, 2 * ms} {
		k, sent := Key{1, i + 1}, time.Duration(10*i)*ms
		l.begin(k, "db1", sent)
		l.end(k, Acked, "", sent+took)
	}
	l.begin(Key{1, 5}, "db1", 40*ms)
	l.end(Key{1, 5}, Unknown, "", 50*ms)
	if got := l.WaitSince(9 * ms); got != 2*ms {
		t.Errorf("the median of 1, 3 and 2 ms is %v", got)
	}
	if got := l.WaitSince(40 * ms); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestGap(t *testing.T) {
	l := NewLedger()
	for i, at := range []int{10, 20, 30, 35, 400, 410, 900} {
		l.begin(Key{1, i}, "db1", 0)
		l.end(Key{1, i}, Acked, "", time.Duration(at)*ms)
	}
	for _, c := range []struct {
		name     string
		from, to int
		want     int
		ok       bool
	}{
		{"last acknowledgement before to first after", 36, 420, 490, true},
		{"acknowledgements on their way when it happened", 32, 405, 365, true},
		{"nothing before", 0, 30, 10, true},
		{"the silence ends after the window", 415, 500, 490, true},
		{"never again", 950, 1500, 600, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := l.Gap(time.Duration(c.from)*ms, time.Duration(c.to)*ms)
			if got != time.Duration(c.want)*ms || ok != c.ok {
				t.Errorf("Gap = %v, %t; want %d ms, %t", got, ok, c.want, c.ok)
			}
		})
	}
}

func TestErrorsAndAcksInAWindow(t *testing.T) {
	l := NewLedger()
	l.begin(Key{1, 1}, "db1", 5*ms)
	l.end(Key{1, 1}, Unknown, "reset", 6*ms)
	l.begin(Key{1, 2}, "db1", 15*ms)
	l.end(Key{1, 2}, Acked, "", 20*ms)
	if n, example := l.Errors(0, 10*ms); n != 1 || example == "" {
		t.Errorf("Errors = %d, %q", n, example)
	}
	if n, _ := l.Errors(10*ms, 30*ms); n != 0 {
		t.Errorf("Errors = %d, want none", n)
	}
	if l.AckedSince(10*ms) != 1 || l.AckedSince(20*ms) != 0 {
		t.Error("AckedSince counts wrong")
	}
	if s := l.Samples(); len(s) != 1 || s[0] != (Sample{"db1", 15 * ms, 20 * ms, true}) {
		t.Errorf("Samples = %v", s)
	}
}
