//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
	"github.com/highbase/highbase/sandbox"
)

// benchMegabytes of rows are copied; HIGHBASE_BENCH_MB overrides it.
const benchMegabytes = 256

// TestBenchRebuild measures the throughput of a rebuild, from the first byte to where the server can be started on the copy, against the
// server's own tool run by hand: mariadb-backup through a pipe, or CLONE into a directory. It runs without other load.
func TestBenchRebuild(t *testing.T) {
	runs := benchRuns(t, 2)
	megabytes := benchMegabytes
	if v := os.Getenv("HIGHBASE_BENCH_MB"); v != "" {
		var err error
		if megabytes, err = strconv.Atoi(v); err != nil || megabytes < 1 {
			t.Fatalf("HIGHBASE_BENCH_MB = %q: want a number above 0", v)
		}
	}
	needsBackupTool(t)
	g := newGroup(t, sandbox.Options{})
	c := g.ensure(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	s := &scenario{T: t, Cluster: c, ctx: ctx}
	var byHand, byHBD []float64
	for n := range runs {
		var err error
		if s.before, err = c.AwaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			s.fill(megabytes)
		}
		// In turns: a node that was just rebuilt is left alone for a while.
		replicas := s.others(s.primary())
		victim := replicas[n%len(replicas)]
		size, took := s.copyByHand(s.primary(), victim)
		byHand = append(byHand, size/took.Seconds()/1e6)
		took = s.timedRebuild(victim)
		byHBD = append(byHBD, size/took.Seconds()/1e6)
		t.Logf("run %d, %.0f MB to %s: %.0f MB/s by hand, %.0f MB/s by hbd, ratio %.2f", n+1, size/1e6, victim, byHand[n], byHBD[n], byHBD[n]/byHand[n])
	}
	fmt.Printf("\n%s: copying %d MB of rows, MB/s by hand %s, by hbd %s\n", server(), megabytes, spread(byHand, "%.0f"), spread(byHBD, "%.0f"))
}

// fill writes rows that do not compress, and waits until every replica has them.
func (s *scenario) fill(megabytes int) {
	s.Helper()
	db := s.manager(s.primary())
	defer db.Close()
	create := "CREATE TABLE highbase.bulk (id INT AUTO_INCREMENT PRIMARY KEY, body LONGBLOB) ENGINE=InnoDB"
	if _, err := db.ExecContext(s.ctx, create); err != nil {
		s.Fatal(err)
	}
	for range megabytes {
		if _, err := db.ExecContext(s.ctx, "INSERT INTO highbase.bulk (body) VALUES (REPEAT(RANDOM_BYTES(1024), 1024))"); err != nil {
			s.Fatal(err)
		}
	}
	if err := s.awaitCaughtUp(s.ctx, s.primary()); err != nil {
		s.Fatal(err)
	}
}

// copyByHand copies the donor's data to a directory beside the target's own and prepares it, as a person would. The size is what has arrived.
func (s *scenario) copyByHand(donor, target string) (size float64, took time.Duration) {
	s.Helper()
	from, to := s.host(donor), s.host(target)
	dir := filepath.Join(filepath.Dir(to.Datadir), "by-hand")
	began := time.Now()
	if s.Flavor() == gtid.MySQL {
		user, password := s.ReplicationAccount()
		s.asManager(target, fmt.Sprintf("SET GLOBAL clone_valid_donor_list='%s:%d'", from.Address, from.MySQLPort),
			fmt.Sprintf("CLONE INSTANCE FROM '%s'@'%s':%d IDENTIFIED BY '%s' DATA DIRECTORY='%s'", user, from.Address, from.MySQLPort, password, dir))
	} else {
		s.pipeBackup(from, to, dir)
	}
	took = time.Since(began)
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			size += float64(info.Size())
		}
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		s.Fatal(err)
	}
	return size, took
}

// pipeBackup pipes a backup from the donor into a directory of the target, as `mariadb-backup | mbstream` does, and prepares it.
func (s *scenario) pipeBackup(from, to sandbox.Host, dir string) {
	s.Helper()
	dsn, err := s.ManagerDSN(from.Name)
	if err != nil {
		s.Fatal(err)
	}
	account, _, _ := strings.Cut(dsn, "@")
	user, password, _ := strings.Cut(account, ":")
	scratch, err := os.MkdirTemp(filepath.Dir(from.Datadir), "hand")
	if err != nil {
		s.Fatal(err)
	}
	defer os.RemoveAll(scratch)
	options := filepath.Join(scratch, "backup.cnf")
	if err := os.WriteFile(options, []byte(fmt.Sprintf("[mariadb-backup]\nuser=%s\npassword=%s\n", user, password)), 0o600); err != nil {
		s.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.Fatal(err)
	}
	s.byHand(from.Name, fmt.Sprintf("mariadb-backup --defaults-file=%s --backup --stream=mbstream --socket=%s --target-dir=%s 2>%s/log | mbstream -x -C %s",
		options, from.Socket, scratch, scratch, dir))
	s.byHand(to.Name, "mariadb-backup --prepare --target-dir="+dir+" 2>&1")
}

// timedRebuild spoils a replica's data and measures the rebuild that follows, from the first byte to where by-hand copies end as well.
func (s *scenario) timedRebuild(victim string) time.Duration {
	s.Helper()
	s.asManager(victim, "CREATE TABLE highbase.errant (id INT PRIMARY KEY)")
	defer s.await("a healthy cluster", func(st api.Status) bool { return st.Verdict == api.StandingHealthy })
	copying := func(phase string) bool { return phase == "receiving" || phase == "preparing" || phase == "placing" } // CLONE is all placing
	s.await(victim+" to receive its copy", func(st api.Status) bool {
		n := nodeIn(st, victim)
		return n.Rebuild != nil && copying(n.Rebuild.Phase)
	})
	began := time.Now()
	s.await(victim+" to have its copy", func(st api.Status) bool {
		n := nodeIn(st, victim)
		return n.Rebuild == nil || n.Rebuild.Phase != "waiting" && !copying(n.Rebuild.Phase)
	})
	return time.Since(began)
}
