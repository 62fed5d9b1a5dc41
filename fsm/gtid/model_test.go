package gtid

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// The model: a set as one bool for each (source, number). Slow, obvious, and
// independent of intervals.
type bitmap map[[2]int]bool

const (
	modelSources = 4 // two UUIDs, each untagged and with a tag
	modelNumbers = 24
)

func randomBitmap(r *rand.Rand) bitmap {
	m, density := bitmap{}, r.IntN(10)
	for s := range modelSources {
		for n := 1; n <= modelNumbers; n++ {
			if r.IntN(10) < density {
				m[[2]int{s, n}] = true
			}
		}
	}
	return m
}

// text writes the bitmap number by number, in a random order.
func (m bitmap) text(r *rand.Rand) string {
	var parts []string
	for key := range m {
		prefix := []string{u1, u1 + ":tag", u2, u2 + ":tag"}[key[0]]
		parts = append(parts, fmt.Sprintf("%s:%d", prefix, key[1]))
	}
	r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return strings.Join(parts, ",")
}

func (m bitmap) contains(o bitmap) bool {
	for key := range o {
		if !m[key] {
			return false
		}
	}
	return true
}

func (m bitmap) union(o bitmap) bitmap {
	u := bitmap{}
	for key := range m {
		u[key] = true
	}
	for key := range o {
		u[key] = true
	}
	return u
}

func (m bitmap) minus(o bitmap) bitmap {
	d := bitmap{}
	for key := range m {
		if !o[key] {
			d[key] = true
		}
	}
	return d
}

func TestMySQLAgreesWithBitmaps(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 1))
		ma, mb := randomBitmap(r), randomBitmap(r)
		if r.IntN(3) == 0 {
			mb = ma.minus(mb) // subsets are rare by chance
		}
		a, b := must(t, MySQL, ma.text(r)), must(t, MySQL, mb.text(r))
		if got, want := a.Contains(b), ma.contains(mb); got != want {
			t.Fatalf("seed %d: %s contains %s = %t, want %t", seed, a, b, got, want)
		}
		if got, want := a.Subtract(b), must(t, MySQL, ma.minus(mb).text(r)); got.String() != want.String() {
			t.Fatalf("seed %d: %s - %s = %s, want %s", seed, a, b, got, want)
		}
		u, err := Union(a, b)
		if want := must(t, MySQL, ma.union(mb).text(r)); err != nil || u.String() != want.String() {
			t.Fatalf("seed %d: union of %s and %s = %s, %v, want %s", seed, a, b, u, err, want)
		}
		checkLaws(t, a, b)
	}
}

// checkLaws holds for both flavors, forks included.
func checkLaws(t *testing.T, a, b Set) {
	t.Helper()
	if !a.Contains(a) || Compare(a, a) != Equal || !a.Subtract(a).IsEmpty() {
		t.Fatalf("%s is not equal to itself", a)
	}
	if a.Subtract(b).IsEmpty() != b.Contains(a) {
		t.Fatalf("%s - %s = %s, but contains says %t", a, b, a.Subtract(b), b.Contains(a))
	}
	mirror := map[Order]Order{Equal: Equal, Before: After, After: Before, Incomparable: Incomparable}
	if Compare(b, a) != mirror[Compare(a, b)] {
		t.Fatalf("Compare(%s, %s) is not the mirror of its reverse", a, b)
	}
	u, err := Union(a, b)
	if err != nil {
		return
	}
	v, err := Union(b, a)
	if err != nil || !u.Equal(v) || u.String() != v.String() {
		t.Fatalf("union of %s and %s depends on their order: %s, %s, %v", a, b, u, v, err)
	}
	if !u.Contains(a) || !u.Contains(b) {
		t.Fatalf("%s does not contain both %s and %s", u, a, b)
	}
	if got := u.Subtract(b); !a.Contains(got) {
		t.Fatalf("union minus b = %s is not within a = %s", got, a)
	}
}

// TestMariaDBAgreesWithHistories compares positions of one history (each number of
// a domain written by one server) with the set of transactions up to them.
func TestMariaDBAgreesWithHistories(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 2))
		writer := func(domain, n int) int { return 1 + (domain*7+n/5)%3 }
		random := func() (string, bitmap) {
			var parts []string
			m := bitmap{}
			for d := range 3 {
				last := r.IntN(modelNumbers)
				if last == 0 {
					continue
				}
				parts = append(parts, fmt.Sprintf("%d-%d-%d", d, writer(d, last), last))
				for n := 1; n <= last; n++ {
					m[[2]int{d, n}] = true
				}
			}
			return strings.Join(parts, ","), m
		}
		ta, ma := random()
		tb, mb := random()
		a, b := must(t, MariaDB, ta), must(t, MariaDB, tb)
		if got, want := a.Contains(b), ma.contains(mb); got != want {
			t.Fatalf("seed %d: %s contains %s = %t, want %t", seed, a, b, got, want)
		}
		u, err := Union(a, b)
		if err != nil {
			t.Fatalf("seed %d: one history has no fork: %v", seed, err)
		}
		if !u.Contains(a) || !u.Contains(b) || len(ma.union(mb)) != modelSize(u) {
			t.Fatalf("seed %d: union of %s and %s = %s", seed, a, b, u)
		}
		checkLaws(t, a, b)
	}
}

func modelSize(s Set) int {
	n := 0
	for _, p := range s.places {
		n += int(p.sequence)
	}
	return n
}

func TestMariaDBOrderIsTransitive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	random := func() Set {
		return must(t, MariaDB, fmt.Sprintf("0-%d-%d,1-%d-%d", 1+r.IntN(2), 1+r.IntN(4), 1+r.IntN(2), 1+r.IntN(4)))
	}
	for range 20000 {
		a, b, c := random(), random(), random()
		if a.Contains(b) && b.Contains(c) && !a.Contains(c) {
			t.Fatalf("%s holds %s, which holds %s, but not the first the last", a, b, c)
		}
		checkLaws(t, a, b)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "0-1-100", "0-1-1,1-2-3", u1 + ":1-3:7", u1 + ":1:tag:2-5," + u2 + ":9",
		"{" + u1 + "}:1", u1 + ":9223372036854775806", "0-1-18446744073709551615", u1 + ":1-", "--", ":::", ","} {
		f.Add(s, "0-1-5")
		f.Add(s, u1+":2-4")
	}
	f.Fuzz(func(t *testing.T, x, y string) {
		for _, flavor := range []Flavor{MySQL, MariaDB} {
			a, err := Parse(flavor, x)
			if err != nil {
				continue
			}
			again, err := Parse(flavor, a.String())
			if err != nil || again.String() != a.String() || !again.Equal(a) {
				t.Fatalf("round trip of %q: %q, %v", x, again, err)
			}
			b, err := Parse(flavor, y)
			if err != nil {
				continue
			}
			checkLaws(t, a, b)
		}
	})
}
