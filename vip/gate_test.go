package vip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const helperEnv = "HIGHBASE_VIP_TEST_HELPER"

// TestHelperHolder is not a test: it is the process that other tests freeze and kill. It holds the
// addresses with the lease it is told, prints the deadline and waits for its end.
func TestHelperHolder(t *testing.T) {
	lease, err := time.ParseDuration(os.Getenv(helperEnv))
	if err != nil {
		t.Skip("skipping, only a helper of other tests")
	}
	m, err := New(testConfig(t))
	check(t, err, "making a manager")
	deadline := Now() + lease
	check(t, m.Open(deadline), "opening")
	check(t, m.SetHeld(context.Background(), true), "holding")
	fmt.Fprintf(os.Stdout, "deadline %d\n", deadline) // to the test that started this process
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	t.Fatalf("helper was not killed: %v", err)
}

// startHolder runs TestHelperHolder in this namespace and returns its process and deadline.
func startHolder(t *testing.T, lease time.Duration) (*os.Process, time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperHolder$")
	cmd.Env = append(os.Environ(), helperEnv+"="+lease.String())
	_, err := cmd.StdinPipe() // keeps the helper waiting
	check(t, err, "making a pipe")
	out, err := cmd.StdoutPipe()
	check(t, err, "making a pipe")
	check(t, cmd.Start(), "starting the helper")
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead already
		_ = cmd.Wait()         // and was killed
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "deadline "); ok {
			ns, err := strconv.ParseInt(v, 10, 64)
			check(t, err, "parsing the deadline")
			return cmd.Process, time.Duration(ns)
		}
	}
	t.Fatal("the helper did not open the gate")
	return nil, 0
}

// waitDead kills the helper and waits until all of its sockets are gone.
func waitDead(t *testing.T, p *os.Process) {
	t.Helper()
	check(t, p.Kill(), "killing the helper")
	_, err := p.Wait()
	check(t, err, "waiting for the helper's death")
}

func TestLeaseEndsWithTheHolderFrozen(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	p, deadline := startHolder(t, 800*time.Millisecond)
	check(t, p.Signal(syscall.SIGSTOP), "freezing the helper")
	served := 0
	for {
		began := Now()
		_, _, err := client.dial(vip4, 300*time.Millisecond)
		if err == nil && began > deadline {
			t.Fatalf("served %s after the lease's end", began-deadline)
		}
		if err == nil {
			served++
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		// The lease may end between two packets of a connection. That one gets a reset or silence, for
		// nobody is there to sever it; the next one must be refused.
		t.Logf("connection at the end of the lease: %v", err)
	}
	if served == 0 {
		t.Fatal("the gate was never open: the test shows nothing")
	}
	t.Logf("%d connections before the lease ended", served)
	// The second barrier: the kernel takes the address as well.
	links, err := newLinks()
	check(t, err, "opening links")
	defer links.close()
	eventually(t, "end of the address's lifetime", func() bool {
		st, err := links.read("eth0")
		check(t, err, "reading eth0")
		return !st.has(vip4) && !st.has(vip6)
	})
}

func TestRenewNeverRevives(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	if err := m.Renew(Now() + longLease); !errors.Is(err, ErrExpired) {
		t.Fatalf("renewing a gate that was never open: %v", err)
	}
	open(t, m, 150*time.Millisecond)
	if left := remaining(t, m); left <= 0 {
		t.Skip("skipping, the machine is too slow to see the gate open")
	}
	eventually(t, "expiry", func() bool { return remaining(t, m) == 0 })
	if err := m.Renew(Now() + longLease); !errors.Is(err, ErrExpired) {
		t.Fatalf("renewing an expired lease: %v, want ErrExpired", err)
	}
	if left := remaining(t, m); left != 0 {
		t.Fatalf("a refused renewal opened the gate for %s", left)
	}
	open(t, m, longLease)
	check(t, m.Renew(Now()+2*longLease), "renewing a living lease")
	if left := remaining(t, m); left <= longLease {
		t.Fatalf("after renewal %s are left, want more than %s", left, longLease)
	}
	// As after a suspend: the kernel's element lives, the lease's time is over by the clock.
	g := m.gate.(*kernelGate)
	g.mu.Lock()
	g.deadline = Now() - 1
	g.mu.Unlock()
	if err := m.Renew(Now() + longLease); !errors.Is(err, ErrExpired) {
		t.Fatalf("renewing after a suspend: %v, want ErrExpired", err)
	}
	if left := remaining(t, m); left != 0 {
		t.Fatalf("after a suspend the gate stays open for %s", left)
	}
	if err := m.Open(Now() + 60*time.Millisecond); !errors.Is(err, ErrLate) {
		t.Fatalf("opening for less than guard and margin: %v, want ErrLate", err)
	}
}

// heldUntilGuardEnds returns a hook that holds a write up until the guard has ended in the kernel.
func heldUntilGuardEnds(t *testing.T, g *kernelGate) func() {
	return func() {
		eventually(t, "end of the guard", func() bool {
			elems, err := listElements(g.sock, familyINet, g.name, setGuard)
			check(t, err, "listing the guard")
			return len(elems) == 0
		})
	}
}

func TestGuardRefusesLateWrites(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	g := m.gate.(*kernelGate)
	g.held = heldUntilGuardEnds(t, g)
	if err := m.Open(Now() + longLease); !errors.Is(err, ErrLate) {
		t.Fatalf("opening too late: %v, want ErrLate", err)
	}
	if left := remaining(t, m); left != 0 {
		t.Fatalf("a late opening opened the gate for %s", left)
	}
	g.held = nil
	open(t, m, longLease)
	g.held = heldUntilGuardEnds(t, g)
	if err := m.Renew(Now() + 2*longLease); !errors.Is(err, ErrLate) {
		t.Fatalf("renewing too late: %v, want ErrLate", err)
	}
	if left := remaining(t, m); left == 0 || left > longLease {
		t.Fatalf("a late renewal left %s of the lease, want it untouched", left)
	}
}

// TestWithoutGuardTheGateOutlivesItsLease is the control of TestGuardRefusesLateWrites.
func TestWithoutGuardTheGateOutlivesItsLease(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	g := m.gate.(*kernelGate)
	deadline := Now() + 500*time.Millisecond
	g.unguarded = true
	g.held = func() { eventually(t, "end of the lease", func() bool { return Now() > deadline }) }
	check(t, m.Open(deadline), "opening without a guard")
	if left := remaining(t, m); left == 0 {
		t.Fatal("the gate is closed: the control does not show the fault that the guard prevents")
	}
}

func TestNoFrameClaimsAClosedAddress(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	m, _ := newManager(t, testConfig(t))
	hold(t, m, true) // held behind a closed gate
	for _, a := range m.cfg.Addresses {
		if _, _, err := client.dial(a.IP, 300*time.Millisecond); err == nil {
			t.Fatalf("reached %s behind a closed gate", a.IP)
		}
		if mac := client.neighbour(a.IP); mac != nil {
			t.Fatalf("the client learned %s for %s", mac, a.IP)
		}
		if err := m.sendAnnouncement(a); !errors.Is(err, errSuppressed) {
			t.Fatalf("announcing %s behind a closed gate: %v", a.IP, err)
		}
	}
	for _, a := range m.State().Addresses {
		if a.Announcements != 0 || a.Suppressed == 0 {
			t.Fatalf("announcements of %s: %+v", a.IP, a.Counters)
		}
	}
	// The control: without the egress table the same frames get out, though the gate is closed.
	g := m.gate.(*kernelGate)
	g.mu.Lock() // keeps the manager from repairing it
	defer g.mu.Unlock()
	check(t, nftBatch(g.sock, []nlMessage{nftMessage(unix.NFT_MSG_DELTABLE, 0, familyNetdev,
		attrs(nil).str(unix.NFTA_TABLE_NAME, g.name))}), "removing the egress table")
	check(t, m.sendAnnouncement(m.cfg.Addresses[0]), "announcing without the egress table")
}

// endedGate says that the lease has ended; its kernel lets everything pass.
type endedGate struct{ gate }

func (endedGate) remaining() (time.Duration, error) { return 0, nil }

// TestNothingIsAnnouncedWithoutALease: not every kernel can drop frames of packet sockets.
func TestNothingIsAnnouncedWithoutALease(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	cfg := testConfig(t)
	cfg.skipWatches = true
	m, _ := newManager(t, cfg)
	open(t, m, longLease)
	check(t, m.announceOne(m.cfg.Addresses[0]), "announcing with a lease")
	m.gate = endedGate{m.gate}
	for _, a := range m.cfg.Addresses {
		if err := m.announceOne(a); !errors.Is(err, errSuppressed) {
			t.Errorf("announcing %s without a lease: %v", a.IP, err)
		}
	}
}

func TestAdoptsALivingGate(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	p, deadline := startHolder(t, longLease)
	conn := client.mustReach(vip4, "db1")
	if _, err := New(testConfig(t)); !errors.Is(err, ErrBusy) {
		t.Fatalf("a second manager beside a living one: %v, want ErrBusy", err)
	}
	waitDead(t, p)
	m, _ := newManager(t, testConfig(t))
	if left := remaining(t, m); left == 0 || left > deadline-Now() {
		t.Fatalf("adopted a gate with %s left of %s", left, deadline-Now())
	}
	if err := m.CleanUp(context.Background()); !errors.Is(err, ErrGateOpen) {
		t.Fatalf("cleaning up behind an open gate: %v", err)
	}
	hold(t, m, true)
	_, err := conn.Write([]byte("still here"))
	check(t, err, "writing over the old connection")
	if got, err := client.read(conn, waitLimit); got != "still here" {
		t.Fatalf("over the old connection: %q, %v", got, err)
	}
	check(t, m.Renew(Now()+2*longLease), "renewing an adopted lease")
	check(t, m.Close(), "closing")
	check(t, m.CleanUp(context.Background()), "cleaning up")
	if st := m.State(); st.Held || st.Addresses[0].Present || st.Addresses[1].Present {
		t.Fatalf("after the clean-up: %+v", st)
	}
	client.mustBeReset(conn)
}

func TestAnotherConfigurationIsNotAdopted(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, _ := newManager(t, testConfig(t))
	open(t, m, longLease)
	check(t, m.Stop(), "stopping")
	cfg := testConfig(t)
	cfg.MySQLPort = 3307
	m, _ = newManager(t, cfg)
	if left := remaining(t, m); left != 0 {
		t.Fatalf("a gate for another port was adopted with %s left", left)
	}
}

func TestFlushedRuleset(t *testing.T) {
	if !isolated(t) {
		return
	}
	newNetwork(t)
	m, rec := newManager(t, testConfig(t))
	if !m.State().Protected {
		t.Skip("skipping, this kernel does not protect tables")
	}
	open(t, m, longLease)
	nft(t, "flush", "ruleset")
	if left := remaining(t, m); left == 0 {
		t.Fatal("a flush of the ruleset removed a protected gate")
	}
	if n := rec.count(GateLost); n != 0 {
		t.Fatalf("%d losses reported of a gate that is there", n)
	}
}

func TestLostGateIsReinstalledClosed(t *testing.T) {
	if !isolated(t) {
		return
	}
	n := newNetwork(t)
	client := n.add(9)
	n.self.serve("db1", testPort)
	cfg := testConfig(t)
	cfg.unowned = true // as on kernels before 6.9
	m, rec := newManager(t, cfg)
	open(t, m, longLease)
	hold(t, m, true)
	client.mustReach(vip4, "db1")
	check(t, m.Block(client9), "blocking")
	nft(t, "flush", "ruleset")
	rec.await(t, Repaired)
	if rec.count(GateLost) == 0 || remaining(t, m) != 0 {
		t.Fatalf("after a flush: %d losses reported, %s left", rec.count(GateLost), remaining(t, m))
	}
	blocked, err := m.Blocked()
	check(t, err, "listing blocks")
	if len(blocked) != 1 || blocked[0] != client9 {
		t.Fatalf("blocks after a reinstallation: %v", blocked)
	}
	client.mustBeRefused(vip4)
	if err := m.Renew(Now() + longLease); !errors.Is(err, ErrExpired) {
		t.Fatalf("renewing after the loss: %v, want ErrExpired", err)
	}
	check(t, m.Unblock(client9), "unblocking")
	open(t, m, longLease)
	client.mustReach(vip4, "db1")
	// One rule less is damage too.
	handle := ruleHandle(t, nft(t, "-a", "list", "chain", "inet", "highbase", "in"))
	nft(t, "delete", "rule", "inet", "highbase", "in", "handle", handle)
	eventually(t, "second loss", func() bool { return m.State().GateLosses == 2 && remaining(t, m) == 0 })
	// So is a chain that nothing is left of which packets in question are sent to.
	for i, chain := range []string{chainBlockedIn, chainBlockedOut, chainClosedTo, chainClosedFrom, chainCoveredIn, chainCoveredOut} {
		open(t, m, longLease)
		nft(t, "flush", "chain", "inet", "highbase", chain)
		eventually(t, "loss of "+chain, func() bool { return m.State().GateLosses == uint64(3+i) && remaining(t, m) == 0 })
	}
}

// ruleHandle finds the handle of the last rule in a listing.
func ruleHandle(t *testing.T, listing string) string {
	t.Helper()
	i := strings.LastIndex(listing, "# handle ")
	if i < 0 {
		t.Fatalf("no handle in %q", listing)
	}
	return strings.Fields(listing[i+len("# handle "):])[0]
}
