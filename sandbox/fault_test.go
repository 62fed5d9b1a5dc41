package sandbox_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/sandbox"
)

// TestBare sees the effect of every fault that needs no hbd, and that it can be undone.
func TestBare(t *testing.T) {
	sb := up(t, sandbox.Options{Name: "bare", Bare: true, Nodes: 2})
	t.Run("hosts", func(t *testing.T) { testHosts(t, sb) })
	t.Run("exec", func(t *testing.T) { testExec(t, sb) })
	t.Run("cut", func(t *testing.T) { testCut(t, sb) })
	t.Run("partition", func(t *testing.T) { testPartition(t, sb) })
	t.Run("oneway", func(t *testing.T) { testOneway(t, sb) })
	t.Run("freeze", func(t *testing.T) { testFreeze(t, sb) })
	t.Run("mysqld", func(t *testing.T) { testMysqld(t, sb) })
	t.Run("kill-host", func(t *testing.T) { testKillHost(t, sb) })
	t.Run("heal-all", func(t *testing.T) { testHealAll(t, sb) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, sb) })
}

func testHosts(t *testing.T, sb *sandbox.Sandbox) {
	db1 := hostOf(t, sb, "db1")
	if db1.PIDs.Mysqld == 0 || db1.PIDs.HBD != 0 || db1.State != sandbox.StateRunning {
		t.Fatalf("db1 is %+v", db1)
	}
	if got := sh(t, sb, "db1", "hostname; ls /sys/class/net; ps -e -o comm= | grep -c mariadbd"); got != "db1\neth0\nlo\n1" {
		t.Errorf("on db1: %q", got)
	}
	got := sh(t, sb, "db2", "mariadb -NBe 'SELECT @@server_id, @@read_only, @@gtid_binlog_pos, @@rpl_semi_sync_master_enabled, user()'")
	if got != "2\t1\t\t0\troot@localhost" {
		t.Errorf("db2's server says %q", got)
	}
	if got := query(t, sb, "client", "db1:3306", "SELECT CONCAT(CURRENT_USER(), DATABASE())"); got != "app@%app" {
		t.Errorf("from the client: %q", got)
	}
	ns, err := sb.Netns(t.Context(), "db1")
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(ns)
	if inside := sh(t, sb, "db1", "readlink /proc/self/ns/net"); err != nil || link != inside {
		t.Errorf("Netns leads to %s, %v; db1 is in %s", link, err, inside)
	}
}

func testExec(t *testing.T, sb *sandbox.Sandbox) {
	var out strings.Builder
	exit, err := sb.Exec(t.Context(), "db1", []string{"sh", "-c", "cat; exit 7"}, strings.NewReader("hello"), &out, nil)
	if exit != 7 || err != nil || out.String() != "hello" {
		t.Errorf("exit %d, %v, output %q", exit, err, out.String())
	}
	if exit, err := sb.Exec(t.Context(), "db1", []string{"sh", "-c", "kill -9 $$"}, nil, nil, nil); exit != 137 || err != nil {
		t.Errorf("a killed command: exit %d, %v", exit, err)
	}
	if _, err := sb.Exec(t.Context(), "db1", []string{"no-such-command"}, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("an unknown command: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := sb.Exec(ctx, "db1", []string{"sleep", "4242"}, nil, nil, nil)
		done <- err
	}()
	sleeping := func() bool { return sh(t, sb, "db1", "ps ax | grep -c '[s]leep 4242' || true") == "1" }
	await(t, "the command runs", sleeping)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled command: %v", err)
	}
	await(t, "the cancelled command is gone", func() bool { return !sleeping() })
}

func testCut(t *testing.T, sb *sandbox.Sandbox) {
	if !connects(t, sb, "client", "db1") {
		t.Fatal("no connection before the fault")
	}
	fault(t, sb, "cut", "db1")
	if got := sh(t, sb, "db1", "cat /sys/class/net/eth0/carrier; ip -o addr show eth0 | grep -c 10.77"); got != "0\n1" {
		t.Errorf("carrier and addresses of a cut host: %q", got)
	}
	if connects(t, sb, "client", "db1") || !connects(t, sb, "client", "db2") {
		t.Error("cut db1 does not stop db1, and only db1")
	}
	fault(t, sb, "heal", "db1")
	await(t, "db1 is back", func() bool { return connects(t, sb, "client", "db1") })
}

func testPartition(t *testing.T, sb *sandbox.Sandbox) {
	fault(t, sb, "partition", "db1/db2")
	if connects(t, sb, "db1", "db2") || connects(t, sb, "db2", "db1") {
		t.Error("packets pass between the sides")
	}
	if !connects(t, sb, "client", "db1") || !connects(t, sb, "client", "db2") {
		t.Error("a host in neither group lost its links")
	}
	fault(t, sb, "heal", "db2")
	await(t, "the sides meet again", func() bool { return connects(t, sb, "db1", "db2") })
}

// segments is how many TCP segments a host has received.
func segments(t *testing.T, sb *sandbox.Sandbox, host string) int {
	t.Helper()
	n, err := strconv.Atoi(sh(t, sb, host, "awk '/^Tcp:/ {v = $11} END {print v}' /proc/net/snmp"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testOneway(t *testing.T, sb *sandbox.Sandbox) {
	fault(t, sb, "oneway", "db1", "db2")
	before := segments(t, sb, "db2")
	if connects(t, sb, "db1", "db2") || segments(t, sb, "db2") != before {
		t.Error("db1's packets reach db2")
	}
	before = segments(t, sb, "db1")
	if connects(t, sb, "db2", "db1") {
		t.Error("a connection whose answers are lost came about")
	}
	if segments(t, sb, "db1") == before {
		t.Error("db2's packets do not reach db1: more than one way is closed")
	}
	// An address that nobody knows yet, so that ARP has to ask: the question of db1 must not arrive either.
	sh(t, sb, "db1", "ip neigh flush dev eth0")
	sh(t, sb, "db2", "ip neigh flush dev eth0")
	if connects(t, sb, "db1", "db2") || strings.Contains(sh(t, sb, "db2", "ip neigh"), hostOf(t, sb, "db1").Address) {
		t.Error("db2 has heard an ARP question of db1")
	}
	fault(t, sb, "heal-all")
	await(t, "both ways are open", func() bool { return connects(t, sb, "db1", "db2") })
}

// greets reports whether the server says hello on a new connection: whether it is alive and not just its kernel.
func greets(t *testing.T, sb *sandbox.Sandbox, host string) bool {
	t.Helper()
	conn, err := sb.Dial(t.Context(), "client", "tcp", host+":3306")
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}

func testFreeze(t *testing.T, sb *sandbox.Sandbox) {
	db1 := hostOf(t, sb, "db1")
	if !greets(t, sb, "db1") {
		t.Fatal("no greeting before the fault")
	}
	fault(t, sb, "freeze", "db1")
	if s := stateOf(t, db1.PIDs.Mysqld); s != "T" {
		t.Errorf("the server is in state %s", s)
	}
	if !connects(t, sb, "client", "db1") || greets(t, sb, "db1") {
		t.Error("want a kernel that connects and a server that says nothing")
	}
	if _, err := sb.Exec(t.Context(), "db1", []string{"true"}, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("a command on a frozen host: %v", err)
	}
	if got := hostOf(t, sb, "db1").State; got != sandbox.StateFrozen {
		t.Errorf("state %s", got)
	}
	wantError(t, sb, "db1 is frozen", "freeze", "db1")
	fault(t, sb, "thaw", "db1")
	await(t, "the server greets again", func() bool { return greets(t, sb, "db1") })
}

func testMysqld(t *testing.T, sb *sandbox.Sandbox) {
	fault(t, sb, "pause-mysqld", "db1")
	if greets(t, sb, "db1") {
		t.Error("a paused server greets")
	}
	fault(t, sb, "resume-mysqld", "db1")
	await(t, "the server greets again", func() bool { return greets(t, sb, "db1") })

	before := hostOf(t, sb, "db1")
	fault(t, sb, "kill-mysqld", "db1")
	if now := hostOf(t, sb, "db1").PIDs.Mysqld; now != 0 {
		t.Errorf("the server lives on as %d", now)
	}
	fault(t, sb, "break-mysqld", "db1")
	fault(t, sb, "start-mysqld", "db1")
	await(t, "the start has failed and said why", func() bool {
		text, err := os.ReadFile(before.Log)
		return err == nil && strings.Contains(string(text), "highbase_sandbox_made_this_start_fail") &&
			hostOf(t, sb, "db1").PIDs.Mysqld == 0
	})
	fault(t, sb, "mend-mysqld", "db1")
	fault(t, sb, "start-mysqld", "db1")
	await(t, "the server greets again", func() bool { return greets(t, sb, "db1") })
}

func testKillHost(t *testing.T, sb *sandbox.Sandbox) {
	sh(t, sb, "db1", "mariadb -e 'CREATE TABLE app.kept (a INT); INSERT INTO app.kept VALUES (42)'")
	mac := sh(t, sb, "db1", "cat /sys/class/net/eth0/address")
	before := hostOf(t, sb, "db1")
	conn, err := sb.Dial(t.Context(), "client", "tcp", "db1:3306")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	fault(t, sb, "kill-host", "db1")
	if now := hostOf(t, sb, "db1"); now.State != sandbox.StateDown || now.PIDs.Mysqld != 0 {
		t.Errorf("a killed host is %+v", now)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(before.PIDs.Mysqld)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the server's process: %v", err)
	}
	// Power loss: an open connection hears nothing, neither FIN nor RST.
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the open connection heard %v", err)
	}
	wantError(t, sb, "db1 is down", "kill-mysqld", "db1")
	wantError(t, sb, "db1 is down already", "kill-host", "db1")
	fault(t, sb, "start-host", "db1")
	await(t, "the server greets again", func() bool { return greets(t, sb, "db1") })
	if now := sh(t, sb, "db1", "cat /sys/class/net/eth0/address"); now != mac {
		t.Errorf("the MAC is %s, was %s", now, mac)
	}
	if got := query(t, sb, "client", "db1:3306", "SELECT a FROM kept"); got != "42" {
		t.Errorf("the committed row reads %q", got)
	}
	wantError(t, sb, "db1 is up already", "start-host", "db1")
}

// testHealAll breaks everything at once.
func testHealAll(t *testing.T, sb *sandbox.Sandbox) {
	fault(t, sb, "partition", "db1/db2,client")
	fault(t, sb, "cut", "db2")
	fault(t, sb, "break-mysqld", "db2")
	fault(t, sb, "kill-mysqld", "db2")
	fault(t, sb, "freeze", "db2")
	fault(t, sb, "kill-host", "db1")
	fault(t, sb, "heal-all")
	for _, host := range []string{"db1", "db2"} {
		await(t, host+" greets again", func() bool { return greets(t, sb, host) })
	}
	if !connects(t, sb, "db1", "db2") {
		t.Error("db1 and db2 are still parted")
	}
}

func testRefusals(t *testing.T, sb *sandbox.Sandbox) {
	for _, c := range []struct {
		words string
		fault []string
	}{
		{`unknown fault "explode"`, []string{"explode", "db1"}},
		{`no host "db7"`, []string{"cut", "db7"}},
		{"cut takes 1 arguments (HOST), got 0", []string{"cut"}},
		{"want groups separated by /", []string{"partition", "db1,db2"}},
		{"names db1 twice", []string{"partition", "db1/db2,db1"}},
		{"want two hosts", []string{"oneway", "db1", "db1"}},
		{"use up --disk-size", []string{"fill-disk", "db1"}},
		{"client has no database server", []string{"break-mysqld", "client"}},
		{"runs no hbd on db1", []string{"stop-hbd", "db1"}},
	} {
		wantError(t, sb, c.words, c.fault[0], c.fault[1:]...)
		if err := sb.Fault(t.Context(), c.fault[0], c.fault[1:]...); !errors.Is(err, sandbox.ErrUsage) {
			t.Errorf("%v: %v does not wrap ErrUsage", c.fault, err)
		}
	}
	wantError(t, sb, "db1 is not frozen", "thaw", "db1")
	wantError(t, sb, "db1 does not hold the VIP", "drop-vip", "db1")
}
