package gtid

import (
	"errors"
	"strings"
	"testing"
)

func TestHistoryTellsBranchesApart(t *testing.T) {
	for _, c := range []struct {
		name, history, position string
		want                    bool
	}{
		{"nothing", "", "", true},
		{"prefix of one writer", "0-1-104", "0-1-103", true},
		{"another server went on", "0-1-104,0-2-110", "0-1-104", true},
		{"a tail that another server wrote over", "0-1-104,0-2-110", "0-1-105", false},
		{"a writer never seen", "0-2-110", "0-1-3", false},
		{"the same writer came back", "0-1-120,0-2-110", "0-1-105", true},
		{"another domain", "0-1-104", "1-1-3", false},
		{"a position appended", "0-2-110,0-1-104", "0-1-104", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := ParseHistory(MariaDB, c.history)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Parse(MariaDB, c.position)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.Holds(p); got != c.want {
				t.Errorf("history %q holds %q: %v, want %v", c.history, c.position, got, c.want)
			}
		})
	}
	// The control: by position alone the overwritten tail looks held.
	after, _ := Parse(MariaDB, "0-2-110")
	tail, _ := Parse(MariaDB, "0-1-105")
	if !after.Contains(tail) || Proven(after, tail) {
		t.Error("positions alone are expected to be blind to the branch, and to say so")
	}
	if _, err := ParseHistory(MariaDB, "0-1"); !errors.Is(err, ErrSyntax) {
		t.Errorf("bad text: %v", err)
	}
}

func TestHistoryLacks(t *testing.T) {
	for _, c := range []struct{ name, flavor, history, other, want string }{
		{"a good replica", "mariadb", "0-1-104", "0-1-100", ""},
		{"written on the replica", "mariadb", "0-1-104", "0-1-100,0-3-101", "0-3-101"},
		{"hidden behind a later one", "mariadb", "0-1-104", "0-3-101,0-1-104", "0-3-101"},
		{"another domain", "mariadb", "0-1-104", "0-1-104,5-3-1", "5-3-1"},
		{"of two writers", "mariadb", "0-1-90,0-2-104", "0-1-95,0-2-103", "0-1-95"},
		{"named twice", "mariadb", "0-1-1", "0-2-3,0-2-3", "0-2-3"},
		{"a good replica", "mysql", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", ""},
		{"written on the replica", "mysql", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1", "4e11fa47-71ca-11e1-9e33-c80aa9429562:1"},
	} {
		t.Run(c.flavor+"/"+c.name, func(t *testing.T) {
			h, err := ParseHistory(Flavor(c.flavor), c.history)
			if err != nil {
				t.Fatal(err)
			}
			o, err := ParseHistory(Flavor(c.flavor), c.other)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(h.Lacks(o), ","); got != c.want {
				t.Errorf("lacks %q, want %q", got, c.want)
			}
		})
	}
}
