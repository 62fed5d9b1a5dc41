package main

import (
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

func TestProgressLine(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		what string
		r    api.Rebuild
		want string
	}{
		{"ordered and not begun", api.Rebuild{Phase: "waiting", From: "db2"}, "  waiting    from db2"},
		{"a quarter of it", api.Rebuild{Phase: "receiving", From: "db2", Percent: 25, Bytes: 100 * mib, Size: 400 * mib, Rate: 2 * mib, LeftSeconds: ptr(150.4)},
			"  receiving  from db2   25 %  100 of about 400 MiB  2 MiB/s  2m30s left"},
		{"no time has passed", api.Rebuild{Phase: "receiving", From: "db2", Percent: 25, Bytes: mib, Size: 4 * mib},
			"  receiving  from db2   25 %  1 of about 4 MiB"},
		{"the size is not known", api.Rebuild{Phase: "receiving", From: "db2", Bytes: 4 * mib, Rate: 2 * mib},
			"  receiving  from db2  4 MiB  2 MiB/s"},
		{"more than the size", api.Rebuild{Phase: "receiving", From: "db2", Percent: 99, Bytes: 8 * mib, Size: 4 * mib, Rate: 2 * mib},
			"  receiving  from db2   99 %  8 of about 4 MiB  2 MiB/s"},
		{"received", api.Rebuild{Phase: "preparing", From: "db2", Percent: 100, Bytes: 3 * mib, Size: 4 * mib},
			"  preparing  from db2  100 %  3 of about 4 MiB"},
	} {
		if got := progressLine(c.r); got != c.want {
			t.Errorf("%s:\n%q, want\n%q", c.what, got, c.want)
		}
	}
}
