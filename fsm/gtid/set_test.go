package gtid

import (
	"errors"
	"strings"
	"testing"
)

const (
	u1 = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	u2 = "4350f323-7565-4e59-8763-4b1b83a0ce0e"
)

func must(t *testing.T, f Flavor, s string) Set {
	t.Helper()
	set, err := Parse(f, s)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestParseCanonical(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Flavor
		in   string
		want string
	}{
		{"empty", MySQL, " \n", ""},
		{"empty position", MariaDB, "", ""},
		{"single", MySQL, u1 + ":5", u1 + ":5"},
		{"server's line breaks", MySQL, u2 + ":1-3,\n" + u1 + ":7", u1 + ":7," + u2 + ":1-3"},
		{"upper case", MySQL, strings.ToUpper(u1) + ":1", u1 + ":1"},
		{"no dashes", MySQL, strings.ReplaceAll(u1, "-", "") + ":1", u1 + ":1"},
		{"braces", MySQL, "{" + u1 + "}:1", u1 + ":1"},
		{"touching intervals merge", MySQL, u1 + ":4-6:1-3:8", u1 + ":1-6:8"},
		{"nested intervals merge", MySQL, u1 + ":1-9:3-4", u1 + ":1-9"},
		{"one source twice", MySQL, u1 + ":1," + u1 + ":2", u1 + ":1-2"},
		{"tags", MySQL, u1 + ":1-3:Deploy:5:1-2", u1 + ":1-3:deploy:1-2:5"},
		{"tag only", MySQL, u1 + ":_x9:1", u1 + ":_x9:1"},
		{"largest number", MySQL, u1 + ":9223372036854775806", u1 + ":9223372036854775806"},
		{"domains sort by number", MariaDB, "10-1-5, 9-2-3", "9-2-3,10-1-5"},
		{"sequence 0 is nothing", MariaDB, "0-1-0,1-1-1", "1-1-1"},
		{"largest", MariaDB, "4294967295-4294967295-18446744073709551615", "4294967295-4294967295-18446744073709551615"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := must(t, c.f, c.in).String(); got != c.want {
				t.Errorf("Parse(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Flavor
		in   string
	}{
		{"number 0", MySQL, u1 + ":0"},
		{"backwards", MySQL, u1 + ":5-3"},
		{"too large", MySQL, u1 + ":9223372036854775807"},
		{"overflow", MySQL, u1 + ":99999999999999999999"},
		{"no numbers", MySQL, u1},
		{"nothing after colon", MySQL, u1 + ":"},
		{"tag without numbers", MySQL, u1 + ":1:tag"},
		{"two tags", MySQL, u1 + ":one:two:1"},
		{"tag too long", MySQL, u1 + ":" + strings.Repeat("a", 33) + ":1"},
		{"short UUID", MySQL, u1[:35] + ":1"},
		{"dash moved", MySQL, "3e11fa4-771ca-11e1-9e33-c80aa9429562:1"},
		{"not hex", MySQL, "g" + u1[1:] + ":1"},
		{"trailing comma", MySQL, u1 + ":1,"},
		{"plus sign", MySQL, u1 + ":+1"},
		{"MariaDB text", MySQL, "0-1-100"},
		{"MySQL text", MariaDB, u1 + ":1"},
		{"two parts", MariaDB, "0-1"},
		{"four parts", MariaDB, "0-1-2-3"},
		{"negative", MariaDB, "-1-1-1"},
		{"domain too large", MariaDB, "4294967296-1-1"},
		{"binlog state", MariaDB, "0-1-100,0-2-101"},
		{"empty part", MariaDB, "0-1-100,"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := Parse(c.f, c.in); !errors.Is(err, ErrSyntax) {
				t.Errorf("Parse(%q) = %q, %v; want ErrSyntax", c.in, got, err)
			}
		})
	}
	if _, err := Parse("oracle", ""); !errors.Is(err, ErrFlavor) {
		t.Errorf("unknown flavor: %v", err)
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name   string
		f      Flavor
		a, b   string
		want   Order
		proven bool
	}{
		{"both empty", MariaDB, "", "", Equal, true},
		{"empty first", MariaDB, "", "0-1-1", Before, true},
		{"same server", MariaDB, "0-1-100", "0-1-101", Before, true},
		{"fork under one number", MariaDB, "0-1-101", "0-2-101", Incomparable, true},
		{"ordered by number, not proven", MariaDB, "0-1-100", "0-2-101", Before, false},
		{"second domain missing", MariaDB, "0-1-100,1-1-1", "0-1-100", After, true},
		{"domains cross", MariaDB, "0-1-100,1-1-1", "0-1-99,1-1-2", Incomparable, true},
		{"one domain unproven", MariaDB, "0-1-5,1-1-5", "0-1-6,1-2-6", Before, false},
		{"same set", MySQL, u1 + ":1-3", u1 + ":1:2:3", Equal, true},
		{"gap", MySQL, u1 + ":1-3:5", u1 + ":1-5", Before, true},
		{"errant", MySQL, u1 + ":1-5," + u2 + ":1", u1 + ":1-9", Incomparable, true},
		{"tag is another source", MySQL, u1 + ":1-3", u1 + ":t:1-3", Incomparable, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := must(t, c.f, c.a), must(t, c.f, c.b)
			if got := Compare(a, b); got != c.want {
				t.Errorf("Compare(%s, %s) = %s, want %s", a, b, got, c.want)
			}
			if got := Proven(a, b); got != c.proven {
				t.Errorf("Proven(%s, %s) = %t, want %t", a, b, got, c.proven)
			}
			if Proven(b, a) != c.proven {
				t.Error("Proven is not symmetric")
			}
		})
	}
}

func TestUnionAndSubtract(t *testing.T) {
	for _, c := range []struct {
		f                  Flavor
		a, b, union, minus string
	}{
		{MySQL, u1 + ":1-10", u1 + ":3:5-6", u1 + ":1-10", u1 + ":1-2:4:7-10"},
		{MySQL, u1 + ":1-2:9", u1 + ":3-8", u1 + ":1-9", u1 + ":1-2:9"},
		{MySQL, u1 + ":1-4:6-9", u1 + ":3-7," + u2 + ":1", u1 + ":1-9," + u2 + ":1", u1 + ":1-2:8-9"},
		{MySQL, u1 + ":1", "", u1 + ":1", u1 + ":1"},
		{MariaDB, "0-1-5,1-1-3", "0-1-7", "0-1-7,1-1-3", "1-1-3"},
		{MariaDB, "0-1-5", "1-1-1", "0-1-5,1-1-1", "0-1-5"},
	} {
		a, b := must(t, c.f, c.a), must(t, c.f, c.b)
		if got, err := Union(a, b); err != nil || got.String() != c.union {
			t.Errorf("Union(%s, %s) = %s, %v; want %s", a, b, got, err, c.union)
		}
		if got := a.Subtract(b).String(); got != c.minus {
			t.Errorf("%s - %s = %s, want %s", a, b, got, c.minus)
		}
		if a.String() != must(t, c.f, c.a).String() || b.String() != must(t, c.f, c.b).String() {
			t.Error("an operand was changed")
		}
	}
}

func TestForkHasNoUnion(t *testing.T) {
	a, b := must(t, MariaDB, "0-1-101"), must(t, MariaDB, "0-2-101")
	if got, err := Union(a, b); !errors.Is(err, ErrFork) {
		t.Errorf("Union = %s, %v; want ErrFork", got, err)
	}
}

func TestFlavorsDoNotMix(t *testing.T) {
	a, b := must(t, MariaDB, "0-1-1"), must(t, MySQL, u1+":1")
	if _, err := Union(a, b); !errors.Is(err, ErrFlavor) {
		t.Errorf("Union: %v, want ErrFlavor", err)
	}
	if a.Contains(b) || b.Contains(a) || Compare(a, b) != Incomparable {
		t.Error("sets of two flavors were ordered")
	}
	if got := a.Subtract(b); !got.Equal(a) {
		t.Errorf("Subtract = %s, want %s", got, a)
	}
	var zero Set
	if got, err := Union(zero, b); err != nil || !got.Equal(b) {
		t.Errorf("Union with the zero Set = %s, %v", got, err)
	}
	if !zero.Equal(must(t, MySQL, "")) || !a.Contains(zero) {
		t.Error("the zero Set is not the empty set")
	}
}

func TestWrittenBy(t *testing.T) {
	const a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
	for _, c := range []struct {
		flavor Flavor
		set    string
		by     string
		want   bool
	}{
		{MariaDB, "0-1-7", "1", true},
		{MariaDB, "0-1-7,3-1-2", "1", true},
		{MariaDB, "0-1-7,3-2-2", "1", false},
		{MariaDB, "0-11-7", "1", false},
		{MariaDB, "", "1", false},
		{MariaDB, "0-1-7", "", false},
		{MySQL, a + ":1-7", a, true},
		{MySQL, a + ":1-7:tag:3", "3E11FA47-71CA-11E1-9E33-C80AA9429562", true},
		{MySQL, a + ":1-7," + b + ":1", a, false},
		{MySQL, a + ":1-7", "", false},
	} {
		s, err := Parse(c.flavor, c.set)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.WrittenBy(c.by); got != c.want {
			t.Errorf("%q written by %q: %t", c.set, c.by, got)
		}
	}
}
