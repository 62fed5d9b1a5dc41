package gtid

import "testing"

func TestBehind(t *testing.T) {
	const u = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	for _, c := range []struct {
		flavor Flavor
		a, b   string
		want   uint64
	}{
		{MariaDB, "", "", 0},
		{MariaDB, "", "0-1-7", 7},
		{MariaDB, "0-1-100", "0-2-104", 4},
		{MariaDB, "0-1-104", "0-1-100", 0},
		{MariaDB, "0-1-100,1-1-5", "0-1-101,1-1-7", 3},
		{MySQL, u + ":1-10", u + ":1-12:20", 3},
		{MySQL, u + ":1-10", u + ":1-10", 0},
	} {
		a, errA := Parse(c.flavor, c.a)
		b, errB := Parse(c.flavor, c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if got := Behind(a, b); got != c.want {
			t.Errorf("%q is behind %q by %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
