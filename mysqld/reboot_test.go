package mysqld

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMySQLBootsSafeWithoutUs: somebody else starts the server after a crash, without the options of our own starts. What MendSettings has persisted keeps
// it read-only and its replication stopped.
func TestMySQLBootsSafeWithoutUs(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "nothing can be persisted there")
		nodes := cluster(t, k, 2, false)
		source, replica := nodes[0], nodes[1]

		// The control: as long as nothing is persisted it comes up writable, and replicates.
		replica.startedByOthers()
		replica.eventually("replicating by itself", func() bool { return replica.threadsOn() == 2 })
		if replica.readOnlyNow() {
			t.Fatal("it comes up read-only although nothing was persisted: the test shows nothing")
		}
		replica.must(replica.SetReadOnly(testContext(t)))
		replica.must(replica.MendSettings(testContext(t)))
		source.must(source.MendSettings(testContext(t))) // a primary, writable now and not at its next start
		if source.readOnlyNow() {
			t.Fatal("what was persisted took effect at once on a primary")
		}

		for _, n := range nodes {
			n.startedByOthers()
			if !n.readOnlyNow() {
				t.Errorf("node %d is writable", n.id)
			}
			if on := n.threadsOn(); on != 0 {
				t.Errorf("node %d has %d threads of replication running", n.id, on)
			}
			if err := n.insert(testContext(t), 1); serverErrorNumber(err) != 1290 {
				t.Errorf("a client writes on node %d: %v", n.id, err)
			}
		}
		// Only stopped, not forgotten.
		if !replica.status().HasReplication {
			t.Error("the replica has no source any more")
		}
	})
}

// startedByOthers kills the server and starts it with nothing but its own configuration.
func (n *node) startedByOthers() {
	n.t.Helper()
	n.must(n.service.Kill(testContext(n.t)))
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	n.must(err)
	defer log.Close()
	options := filepath.Join(n.dir, "my.cnf")
	n.must(os.WriteFile(options, nil, 0o600))
	args := n.command("--pid-file="+filepath.Join(n.dir, "pid"), "--plugin-load-add=semisync_source.so;semisync_replica.so")
	args[1] = "--defaults-file=" + options // with --no-defaults MySQL leaves out what was persisted, too
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	n.must(cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been killed before
		<-ended
	})
	err = poll(testContext(n.t), func() (bool, error) { return n.boss.PingContext(testContext(n.t)) == nil, nil })
	n.must(err)
}

func (n *node) readOnlyNow() bool {
	n.t.Helper()
	now, err := row(testContext(n.t), n.boss, "SELECT @@GLOBAL.read_only AS ro, @@GLOBAL.super_read_only AS super")
	n.must(err)
	if now.yes("ro") != now.yes("super") {
		n.t.Errorf("node %d: read_only and super_read_only differ: %v", n.id, now)
	}
	return now.yes("ro") && now.yes("super")
}

// threadsOn counts receivers and coordinators that run, or try to.
func (n *node) threadsOn() int {
	n.t.Helper()
	on, err := row(testContext(n.t), n.boss, "SELECT (SELECT COUNT(*) FROM performance_schema.replication_connection_status WHERE SERVICE_STATE<>'OFF') + "+
		"(SELECT COUNT(*) FROM performance_schema.replication_applier_status WHERE SERVICE_STATE<>'OFF') AS threads")
	n.must(err)
	return int(on.number("threads"))
}
