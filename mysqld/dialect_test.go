package mysqld

import (
	"errors"
	"strings"
	"testing"
)

func TestMySQLVersions(t *testing.T) {
	t.Parallel()
	for version, known := range map[string]bool{
		"9.7.4": true, "8.4.3": true, "8.0.26": true, "8.0.36-28": true, "8.0.36-0ubuntu0.22.04.1": true, "8.1.0": true,
		"8.0.25": false, "5.7.44-log": false, "10.11.19-MariaDB": false, "": false, "8": false, "8.0.": false, "x.y.z": false,
	} {
		if err := knownMySQL(version); (err == nil) != known || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestMariaDBVersions(t *testing.T) {
	t.Parallel()
	for version, known := range map[string]bool{
		"10.11.19-MariaDB-0+deb12u1-log": true, "10.6.5-MariaDB": true, "11.8.2-MariaDB": true,
		"10.5.9-MariaDB": false, "8.0.36": false, "": false, "MariaDB": false,
	} {
		if err := knownMariaDB(version); (err == nil) != known || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestMySQLChange(t *testing.T) {
	t.Parallel()
	src := Source{Host: "10.0.0.1", Port: 3306}
	for _, appliesOn := range []bool{false, true} {
		statement, args := mysqlDialect{}.change(src, Config{ReplicationUser: "u", ReplicationPassword: "p"}, Status{}, appliesOn)
		if strings.Count(statement, "?") != len(args) || strings.Contains(statement, "AUTO_POSITION") == appliesOn {
			t.Errorf("applies on %v: %s", appliesOn, statement)
		}
	}
}

func TestEnableSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d    dialect
		acks int
		ok   bool
	}{{mariadb{}, 1, true}, {mariadb{}, 2, false}, {mariadb{}, 0, false}, {mysqlDialect{}, 2, true}, {mysqlDialect{}, 0, false}} {
		statements, err := c.d.enableSource(c.acks)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrAcks) {
			t.Errorf("%T with %d acks: %v", c.d, c.acks, err)
		}
		if c.ok && !strings.Contains(statements[len(statements)-1], "_enabled=1") {
			t.Errorf("%T is enabled before it is set up: %q", c.d, statements)
		}
	}
}

func TestGeneration(t *testing.T) {
	t.Parallel()
	var g generationTracker
	type seen struct{ receiver, applier uint64 }
	observe := func(s seen) string { return g.observe("run1", s.receiver, s.applier) }
	first := observe(seen{5, 6})
	for _, s := range []seen{{5, 6}, {0, 6}, {7, 6}, {7, 8}, {0, 8}, {9, 8}, {9, 0}, {9, 10}} {
		if got := observe(s); got != first {
			t.Fatalf("%+v: %q, but one thread ran throughout", s, got)
		}
	}
	second := observe(seen{11, 12})
	if second == first {
		t.Fatal("both threads are new")
	}
	if got := observe(seen{}); got != "" {
		t.Fatalf("both stopped: %q", got)
	}
	if got := observe(seen{11, 12}); got != second {
		// Numbers are never reused, so they cannot return after a stop; the
		// token is made of the applier's number and so is the same.
		t.Fatalf("%q, want %q", got, second)
	}
	if g.observe("run2", 11, 12) == second {
		t.Fatal("another run of the server has other relay logs")
	}
	var later generationTracker // this program was restarted
	if later.observe("run2", 13, 12) != g.observe("run2", 13, 12) {
		t.Fatal("the generation did not survive a restart of this program")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Dialect: "postgres", Socket: "/s", ManagerUser: "m"}, {Dialect: "mysql", ManagerUser: "m"}, {Dialect: "mariadb", Socket: "/s"},
	} {
		if s, err := Open(cfg); err == nil {
			s.Close()
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestKillable(t *testing.T) {
	t.Parallel()
	s := &Server{cfg: Config{ManagerUser: "m", ReplicationUser: "r"}}
	for _, c := range []struct {
		r    record
		want bool
	}{
		{record{"User": "app", "Command": "Sleep"}, true},
		{record{"User": "app", "Command": "Query", "State": "Sending data"}, true},
		{record{"User": "app", "Command": "Query", "State": "Waiting for semi-sync ACK from slave"}, false},
		{record{"User": "app", "Command": "Query", "State": "Waiting for semi-sync ACK from replica"}, false},
		{record{"User": "app", "Command": "Query", "State": "waiting for handler commit"}, false},
		{record{"User": "app", "Command": "Query", "State": "Commit"}, false},
		{record{"User": "x", "Command": "Binlog Dump GTID"}, false},
		{record{"User": "m", "Command": "Sleep"}, false},
		{record{"User": "r", "Command": "Sleep"}, false},
		{record{"User": "system user", "Command": "Slave_SQL"}, false},
		{record{"User": "app", "Command": "Daemon"}, false},
	} {
		if got := s.killable(c.r); got != c.want {
			t.Errorf("%v: %v", c.r, got)
		}
	}
}
