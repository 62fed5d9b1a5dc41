package mysqld

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestEventState(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]EventState{"ENABLED": EventEnabled, "DISABLED": EventDisabled, "SLAVESIDE_DISABLED": EventOnSource, "REPLICA_SIDE_DISABLED": EventOnSource} {
		if got := eventState(word); got != want {
			t.Errorf("%s is %q, want %q", word, got, want)
		}
	}
}

func TestEventGrants(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{"8.0.36": "SET_USER_ID", "8.1.0": "SET_USER_ID", "8.2.0": "SET_ANY_DEFINER", "8.4.3": "SET_ANY_DEFINER", "9.7.4": "SET_ANY_DEFINER"} {
		if got := EventGrants("mysql", version); !slices.Contains(got, want) {
			t.Errorf("MySQL %s: %q", version, got)
		}
	}
}

// always is the right to send a statement.
func always() error { return nil }

// events are those of a server by name, and their states.
func (n *node) events() map[string]EventState {
	n.t.Helper()
	found, err := n.Events(testContext(n.t))
	n.must(err)
	out := map[string]EventState{}
	for _, e := range found {
		out[e.Schema+"."+e.Name] = e.State
	}
	return out
}

// definition is all that a server tells of an event but its state, who made it last and when.
func (n *node) definition(name string) string {
	n.t.Helper()
	query := "SELECT * FROM information_schema.EVENTS WHERE EVENT_SCHEMA='app' AND EVENT_NAME=?"
	r, err := row(testContext(n.t), n.boss, query, name)
	n.must(err)
	if r == nil {
		n.t.Fatalf("node %d has no event %s", n.id, name)
	}
	for _, column := range []string{"STATUS", "ORIGINATOR", "LAST_ALTERED", "CREATED", "LAST_EXECUTED"} {
		delete(r, column)
	}
	var out []string
	for _, column := range slices.Sorted(maps.Keys(r)) {
		out = append(out, column+"="+r[column])
	}
	return strings.Join(out, "\n")
}

// odd are events whose settings are not those of the manager's sessions, one with a definer that is no account.
var odd = []string{
	"SET SESSION sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES', time_zone='+05:30', character_set_client=latin1, collation_connection=latin1_german1_ci",
	"CREATE DEFINER='who ever'@'10.0.%' EVENT app.enabled ON SCHEDULE EVERY 1 HOUR STARTS '2031-02-03 04:05:06' COMMENT 'is kept' DO INSERT INTO app.t (v) VALUES ('ran')",
	"CREATE DEFINER=app@localhost EVENT app.disabled ON SCHEDULE EVERY 1 SECOND DISABLE DO INSERT INTO app.t (v) VALUES ('ran')",
	"CREATE DEFINER=app@localhost EVENT app.late ON SCHEDULE AT '2037-01-01 00:00:00' ON COMPLETION PRESERVE DO INSERT INTO app.t (v) VALUES ('ran')",
	"CREATE DEFINER=app@localhost EVENT app.dropped ON SCHEDULE EVERY 1 HOUR DO DO 0",
	"CREATE DEFINER=app@localhost EVENT app.\"\xfcn`bl\" ON SCHEDULE EVERY 1 HOUR DO DO 0", // in latin1, as the session
}

const umlaut = "ün`bl"

// createEvents makes them in one session of the administrator.
func (n *node) createEvents(statements ...string) {
	n.t.Helper()
	ctx := testContext(n.t)
	conn, err := n.boss.Conn(ctx)
	n.must(err)
	defer conn.Close()
	for _, statement := range statements {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			n.t.Fatalf("node %d: %s: %v", n.id, statement, err)
		}
	}
	if err := conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(err, driver.ErrBadConn) { // nobody else gets its settings
		n.t.Error(err)
	}
}

// TestEventsFollow: only the state of an event changes when it is enabled at the new source, and the former one takes it as disabled on its side.
func TestEventsFollow(t *testing.T) { eachServer(t, testEventsFollow) }

func testEventsFollow(t *testing.T, k *kind) {
	nodes := cluster(t, k, 2, true)
	source, replica := nodes[0], nodes[1]
	ctx := testContext(t)
	if list, err := replica.ListedEvents(ctx); err != nil || len(list) != 0 {
		t.Fatalf("a list that was never made: %v, %v", list, err)
	}
	if found := source.events(); len(found) != 0 {
		t.Fatalf("a new server has %v", found)
	}
	source.createEvents(odd...)
	names := []EventName{{"app", "dropped"}, {"app", "enabled"}, {"app", "gone"}, {"app", "late"}, {"app", umlaut}}
	source.must(source.ListEvents(ctx, names, nil, always))
	source.must(source.ListEvents(ctx, names[:1], []EventName{{"app", "gone"}}, always))
	was := source.events()
	if want := (map[string]EventState{"app.enabled": EventEnabled, "app.disabled": EventDisabled, "app.late": EventEnabled, "app.dropped": EventEnabled, "app." + umlaut: EventEnabled}); !maps.Equal(was, want) {
		t.Fatalf("the source has %v", was)
	}
	defined := map[string]string{}
	for _, name := range []string{"enabled", "disabled", "late", umlaut} {
		defined[name] = source.definition(name)
	}

	source.must(source.SetReadOnly(ctx))
	_, err := replica.BecomeSource(ctx, Promotion{Position: source.status().Executed, Acks: 1})
	replica.must(err)
	for name, state := range replica.events() {
		if state != EventOnSource {
			t.Errorf("at the replica %s is %s", name, state)
		}
	}
	source.must(source.ReplicaSemiSync(ctx, true)) // before it connects: a receiver that is just connecting may have asked already
	_, err = source.Follow(ctx, replica.source())
	source.must(err)
	source.connected(true)
	replica.must(replica.SetWritable(ctx))
	listed, err := replica.ListedEvents(ctx)
	replica.must(err)
	if len(listed) != 4 {
		t.Fatalf("the replica's list: %v", listed)
	}
	replica.sql("DROP EVENT app.dropped")
	for _, name := range listed {
		if enabled, err := replica.EnableEvent(ctx, name, always); err != nil || enabled == (name.Name == "dropped") {
			t.Errorf("enabling %s: %t, %v", name.Name, enabled, err)
		}
	}
	if enabled, err := replica.EnableEvent(ctx, names[1], always); err != nil || enabled {
		t.Errorf("enabling it again: %t, %v", enabled, err)
	}
	want := map[string]EventState{"app.enabled": EventEnabled, "app.disabled": EventOnSource, "app.late": EventEnabled, "app." + umlaut: EventEnabled}
	if got := replica.events(); !maps.Equal(got, want) {
		t.Errorf("the new source has %v", got)
	}
	for name, before := range defined {
		if after := replica.definition(name); after != before {
			t.Errorf("enabling changed %s:\n%s\nit was\n%s", name, after, before)
		}
	}
	source.must(source.Drain(ctx, replica.status().Executed))
	for name, state := range source.events() {
		if state == EventEnabled || name == "app.dropped" {
			t.Errorf("at the former source %s is %s", name, state)
		}
	}
}

// TestEventsNeedTheRight: nothing is sent without it, be it the node's or the account's.
func TestEventsNeedTheRight(t *testing.T) { eachServer(t, testEventsNeedTheRight) }

func testEventsNeedTheRight(t *testing.T, k *kind) {
	n := cluster(t, k, 1, false)[0]
	ctx := testContext(t)
	side := map[string]string{"mariadb": "DISABLE ON SLAVE", "mysql": "DISABLE ON REPLICA"}[k.dialect]
	name := EventName{"app", "e"}
	n.createEvents(odd[1], "CREATE DEFINER=app@localhost EVENT app.e ON SCHEDULE EVERY 1 HOUR "+side+" DO DO 0")
	before := n.status().Executed
	lost := errors.New("the lease is lost")
	never := func() error { return lost }
	if enabled, err := n.EnableEvent(ctx, name, never); enabled || !errors.Is(err, lost) {
		t.Errorf("without the right: %t, %v", enabled, err)
	}
	if err := n.ListEvents(ctx, []EventName{name}, nil, never); !errors.Is(err, lost) {
		t.Errorf("without the right: %v", err)
	}
	if after := n.status().Executed; after != before {
		t.Errorf("without the right it went from %s to %s", before, after)
	}
	n.must(n.ListEvents(ctx, []EventName{name}, nil, always)) // the table is there from here
	calls := 0
	second := func() error {
		if calls++; calls > 1 {
			return lost
		}
		return nil
	}
	n.must(n.ListEvents(ctx, []EventName{{"app", "enabled"}}, nil, second))
	if err := n.ListEvents(ctx, nil, []EventName{name}, second); !errors.Is(err, lost) {
		t.Errorf("without the right: %v", err)
	}
	if list, err := n.ListedEvents(ctx); err != nil || len(list) != 2 {
		t.Errorf("the list is %v, %v", list, err)
	}

	n.sql("REVOKE EVENT ON *.* FROM 'highbase'@'localhost'")
	_, err := n.EnableEvent(ctx, name, always)
	if k.dialect == "mysql" { // there it does not even see them
		_, err = n.Events(ctx)
	}
	if !errors.Is(err, ErrEventRights) || !strings.Contains(err.Error(), "GRANT EVENT ON *.* TO 'highbase'") {
		t.Errorf("without EVENT: %v", err)
	}
	f, err := n.Facts(ctx)
	if err != nil || !slices.Equal(f.MissingEventGrants, []string{"EVENT"}) || k.dialect == "mariadb" && f.Events != 2 {
		t.Errorf("facts without EVENT: %d, %q, %v", f.Events, f.MissingEventGrants, err)
	}
	if k.dialect == "mysql" {
		n.sql("GRANT EVENT ON *.* TO 'highbase'@'localhost'", "REVOKE SET_ANY_DEFINER ON *.* FROM 'highbase'@'localhost'")
		if _, err := n.EnableEvent(ctx, name, always); !errors.Is(err, ErrEventRights) || !strings.Contains(err.Error(), "lacks SET_ANY_DEFINER") {
			t.Errorf("without SET_ANY_DEFINER: %v", err)
		}
	}
	if state := n.events()["app.e"]; k.dialect == "mysql" && state != EventOnSource {
		t.Errorf("it is %s", state)
	}
}

// TestEventsWaitForNobodyLong: a lock that another session keeps ends the attempt, and nothing of it comes later.
func TestEventsWaitForNobodyLong(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := cluster(t, k, 1, false)[0]
		ctx := testContext(t)
		side := map[string]string{"mariadb": "DISABLE ON SLAVE", "mysql": "DISABLE ON REPLICA"}[k.dialect]
		n.createEvents(fmt.Sprintf("CREATE DEFINER=app@localhost EVENT app.e ON SCHEDULE EVERY 1 HOUR %s DO DO 0", side))
		conn, err := n.boss.Conn(ctx)
		n.must(err)
		defer conn.Close()
		_, err = conn.ExecContext(ctx, "FLUSH TABLES WITH READ LOCK")
		n.must(err)
		if enabled, err := n.EnableEvent(ctx, EventName{"app", "e"}, always); enabled || Classify(err) != FaultHung {
			t.Errorf("behind a global lock: %t, %v", enabled, err)
		}
		_, err = conn.ExecContext(ctx, "UNLOCK TABLES")
		n.must(err)
		if state := n.events()["app.e"]; state != EventOnSource {
			t.Errorf("it is %s", state)
		}
		if enabled, err := n.EnableEvent(ctx, EventName{"app", "e"}, always); !enabled || err != nil {
			t.Errorf("after the lock: %t, %v", enabled, err)
		}
	})
}
