package sandbox

import "testing"

// TestEnding: a server that is not found any more has ended for whoever starts it again, also before it is a zombie.
func TestEnding(t *testing.T) {
	for _, c := range []struct {
		p    process
		want bool
	}{
		{process{state: 'S', argv: []string{"mariadbd", "--defaults-file=my.cnf"}}, false},
		{process{state: 'R', argv: []string{"mariadbd"}}, false},
		{process{state: 'R', argv: []string{""}}, true},
		{process{state: 'Z', argv: []string{""}}, true},
		{process{state: 'X', argv: []string{"mariadbd"}}, true},
	} {
		if got := c.p.ending(); got != c.want {
			t.Errorf("%+v: %t", c.p, got)
		}
		if c.p.ending() && findByArgument([]process{c.p}, "my.cnf", 0) != 0 {
			t.Errorf("%+v has ended and is found", c.p)
		}
	}
}
