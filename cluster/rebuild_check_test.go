package cluster

import (
	"testing"

	"github.com/highbase/highbase/fsm"
)

// TestSourceLacks: a copy is taken for binary logs that are gone, and not because a source cannot read those it has.
func TestSourceLacks(t *testing.T) {
	const u = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	for _, c := range []struct {
		server           string
		errno            int
		executed, purged string
		want             bool
	}{
		{"mariadb", 1236, "0-1-7", "", true},
		{"mariadb", 0, "0-1-7", "", false},
		{"mysql", 13114, u + ":1-5", u + ":1-9", true},
		{"mysql", 13114, u + ":1-9", u + ":1-5", false},
		{"mysql", 13114, u + ":1-9", "", false},
		{"mysql", 1236, u + ":1-5", u + ":1-9", false},
	} {
		if got := sourceLacks(c.server, fsm.ServerStatus{IOErrno: c.errno, Executed: c.executed}, c.purged); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// TestDonorIsLetThrough: this host's own block, left by an older freeze, would keep a copy out that mysqld fetches itself.
func TestDonorIsLetThrough(t *testing.T) {
	u := newUnitAs(t, "db2")
	u.steady("db1")
	m, _ := u.store.State().Member("db1")
	addr := u.w.hosts["db1"].addr
	if err := u.cfg.Addresser.Block(addr); err != nil {
		t.Fatal(err)
	}
	u.rebuilds.letThrough(nil)
	if !u.blocks(addr) {
		t.Error("without a donor somebody was let through")
	}
	u.rebuilds.letThrough(&m)
	if u.blocks(addr) {
		t.Error("the donor stays blocked")
	}
}
