package fsm

import (
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestProfilesAreValid(t *testing.T) {
	for _, name := range []string{"", "lan", "fast"} {
		s, err := Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("profile %q: %v", name, err)
		}
		if !strings.Contains(s.Budget(), s.Drifted(s.Lease).String()) {
			t.Errorf("the budget %q does not print the lease with drift", s.Budget())
		}
	}
	if _, err := Profile("wan"); err == nil {
		t.Error("an unknown profile is accepted")
	}
}

// TestValidateRelations breaks one relation at a time. Each refusal must show both sides, so that a reader can see by how much.
func TestValidateRelations(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Settings)
		want []string
	}{
		{"no lease", func(s *Settings) { s.Lease = 0 }, []string{"lease must be positive", "0s"}},
		{"negative lease", func(s *Settings) { s.Lease = -1 }, []string{"lease must be positive", "-1ns"}},
		{"renew too rare", func(s *Settings) { s.Renew = 401 * ms }, []string{"1.203s", "1.2s"}},
		{"no renew", func(s *Settings) { s.Renew = 0 }, []string{"renew must fit"}},
		{"renew limit too long", func(s *Settings) { s.RenewLimit = 601 * ms }, []string{"601ms", "1.2s"}},
		{"too little drift", func(s *Settings) { s.DriftPPM = 999 }, []string{"drift_ppm", "999"}},
		{"too much drift", func(s *Settings) { s.DriftPPM = 100_001 }, []string{"drift_ppm", "100001"}},
		{"guard too short", func(s *Settings) { s.Guard = 9 * ms }, []string{"guard", "9ms"}},
		{"guard too long", func(s *Settings) { s.Guard = 101 * ms }, []string{"guard", "101ms"}},
		{"jiffies too short", func(s *Settings) { s.Jiffies = 19 * ms }, []string{"jiffies", "19ms"}},
		{"one missed renewal", func(s *Settings) { s.Renew, s.RenewLimit, s.Jiffies = 400*ms, 600*ms, 160*ms }, []string{"one missed renewal", "1.2s"}},
		{"an election longer than the lease", func(s *Settings) { s.Election = 940 * ms }, []string{"losing the Raft leader", "940ms", "1.2s"}},
		{"fail after too few pings", func(s *Settings) { s.FailAfter = 299 * ms }, []string{"fail_after 299ms", "100ms"}},
		{"reports too young", func(s *Settings) { s.ReportMaxAge = 799 * ms }, []string{"report_max_age 799ms", "800ms"}},
		{"hung before failed", func(s *Settings) { s.HungAfter = s.FailAfter }, []string{"hung_after 600ms", "fail_after 600ms"}},
		{"unknown policy", func(s *Settings) { s.OnServiceDown = "pray" }, []string{"on_service_down", "pray"}},
		{"no attempt", func(s *Settings) { s.RestartAttempts = 0 }, []string{"restart_attempts", "0"}},
		{"no release timeout", func(s *Settings) { s.ReleaseTimeout = 0 }, []string{"every timeout must be positive"}},
		{"promote shorter than a lease", func(s *Settings) { s.PromoteTimeout = 1212 * ms }, []string{"promote_timeout 1.212s", "1.212s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Profile("lan")
			if err != nil {
				t.Fatal(err)
			}
			c.edit(&s)
			err = s.Validate()
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not show %q", err, w)
				}
			}
		})
	}
}

func TestValidateAtTheEdge(t *testing.T) {
	s, err := Profile("lan")
	if err != nil {
		t.Fatal(err)
	}
	s.Renew, s.RenewLimit = 400*ms, 600*ms
	s.Election = s.Lease - s.Renew - s.Guard - s.Jiffies - 1
	s.FailAfter, s.ReportMaxAge, s.HungAfter = 300*ms, 500*ms, 300*ms+1
	s.PromoteTimeout = s.Drifted(s.Lease) + 1
	if err := s.Validate(); err != nil {
		t.Errorf("the last allowed values are refused: %v", err)
	}
}

func TestDriftedRoundsUp(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		ppm  int64
		want time.Duration
	}{
		{0, 10_000, 0}, {time.Second, 10_000, 1010 * ms}, {1, 10_000, 2}, {99, 10_000, 100}, {100, 10_000, 101}, {101, 10_000, 103},
	} {
		if got := (Settings{DriftPPM: c.ppm}).Drifted(c.d); got != c.want {
			t.Errorf("%d ns with %d ppm is %d, want %d", c.d, c.ppm, got, c.want)
		}
	}
}

// TestHolderEndsBeforeGrantor is the lease's whole promise: whatever the delays and the clock rates within the allowance, at the instant the
// grantor calls the lease clear, the holder's deadline and its kernel gate have passed.
func TestHolderEndsBeforeGrantor(t *testing.T) {
	s, err := Profile("lan")
	if err != nil {
		t.Fatal(err)
	}
	// Machine clocks as nanoseconds of machine time per second of true time. The two extremes differ by just under one per cent.
	const slow, fast = 1_000_000_000, 1_009_900_000
	truth := func(machine, rate time.Duration) time.Duration {
		return time.Duration(float64(machine) / float64(rate) * 1e9)
	}
	for _, rates := range [][2]time.Duration{{slow, fast}, {fast, slow}, {slow, slow}} {
		for _, delay := range []time.Duration{0, 1, ms, 600 * ms, 10 * time.Second} {
			holderRate, grantorRate := rates[0], rates[1]
			// The holder sends at true time 0, both clocks start there at 0; the grant happens `delay` later.
			deadline := HolderDeadline(0, s.Lease)
			granted := time.Duration(float64(delay) * float64(grantorRate) / 1e9)
			clear := GrantClear(s, granted, s.Lease)
			if h, g := truth(deadline, holderRate), truth(clear, grantorRate); h > g {
				t.Errorf("delay %v, rates %v: the holder ends at %v, the grantor says clear at %v", delay, rates, h, g)
			}
		}
	}
}

func TestGateEndsBeforeDeadline(t *testing.T) {
	s, err := Profile("fast")
	if err != nil {
		t.Fatal(err)
	}
	deadline := HolderDeadline(10*time.Second, s.Lease)
	for now := 10 * time.Second; now < deadline+s.Lease; now += 7 * ms {
		left := GateTimeout(s, deadline, now)
		if left > 0 && now+s.Guard+s.Jiffies+left > deadline {
			t.Fatalf("told at %v the kernel may hold the gate until %v, the deadline is %v", now, now+s.Guard+s.Jiffies+left, deadline)
		}
		if now >= deadline-s.Guard-s.Jiffies && left > 0 {
			t.Fatalf("opens at %v for %v, the deadline is %v", now, left, deadline)
		}
	}
}

func TestOfficeClearCoversTheLongestLease(t *testing.T) {
	c := steady(t)
	c.s.LeaseMax = 10 * time.Second
	if got := OfficeClear(c.s, time.Minute); got != time.Minute+10100*ms {
		t.Errorf("clear at %v", got)
	}
}

func TestLeaseRefusal(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(*testing.T) *scene
		node  NodeID
		epoch uint64
		want  string
	}{
		{"the primary", steadyScene, "db1", 1, ""},
		{"a replica", steadyScene, "db2", 1, "not the primary"},
		{"an epoch to come", steadyScene, "db1", 2, "another epoch"},
		{"an epoch that has ended", begunTakeover, "db1", 1, "another epoch"},
		{"nobody while fencing", begunTakeover, "db1", 2, "not the primary"},
		{"while it releases", releasingTo, "db1", 1, "given up"},
		{"still preparing", switching, "db1", 1, ""},
		{"the one just promoted", promotedTakeover, "db2", 2, ""},
		{"the one before it", promotedTakeover, "db1", 2, "not the primary"},
		{"during its restart", restartingPrimary, "db1", 1, ""},
		{"no cluster", func(*testing.T) *scene { return &scene{} }, "", 0, "not bootstrapped"},
	} {
		got := LeaseRefusal(c.make(t).s, c.node, c.epoch)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: refusal is %q, want %q", c.name, got, c.want)
		}
	}
}
